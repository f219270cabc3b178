/* Pixel correction: (raw - dark) * gain, optionally the minus log of it.
 *
 * Built once per pixel type with
 *   PIXEL    scalar type of a pixel: uchar, ushort, uint, short, int, float
 *   PIXEL16  the vector of 16 of them
 *   MINUS_LOG  0 or 1
 *
 * The sixteen-wide vectors are written out because a CPU compiler vectorises over work items only, and one work
 * item goes through a tile for all frames of the batch, so that dark and gain are read from cache.
 */

#define JOIN(a, b) a##b
#define TO_FLOAT16(values) convert_float16(values)

/* Natural logarithm of positive normal numbers, absolute error below 2e-7 plus half a unit in the last place:
 * x = 2^e * (1 + f) with f in [sqrt(1/2) - 1, sqrt(2) - 1], and a minimax polynomial for
 * (ln(1 + f) - f + f*f/2) / f^3. The built-in log() is thirty times slower on CPUs. */
inline float16 natural_log(const float16 x)
{
    const int16 bits = as_int16(x) - 0x3f3504f3;
    const int16 exponent = bits >> 23;
    const float16 f = as_float16((bits & 0x007fffff) + 0x3f3504f3) - 1.0f;
    float16 p = 0.0867218822f;
    p = fma(p, f, (float16)(-0.143790081f));
    p = fma(p, f, (float16)(0.149779931f));
    p = fma(p, f, (float16)(-0.165644258f));
    p = fma(p, f, (float16)(0.199548751f));
    p = fma(p, f, (float16)(-0.250016987f));
    p = fma(p, f, (float16)(0.333341658f));
    const float16 square = f * f;
    const float16 e = convert_float16(exponent);
    /* ln 2 in two parts: e * 0.693359375 is exact. */
    float16 tail = fma(p, square * f, e * -2.12194440e-4f);
    tail = fma(square, (float16)(-0.5f), tail);
    return fma(e, (float16)(0.693359375f), f + tail);
}

/* One vector of pixels. gain 0 marks a masked pixel. Adds 1 to invalid where the fill value is returned. */
inline float16 correct(const float16 raw, const float16 dark, const float16 gain, const float epsilon,
                       const float fill, int16 *invalid)
{
    const float16 value = (raw - dark) * gain;
#if MINUS_LOG
    /* NaN fails the comparison, too. */
    int16 good = (gain != 0.0f) & (value > 0.0f) & (value < INFINITY);
    const float16 result = -natural_log(max(value, epsilon));
#else
    int16 good = (gain != 0.0f) & (fabs(value) < INFINITY);
    const float16 result = value;
#endif
    *invalid += good + 1;
    return select((float16)(fill), result, good);
}

inline uint sum16(const int16 v)
{
    const int8 a = v.lo + v.hi;
    const int4 b = a.lo + a.hi;
    const int2 c = b.lo + b.hi;
    return (uint)(c.x + c.y);
}

/* @param frames     base of the batch, pixels of PIXEL
 * @param offsets    where each frame starts, bytes, [frames]
 * @param first      number of the first frame of this launch
 * @param count      number of frames of this launch
 * @param dark       counts to subtract, [pixels]
 * @param gain       1 / (flat - dark) or 1; 0 for masked pixels, [pixels]
 * @param pixels     pixels of a frame
 * @param tile       pixels per work item, a multiple of 16
 * @param epsilon    smallest transmission whose logarithm is taken
 * @param fill       value of masked and invalid pixels
 * @param corrected  result, [frames][pixels]
 * @param invalid    number of filled pixels, [frames], zero at start
 * global size: one work item per tile */
__kernel void correction(__global const uchar *frames, __global const ulong *offsets, const uint first,
                         const uint count, __global const float *dark, __global const float *gain, const uint pixels,
                         const uint tile, const float epsilon, const float fill, __global float *corrected, __global uint *invalid)
{
    const uint begin = (uint)get_global_id(0) * tile;
    const uint end = min(begin + tile, pixels);
    const uint whole = begin + (end - begin) / 16 * 16;
    const uint rest = end - whole;

    for (uint frame = first; frame < first + count; frame++) {
        __global const PIXEL *raw = (__global const PIXEL *)(frames + offsets[frame]);
        __global float *out = corrected + (ulong)frame * pixels;
        int16 filled = 0;
        for (uint i = begin; i < whole; i += 16) {
            const float16 values = TO_FLOAT16(vload16(0, raw + i));
            vstore16(correct(values, vload16(0, dark + i), vload16(0, gain + i), epsilon, fill, &filled), 0, out + i);
        }
        uint total = sum16(filled);
        if (rest != 0) {
            float values[16], darks[16], gains[16];
            for (uint k = 0; k < 16; k++) {
                const bool inside = k < rest;
                values[k] = inside ? (float)raw[whole + k] : 0.0f;
                darks[k] = inside ? dark[whole + k] : 0.0f;
                gains[k] = inside ? gain[whole + k] : 0.0f;
            }
            int16 last = 0;
            const float16 result =
                correct(vload16(0, values), vload16(0, darks), vload16(0, gains), epsilon, fill, &last);
            vstore16(result, 0, values);
            for (uint k = 0; k < rest; k++)
                out[whole + k] = values[k];
            total += sum16(last) - (16 - rest);
        }
        /* Whole numbers: the order in which tiles add does not matter. */
        if (total != 0)
            atomic_add(&invalid[frame], total);
    }
}
