/* What comes after a bitmap of pixels: erosion and the limit of dispersion-extended, number and list of strong pixels. Built
 * behind `spots.cl`.
 */
/* 16 bits of a bitmap's row from any column on; outside of the row `beyond`. */
inline uint bits_at(__global const ushort *row, const int words, const int column, const uint beyond)
{
    const int word = column >> 4;
    const uint low = word >= 0 && word < words ? row[word] : beyond;
    const uint high = word + 1 >= 0 && word + 1 < words ? row[word + 1] : beyond;
    return ((low | (high << 16)) >> (column & 15)) & 0xffff;
}

/* How many of the words from here on may be skipped, because no bit is set. */
inline int blank(__global const ushort *word, const int left_over)
{
#if SPAN_WORDS > 1
    if (left_over >= 16) {
        const ulong4 all = as_ulong4(vload16(0, word));
        if (((all.x | all.y) | (all.z | all.w)) == 0)
            return 16;
    }
#endif
    return *word == 0;
}

/* A word of the foreground without those bits that background is near of. */
inline ushort eroded(__global const ushort *map, const int row, const int word, const int rows, const int words)
{
    uint kept = map[(size_t)row * words + word];
    for (int r = max(row - RADIUS + 1, 0); r < min(row + RADIUS, rows) && kept; r++) {
        __global const ushort *line = map + (size_t)r * words + word;
        const ulong bits = (word > 0 ? line[-1] : 0xffff) | (ulong)line[0] << 16 |
                           (ulong)(word + 1 < words ? line[1] : 0xffff) << 32;
        for (int d = 1 - RADIUS; d < RADIUS; d++)
            kept &= (uint)(bits >> (16 + d));
    }
    return (ushort)kept;
}

/* A work item's words of a bitmap, row by row. */
#define FOR_SPAN(row, word, step)                                                                                      \
    for (int row = (int)get_global_id(1) * SPAN_ROWS; row < min(((int)get_global_id(1) + 1) * SPAN_ROWS, rows); row++) \
        for (int word = (int)get_global_id(0) * SPAN_WORDS, step;                                                      \
             word < min(((int)get_global_id(0) + 1) * SPAN_WORDS, words); word += step)

/* The second half: of the pixels that are not background those that no background is near.
 * @param foreground  of `scattered`; core: bitmap, [frames][rows][words]
 * global size: spans, of SPAN_WORDS and of SPAN_ROWS, frames */
__kernel void erode(__global const uchar *frames, __global const ulong *offsets, const uint first,
                    __global const char *good, const uint rows_, const uint columns_, __constant const settings_t *s,
                    __global const ushort *foreground, __global ushort *core)
{
    const int rows = (int)rows_, columns = (int)columns_, words = (columns + 15) / 16;
    const uint frame = first + (uint)get_global_id(2);
    __global const ushort *map = foreground + (size_t)frame * rows * words;
    __global ushort *out = core + (size_t)frame * rows * words;
    FOR_SPAN(row, word, step) {
        const size_t at = (size_t)row * words + word;
        const int skip = blank(map + at, words - word);
        step = max(skip, 1);
#if SPAN_WORDS > 1
        if (skip == 16)
            vstore16((ushort16)(0), 0, out + at);
        else
#endif
            out[at] = skip ? (ushort)0 : eroded(map, row, word, rows, words) & (ushort)~beyond(word * 16, columns);
    }
}

/* Whether a pixel reaches the limit that the sum x of m pixels of background sets. */
inline int reaches(const ulong m, const ulong x, const ulong value, __constant const settings_t *s)
{
    const float low = m >= 2 ? (float)x / (float)m : 0.0f, bound = low + s->strong * sqrt(s->gain * low);
    if ((float)value > bound * (1.0f + 2 * SLACK))
        return 1;
    if ((float)value < bound * (1.0f - 2 * SLACK))
        return 0;
    const real mean = m >= 2 ? real_div(real_of(x), m) : real_make(0, 0);
    const real width = real_sqrt(real_mul(real_make(s->gain_m, s->gain_e), mean));
    const real limit = real_add(mean, real_mul(real_make(s->strong_m, s->strong_e), width));
    return !real_above(limit, real_of(value));
}

/* The background around a pixel: sum and number. */
inline void background(__global const PIXEL *raw, __global const char *good, __global const ushort *map, const int row,
                       const int column, const int rows, const int columns, __constant const settings_t *s, ulong *x,
                       ulong *m)
{
    const int16 box = (LANES >= (uint16)(6 - RADIUS)) & (LANES <= (uint16)(10 + RADIUS));
    const int words = (columns + 15) / 16;
    ulong16 sum = 0;
    uint16 count = 0;
    for (int r = max(row - RADIUS - 2, 0); r < min(row + RADIUS + 3, rows); r++) {
        int16 valid;
        const uint16 values = pixels16(raw, good, r, column - 8, rows, columns, s, &valid);
        const int cores = (int)bits_at(map + (size_t)r * words, words, column - 8, 0);
        valid &= box & (((int16)(cores) & LANE_BITS) == (int16)(0)) & (values < (uint16)(BIG));
        sum += convert_ulong16(values & as_uint16(valid));
        count += as_uint16(valid) & 1;
    }
    ulong parts[16];
    uint counts[16];
    vstore16(sum, 0, parts);
    vstore16(count, 0, counts);
    *x = *m = 0;
    for (int lane = 0; lane < 16; lane++) {
        *x += parts[lane];
        *m += counts[lane];
    }
}

/* Of a word of the core the pixels that stand out of the background around them. */
inline ushort outlying(__global const PIXEL *raw, __global const char *good, __global const ushort *map, const int row,
                       const int word, const int rows, const int columns, __constant const settings_t *s)
{
    const int words = (columns + 15) / 16;
    /* values up to 65535 with their number from bit 24 on, which a box of (2 RADIUS + 5)^2 has room for */
    uint16 sums[2];
    int16 huge = 0;
    for (int side = 0; side < 2; side++) {
        const int column = word * 16 - 8 + 16 * side;
        uint16 sum = 0;
        for (int r = max(row - RADIUS - 2, 0); r < min(row + RADIUS + 3, rows); r++) {
            int16 valid;
            const uint16 value = pixels16(raw, good, r, column, rows, columns, s, &valid);
            const int cores = (int)bits_at(map + (size_t)r * words, words, column, 0);
            valid &= ((int16)(cores) & LANE_BITS) == (int16)(0);
#if WIDE
            valid &= value < (uint16)(BIG);
            huge |= valid & (value > (uint16)(65535));
#endif
            sum += (min(value, (uint16)(65535)) + (uint16)(1u << 24)) & as_uint16(valid);
        }
        sums[side] = sum;
    }
    const uint *middle = (const uint *)sums + 8;
    uint16 sum = vload16(0, middle);
    for (int d = 1; d <= RADIUS + 2; d++)
        sum += vload16(0, middle - d) + vload16(0, middle + d);
    const int exact = !any_of(huge);
    uint parts[16];
    vstore16(sum, 0, parts);
    uint found = 0;
    for (uint left_over = map[(size_t)row * words + word]; left_over; left_over &= left_over - 1) {
        const uint bit = left_over & -left_over, lane = 31 - clz(bit);
        const int column = word * 16 + (int)lane;
        const ulong value = whole(raw[(size_t)row * columns + column]);
        if (value <= s->threshold)
            continue;
        ulong x = parts[lane] & ((1u << 24) - 1), m = parts[lane] >> 24;
        if (!exact)
            background(raw, good, map, row, column, rows, columns, s, &x, &m);
        if (reaches(m, x, value, s))
            found |= bit;
    }
    return (ushort)found;
}

/* The last of dispersion-extended: the pixels of `core` that stand out of the background around them.
 * global size: spans, of SPAN_WORDS and of SPAN_ROWS, frames */
__kernel void extended(__global const uchar *frames, __global const ulong *offsets, const uint first,
                       __global const char *good, const uint rows_, const uint columns_, __constant const settings_t *s,
                       __global const ushort *core, __global ushort *strong)
{
    const int rows = (int)rows_, columns = (int)columns_, words = (columns + 15) / 16;
    const uint frame = first + (uint)get_global_id(2);
    __global const PIXEL *raw = (__global const PIXEL *)(frames + offsets[frame]);
    __global const ushort *map = core + (size_t)frame * rows * words;
    __global ushort *out = strong + (size_t)frame * rows * words;
    FOR_SPAN(row, word, step) {
        const size_t at = (size_t)row * words + word;
        const int skip = blank(map + at, words - word);
        step = max(skip, 1);
#if SPAN_WORDS > 1
        if (skip == 16)
            vstore16((ushort16)(0), 0, out + at);
        else
#endif
            out[at] = skip ? (ushort)0 : outlying(raw, good, map, row, word, rows, columns, s);
    }
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
    const uint end = min((strip + 1) * ROWS, rows) * words;
    for (uint i = strip * ROWS * words, step; i < end; i += step) {
        step = max(blank(map + i, (int)(end - i)), 1);
        for (uint bits = step > 1 ? 0 : map[i]; bits; bits &= bits - 1) {
            const uint index = i / words * columns + i % words * 16 + 31 - clz(bits & -bits);
            if (at < limit) {
                out[2 * at] = index;
                out[2 * at + 1] = whole(raw[index]);
            }
            at++;
        }
    }
}
