/* Number of lit pixels of a frame: those above a threshold.
 *
 * Built once per pixel type with
 *   PIXEL, PIXEL16   scalar and vector type of a pixel
 *   TO_MASK          conversion of char16 to the type of a PIXEL16 comparison
 *   LIMIT            uint, int or float: type in which limits are passed
 *   FLOATING         1: pixels that are no finite number are not lit
 *   HAS_INVALID      1: pixels of a value that is no count are not lit
 *
 * | PIXEL | uchar | ushort | short | uint | int | float |
 * | LIMIT | uint  | uint   | int   | uint | int | float |
 *
 * A frame is one row of pixels, cut into tiles; a work item takes one tile of every frame, so that the mask comes from
 * cache.
 */

#if FLOATING
#define COUNTS(v) & (fabs(v) < INFINITY)
#elif HAS_INVALID
#define COUNTS(v) & ((v) != (PIXEL)invalid)
#else
#define COUNTS(v)
#endif
#define LIT(v, TYPE) (((v) > (TYPE)((PIXEL)threshold)) COUNTS(v))

/* @param frames     base of the batch, pixels of PIXEL
 * @param offsets    where each frame starts, bytes, [frames]
 * @param first      number of the first frame of this launch
 * @param count      number of frames of this launch
 * @param good       -1 for good pixels, 0 for masked ones, [pixels]
 * @param pixels     pixels of a frame
 * @param width      pixels of a tile, a multiple of 16, at most 524272: 16-bit counts in each of 16 columns
 * @param threshold  pixels above it are lit
 * @param invalid    value of whole-number pixels that hold no count
 * @param lit        lit pixels of each tile, [frames][tiles]
 * global size: tiles */
__kernel void lit_pixels(__global const uchar *frames, __global const ulong *offsets, const uint first, const uint count,
                         __global const char *good, const uint pixels, const uint width, const LIMIT threshold,
                         const LIMIT invalid, __global uint *lit)
{
    const uint tile = (uint)get_global_id(0);
    const uint begin = tile * width;
    const uint end = min(begin + width, pixels);
    const uint whole = begin + (end - begin) / 16 * 16;

    for (uint frame = first; frame < first + count; frame++) {
        __global const PIXEL *raw = (__global const PIXEL *)(frames + offsets[frame]);
        short16 lit16 = 0;
        for (uint i = begin; i < whole; i += 16) {
            const PIXEL16 v = vload16(0, raw + i);
            lit16 -= convert_short16(LIT(v, PIXEL16) & TO_MASK(vload16(0, good + i)));
        }
        uint sum = 0;
        for (uint i = whole; i < end; i++)
            sum += good[i] && LIT(raw[i], PIXEL);
        short lanes[16];
        vstore16(lit16, 0, lanes);
        for (uint k = 0; k < 16; k++)
            sum += lanes[k];
        lit[frame * (uint)get_global_size(0) + tile] = sum;
    }
}
