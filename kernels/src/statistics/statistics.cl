/* Sum, maximum and number of saturated pixels of rectangles of a frame.
 *
 * Built once per pixel type with
 *   PIXEL, PIXEL16   scalar and vector type of a pixel
 *   TO_MASK          conversion of char16 to the type of a PIXEL16 comparison
 *   SUM, TO_SUM16    type of a tile's sums in 16 columns: 32 bits hold 2048 of the largest 16-bit pixel
 *   LIMIT            uint, int or float: type in which limits and maxima are passed
 *   SMALLEST         smallest value of PIXEL
 *   FLOATING         1: sums are pairs of floats (high, low); pixels that are no number are left out
 *   HAS_SATURATION   1: pixels at or above a limit are counted and left out of sum and maximum
 *   HAS_INVALID      1: pixels of a value that is no count are left out, like those that are no number
 *
 * | PIXEL | uchar | ushort | short | uint  | int  | float      |
 * | SUM   | uint  | uint   | int   | ulong | long | float pair |
 *
 * Rectangles are cut into tiles of at most 32768 pixels; a work item takes one tile of every frame, so that the
 * mask comes from cache.
 */

#if FLOATING
#define BROKEN(v) (fabs(v) >= INFINITY) | isnan(v)
#elif HAS_INVALID
#define BROKEN(v) ((v) == (PIXEL)invalid)
#else
#define BROKEN(v) ((v) != (v))
#endif
#if HAS_SATURATION
#define ABOVE(v, TYPE) ((v) >= (TYPE)((PIXEL)saturation))
#else
#define ABOVE(v, TYPE) ((v) != (v))
#endif

#define TWO_SUM(TYPE, high, low, value)                 \
    {                                                   \
        const TYPE old_ = high, add_ = value;           \
        const TYPE sum_ = old_ + add_;                  \
        const TYPE part_ = sum_ - old_;                 \
        high = sum_;                                    \
        low += (old_ - (sum_ - part_)) + (add_ - part_); \
    }

/* @param frames      base of the batch, pixels of PIXEL
 * @param offsets     where each frame starts, bytes, [frames]
 * @param first       number of the first frame of this launch
 * @param count       number of frames of this launch
 * @param good        -1 for good pixels, 0 for masked ones, [rows * columns]
 * @param columns     pixels from row to row
 * @param tiles       first pixel, rows and width of each tile, [tiles][3]
 * @param saturation  limit
 * @param invalid     value of whole-number pixels that hold no count
 * @param sums        sum of each tile: a whole number, or two floats, [frames][tiles]
 * @param values      largest pixel, saturated pixels, pixels without a count, [frames][tiles][3]
 * global size: tiles */
__kernel void statistics(__global const uchar *frames, __global const ulong *offsets, const uint first,
                         const uint count, __global const char *good, const uint columns, __global const uint *tiles,
                         const LIMIT saturation, const LIMIT invalid, __global ulong *sums, __global LIMIT *values)
{
    const uint tile = (uint)get_global_id(0);
    const uint corner = tiles[tile * 3];
    const uint rows = tiles[tile * 3 + 1];
    const uint width = tiles[tile * 3 + 2];
    const uint whole = width / 16 * 16;

    for (uint frame = first; frame < first + count; frame++) {
        __global const PIXEL *raw = (__global const PIXEL *)(frames + offsets[frame]);
        PIXEL16 largest = SMALLEST;
        uint saturated = 0, broken = 0;
        /* Counted in vectors, without a branch; 2048 rows of a tile fit. */
        short16 saturated16 = 0, broken16 = 0;
        SUM16 sum16 = 0;
        SUM sum = 0;
#if FLOATING
        float16 low16 = 0;
        float low = 0;
#endif
        for (uint row = 0; row < rows; row++) {
            const uint begin = corner + row * columns;
            for (uint i = begin; i < begin + whole; i += 16) {
                PIXEL16 v = vload16(0, raw + i);
                MASK16 in = TO_MASK(vload16(0, good + i));
#if FLOATING || HAS_INVALID
                const MASK16 unusable = (BROKEN(v)) & in;
                broken16 -= convert_short16(unusable);
                in &= ~unusable;
#endif
#if HAS_SATURATION
                const MASK16 out = ABOVE(v, PIXEL16) & in;
                saturated16 -= convert_short16(out);
                in &= ~out;
#endif
                largest = max(largest, select((PIXEL16)(SMALLEST), v, in));
                v = select((PIXEL16)(0), v, in);
#if FLOATING
                TWO_SUM(float16, sum16, low16, v)
#else
                sum16 += TO_SUM16(v);
#endif
            }
            for (uint i = begin + whole; i < begin + width; i++) {
                const PIXEL v = raw[i];
                if (!good[i])
                    continue;
                if (BROKEN(v)) {
                    broken++;
                } else if (ABOVE(v, PIXEL)) {
                    saturated++;
                } else {
                    largest.s0 = max(largest.s0, v);
#if FLOATING
                    TWO_SUM(float, sum, low, v)
#else
                    sum += v;
#endif
                }
            }
        }
        short saturated_lanes[16], broken_lanes[16];
        vstore16(saturated16, 0, saturated_lanes);
        vstore16(broken16, 0, broken_lanes);
        for (uint k = 0; k < 16; k++) {
            saturated += saturated_lanes[k];
            broken += broken_lanes[k];
        }
        PIXEL of_lane[16];
        vstore16(largest, 0, of_lane);
        PIXEL most = of_lane[0];
        for (uint k = 1; k < 16; k++)
            most = max(most, of_lane[k]);
        SUM parts[16];
        vstore16(sum16, 0, parts);
        const uint at = frame * (uint)get_global_size(0) + tile;
#if FLOATING
        float low_parts[16];
        vstore16(low16, 0, low_parts);
        for (uint k = 0; k < 16; k++) {
            TWO_SUM(float, sum, low, parts[k])
            low += low_parts[k];
        }
        sums[at] = as_ulong((float2)(sum, low));
#else
        long total = sum;
        for (uint k = 0; k < 16; k++)
            total += parts[k];
        sums[at] = (ulong)total;
#endif
        values[at * 3] = (LIMIT)most;
        values[at * 3 + 1] = (LIMIT)saturated;
        values[at * 3 + 2] = (LIMIT)broken;
    }
}
