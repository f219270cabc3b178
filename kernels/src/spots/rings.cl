/* peakfinder8 (Barty et al., J. Appl. Cryst. 47 (2014) 1118): background and its spread in rings around the beam, pixels
 * that stand out of their ring, and what surrounds a peak. Built behind `spots.cl`. Sums are whole numbers, so that no order of
 * work changes them.
 */
#pragma OPENCL FP_CONTRACT OFF
/* how often outliers are left out */
#define RING_ROUNDS 5

/* A pixel as a whole number; returns whether it may be used. */
inline int pixel_of(__global const PIXEL *raw, __global const char *good, const uint index,
                    __constant const settings_t *s, uint *value)
{
    const PIXEL v = raw[index];
    int usable = good[index] != 0;
    *value = whole(v);
#if FLOATING
    usable = usable && v >= -0.5f;
#elif SIGNED
    usable = usable && v >= 0;
#endif
#if HAS_SATURATION
    usable = usable && *value < s->saturation;
#endif
    return usable;
}

/* Mean of each ring and the value that a pixel of it must exceed.
 * @param starts  where a ring's pixels begin in `members`, [rings + 1]
 * @param limits  value to exceed and mean, [frames][rings]
 * global size: rings, frames */
__kernel void ring_limits(__global const uchar *frames, __global const ulong *offsets, const uint first,
                          __global const char *good, __constant const settings_t *s, __global const uint *starts,
                          __global const uint *members, const uint rings, __global float2 *limits)
{
    const uint ring = (uint)get_global_id(0), frame = first + (uint)get_global_id(1);
    if (ring >= rings)
        return;
    __global const PIXEL *raw = (__global const PIXEL *)(frames + offsets[frame]);
    float above = 1e9f, below = -1e9f, mean = 0.0f;
    for (int round = 0; round < RING_ROUNDS; round++) {
        ulong sum = 0, squares = 0, count = 0;
        for (uint at = starts[ring]; at < starts[ring + 1]; at++) {
            uint value;
            if (pixel_of(raw, good, members[at], s, &value) && value < BIG && (float)value < above &&
                (float)value > below) {
                sum += value;
                squares += (ulong)value * value;
                count++;
            }
        }
        if (count == 0) {
            mean = 0.0f;
            above = FLT_MAX;
            below = FLT_MIN;
            continue;
        }
        /* about the mean's whole part, where nothing large is subtracted */
        const ulong middle = sum / count;
        const float rest = (float)(sum - middle * count) / (float)count;
        const float spread = (float)(squares - 2 * middle * sum + middle * middle * count) / (float)count;
        const float sigma = sqrt(fmax(spread - rest * rest, 0.0f));
        mean = (float)middle + rest;
        above = fmax(mean + s->strong * sigma, (float)s->threshold);
        below = mean - s->strong * sigma;
    }
    limits[(size_t)frame * rings + ring] = (float2)(above, mean);
}

/* Pixels that exceed their ring's limit.
 * @param ring_of  ring of each pixel
 * global size: words of a row, rows, frames */
__kernel void above_rings(__global const uchar *frames, __global const ulong *offsets, const uint first,
                          __global const char *good, const uint rows, const uint columns,
                          __constant const settings_t *s, __global const ushort *ring_of, const uint rings,
                          __global const float2 *limits, __global ushort *strong)
{
    const uint words = (columns + 15) / 16, word = (uint)get_global_id(0), row = (uint)get_global_id(1);
    const uint frame = first + (uint)get_global_id(2);
    if (word >= words)
        return;
    __global const PIXEL *raw = (__global const PIXEL *)(frames + offsets[frame]);
    __global const float2 *limit = limits + (size_t)frame * rings;
    uint found = 0;
    for (uint lane = 0; lane < 16 && word * 16 + lane < columns; lane++) {
        const uint index = row * columns + word * 16 + lane;
        uint value;
        if (pixel_of(raw, good, index, s, &value) && (float)value > limit[ring_of[index]].x)
            found |= 1u << lane;
    }
    strong[((size_t)frame * rows + row) * words + word] = (ushort)found;
}

/* Number, sum, sum of squares and largest of the background's pixels around places, within their panel.
 * @param places  frame, row and column, [..][3]; this launch's begin at `begin`
 * @param around  [..][4]
 * global size: places */
__kernel void surroundings(__global const uchar *frames, __global const ulong *offsets, __global const char *good,
                           const uint rows, const uint columns, __constant const settings_t *s,
                           __global const ushort *ring_of, const uint rings, __global const float2 *limits,
                           const uint panel_rows, const uint panel_columns, const int reach,
                           __global const uint *places, const uint begin, __global ulong *around)
{
    const uint at = begin + (uint)get_global_id(0);
    const uint frame = places[3 * at];
    const int row = (int)places[3 * at + 1], column = (int)places[3 * at + 2];
    const int top = row / (int)panel_rows * (int)panel_rows, left = column / (int)panel_columns * (int)panel_columns;
    const int bottom = min(top + (int)panel_rows, (int)rows), right = min(left + (int)panel_columns, (int)columns);
    __global const PIXEL *raw = (__global const PIXEL *)(frames + offsets[frame]);
    ulong count = 0, sum = 0, squares = 0;
    uint largest = 0;
    for (int r = max(row - reach, top); r < min(row + reach, bottom); r++)
        for (int c = max(column - reach, left); c < min(column + reach, right); c++) {
            if ((r - row) * (r - row) + (c - column) * (c - column) > reach * reach)
                continue;
            const uint index = (uint)r * columns + (uint)c;
            uint value;
            if (!pixel_of(raw, good, index, s, &value) || value >= BIG ||
                (float)value >= limits[(size_t)frame * rings + ring_of[index]].x)
                continue;
            count++;
            sum += value;
            squares += (ulong)value * value;
            largest = max(largest, value);
        }
    around[4 * (size_t)at] = count;
    around[4 * (size_t)at + 1] = sum;
    around[4 * (size_t)at + 2] = squares;
    around[4 * (size_t)at + 3] = largest;
}
