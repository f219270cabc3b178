/* What kernels that take 16 frames at once share: which pixels are left out, and the transposition of 16 pixels of 16
 * frames in registers. It stands before their own source and wants
 *   PIXEL, PIXEL16   scalar and vector type of a pixel
 *   LIMIT            uint, int or float: type in which limits are passed
 *   FLOATING         1: pixels may be no number
 *   HAS_SATURATION, HAS_DUMMY   1: leave out pixels at or above a limit, or within an interval
 */

#define LANES 16

#if HAS_SATURATION
#define ABOVE(v, TYPE) | ((v) >= (TYPE)((PIXEL)saturation))
#else
#define ABOVE(v, TYPE)
#endif
#if HAS_DUMMY
#define INSIDE(v, TYPE) | (((v) >= (TYPE)((PIXEL)dummy_low)) & ((v) <= (TYPE)((PIXEL)dummy_high)))
#else
#define INSIDE(v, TYPE)
#endif
#if FLOATING
#define BROKEN(v) (fabs(v) >= INFINITY) | isnan(v)
#else
#define BROKEN(v) ((v) != (v))
#endif
/* Whether pixels are left out: scalar, and vector comparison. */
#define LEFT_OUT(v, TYPE) (BROKEN(v) ABOVE(v, TYPE) INSIDE(v, TYPE))

/* The built-in any() goes element by element on CPUs. */
inline bool any_char(const char16 m)
{
    const ulong2 w = as_ulong2(m);
    return (w.x | w.y) != 0;
}

inline bool any_short(const short16 m)
{
    const ulong4 w = as_ulong4(m);
    const ulong2 pair = w.lo | w.hi;
    return (pair.x | pair.y) != 0;
}

inline bool any_int(const int16 m)
{
    return any_short(convert_short16(m));
}

#define AT_LEAST_ONE(v, TYPE) max(v, (TYPE)(1))

/* The interleaving of two vectors' lower and upper halves; four rounds of it transpose 16 by 16. */
inline PIXEL16 zip_low(const PIXEL16 a, const PIXEL16 b)
{
    PIXEL16 result;
    result.even = a.lo;
    result.odd = b.lo;
    return result;
}

inline PIXEL16 zip_high(const PIXEL16 a, const PIXEL16 b)
{
    PIXEL16 result;
    result.even = a.hi;
    result.odd = b.hi;
    return result;
}

#define EACH_LANE(DO)                                                                                              \
    DO(0, 0) DO(1, 1) DO(2, 2) DO(3, 3) DO(4, 4) DO(5, 5) DO(6, 6) DO(7, 7) DO(8, 8) DO(9, 9) DO(10, a) DO(11, b) \
        DO(12, c) DO(13, d) DO(14, e) DO(15, f)
#define DECLARE(v) PIXEL16 v##0, v##1, v##2, v##3, v##4, v##5, v##6, v##7, v##8, v##9, v##a, v##b, v##c, v##d, v##e, v##f
#define ZIP(from, into, low, high, to, next)    \
    into##to = zip_low(from##low, from##high);  \
    into##next = zip_high(from##low, from##high);
#define ZIP_ALL(from, into)                                                                                    \
    ZIP(from, into, 0, 8, 0, 1) ZIP(from, into, 1, 9, 2, 3) ZIP(from, into, 2, a, 4, 5) ZIP(from, into, 3, b, 6, 7) \
    ZIP(from, into, 4, c, 8, 9) ZIP(from, into, 5, d, a, b) ZIP(from, into, 6, e, c, d) ZIP(from, into, 7, f, e, f)
/* Four rounds, after which v0 holds the first pixel of all frames, v1 the second, and so on. */
#define TRANSPOSE    \
    ZIP_ALL(v, w)    \
    ZIP_ALL(w, v)    \
    ZIP_ALL(v, w)    \
    ZIP_ALL(w, v)
#define LOAD_LANE(k, name) v##name = vload16(0, raw[k] + i);

