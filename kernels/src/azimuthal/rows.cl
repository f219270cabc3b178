/* Azimuthal integration by rows of a sparse matrix: every kind of pixel splitting, 1-D and 2-D, every error model,
 * sigma clipping. One work item owns one bin of one frame and goes through the pixels that share in it, in their
 * order: the result depends on nothing else.
 *
 * Built once per pixel type with
 *   PIXEL            type of a pixel
 *   LIMIT            uint, int or float: type in which limits are passed
 *   FLOATING         1: pixels may be no number
 *   HAS_SATURATION, HAS_DUMMY   1: leave out pixels at or above a limit, or within an interval
 *   HAS_DARK         1: subtract a dark
 *   SPLIT            1: entries have a weight, 0: it is 1
 *   MODEL            0 no errors, 1 Poisson, 2 azimuthal, 3 hybrid
 *   CLIP             1: leave outliers out
 *
 * Sums are pairs of floats (high, low), Knuth's two-sum.
 */

#define POISSON 1
#define AZIMUTHAL 2
#define HYBRID 3

#if HAS_SATURATION
#define ABOVE(v) || ((v) >= (PIXEL)saturation)
#else
#define ABOVE(v)
#endif
#if HAS_DUMMY
#define INSIDE(v) || (((v) >= (PIXEL)dummy_low) && ((v) <= (PIXEL)dummy_high))
#else
#define INSIDE(v)
#endif
#if FLOATING
#define BROKEN(v) (!(fabs(v) < INFINITY))
#else
#define BROKEN(v) 0
#endif
#define LEFT_OUT(v) (BROKEN(v) ABOVE(v) INSIDE(v))

inline void add(float2 *sum, const float value)
{
    const float high = sum->x + value;
    const float part = high - sum->x;
    sum->y += (sum->x - (high - part)) + (value - part);
    sum->x = high;
}

inline float total(const float2 sum)
{
    return sum.x + sum.y;
}

/* What a bin has: Σ c·signal, Σ c·norm, Σ (c·norm)², Σ c, the variance of the first, and the number of entries. */
typedef struct {
    float2 signal, norm, norm2, count, variance;
    uint kept;
} Sums;

/* Mean of a bin minus a value, without the cancellation of subtracting two rounded numbers. */
inline float mean_minus(const Sums *sums, const float value)
{
    const float apart = fma(-value, sums->norm.x, sums->signal.x) + (sums->signal.y - value * sums->norm.y);
    return apart / total(sums->norm);
}

#define ARGUMENTS                                                                                             \
    __global const PIXEL *raw, __global const uint *pixel, __global const float *weight,                      \
        __global const float *norm, __global const float *dark, const uint begin, const uint end,             \
        const LIMIT saturation, const LIMIT dummy_low, const LIMIT dummy_high

/* Sums over entries begin..end whose value lies within low..high.
 * @param model   POISSON, AZIMUTHAL, or 0 without variance; azimuthal: VV + ω² (mean before - x)(mean after - x) */
inline Sums gather(ARGUMENTS, const float low, const float high, const int model)
{
    Sums sums;
    sums.signal = sums.norm = sums.norm2 = sums.count = sums.variance = (float2)(0.0f);
    sums.kept = 0;
    for (uint entry = begin; entry < end; entry++) {
        const uint at = pixel[entry];
        const PIXEL value = raw[at];
        if (LEFT_OUT(value))
            continue;
#if HAS_DARK
        const float signal = (float)value - dark[at];
#else
        const float signal = (float)value;
#endif
        const float own_norm = norm[entry];
#if CLIP || MODEL == AZIMUTHAL
        const float x = signal / own_norm;
#endif
#if CLIP
        if (!(x >= low && x <= high))
            continue;
#endif
#if SPLIT
        const float share = weight[entry];
#else
        const float share = 1.0f;
#endif
        const float omega = share * own_norm;
#if CLIP || MODEL == AZIMUTHAL
        const float before = sums.kept == 0 ? 0.0f : mean_minus(&sums, x);
#endif
        add(&sums.signal, share * signal);
        add(&sums.norm, omega);
        add(&sums.norm2, omega * omega);
        add(&sums.count, share);
        if (model == POISSON)
            add(&sums.variance, share * share * fmax(1.0f, (float)value));
#if CLIP || MODEL == AZIMUTHAL
        if (model == AZIMUTHAL && sums.kept != 0)
            add(&sums.variance, omega * omega * before * mean_minus(&sums, x));
#endif
        sums.kept++;
    }
    return sums;
}
#define GATHER(low, high, model) \
    gather(raw, pixel, weight, norm, dark, begin, end, saturation, dummy_low, dummy_high, low, high, model)

/* @param frames, offsets, first   base of the batch, where each frame starts in bytes, number of the first
 * @param starts      where each bin's entries start, [bins + 1]
 * @param pixel       pixel of each entry
 * @param weight      share of each entry (SPLIT)
 * @param norm        normalisation of each entry's pixel
 * @param dark        dark of each pixel (HAS_DARK)
 * @param bins        number of bins
 * @param saturation, dummy_low, dummy_high   limits
 * @param factor      normalisation factor
 * @param cutoff, cycles   of sigma clipping (CLIP)
 * @param empty       value of bins without a pixel
 * @param curves      result: intensity, standard error of the mean, count, [frames][3][bins]
 * global size: bins rounded up, frames of this launch */
__kernel void integrate_rows(__global const uchar *frames, __global const ulong *offsets, const uint first,
                             __global const uint *starts, __global const uint *pixel, __global const float *weight,
                             __global const float *norm, __global const float *dark, const uint bins,
                             const LIMIT saturation, const LIMIT dummy_low, const LIMIT dummy_high,
                             const float factor, const float cutoff, const uint cycles, const float empty,
                             __global float *curves)
{
    const uint bin = get_global_id(0);
    if (bin >= bins)
        return;
    const uint frame = first + get_global_id(1);
    __global const PIXEL *raw = (__global const PIXEL *)(frames + offsets[frame]);
    const uint begin = starts[bin], end = starts[bin + 1];
#if CLIP
    const int spread = MODEL == POISSON ? POISSON : AZIMUTHAL;
    float low = -INFINITY, high = INFINITY;
    Sums sums = GATHER(low, high, spread);
    for (uint cycle = 0; cycle < cycles && sums.kept != 0; cycle++) {
        const float mean = total(sums.signal) / total(sums.norm);
        const float deviation = sqrt(fmax(total(sums.variance), 0.0f) / total(sums.norm2));
        const float pixels = fmax(3.0f, total(sums.count));
        const float far = fmax(cutoff, sqrt(2.0f * log(pixels / 2.50662827f))) * deviation;
        /* What was left out once stays out: the intervals of all cycles intersect. */
        low = fmax(low, mean - far);
        high = fmin(high, mean + far);
        const uint before = sums.kept;
        sums = GATHER(low, high, spread);
        if (sums.kept == before)
            break;
    }
#if MODEL == HYBRID
    sums = GATHER(low, high, POISSON);
#endif
#else
    const Sums sums = GATHER(-INFINITY, INFINITY, MODEL == HYBRID ? POISSON : MODEL);
#endif
    const float denominator = total(sums.norm) * factor;
    const bool filled = sums.kept != 0 && denominator > 0.0f;
    __global float *out = curves + (ulong)frame * 3 * bins + bin;
    out[0] = filled ? total(sums.signal) / denominator : empty;
    out[bins] = filled && MODEL != 0 ? sqrt(fmax(total(sums.variance), 0.0f)) / denominator : empty;
    out[2 * bins] = filled ? total(sums.count) : 0.0f;
}
