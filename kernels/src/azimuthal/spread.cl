/* Azimuthal integration with pixels that several bins share, in the pixels' own order: a tile of 8 by 32 pixels of 16
 * frames is read once, laid down in the cache with the frames side by side, and gone through bin by bin. A bin's sums over
 * a tile stay in registers, and are added to the work item's own.
 *
 * Built once per pixel type, behind lanes.cl, with what that wants and
 *   TO_MASK(m)       a char16 comparison as the type of a PIXEL16 comparison
 *   ANY(m)           whether any of a PIXEL16 comparison holds: any_char, any_short or any_int
 *   WIDE, WIDE16     ulong, or long where pixels may be below zero
 *   TO_WIDE16(v), AS_WIDE16(m)   conversion to it, the bits of a long16 as it
 *   MASK16           type of a PIXEL16 comparison
 *   DEEP             1: pixels may be beyond 16 bits (uint and int)
 *   LOWEST           the least PIXEL that is not
 *   HAS_DARK         1: a dark is subtracted
 *   POISSON          1: also sum the variance, max(1, raw)
 *   BITS             a share of 1 is 2^BITS
 *
 * Everything is a whole number: shares times 2^BITS, norms times norm_scale. BITS is such that no sum can leave 62 bits
 * (spread.rs), so that results depend neither on the order nor on how the frame is cut. Pixels beyond 16 bits have their
 * upper bits summed by themselves.
 *
 * Tiles that have a pixel to leave out, or one beyond 16 bits, go by `add_carefully`; what left-out pixels take from a
 * bin's shares, norm and dark is summed there.
 */

#define TILE_ROWS 8
#define TILE_COLUMNS 32
#define PARTS (POISSON ? 2 : 1)
#define EXCLUDING (HAS_SATURATION || HAS_DUMMY)
#if DEEP
#define BEYOND(v) | ((v) > (PIXEL16)((PIXEL)65535)) | ((v) < (PIXEL16)(LOWEST))
#else
#define BEYOND(v)
#endif

#define CHECK_LANE(k, name) odd |= LEFT_OUT(v##name, PIXEL16) BEYOND(v##name);
#define STORE_LANE(k, name) tile[group * 16 + k] = v##name;

/* Asks for the next tile, whose rows lie too far apart for the processor to guess them: a seventh of the time. OpenCL's own
 * prefetch does nothing on PoCL. */
#ifdef __has_builtin
#if __has_builtin(__builtin_prefetch)
#define ASK(place) __builtin_prefetch((const void *)(size_t)(place))
#endif
#endif
#ifndef ASK
#define ASK(place)
#endif

/* A share's square, of the same unit. */
inline WIDE squared(const uint share)
{
    return (WIDE)(uint)(((ulong)share * share + (1ul << (BITS - 1))) >> BITS);
}

/* A product of two floats in units of 2^-BITS of a share, to the last unit: its rounding error is added. */
inline long product(const float share, const float value)
{
    const float high = share * value;
    return convert_long_rte(high) + convert_long_rte(fma(share, value, -high));
}

#define LIMITS const LIMIT saturation, const LIMIT dummy_low, const LIMIT dummy_high

/* One bin's entries of one tile, left-out pixels and those beyond 16 bits included.
 * @param tile        pixels of the tile, frames side by side
 * @param origin, columns   the tile's first pixel, pixels from row to row
 * @param sums ... out_dark   the bin's own */
inline void add_carefully(const PIXEL16 *tile, const uint begin, const uint end, __global const uchar *place,
                          __global const uint *weight, const uint origin, const uint columns,
                          __global const float *norm, __global const float *dark, const float norm_scale, LIMITS,
                          __global WIDE16 *sums, __global WIDE16 *upper, __global ulong16 *out_count,
                          __global ulong16 *out_norm, __global long16 *out_dark)
{
    for (uint entry = begin; entry < end; entry++) {
        const uint share = weight[entry];
        PIXEL16 value = tile[place[entry]];
#if EXCLUDING
        const long16 out = convert_long16(LEFT_OUT(value, PIXEL16));
        const uint at = origin + place[entry] / TILE_COLUMNS * columns + place[entry] % TILE_COLUMNS;
        *out_count += as_ulong16(out) & (ulong16)(share);
        *out_norm += as_ulong16(out) & (ulong16)(convert_ulong_rte((float)share * norm[at] * norm_scale));
#if HAS_DARK
        *out_dark += out & (long16)(product((float)share, dark[at]));
#endif
#else
        const long16 out = 0;
#endif
        const WIDE16 in = AS_WIDE16(~out);
#if POISSON
        const PIXEL16 variance = AT_LEAST_ONE(value, PIXEL16);
#endif
#if DEEP
        sums[0] += in & (TO_WIDE16(value & (PIXEL16)((PIXEL)0xffff)) * (WIDE)share);
        upper[0] += in & (TO_WIDE16(value >> (PIXEL16)((PIXEL)16)) * (WIDE)share);
#if POISSON
        /* Nothing of the square is lost: a small share of a very bright pixel may be most of a bin's variance. */
        const ulong square = (ulong)share * share;
        const WIDE16 wide = TO_WIDE16(variance);
        const WIDE whole = (WIDE)(square >> BITS), rest = (WIDE)(square & ((1ul << BITS) - 1));
        sums[1] += in & ((wide & (WIDE)0xffff) * whole + ((wide * rest + (WIDE)(1ul << (BITS - 1))) >> (WIDE)BITS));
        upper[1] += in & ((wide >> (WIDE)16) * whole);
#endif
#else
        sums[0] += in & (TO_WIDE16(value) * (WIDE)share);
#if POISSON
        sums[1] += in & (TO_WIDE16(variance) * squared(share));
#endif
#endif
    }
}

/* @param frames, offsets, first   base of the batch, where each frame starts in bytes, number of this launch's first
 * @param used        frames of this launch, 1 to 16; the other lanes repeat the last frame and are not read
 * @param columns     pixels from row to row
 * @param cuts        tiles of each work item, [chunks + 1]
 * @param origins     first pixel of each tile, [tiles]
 * @param segments    where each tile's segments start, [tiles + 1]
 * @param bin         bin of each segment, [segments]
 * @param entries     where each segment's entries start, [segments + 1]
 * @param place       pixel of each entry within its tile, row by row, [entries]
 * @param weight      share of each entry, [entries]
 * @param active      255: the pixel takes part, 0: it does not, [pixels]
 * @param norm, dark  of each pixel, [pixels]
 * @param bins        number of bins
 * @param norm_scale  power of two
 * @param saturation, dummy_low, dummy_high   limits
 * @param sums        result: signal and variance, [chunks][bins][PARTS][16]
 * @param upper       the same from bit 16 on, where `touched`
 * @param out_count, out_norm, out_dark   what left-out pixels take away, [chunks][bins][16], where `touched`
 * @param touched     whether anything went carefully, [chunks]
 * global size: chunks */
__kernel void spread(__global const uchar *frames, __global const ulong *offsets, const uint first, const uint used,
                     const uint columns, __global const uint *cuts, __global const uint *origins,
                     __global const uint *segments, __global const uint *bin, __global const uint *entries,
                     __global const uchar *place, __global const uint *weight, __global const uchar *active,
                     __global const float *norm, __global const float *dark, const uint bins, const float norm_scale,
                     LIMITS, __global WIDE16 *sums, __global WIDE16 *upper, __global ulong16 *out_count,
                     __global ulong16 *out_norm, __global long16 *out_dark, __global uint *touched)
{
    const uint chunk = get_global_id(0);
    const uint own = chunk * bins;
    sums += own * PARTS;
    upper += own * PARTS;
    out_count += own;
    out_norm += own;
    out_dark += own;
    for (uint k = 0; k < bins * PARTS; k++)
        sums[k] = 0;
    touched[chunk] = 0;
    __global const PIXEL *raw[LANES];
    for (uint k = 0; k < LANES; k++)
        raw[k] = (__global const PIXEL *)(frames + offsets[first + min(k, used - 1)]);
    PIXEL16 tile[TILE_ROWS * TILE_COLUMNS];

    for (uint number = cuts[chunk]; number < cuts[chunk + 1]; number++) {
        if (segments[number] == segments[number + 1])
            continue;
        bool careful = false;
        for (uint group = 0; group < TILE_ROWS * TILE_COLUMNS / 16; group++) {
            const uint i = origins[number] + group / 2 * columns + group % 2 * 16;
            DECLARE(v);
            EACH_LANE(LOAD_LANE)
#if EXCLUDING || DEEP
            MASK16 odd = 0;
            EACH_LANE(CHECK_LANE)
            careful |= ANY(odd & TO_MASK(as_char16(vload16(0, active + i))));
#endif
            DECLARE(w);
            TRANSPOSE
            EACH_LANE(STORE_LANE)
        }
        if (number + 1 < cuts[chunk + 1])
            for (uint row = 0; row < TILE_ROWS; row++)
                for (uint k = 0; k < LANES; k++)
                    ASK(raw[k] + origins[number + 1] + row * columns + TILE_COLUMNS / 2);
        if (careful && touched[chunk] == 0) {
            for (uint k = 0; k < bins; k++) {
#if DEEP
                for (uint part = 0; part < PARTS; part++)
                    upper[k * PARTS + part] = 0;
#endif
#if EXCLUDING
                out_count[k] = 0;
                out_norm[k] = 0;
#if HAS_DARK
                out_dark[k] = 0;
#endif
#endif
            }
            touched[chunk] = 1;
        }
        for (uint segment = segments[number]; segment < segments[number + 1]; segment++) {
            const uint at = bin[segment], begin = entries[segment], end = entries[segment + 1];
            if (careful) {
                add_carefully(tile, begin, end, place, weight, origins[number], columns, norm, dark, norm_scale,
                              saturation, dummy_low, dummy_high, sums + at * PARTS, upper + at * PARTS, out_count + at,
                              out_norm + at, out_dark + at);
                continue;
            }
            WIDE16 signal = 0;
#if POISSON
            WIDE16 variance = 0;
#endif
            for (uint entry = begin; entry < end; entry++) {
                const uint share = weight[entry];
                const PIXEL16 value = tile[place[entry]];
                signal += TO_WIDE16(value) * (WIDE16)((WIDE)share);
#if POISSON
                variance += TO_WIDE16(AT_LEAST_ONE(value, PIXEL16)) * (WIDE16)(squared(share));
#endif
            }
            sums[at * PARTS] += signal;
#if POISSON
            sums[at * PARTS + 1] += variance;
#endif
        }
    }
}

/* low + 2^16 upper, as exactly as a float has it. */
inline float joined(const long low, const long upper)
{
    if (upper < (1l << 45) && upper > -(1l << 45))
        return convert_float((upper << 16) + low);
    return convert_float(upper) * 65536.0f + convert_float(low);
}

/* Merges the chunks and divides.
 * @param sums ... touched   of `spread`
 * @param chunks      number of chunks
 * @param bins        number of bins
 * @param bin_count, bin_norm, bin_dark   of each bin when no pixel is left out, in the units above, [bins]
 * @param norm_unit   normalisation factor / norm_scale
 * @param empty       value of bins without a pixel
 * @param first, used number of the first frame, number of frames of this launch
 * @param curves      result: intensity, sigma, count, [frames][3][bins]
 * global size: 16 lanes, bins rounded up; side by side as the sums are */
__kernel void finish(__global const WIDE *sums, __global const WIDE *upper, __global const ulong *out_count,
                     __global const ulong *out_norm, __global const long *out_dark, __global const uint *touched,
                     const uint chunks, const uint bins, __global const ulong *bin_count,
                     __global const ulong *bin_norm, __global const long *bin_dark, const float norm_unit,
                     const float empty, const uint first, const uint used, __global float *curves)
{
    const uint bin = min((uint)get_global_id(1), bins - 1);
    const uint lane = min((uint)get_global_id(0), used - 1);
    ulong count = bin_count[bin], norm = bin_norm[bin];
    long signal = -bin_dark[bin], variance = 0, signal_upper = 0, variance_upper = 0;
    for (uint chunk = 0; chunk < chunks; chunk++) {
        const uint row = chunk * bins + bin;
        const ulong at = (ulong)row * PARTS * LANES + lane;
        signal += (long)sums[at];
        if (POISSON)
            variance += (long)sums[at + LANES];
        if (touched[chunk] == 0)
            continue;
#if DEEP
        signal_upper += (long)upper[at];
        if (POISSON)
            variance_upper += (long)upper[at + LANES];
#endif
#if EXCLUDING
        count -= out_count[(ulong)row * LANES + lane];
        norm -= out_norm[(ulong)row * LANES + lane];
#if HAS_DARK
        signal += out_dark[(ulong)row * LANES + lane];
#endif
#endif
    }
    const float unit = 1.0f / (1ul << BITS);
    const bool filled = count != 0 && norm != 0;
    const float denominator = filled ? convert_float(norm) * norm_unit : 1.0f;
    __global float *out = curves + (ulong)(first + lane) * 3 * bins + bin;
    out[0] = filled ? joined(signal, signal_upper) * unit / denominator : empty;
    out[bins] = filled && POISSON ? sqrt(joined(variance, variance_upper) * unit) / denominator : empty;
    out[2 * bins] = filled ? convert_float(count) * unit : 0.0f;
}
