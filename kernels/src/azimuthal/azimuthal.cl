/* Azimuthal integration without pixel splitting: per-bin sums of a frame's pixels, then its curve.
 *
 * Built once per pixel type with
 *   PIXEL, PIXEL16   scalar and vector type of a pixel
 *   TO_MASK(m)       a short16 comparison as MASK16, the type of a PIXEL16 comparison
 *   ANY(m)           whether any of a MASK16 holds: any_char, any_short or any_int
 *   SUM, SUM16, TO_SUM16(v)   type of a chunk's sums, wide enough for the largest pixel times the largest number
 *                    of pixels that a bin has in a chunk
 *   LIMIT            uint, int or float: type in which limits are passed
 *   FLOATING         1: sums are pairs of floats (high, low), 0: whole numbers, exact in any order
 *   NARROW           1: SUM is uint, and no bin has more than 65535 pixels in a chunk
 *   POISSON          1: also sum the variance, max(1, raw)
 *   HAS_SATURATION, HAS_DUMMY   1: leave out pixels at or above a limit, or within an interval
 *
 * | PIXEL | uchar | ushort | short | uint  | int  | float      |
 * | SUM   | uint  | uint   | int   | ulong | long | float pair |   (ulong and long where 32 bits might not do)
 *
 * One work item goes through one chunk of the frame and owns its sums: no atomics. `histogram_single` takes one
 * frame; `histogram_lanes` takes 16, whose sums lie side by side: 16 pixels of 16 frames are transposed in
 * registers, and then one vector addition serves 16 frames. Sums are [bins + 1][PARTS][lanes]; the last bin takes
 * masked pixels and is never read.
 *
 * Where NARROW, less is written: in lanes the number of zeros stands for the variance, sum(max(1, raw)) =
 * sum(raw) + zeros; and a single frame's sum and variance share one ulong, in two copies, [bins + 1][2], so that
 * neighbouring pixels of one bin do not wait for each other.
 *
 * What a left-out pixel takes from its bin's count, normalisation and dark is summed beside, in whole numbers:
 * normalisation times norm_scale, dark times dark_scale, both powers of two.
 */

#define EXCLUDING (HAS_SATURATION || HAS_DUMMY || FLOATING)
#define PARTS (FLOATING ? 2 : 1)
/* Values of SUM per bin of a single frame. */
#define SINGLE_PARTS (NARROW ? 4 : PARTS)

#if NARROW
#define VARIANCE ushort
#else
#define VARIANCE SUM
#endif

/* Arguments that both histograms share.
 * @param frames      base of the batch, pixels of PIXEL
 * @param offsets     where each frame starts, bytes, [frames]
 * @param first       number of the first frame of this launch
 * @param index       bin of each pixel, `bins` where masked, [pixels rounded up to 32]
 * @param norm        normalisation of each pixel, [pixels]
 * @param dark        dark of each pixel, [pixels]
 * @param pixels      pixels of a frame
 * @param chunk       pixels of a chunk, a multiple of 32
 * @param bins        number of bins
 * @param saturation, dummy_low, dummy_high   limits
 * @param norm_scale, dark_scale   see above
 * @param sums, variances          result, [frames or 1][chunks][bins + 1][PARTS][lanes]; see above where NARROW
 * @param out_count, out_norm, out_dark   what left-out pixels take away, [frames or 1][chunks][bins + 1][lanes]
 * @param touched     whether the last three are valid, [frames or 1][chunks] */
#define SHARED_ARGUMENTS                                                                                        \
    __global const uchar *frames, __global const ulong *offsets, const uint first, __global const ushort *index, \
        __global const float *norm, __global const float *dark, const uint pixels, const uint chunk,            \
        const uint bins, const LIMIT saturation, const LIMIT dummy_low, const LIMIT dummy_high,                 \
        const float norm_scale, const float dark_scale, __global SUM *sums, __global VARIANCE *variances,            \
        __global uint *out_count, __global ulong *out_norm, __global long *out_dark, __global uint *touched

/* Adds `value` to the pair (high, low): Knuth's two-sum, whose error goes to the low part. */
#define TWO_SUM(TYPE, high, low, value)                 \
    {                                                   \
        const TYPE old_ = high, add_ = value;           \
        const TYPE sum_ = old_ + add_;                  \
        const TYPE part_ = sum_ - old_;                 \
        high = sum_;                                    \
        low += (old_ - (sum_ - part_)) + (add_ - part_); \
    }

#if FLOATING
#define ADD(TYPE, sums, at, lanes, value) TWO_SUM(TYPE, sums[at], sums[(at) + (lanes)], value)
#else
#define ADD(TYPE, sums, at, lanes, value) sums[at] += value;
#endif
#define SUM_AND_VARIANCE(v, WIDE, TYPE) (convert_##WIDE(v) | convert_##WIDE(AT_LEAST_ONE(v, TYPE)) << 32)

/* Pixels begin..end of one frame, one by one, left-out pixels included. */
inline void add_carefully(__global const PIXEL *raw, const uint begin, const uint end, const uint lane,
                          const uint lanes, __global const ushort *index, __global const float *norm,
                          __global const float *dark, const uint bins, const LIMIT saturation, const LIMIT dummy_low,
                          const LIMIT dummy_high, const float norm_scale, const float dark_scale, __global SUM *sums,
                          __global VARIANCE *variances, __global uint *out_count, __global ulong *out_norm,
                          __global long *out_dark, __global uint *touched)
{
    for (uint i = begin; i < end; i++) {
        const uint bin = index[i];
        const PIXEL value = raw[i];
        if (bin == bins)
            continue;
        if (LEFT_OUT(value, PIXEL)) {
            if (*touched == 0) {
                for (uint k = 0; k < (bins + 1) * lanes; k++) {
                    out_count[k] = 0;
                    out_norm[k] = 0;
                    out_dark[k] = 0;
                }
                *touched = 1;
            }
            out_count[bin * lanes + lane] += 1;
            out_norm[bin * lanes + lane] += convert_ulong_rte(norm[i] * norm_scale);
            out_dark[bin * lanes + lane] += convert_long_rte(dark[i] * dark_scale);
        } else {
#if NARROW
            if (lanes == 1) {
                ((__global ulong *)sums)[bin * 2] += SUM_AND_VARIANCE(value, ulong, PIXEL);
            } else {
                sums[bin * lanes + lane] += value;
                variances[bin * lanes + lane] += value == 0;
            }
#else
            const uint at = bin * PARTS * lanes + lane;
            ADD(SUM, sums, at, lanes, (SUM)value)
#if POISSON
            ADD(SUM, variances, at, lanes, (SUM)AT_LEAST_ONE(value, PIXEL))
#endif
#endif
        }
    }
}
#define CAREFULLY(raw, begin, end, lane, lanes)                                                                     \
    add_carefully(raw, begin, end, lane, lanes, index, norm, dark, bins, saturation, dummy_low, dummy_high,         \
                  norm_scale, dark_scale, sums, variances, out_count, out_norm, out_dark, touched)

#define OWN_CHUNK(item, lanes, parts)                               \
    sums += (ulong)(item) * (bins + 1) * (parts) * (lanes);         \
    variances += (ulong)(item) * (bins + 1) * PARTS * (lanes);      \
    out_count += (ulong)(item) * (bins + 1) * (lanes);              \
    out_norm += (ulong)(item) * (bins + 1) * (lanes);               \
    out_dark += (ulong)(item) * (bins + 1) * (lanes);               \
    touched += (item);                                              \
    *touched = 0;                                                   \
    for (uint k = 0; k < (bins + 1) * (parts) * (lanes); k++)       \
        sums[k] = 0;                                                \
    if (POISSON)                                                    \
        for (uint k = 0; k < (bins + 1) * PARTS * (lanes); k++)     \
            variances[k] = 0;                                       \
    const uint begin = min((uint)get_global_id(0) * chunk, pixels); \
    const uint end = min(begin + chunk, pixels);                    \
    const uint whole = begin + (end - begin) / 16 * 16;

/* global size: chunks, frames of this launch */
__kernel void histogram_single(SHARED_ARGUMENTS)
{
    OWN_CHUNK(get_global_id(1) * get_global_size(0) + get_global_id(0), 1, SINGLE_PARTS)
    __global const PIXEL *raw = (__global const PIXEL *)(frames + offsets[first + get_global_id(1)]);

    for (uint i = begin; i < whole; i += 16) {
        const short16 active = vload16(0, index + i) != (ushort16)((ushort)bins);
        if (!any_short(active))
            continue;
        const PIXEL16 values = vload16(0, raw + i);
#if EXCLUDING
        if (ANY(LEFT_OUT(values, PIXEL16) & TO_MASK(active))) {
            CAREFULLY(raw, i, i + 16, 0, 1);
            continue;
        }
#endif
#if NARROW
        __global ulong *packed = (__global ulong *)sums;
        ulong added[16];
        vstore16(SUM_AND_VARIANCE(values, ulong16, PIXEL16), 0, added);
        for (uint k = 0; k < 16; k += 2) {
            packed[index[i + k] * 2] += added[k];
            packed[index[i + k + 1] * 2 + 1] += added[k + 1];
        }
#else
        for (uint k = 0; k < 16; k++) {
            const uint at = index[i + k] * PARTS;
            const PIXEL value = raw[i + k];
            ADD(SUM, sums, at, 1, (SUM)value)
#if POISSON
            ADD(SUM, variances, at, 1, (SUM)AT_LEAST_ONE(value, PIXEL))
#endif
        }
#endif
    }
    CAREFULLY(raw, whole, end, 0, 1);
}

#define CHECK_LANE(k, name) out |= LEFT_OUT(v##name, PIXEL16);
#define ADD_LANE(k, name)                                                                        \
    {                                                                                            \
        const uint at = index[i + k] * PARTS;                                                    \
        ADD(SUM16, lane_sums, at, 1, TO_SUM16(v##name))                                          \
        if (POISSON)                                                                             \
            ADD_VARIANCE(lane_variances, at, v##name)                                            \
    }
#if NARROW
#define VARIANCE16 ushort16
/* A comparison that holds is -1. */
#define ADD_VARIANCE(variances, at, v) variances[at] -= as_ushort16(convert_short16(v == (PIXEL16)(0)));
#else
#define VARIANCE16 SUM16
#define ADD_VARIANCE(variances, at, v) ADD(SUM16, variances, at, 1, TO_SUM16(AT_LEAST_ONE(v, PIXEL16)))
#endif

/* @param lanes_used  frames of this launch, 1 to 16; the other lanes repeat the last frame and are not read
 * global size: chunks */
__kernel void histogram_lanes(SHARED_ARGUMENTS, const uint lanes_used)
{
    OWN_CHUNK(get_global_id(0), LANES, PARTS)
    __global SUM16 *lane_sums = (__global SUM16 *)sums;
    __global VARIANCE16 *lane_variances = (__global VARIANCE16 *)variances;
    __global const PIXEL *raw[LANES];
    for (uint k = 0; k < LANES; k++)
        raw[k] = (__global const PIXEL *)(frames + offsets[first + min(k, lanes_used - 1)]);

    for (uint i = begin; i < whole; i += 16) {
        const short16 active = vload16(0, index + i) != (ushort16)((ushort)bins);
        if (!any_short(active))
            continue;
        DECLARE(v);
        EACH_LANE(LOAD_LANE)
#if EXCLUDING
        MASK16 out = 0;
        EACH_LANE(CHECK_LANE)
        if (ANY(out & TO_MASK(active))) {
            for (uint k = 0; k < LANES; k++)
                CAREFULLY(raw[k], i, i + 16, k, LANES);
            continue;
        }
#endif
        DECLARE(w);
        TRANSPOSE
        EACH_LANE(ADD_LANE)
    }
    for (uint k = 0; k < LANES; k++)
        CAREFULLY(raw[k], whole, end, k, LANES);
}

/* Merges the chunks in their order and divides.
 * @param sums ... touched   of one of the histograms
 * @param chunks             number of chunks
 * @param lanes              1 after histogram_single, 16 after histogram_lanes
 * @param bins               number of bins
 * @param bin_count          pixels of each bin, masked ones left out, [bins]
 * @param bin_norm           sum of their normalisation times norm_scale, [bins]
 * @param bin_dark           sum of their dark times dark_scale, [bins]
 * @param norm_unit          normalisation factor / norm_scale
 * @param dark_shift         log2(dark_scale)
 * @param empty              value of bins without a pixel
 * @param first, used        number of the first frame, number of frames of this launch
 * @param curves             result: intensity, sigma, count, [frames][3][bins]
 * global size: 16 lanes, bins rounded up; side by side as the sums are */
__kernel void finish(__global const SUM *sums, __global const VARIANCE *variances, __global const uint *out_count,
                     __global const ulong *out_norm, __global const long *out_dark, __global const uint *touched,
                     const uint chunks, const uint lanes, const uint bins, __global const uint *bin_count,
                     __global const ulong *bin_norm, __global const long *bin_dark, const float norm_unit,
                     const uint dark_shift, const float empty, const uint first, const uint used, __global float *curves)
{
    const uint bin = min((uint)get_global_id(1), bins - 1);
    const uint frame = min((uint)get_global_id(0), used - 1);
    const uint lane = lanes == 1 ? 0 : frame;
    const uint first_chunk = lanes == 1 ? frame * chunks : 0;
    uint count = bin_count[bin];
    ulong norm = bin_norm[bin];
    long dark = bin_dark[bin];
#if FLOATING
    float high = 0.0f, low = 0.0f, variance_high = 0.0f, variance_low = 0.0f;
#else
    long signal = 0, variance = 0;
#endif
    for (uint chunk = first_chunk; chunk < first_chunk + chunks; chunk++) {
        const ulong row = (ulong)chunk * (bins + 1) + bin;
        const ulong at = row * PARTS * lanes + lane;
#if FLOATING
        TWO_SUM(float, high, low, sums[at])
        low += sums[at + lanes];
        TWO_SUM(float, variance_high, variance_low, variances[at])
        variance_low += variances[at + lanes];
#elif NARROW
        const ulong packed = ((__global const ulong *)sums)[row * 2] + ((__global const ulong *)sums)[row * 2 + 1];
        const long sum = lanes == 1 ? (packed & 0xffffffff) : sums[at];
        signal += sum;
        variance += lanes == 1 ? (long)(packed >> 32) : sum + variances[at];
#else
        signal += sums[at];
        variance += variances[at];
#endif
        if (touched[chunk] != 0) {
            count -= out_count[row * lanes + lane];
            norm -= out_norm[row * lanes + lane];
            dark -= out_dark[row * lanes + lane];
        }
    }
    const float dark_unit = ldexp(1.0f, -(int)dark_shift);
#if FLOATING
    const float dark_high = convert_float(dark);
    const float dark_low = convert_float(dark - convert_long(dark_high));
    TWO_SUM(float, high, low, -dark_high * dark_unit)
    const float signal = high + (low - dark_low * dark_unit);
    const float variance = variance_high + variance_low;
    const float numerator = signal;
#else
    const float numerator = convert_float((signal << dark_shift) - dark) * dark_unit;
#endif
    const bool filled = count != 0 && norm != 0;
    const float denominator = filled ? convert_float(norm) * norm_unit : 1.0f;
    __global float *out = curves + (ulong)(first + frame) * 3 * bins + bin;
    out[0] = filled ? numerator / denominator : empty;
    out[bins] = filled && POISSON ? sqrt(convert_float(variance)) / denominator : empty;
    out[2 * bins] = (float)count;
}
