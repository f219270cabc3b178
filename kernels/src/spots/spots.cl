/* Strong pixels by DIALS's dispersion and dispersion-extended thresholds (Winter et al., Acta Cryst. D74 (2018) 85;
 * Kabsch, Acta Cryst. D66 (2010) 133): a pixel is strong where its surroundings vary more than counting explains, and it
 * stands out of them. Sums are whole numbers; `real.cl` decides what a float cannot.
 *
 * Built once per pixel type with
 *   PIXEL, PIXEL16      scalar and vector type of a pixel
 *   LANE, LANE2 … 16    type of the first look's sums, 16 bits or more, and TO_LANE16 which converts to it
 *   RADIUS              half width of the box, 1 to 5
 *   TILE                columns of a work item, a multiple of 16; ROWS: its rows
 *   KEEP_ROWS           1: a work item keeps the rows of its box, 0: it reads them again
 *   SPAN_WORDS          words of a row of a work item that goes through a bitmap; SPAN_ROWS: its rows
 *   SIGNED, FLOATING    1: negative pixels are not valid; floats are rounded to whole numbers first
 *   WIDE                1: pixels of BIG or more take no part in sums
 *   HAS_SATURATION      1: pixels at or above `saturation` are not valid
 *   HAS_GAIN            1: counts per photon differ from 1
 *
 * Bitmaps have a bit for each pixel, 16 columns to a word, rows begin with a new word.
 */
#define BIG (1u << 24)
#define BOX ((2 * RADIUS + 1) * (2 * RADIUS + 1))
/* The first look adds pixels up to this one and their squares: a box of them fits 16 bits. */
#if RADIUS == 1
#define ROOT 85
#elif RADIUS == 2
#define ROOT 51
#elif RADIUS == 3
#define ROOT 36
#elif RADIUS == 4
#define ROOT 28
#else
#define ROOT 23
#endif
/* What PoCL does not inline by itself costs more than what it does. */
#define ALWAYS __attribute__((always_inline))
/* sums of squares of pixels below 512 in 25 bits, number of larger ones above */
#define SQUARE_LIMIT 512u
#define SQUARE_SHIFT 25
/* how far floats may be off, times the size of what was subtracted */
#define SLACK 2e-6f
#define LANES ((uint16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
#define LANE_BITS ((int16)(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768))

/* Parameters as numbers that every device holds exactly. */
typedef struct {
    ulong factor_m, strong_m, gain_m; /* n_b (or the gain), n_s, gain as m * 2^e */
    int factor_e, strong_e, gain_e;
    uint min_count;
    uint threshold; /* pixels above it can be strong */
    uint saturation;
    float background, strong, gain; /* n_b, n_s, gain once more */
    uint lit;                       /* a box whose pixels are all below this varies no more than counting explains */
    float least;                    /* spread over photons that a box must have at least, whatever its number of pixels */
} settings_t;

inline uint whole(PIXEL v)
{
#if FLOATING
    return convert_uint_sat_rte(v);
#else
    return (uint)v;
#endif
}

inline uint16 whole16(PIXEL16 v)
{
#if FLOATING
    return convert_uint16_sat_rte(v);
#else
    return convert_uint16(v);
#endif
}

/* 16 pixels as whole numbers; `valid` is -1 where they may be used. */
inline ALWAYS uint16 pixels_of(const PIXEL16 v, const char16 good, __constant const settings_t *s, int16 *valid)
{
    int16 usable = convert_int16(good);
#if FLOATING
    /* what rounds to a negative number or is none */
    usable &= (v >= (PIXEL16)(-0.5f));
#elif SIGNED
    usable &= convert_int16(v >= (PIXEL16)(0));
#endif
    const uint16 value = whole16(v);
#if HAS_SATURATION
    usable &= (value < (uint16)(s->saturation));
#endif
    *valid = usable;
    return value;
}

/* 16 pixels of a row from a column on that may lie outside of the frame, where they are 0 and not good. */
inline PIXEL16 beside(__global const PIXEL *raw, __global const char *good, const int column, const int columns,
                      char16 *use)
{
    PIXEL each[16];
    char all[16];
    for (int lane = 0; lane < 16; lane++) {
        const int i = column + lane, inside = i >= 0 && i < columns;
        each[lane] = inside ? raw[i] : (PIXEL)0;
        all[lane] = inside ? good[i] : (char)0;
    }
    *use = vload16(0, all);
    return vload16(0, each);
}

/* The same of any row and column. */
inline ALWAYS PIXEL16 load16(__global const PIXEL *raw, __global const char *good, const int row, const int column,
                             const int rows, const int columns, char16 *use)
{
    *use = (char16)(0);
    if (row < 0 || row >= rows || column <= -16 || column >= columns)
        return (PIXEL16)(0);
    const size_t at = (size_t)row * columns;
    if (column < 0 || column + 16 > columns)
        return beside(raw + at, good + at, column, columns, use);
    *use = vload16(0, good + at + column);
    return vload16(0, raw + at + column);
}

/* 16 pixels of a row as whole numbers, as `pixels_of` has them. */
inline ALWAYS uint16 pixels16(__global const PIXEL *raw, __global const char *good, const int row, const int column,
                              const int rows, const int columns, __constant const settings_t *s, int16 *valid)
{
    char16 use;
    const PIXEL16 v = load16(raw, good, row, column, rows, columns, &use);
    return pixels_of(v, use, s, valid);
}

/* Pixels as the first look adds them: up to 65535, 0 for those that take no part. */
inline ALWAYS LANE16 lanes_of(PIXEL16 v, const char16 good, __constant const settings_t *s)
{
#if FLOATING
    /* what rounds to a negative number or is none falls to 0 */
    const uint16 value = convert_uint16_sat_rte(fmax(v, (PIXEL16)(0.0f)));
#elif SIGNED
    v = max(v, (PIXEL16)(0));
#endif
#if WIDE
#if !FLOATING
    const uint16 value = convert_uint16(v);
#endif
    int16 valid = value < (uint16)(BIG);
#if HAS_SATURATION
    valid &= value < (uint16)(s->saturation);
#endif
    return TO_LANE16(min(value, (uint16)(65535)) & as_uint16(valid)) & TO_LANE16(good);
#else
    const LANE16 value = TO_LANE16(v) & TO_LANE16(good);
#if HAS_SATURATION
    return value < (LANE16)((LANE)s->saturation) ? value : (LANE16)(0);
#else
    return value;
#endif
#endif
}

inline ALWAYS LANE16 lanes16(__global const PIXEL *raw, __global const char *good, const int row, const int column,
                             const int rows, const int columns, __constant const settings_t *s)
{
    char16 use;
    const PIXEL16 v = load16(raw, good, row, column, rows, columns, &use);
    return lanes_of(v, use, s);
}

/* Whether any lane is set. `any` of PoCL asks lane after lane. */
inline int any_of(const int16 lanes)
{
    const ulong8 all = as_ulong8(lanes);
    const ulong4 half_of = all.lo | all.hi;
    return ((half_of.x | half_of.y) | (half_of.z | half_of.w)) != 0;
}

inline uint largest_of(const LANE16 lanes)
{
    const LANE8 a = max(lanes.lo, lanes.hi);
    const LANE4 b = max(a.lo, a.hi);
    const LANE2 c = max(b.lo, b.hi);
    return max(c.x, c.y);
}

/* Sums over the boxes around 16 pixels of a row. In `packed` values up to 65535 with their number from bit 24 on; in `squares`
 * those of pixels below SQUARE_LIMIT, with the number of the others from bit SQUARE_SHIFT on: where there are any, none of
 * the sums is exact, but the number of pixels is. */
inline void boxes16(__global const PIXEL *raw, __global const char *good, const int row, const int column,
                    const int rows, const int columns, __constant const settings_t *s, uint16 *packed, uint16 *squares)
{
    uint16 sums[2], all[2];
    for (int side = 0; side < 2; side++) {
        uint16 a = 0, b = 0;
        for (int r = row - RADIUS; r <= row + RADIUS; r++) {
            int16 valid;
            const uint16 value = pixels16(raw, good, r, column - 8 + 16 * side, rows, columns, s, &valid);
#if WIDE
            valid &= (value < (uint16)(BIG));
#endif
            const uint16 low = min(value, (uint16)(65535));
            a += (low + (uint16)(1u << 24)) & as_uint16(valid);
            const uint16 small = min(value, (uint16)(SQUARE_LIMIT));
            /* SQUARE_LIMIT squared is 2^18: 2^7 times as much is a flag's bit */
            b += select((uint16)(1u << SQUARE_SHIFT), small * small, small < (uint16)(SQUARE_LIMIT)) & as_uint16(valid);
        }
        sums[side] = a;
        all[side] = b;
    }
    const uint *left = (const uint *)sums + 8, *of = (const uint *)all + 8;
    uint16 a = vload16(0, left), b = vload16(0, of);
    for (int d = 1; d <= RADIUS; d++) {
        a += vload16(0, left - d) + vload16(0, left + d);
        b += vload16(0, of - d) + vload16(0, of + d);
    }
    *packed = a;
    *squares = b;
}

/* Sum and sum of squares in the box around a pixel, exactly. */
inline ulong squares_of_box(__global const PIXEL *raw, __global const char *good, const int row, const int column,
                            const int rows, const int columns, __constant const settings_t *s, ulong *values)
{
    const int16 box = (LANES >= (uint16)(8 - RADIUS)) & (LANES <= (uint16)(8 + RADIUS));
    ulong16 sum = 0, squares = 0;
    for (int r = row - RADIUS; r <= row + RADIUS; r++) {
        int16 valid;
        uint16 value = pixels16(raw, good, r, column - 8, rows, columns, s, &valid);
        valid &= box;
#if WIDE
        valid &= (value < (uint16)(BIG));
#endif
        const ulong16 wide = convert_ulong16(value & as_uint16(valid));
        sum += wide;
        squares += wide * wide;
    }
    const ulong8 a = squares.lo + squares.hi, d = sum.lo + sum.hi;
    const ulong4 b = a.lo + a.hi, e = d.lo + d.hi;
    const ulong2 c = b.lo + b.hi, f = e.lo + e.hi;
    *values = f.x + f.y;
    return c.x + c.y;
}

/* Whether the box varies more than counting explains. */
inline int dispersed(const ulong m, const ulong x, const ulong y, __global const ulong *roots,
                     __constant const settings_t *s)
{
#if HAS_GAIN
    const long excess = (long)(m * y) - (long)(x * x);
    const float bound = s->gain * (float)x * ((float)(m - 1) + s->background * sqrt(2.0f * (float)(m - 1)));
#else
    const long excess = (long)(m * y) - (long)(x * x) - (long)(x * (m - 1));
    const float bound = (float)x * s->background * sqrt(2.0f * (float)(m - 1));
#endif
    if (excess <= 0)
        return 0;
    const float found = (float)excess;
    if (found > bound * (1.0f + SLACK))
        return 1;
    if (found < bound * (1.0f - SLACK))
        return 0;
    const real limit = real_mul(real_mul(real_make(s->factor_m, s->factor_e), real_of(x)),
                                real_make(roots[2 * m], (int)(long)roots[2 * m + 1]));
    return real_above(real_of((ulong)excess), limit);
}

/* Whether a pixel stands out of its box. */
inline int outstanding(const ulong m, const ulong x, const ulong value, __constant const settings_t *s)
{
    const long above = (long)(m * value) - (long)x;
    if (above <= 0)
        return 0;
    const float found = (float)above, bound = s->strong * sqrt(s->gain * (float)x * (float)m);
    if (found > bound * (1.0f + SLACK))
        return 1;
    if (found < bound * (1.0f - SLACK))
        return 0;
    const real product = real_mul(real_mul(real_make(s->gain_m, s->gain_e), real_of(x)), real_of(m));
    const real limit = real_mul(real_make(s->strong_m, s->strong_e), real_sqrt(product));
    return real_above(real_of((ulong)above), limit);
}

inline ushort bits_of(const int16 lanes)
{
    const int16 set = lanes & LANE_BITS;
    const int8 a = set.lo | set.hi;
    const int4 b = a.lo | a.hi;
    const int2 c = b.lo | b.hi;
    return (ushort)(c.x | c.y);
}

/* The bits of a word that lie right of the frame. */
inline ushort beyond(const int column, const int columns)
{
    return column + 16 <= columns ? (ushort)0 : (ushort)(0xffffu << (columns - column));
}

#define BOX_ROWS (2 * RADIUS + 1)
/* of a row of a tile, with one before and one behind it */
#define VECTORS (TILE / 16 + 2)
/* Asks for pixels of the next row, which a processor does not foresee at the end of a tile. */
#if KEEP_ROWS
#define FETCH(raw, good, row, column)                                                           \
    {                                                                                           \
        const size_t at_ = (size_t)max(min(row, rows - 1), 0) * columns + max(column, 0);       \
        __builtin_prefetch(raw + at_);                                                          \
        __builtin_prefetch(good + at_);                                                         \
    }
#else
#define FETCH(raw, good, row, column)
#endif

/* 16 pixels of a row that the first look let through: those whose box varies too much and that stand out of it. */
inline ushort look_again(__global const PIXEL *raw, __global const char *good, const int row, const int column,
                         const int rows, const int columns, __constant const settings_t *s,
                         __global const ulong *roots, const int standing_out)
{
    int16 valid;
    const uint16 value = pixels16(raw, good, row, column, rows, columns, s, &valid);
    uint16 packed, squares;
    boxes16(raw, good, row, column, rows, columns, s, &packed, &squares);
    const uint16 total = packed & (uint16)((1u << 24) - 1), count = packed >> 24;
    const int16 bright = squares >= (uint16)(1u << SQUARE_SHIFT);
    const float16 x = convert_float16(as_int16(total)), m = convert_float16(as_int16(count));
    const float16 y = convert_float16(as_int16(squares & (uint16)((1u << SQUARE_SHIFT) - 1)));
    const float16 excess = m * y - x * x;
    const float16 spread = max(m - 1.0f, (float16)(0.0f));
    const float16 bound = s->gain * x * (spread + s->background * sqrt(2.0f * spread));
    const float16 slack = SLACK * (m * y + x * x + bound);
    const int16 able = valid & (count >= (uint16)(s->min_count)) & ((total > (uint16)(0)) | bright);
    ushort found = 0;
    int16 unsure;
    if (standing_out) {
        unsure = able & (value > (uint16)(s->threshold)) & (bright | (excess >= bound - slack));
    } else {
        found = bits_of(able & ~bright & (excess > bound + slack));
        unsure = able & (bright | ((excess <= bound + slack) & (excess >= bound - slack)));
    }
    uint left_over = bits_of(unsure);
    if (left_over) {
        uint totals[16], counts[16], values[16], all[16];
        vstore16(total, 0, totals);
        vstore16(count, 0, counts);
        vstore16(value, 0, values);
        vstore16(squares, 0, all);
        for (; left_over; left_over &= left_over - 1) {
            const uint lane = 31 - clz(left_over & -left_over);
            ulong sum = totals[lane], square = all[lane];
            if (square >> SQUARE_SHIFT)
                square = squares_of_box(raw, good, row, column + (int)lane, rows, columns, s, &sum);
            if ((!standing_out || outstanding(counts[lane], sum, values[lane], s)) &&
                dispersed(counts[lane], sum, square, roots, s))
                found |= (ushort)(1u << lane);
        }
    }
    return found;
}

/* Marks pixels of a tile whose box varies too much: all of them, or only those that stand out of their box. */
inline ALWAYS void mark(__global const uchar *frames, __global const ulong *offsets, const uint first,
                        __global const char *good, const int rows, const int columns, __constant const settings_t *s,
                        __global const ulong *roots, const int standing_out, __global ushort *marked)
{
    const int words = (columns + 15) / 16;
    const int left = (int)get_global_id(0) * TILE, top = (int)get_global_id(1) * ROWS;
    const uint frame = first + (uint)get_global_id(2);
    if (left >= columns)
        return;
    __global const PIXEL *raw = (__global const PIXEL *)(frames + offsets[frame]);
    /* sums over the box's rows, of 16 columns before the tile to 16 behind it */
    LANE16 column_sums[VECTORS], column_squares[VECTORS];
    const LANE *sums = (const LANE *)(column_sums + 1), *squares = (const LANE *)(column_squares + 1);
#if KEEP_ROWS
    LANE16 kept[BOX_ROWS * VECTORS];
    int slot = 0;
    for (int i = 0; i < BOX_ROWS * VECTORS; i++)
        kept[i] = (LANE16)(0);
#endif
    /* the last row with a pixel that may make its box vary too much; that where a vector had one too large to be squared */
    int lit = top - 2 * BOX_ROWS, large[VECTORS];
    for (int i = 0; i < VECTORS; i++) {
        column_sums[i] = column_squares[i] = (LANE16)(0);
        large[i] = lit;
    }
    const uint light = min(s->lit, (uint)ROOT);
    const float least = s->gain * s->least * (1.0f - 8 * SLACK);
    const float stand = s->strong * s->strong * s->gain * (1.0f - 8 * SLACK);
    const float threshold = (float)s->threshold * (1.0f - SLACK);
    const int end = min(top + ROWS, rows);
    for (int row = top - RADIUS; row < end + RADIUS; row++) {
        LANE16 largest = (LANE16)(0);
        for (int i = 0; i < VECTORS; i++) {
            const int column = left + 16 * i - 16;
            FETCH(raw, good, row + 1, column)
            const LANE16 low = min(lanes16(raw, good, row, column, rows, columns, s), (LANE16)(ROOT));
            largest = max(largest, low);
#if KEEP_ROWS
            const LANE16 old = kept[slot + i];
            kept[slot + i] = low;
#else
            LANE16 old = (LANE16)(0);
            if (row - BOX_ROWS >= top - RADIUS)
                old = min(lanes16(raw, good, row - BOX_ROWS, column, rows, columns, s), (LANE16)(ROOT));
#endif
            column_sums[i] += low - old;
            column_squares[i] += low * low - old * old;
        }
        const uint most = largest_of(largest);
        if (most >= light)
            lit = row;
        if (most == ROOT)
            for (int i = 0; i < VECTORS; i++) {
#if KEEP_ROWS
                const LANE16 low = kept[slot + i];
#else
                const LANE16 low = lanes16(raw, good, row, left + 16 * i - 16, rows, columns, s);
#endif
                if (largest_of(low) >= ROOT)
                    large[i] = row;
            }
#if KEEP_ROWS
        slot = slot == (BOX_ROWS - 1) * VECTORS ? 0 : slot + VECTORS;
#endif
        const int middle = row - RADIUS, before = row - BOX_ROWS;
        if (middle < top)
            continue;
        __global ushort *out = marked + ((size_t)frame * rows + middle) * words + left / 16;
        for (int i = 0; i < TILE && left + i < columns; i += 16) {
            const int at = i / 16;
            int look = lit > before;
            if (look) {
                LANE16 sum = column_sums[at + 1], square = column_squares[at + 1];
                for (int d = 1; d <= RADIUS; d++) {
                    sum += vload16(0, sums + i - d) + vload16(0, sums + i + d);
                    square += vload16(0, squares + i - d) + vload16(0, squares + i + d);
                }
                /* A first look that lets too many through, never too few: a box of fewer pixels must vary more, and where
                 * pixels are too large the sum is too small and the sum of squares tells nothing. */
                const float16 x = convert_float16(convert_int16(sum)), y = convert_float16(convert_int16(square));
                const int blind = max(max(large[at], large[at + 1]), large[at + 2]) > before;
                look = blind || any_of(y > x * (x * ((1.0f - 8 * SLACK) / BOX) + least));
                if (look && standing_out) {
                    int16 valid;
                    const uint16 value = pixels16(raw, good, middle, left + i, rows, columns, s, &valid);
                    const float16 p = convert_float16(as_int16(min(value, (uint16)(0x7fffffff))));
                    const float16 mean = x * (1.0f / BOX), above = p * (1.0f + 4 * SLACK) - mean;
                    look = any_of(valid & (p > (float16)(threshold)) & (above * fabs(above) >= stand * mean));
                }
            }
            ushort found = look ? look_again(raw, good, middle, left + i, rows, columns, s, roots, standing_out) : (ushort)0;
            out[at] = standing_out ? found : (ushort)(found | beyond(left + i, columns));
        }
    }
}

/* @param frames    base of the batch, pixels of PIXEL
 * @param offsets   where each frame starts, bytes, [frames]
 * @param first     number of the first frame of this launch
 * @param good      -1 for good pixels, 0 for masked ones, [rows][columns]
 * @param rows      rows of a frame; columns: pixels from row to row
 * @param settings  parameters
 * @param roots     sqrt(2 (m - 1)), or what goes with a gain, for m pixels in a box: m and e, [(2 RADIUS + 1)^2 + 1][2]
 * @param strong    bitmap of strong pixels, [frames][rows][words]
 * global size: tiles, strips, frames */
__kernel void dispersion(__global const uchar *frames, __global const ulong *offsets, const uint first,
                         __global const char *good, const uint rows, const uint columns,
                         __constant const settings_t *s, __global const ulong *roots, __global ushort *strong)
{
    mark(frames, offsets, first, good, (int)rows, (int)columns, s, roots, 1, strong);
}

/* The first half of dispersion-extended: pixels that are not background, because their box varies too much. What is right
 * of the frame is marked, too; what is not valid is background, as in DIALS 3.12 (not so in later ones). Parameters
 * as above.
 * @param foreground  bitmap, [frames][rows][words] */
__kernel void scattered(__global const uchar *frames, __global const ulong *offsets, const uint first,
                        __global const char *good, const uint rows, const uint columns,
                        __constant const settings_t *s, __global const ulong *roots, __global ushort *foreground)
{
    mark(frames, offsets, first, good, (int)rows, (int)columns, s, roots, 0, foreground);
}
