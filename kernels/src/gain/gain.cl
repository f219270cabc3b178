/* JUNGFRAU words to photons: (ADU - pedestal) * factor, pedestal and factor by the gain that the word names.
 *
 * A word is 2 bits of gain and 14 of ADU: gain 0 is G0, 1 is G1, 3 is G2, and 2 is none.
 *
 *   word            result        why
 *   0xFFFF          ERROR         the pixel never came
 *   0xC000          SATURATED     G2 at its end
 *   0x4000          ERROR         G1 at its end: the pixel should have switched on
 *   gain 2          ERROR         no such gain
 *   factor 0        ERROR         the pixel has no calibration in that gain
 *   above HIGHEST   SATURATED
 *   below LOWEST    ERROR
 *
 * Built once per type of result with
 *   OUT, OUT16       scalar and vector type of a result: float, int or short
 *   TO_OUT16(v)      float16 to OUT16
 *   ROUND            1: whole photons, halves away from zero
 *   WHOLE            1: OUT is int or short, whose ends are MOST_NEGATIVE and MOST
 *   ERROR, SATURATED, LOWEST, HIGHEST   as floats
 *   TRACK            if set, pedestals of G0 follow the frames: every word of G0 that is within so many photons of its
 *                    pedestal moves it by the share SHARE of its distance, after it was converted
 *
 * A work item goes through a tile for all frames of the batch, so that pedestals and factors are read from cache.
 * Where none of 16 pixels has left G0, which is the rule, only those of G0 are read.
 */

inline bool any_switched(const ushort16 words)
{
    const ulong4 w = as_ulong4(words);
    const ulong2 pair = w.lo | w.hi;
    return ((pair.x | pair.y) & 0xC000C000C000C000UL) != 0;
}

inline uint sum16(const int16 v)
{
    const int8 a = v.lo + v.hi;
    const int4 b = a.lo + a.hi;
    const int2 c = b.lo + b.hi;
    return (uint)(c.x + c.y);
}

/* What a work item counts of a frame. */
typedef struct { int16 wrong, saturated, gain1, gain2, quiet; } counts16;

#ifdef TRACK
#define MOVED , __global float *moved, const float within
#define PASS_MOVED , moved, within
#else
#define MOVED
#define PASS_MOVED
#endif

/* 16 words, with calibration fields that start at `at` of G0's and are `pixels` apart. */
inline OUT16 photons(const ushort16 words, __global const float *pedestals, __global const float *factors,
                     const uint at, const uint pixels, counts16 *counts MOVED)
{
    float16 pedestal = vload16(0, pedestals + at), factor = vload16(0, factors + at);
    /* A pixel without G0 is masked: whatever it says, it is in error, and not counted again. */
    const int16 known = factor != 0.0f;
    int16 bad = factor == 0.0f, saturated = 0;
    const float16 adu = convert_float16(words & (ushort16)(0x3FFF));
#ifdef TRACK
    /* The movement is kept apart from the pedestal: beside thousands of ADU its small steps would be lost. */
    float16 drift = vload16(0, moved + at);
    const float16 apart = adu - pedestal - drift;
    const int16 quiet = (convert_int16(words >> 14) == 0) & known & (fabs(apart * factor) <= within);
    vstore16(select(drift, drift + apart * SHARE, quiet), 0, moved + at);
    counts->quiet -= quiet;
#endif
    if (any_switched(words)) {
        const int16 word = convert_int16(words);
        const int16 gain = word >> 14;
        const int16 one = gain == 1, two = gain == 3;
        const uint first = at + pixels, second = at + 2 * pixels;
        pedestal = select(select(pedestal, vload16(0, pedestals + first), one), vload16(0, pedestals + second), two);
        factor = select(select(factor, vload16(0, factors + first), one), vload16(0, factors + second), two);
#ifdef TRACK
        drift = select(drift, (float16)(0.0f), one | two);
#endif
        saturated = (word == 0xC000) & known;
        bad |= (gain == 2) | (word == 0xFFFF) | (word == 0x4000) | ((factor == 0.0f) & ~saturated);
        counts->gain1 -= one & known;
        counts->gain2 -= two & known;
    }
#ifdef TRACK
    float16 value = (adu - pedestal - drift) * factor;
#else
    float16 value = (adu - pedestal) * factor;
#endif
#if ROUND
    value = round(value);
#endif
    saturated |= (value > HIGHEST) & ~bad;
    bad |= (value < LOWEST) & ~saturated;
    value = select(select(value, (float16)(SATURATED), saturated), (float16)(ERROR), bad);
    counts->wrong -= bad & known;
    counts->saturated -= saturated;
    return TO_OUT16(value);
}

/* @param frames     base of the batch, 16-bit words
 * @param offsets    where each frame starts, bytes, [frames]
 * @param first      number of the first frame of this launch
 * @param count      number of frames of this launch
 * @param pedestals  ADU, [G0, G1, G2][pixels rounded up to 16]
 * @param factors    photons per ADU, 0 where there is no calibration, [G0, G1, G2][pixels rounded up to 16]
 * @param pixels     pixels of a frame
 * @param tile       pixels per work item, a multiple of 16
 * @param slot       bytes from result to result
 * @param result     photons, [frames][pixels]
 * @param counted    pixels in error, saturated, in G1, in G2, that moved their pedestal, [frames][5], zero at start
 * @param moved      with TRACK: how far pedestals of G0 have moved, ADU, [pixels rounded up to 16]
 * @param within     with TRACK: photons within which a word moves its pedestal
 * global size: one work item per tile */
__kernel void gain(__global const uchar *frames, __global const ulong *offsets, const uint first, const uint count,
                   __global const float *pedestals, __global const float *factors, const uint pixels,
                   const uint tile, const uint slot, __global uchar *result, __global uint *counted MOVED)
{
    const uint stride = (pixels + 15) / 16 * 16;
    const uint begin = (uint)get_global_id(0) * tile;
    const uint end = min(begin + tile, pixels);
    const uint whole = begin + (end - begin) / 16 * 16;
    const uint rest = end - whole;

    for (uint frame = first; frame < first + count; frame++) {
        __global const ushort *raw = (__global const ushort *)(frames + offsets[frame]);
        __global OUT *out = (__global OUT *)(result + (ulong)frame * slot);
        counts16 counts = {0, 0, 0, 0, 0};
        for (uint i = begin; i < whole; i += 16)
            vstore16(photons(vload16(0, raw + i), pedestals, factors, i, stride, &counts PASS_MOVED), 0, out + i);
        if (rest != 0) {
            ushort words[16];
            OUT last[16];
            for (uint k = 0; k < 16; k++)
                words[k] = k < rest ? raw[whole + k] : 0;
            /* The fields are padded with pixels that have no calibration, which are not counted. */
            vstore16(photons(vload16(0, words), pedestals, factors, whole, stride, &counts PASS_MOVED), 0, last);
            for (uint k = 0; k < rest; k++)
                out[whole + k] = last[k];
        }
        /* Whole numbers: the order in which tiles add does not matter. */
        const uint found[5] = {sum16(counts.wrong), sum16(counts.saturated), sum16(counts.gain1),
                               sum16(counts.gain2), sum16(counts.quiet)};
        for (uint k = 0; k < 5; k++)
            if (found[k] != 0)
                atomic_add(&counted[frame * 5 + k], found[k]);
    }
}

#ifdef SPLIT
#if WHOLE
#define IS_ERROR(v) ((v) == MOST_NEGATIVE)
#define IS_SATURATED(v) ((v) == MOST)
#else
#define IS_ERROR(v) isnan(v)
#define IS_SATURATED(v) ((v) == SATURATED)
#endif

/* Modules with pixels twice or four times as large between their chips, as pixels of one size: a large pixel's photons
 * are shared among those that it covers, and what does not divide goes to the first of them.
 *
 * @param compact    photons as they were measured, [frames][pixels]
 * @param map        of each pixel of the result: number of its source in bits 0 to 27, which share it gets in bits 28
 *                   and 29, and in bits 30 and 31 whether it is one of 1, 2 or 4 (0, 1 or 2), [wide pixels]
 * @param compact_slot, slot   bytes from frame to frame, of compact and of the result
 * @param result     photons, [frames][wide pixels]
 * global size: pixels of a result, frames */
__kernel void split(__global const uchar *compact, __global const uint *map, const uint compact_slot, const uint slot,
                    __global uchar *result)
{
    const uint at = (uint)get_global_id(0), frame = (uint)get_global_id(1);
    const uint source = map[at];
    const OUT value = ((__global const OUT *)(compact + (ulong)frame * compact_slot))[source & 0x0FFFFFFF];
    __global OUT *out = (__global OUT *)(result + (ulong)frame * slot) + at;
    if (source >> 30 == 0 || IS_SATURATED(value) || IS_ERROR(value)) {
        *out = value;
        return;
    }
    const uint shares = 1u << (source >> 30), mine = (source >> 28) & 3;
#if WHOLE
    const int whole = (int)value / (int)shares, left = (int)value - whole * (int)shares;
    *out = (OUT)(whole + (mine < (uint)abs(left) ? (left < 0 ? -1 : 1) : 0));
#else
    *out = value / (float)shares;
#endif
}
#endif
