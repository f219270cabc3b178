/* Strong pixels by DIALS's dispersion and dispersion-extended thresholds (Winter et al., Acta Cryst. D74 (2018) 85;
 * Kabsch, Acta Cryst. D66 (2010) 133): a pixel is strong where its surroundings vary more than counting explains, and it
 * stands out of them. Sums are whole numbers; `real.cl` decides what a float cannot.
 *
 * Built once per pixel type with
 *   PIXEL, PIXEL16      scalar and vector type of a pixel
 *   SUM, SUM16          type of a sum of pixels with their number above it
 *   COUNT_SHIFT         where the number begins: 24 for pixels of 16 bits, 32 for wider ones
 *   RADIUS              half width of the box, 1 to 5
 *   TILE                columns of a work item, a multiple of 16; ROWS: its rows
 *   SIGNED, FLOATING    1: negative pixels are not valid; floats are rounded to whole numbers first
 *   WIDE                1: pixels of BIG or more take no part in sums
 *   HAS_SATURATION      1: pixels at or above `saturation` are not valid
 *   HAS_GAIN            1: counts per photon differ from 1
 *
 * Bitmaps have a bit for each pixel, 16 columns to a word, rows begin with a new word.
 */
#define BIG (1u << 24)
#define COUNT_ONE ((SUM)1 << COUNT_SHIFT)
#define VALUE_MASK (COUNT_ONE - 1)
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

/* 16 pixels of a row as whole numbers; `valid` is -1 where they may be used. Outside of the frame nothing is. */
inline uint16 pixels16(__global const PIXEL *raw, __global const char *good, const int row, const int column,
                       const int rows, const int columns, __constant const settings_t *s, int16 *valid)
{
    PIXEL16 v = (PIXEL16)(0);
    char16 g = (char16)(0);
    if (row >= 0 && row < rows) {
        const size_t at = (size_t)row * columns;
        if (column >= 0 && column + 16 <= columns) {
            v = vload16(0, raw + at + column);
            g = vload16(0, good + at + column);
        } else if (column > -16 && column < columns) {
            PIXEL each[16];
            char use[16];
            for (int lane = 0; lane < 16; lane++) {
                const int i = column + lane, inside = i >= 0 && i < columns;
                each[lane] = inside ? raw[at + i] : (PIXEL)0;
                use[lane] = inside ? good[at + i] : (char)0;
            }
            v = vload16(0, each);
            g = vload16(0, use);
        }
    }
    int16 usable = convert_int16(g);
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

/* The same packed for sums: value and a count of 1, or 0. */
inline SUM16 packed16(const uint16 value, int16 valid)
{
#if WIDE
    valid &= (value < (uint16)(BIG));
    return TO_SUM16(value & as_uint16(valid)) + (TO_SUM16(as_uint16(valid) & 1) << (SUM16)(COUNT_SHIFT));
#else
    return (value + (uint16)(COUNT_ONE)) & as_uint16(valid);
#endif
}

/* Squares for the first look; see SQUARE_LIMIT. */
inline uint16 squares16(const uint16 value, const int16 valid)
{
    const int16 small = value < (uint16)(SQUARE_LIMIT);
    return select((uint16)(1u << SQUARE_SHIFT), value * value, small) & as_uint16(valid);
}

/* Sum of squares in the box around a pixel, exactly. */
inline ulong squares_of_box(__global const PIXEL *raw, __global const char *good, const int row, const int column,
                            const int rows, const int columns, __constant const settings_t *s)
{
    const int16 box = (LANES >= (uint16)(8 - RADIUS)) & (LANES <= (uint16)(8 + RADIUS));
    ulong16 sum = 0;
    for (int r = row - RADIUS; r <= row + RADIUS; r++) {
        int16 valid;
        uint16 value = pixels16(raw, good, r, column - 8, rows, columns, s, &valid);
        valid &= box;
#if WIDE
        valid &= (value < (uint16)(BIG));
#endif
        const ulong16 wide = convert_ulong16(value & as_uint16(valid));
        sum += wide * wide;
    }
    const ulong8 a = sum.lo + sum.hi;
    const ulong4 b = a.lo + a.hi;
    const ulong2 c = b.lo + b.hi;
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

/* Sums over columns of a strip, as a row moves down. */
#define FOR_VECTORS(i) for (int i = 0; i < TILE + 32; i += 16)

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
                         __global const char *good, const uint rows_, const uint columns_,
                         __constant const settings_t *s, __global const ulong *roots, __global ushort *strong)
{
    const int rows = (int)rows_, columns = (int)columns_, words = (columns + 15) / 16;
    const int left = (int)get_global_id(0) * TILE, top = (int)get_global_id(1) * ROWS;
    const uint frame = first + (uint)get_global_id(2);
    if (left >= columns)
        return;
    __global const PIXEL *raw = (__global const PIXEL *)(frames + offsets[frame]);
    SUM column_sums[TILE + 32];
    FOR_VECTORS(i)
        vstore16((SUM16)(0), 0, column_sums + i);
    const int end = min(top + ROWS, rows);
    int16 valid;
    for (int row = top - RADIUS; row < end + RADIUS; row++) {
        FOR_VECTORS(i) {
            const int column = left + i - 16;
            SUM16 sum = vload16(0, column_sums + i);
            uint16 value = pixels16(raw, good, row, column, rows, columns, s, &valid);
            sum += packed16(value, valid);
            if (row - 2 * RADIUS - 1 >= top - RADIUS) {
                value = pixels16(raw, good, row - 2 * RADIUS - 1, column, rows, columns, s, &valid);
                sum -= packed16(value, valid);
            }
            vstore16(sum, 0, column_sums + i);
        }
        const int middle = row - RADIUS;
        if (middle < top)
            continue;
        for (int i = 0; i < TILE && left + i < columns; i += 16) {
            SUM16 sum = vload16(0, column_sums + 16 + i);
            for (int d = 1; d <= RADIUS; d++)
                sum += vload16(0, column_sums + 16 + i - d) + vload16(0, column_sums + 16 + i + d);
            const uint16 value = pixels16(raw, good, middle, left + i, rows, columns, s, &valid);
            const uint16 total = convert_uint16(sum & (SUM16)(VALUE_MASK));
            const uint16 count = convert_uint16(sum >> (SUM16)(COUNT_SHIFT));
            const float16 x = convert_float16(total), m = convert_float16(count), p = convert_float16(value);
            /* A first look that lets too many through, never too few. */
            const float16 above = m * p - x + SLACK * (m * p + x);
            valid &= (value > (uint16)(s->threshold)) & (count >= (uint16)(s->min_count));
            valid &= (above > (float16)(0.0f)) &
                     (above * above >= (1.0f - 2 * SLACK) * s->strong * s->strong * s->gain * x * m);
            ushort found = 0;
            if (any(valid)) {
                uint totals[16], counts[16], values[16];
                vstore16(total, 0, totals);
                vstore16(count, 0, counts);
                vstore16(value, 0, values);
                for (uint left_over = bits_of(valid); left_over; left_over &= left_over - 1) {
                    const uint lane = 31 - clz(left_over & -left_over);
                    const ulong n = counts[lane], t = totals[lane];
                    if (!outstanding(n, t, values[lane], s))
                        continue;
                    const ulong y = squares_of_box(raw, good, middle, left + i + (int)lane, rows, columns, s);
                    if (dispersed(n, t, y, roots, s))
                        found |= (ushort)(1u << lane);
                }
            }
            strong[((size_t)frame * rows + middle) * words + (left + i) / 16] = found;
        }
    }
}

/* The first half of dispersion-extended: pixels that are not background, because their box varies too much. What is right
 * of the frame is marked, too; what is not valid is background, as in DIALS 3.12 (not so in later ones). Parameters
 * as above.
 * @param foreground  bitmap, [frames][rows][words] */
__kernel void scattered(__global const uchar *frames, __global const ulong *offsets, const uint first,
                        __global const char *good, const uint rows_, const uint columns_,
                        __constant const settings_t *s, __global const ulong *roots, __global ushort *foreground)
{
    const int rows = (int)rows_, columns = (int)columns_, words = (columns + 15) / 16;
    const int left = (int)get_global_id(0) * TILE, top = (int)get_global_id(1) * ROWS;
    const uint frame = first + (uint)get_global_id(2);
    if (left >= columns)
        return;
    __global const PIXEL *raw = (__global const PIXEL *)(frames + offsets[frame]);
    SUM column_sums[TILE + 32];
    uint column_squares[TILE + 32];
    FOR_VECTORS(i) {
        vstore16((SUM16)(0), 0, column_sums + i);
        vstore16((uint16)(0), 0, column_squares + i);
    }
    const int end = min(top + ROWS, rows);
    int16 valid;
    for (int row = top - RADIUS; row < end + RADIUS; row++) {
        FOR_VECTORS(i) {
            const int column = left + i - 16;
            SUM16 sum = vload16(0, column_sums + i);
            uint16 squares = vload16(0, column_squares + i);
            uint16 value = pixels16(raw, good, row, column, rows, columns, s, &valid);
            sum += packed16(value, valid);
            squares += squares16(value, valid);
            if (row - 2 * RADIUS - 1 >= top - RADIUS) {
                value = pixels16(raw, good, row - 2 * RADIUS - 1, column, rows, columns, s, &valid);
                sum -= packed16(value, valid);
                squares -= squares16(value, valid);
            }
            vstore16(sum, 0, column_sums + i);
            vstore16(squares, 0, column_squares + i);
        }
        const int middle = row - RADIUS;
        if (middle < top)
            continue;
        for (int i = 0; i < TILE && left + i < columns; i += 16) {
            SUM16 sum = vload16(0, column_sums + 16 + i);
            uint16 squares = vload16(0, column_squares + 16 + i);
            for (int d = 1; d <= RADIUS; d++) {
                sum += vload16(0, column_sums + 16 + i - d) + vload16(0, column_sums + 16 + i + d);
                squares += vload16(0, column_squares + 16 + i - d) + vload16(0, column_squares + 16 + i + d);
            }
            pixels16(raw, good, middle, left + i, rows, columns, s, &valid);
            const uint16 total = convert_uint16(sum & (SUM16)(VALUE_MASK));
            const uint16 count = convert_uint16(sum >> (SUM16)(COUNT_SHIFT));
            const float16 x = convert_float16(total), m = convert_float16(count);
            const float16 y = convert_float16(squares & (uint16)((1u << SQUARE_SHIFT) - 1));
            const float16 excess = m * y - x * x;
            const float16 spread = max(m - 1.0f, (float16)(0.0f));
            const float16 bound = s->gain * x * (spread + s->background * sqrt(2.0f * spread));
            const float16 slack = SLACK * (m * y + x * x + bound);
            const int16 bright = squares >= (uint16)(1u << SQUARE_SHIFT);
            const int16 able = valid & (count >= (uint16)(s->min_count)) & ((total > (uint16)(0)) | bright);
            const int16 sure = able & ~bright & (excess > bound + slack);
            const int16 unsure = able & (bright | ((excess <= bound + slack) & (excess >= bound - slack)));
            ushort found = bits_of(sure) | beyond(left + i, columns);
            if (any(unsure)) {
                uint totals[16], counts[16];
                vstore16(total, 0, totals);
                vstore16(count, 0, counts);
                for (uint left_over = bits_of(unsure); left_over; left_over &= left_over - 1) {
                    const uint lane = 31 - clz(left_over & -left_over);
                    const ulong exact = squares_of_box(raw, good, middle, left + i + (int)lane, rows, columns, s);
                    if (dispersed(counts[lane], totals[lane], exact, roots, s))
                        found |= (ushort)(1u << lane);
                }
            }
            foreground[((size_t)frame * rows + middle) * words + (left + i) / 16] = found;
        }
    }
}

/* 16 bits of a bitmap's row from any column on; outside of the row `beyond`. */
inline uint bits_at(__global const ushort *row, const int words, const int column, const uint beyond)
{
    const int word = column >> 4;
    const uint low = word >= 0 && word < words ? row[word] : beyond;
    const uint high = word + 1 >= 0 && word + 1 < words ? row[word + 1] : beyond;
    return ((low | (high << 16)) >> (column & 15)) & 0xffff;
}

/* The second half: of the pixels that are not background those that no background is near.
 * @param foreground  of `scattered`; core: bitmap, [frames][rows][words]
 * global size: words, rows, frames */
__kernel void erode(__global const uchar *frames, __global const ulong *offsets, const uint first,
                    __global const char *good, const uint rows_, const uint columns_, __constant const settings_t *s,
                    __global const ushort *foreground, __global ushort *core)
{
    const int rows = (int)rows_, columns = (int)columns_, words = (columns + 15) / 16;
    const int word = (int)get_global_id(0), row = (int)get_global_id(1);
    const uint frame = first + (uint)get_global_id(2);
    if (word >= words)
        return;
    __global const ushort *map = foreground + (size_t)frame * rows * words;
    uint kept = 0xffff;
    for (int r = max(row - RADIUS + 1, 0); r < min(row + RADIUS, rows) && kept; r++)
        for (int d = 1 - RADIUS; d < RADIUS; d++)
            kept &= bits_at(map + (size_t)r * words, words, word * 16 + d, 0xffff);
    core[((size_t)frame * rows + row) * words + word] = (ushort)kept & ~beyond(word * 16, columns);
}

/* The last of dispersion-extended: the pixels of `core` that stand out of the background around them.
 * global size: words, rows, frames */
__kernel void extended(__global const uchar *frames, __global const ulong *offsets, const uint first,
                       __global const char *good, const uint rows_, const uint columns_, __constant const settings_t *s,
                       __global const ushort *core, __global ushort *strong)
{
    const int rows = (int)rows_, columns = (int)columns_, words = (columns + 15) / 16;
    const int word = (int)get_global_id(0), row = (int)get_global_id(1);
    const uint frame = first + (uint)get_global_id(2);
    if (word >= words)
        return;
    __global const PIXEL *raw = (__global const PIXEL *)(frames + offsets[frame]);
    __global const ushort *map = core + (size_t)frame * rows * words;
    const int16 box = (LANES >= (uint16)(6 - RADIUS)) & (LANES <= (uint16)(10 + RADIUS));
    uint found = 0;
    for (uint left_over = map[(size_t)row * words + word]; left_over; left_over &= left_over - 1) {
        const uint bit = left_over & -left_over;
        const int column = word * 16 + 31 - (int)clz(bit);
        const ulong value = whole(raw[(size_t)row * columns + column]);
        if (value <= s->threshold)
            continue;
        SUM16 sum = 0;
        for (int r = max(row - RADIUS - 2, 0); r < min(row + RADIUS + 3, rows); r++) {
            int16 valid;
            const uint16 values = pixels16(raw, good, r, column - 8, rows, columns, s, &valid);
            const int cores = (int)bits_at(map + (size_t)r * words, words, column - 8, 0);
            sum += packed16(values, valid & box & (((int16)(cores) & LANE_BITS) == (int16)(0)));
        }
        ulong x = 0, m = 0;
        SUM parts[16];
        vstore16(sum, 0, parts);
        for (int lane = 0; lane < 16; lane++) {
            x += parts[lane] & VALUE_MASK;
            m += parts[lane] >> COUNT_SHIFT;
        }
        /* Rarely more than a few pixels of a frame come here: no float goes first. */
        const real mean = m >= 2 ? real_div(real_of(x), m) : real_make(0, 0);
        const real width = real_sqrt(real_mul(real_make(s->gain_m, s->gain_e), mean));
        const real limit = real_add(mean, real_mul(real_make(s->strong_m, s->strong_e), width));
        if (!real_above(limit, real_of(value)))
            found |= bit;
    }
    strong[((size_t)frame * rows + row) * words + word] = (ushort)found;
}

/* Number of strong pixels in each strip of ROWS rows.
 * @param counts  [frames][strips]
 * global size: strips, frames */
__kernel void count_strong(const uint first, const uint rows, const uint words, __global const ushort *strong,
                           __global uint *counts)
{
    const uint strip = (uint)get_global_id(0), strips = (uint)get_global_size(0);
    const uint frame = first + (uint)get_global_id(1);
    __global const ushort *map = strong + (size_t)frame * rows * words;
    uint count = 0;
    for (uint i = strip * ROWS * words; i < min((strip + 1) * ROWS, rows) * words; i++)
        count += popcount(map[i]);
    counts[frame * strips + strip] = count;
}

/* Place and value of each strong pixel, in the order of the frame.
 * @param limit  places at most; list: index and value, [frames][limit][2]
 * global size: strips, frames */
__kernel void list_strong(__global const uchar *frames, __global const ulong *offsets, const uint first,
                          const uint rows, const uint columns, __global const ushort *strong,
                          __global const uint *counts, const uint limit, __global uint *list)
{
    const uint words = (columns + 15) / 16, strip = (uint)get_global_id(0), strips = (uint)get_global_size(0);
    const uint frame = first + (uint)get_global_id(1);
    __global const PIXEL *raw = (__global const PIXEL *)(frames + offsets[frame]);
    __global const ushort *map = strong + (size_t)frame * rows * words;
    __global uint *out = list + (size_t)frame * limit * 2;
    uint at = 0;
    for (uint before = 0; before < strip; before++)
        at += counts[frame * strips + before];
    if (counts[frame * strips + strip] == 0)
        return;
    for (uint row = strip * ROWS; row < min((strip + 1) * ROWS, rows); row++)
        for (uint word = 0; word < words; word++)
            for (uint bits = map[row * words + word]; bits; bits &= bits - 1) {
                const uint index = row * columns + word * 16 + 31 - clz(bits & -bits);
                if (at < limit) {
                    out[2 * at] = index;
                    out[2 * at + 1] = whole(raw[index]);
                }
                at++;
            }
}
