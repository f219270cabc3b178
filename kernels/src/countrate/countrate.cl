/* Counts that a counter missed while it was busy: counts * factor, the factor by how many were counted.
 *
 * Built once per pixel type with
 *   PIXEL            scalar type of a pixel
 *   LIMIT            uint, int or float: type in which limits are passed
 *   HAS_INVALID      1: pixels at `invalid` hold no count
 *
 * A pixel without a count becomes NaN, one at or above the cut-off FLT_MAX; a negative one stays as it is.
 *
 * @param frames     base of the batch, pixels of PIXEL
 * @param offsets    where each frame starts, bytes, [frames]
 * @param first      number of the first frame of this launch
 * @param count      number of frames of this launch
 * @param pixels     pixels of a frame
 * @param tile       pixels per work item
 * @param good       -1 for good pixels, 0 for masked ones, which are not counted, [pixels]
 * @param factors    true counts by measured ones at 0, 1 / scale, 2 / scale ... counts, [entries]
 * @param entries    their number
 * @param scale      entries per count, 1 at most
 * @param cutoff     counts that say nothing any more
 * @param invalid    value of a pixel without a count
 * @param slot       bytes from result to result
 * @param result     counts, [frames][pixels]
 * @param saturated  pixels at or above the cut-off, [frames], zero at start
 * global size: one work item per tile */
__kernel void countrate(__global const uchar *frames, __global const ulong *offsets, const uint first,
                        const uint count, const uint pixels, const uint tile, __global const char *good,
                        __global const float *factors, const uint entries, const float scale, const LIMIT cutoff,
                        const LIMIT invalid, const uint slot, __global uchar *result, __global uint *saturated)
{
    const uint begin = (uint)get_global_id(0) * tile;
    const uint end = min(begin + tile, pixels);
    for (uint frame = first; frame < first + count; frame++) {
        __global const PIXEL *raw = (__global const PIXEL *)(frames + offsets[frame]);
        __global float *out = (__global float *)(result + (ulong)frame * slot);
        uint ended = 0;
        for (uint i = begin; i < end; i++) {
            const PIXEL measured = raw[i];
            const float value = (float)measured;
            float corrected = value;
#if HAS_INVALID
            if (measured == (PIXEL)invalid) {
                corrected = NAN;
            } else
#endif
            if ((LIMIT)measured >= cutoff) {
                corrected = FLT_MAX;
                ended += good[i] != 0;
            } else if (value > 0.0f) {
                const float place = value * scale;
                const uint entry = min((uint)place, entries - 2);
                const float low = factors[entry], high = factors[entry + 1];
                corrected = value * fma(place - (float)entry, high - low, low);
            }
            out[i] = corrected;
        }
        if (ended != 0)
            atomic_add(&saturated[frame], ended);
    }
}
