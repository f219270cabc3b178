/* Double-precision arithmetic in whole numbers: multiplication, division, addition and square root of positive numbers, each
 * rounded to the nearest double, half to even, as IEEE 754 asks. A pixel whose verdict hangs on the last bit so gets
 * the one that DIALS's doubles give it, on devices that have no doubles, too.
 *
 * A number is m * 2^e with bit 52 of m set; zero is m = 0.
 */
typedef struct { ulong m; int e; } real;

inline real real_make(ulong m, int e)
{
    real r;
    r.m = m;
    r.e = m ? e : 0;
    return r;
}

/* q * 2^e, q of 53 to 64 bits; `sticky`: more bits below, not all zero */
inline real real_round(ulong q, int e, int sticky)
{
    const int over = 11 - (int)clz(q);
    if (over == 0)
        return real_make(q, e);
    const ulong rest = q & ((1UL << over) - 1), middle = 1UL << (over - 1);
    q >>= over;
    e += over;
    if (rest > middle || (rest == middle && (sticky || (q & 1))))
        q++;
    if (q >> 53) {
        q >>= 1;
        e++;
    }
    return real_make(q, e);
}

inline real real_of(ulong v)
{
    if (v == 0)
        return real_make(0, 0);
    const int zeros = (int)clz(v);
    if (zeros >= 11)
        return real_make(v << (zeros - 11), 11 - zeros);
    return real_round(v, 0, 0);
}

inline real real_mul(real a, real b)
{
    if (a.m == 0 || b.m == 0)
        return real_make(0, 0);
    /* 105 or 106 bits: the upper 64 and whether anything is below */
    const ulong high = mul_hi(a.m, b.m), low = a.m * b.m;
    const ulong q = (high << 22) | (low >> 42);
    return real_round(q, a.e + b.e + 42, (low & ((1UL << 42) - 1)) != 0);
}

/* a / n for n below 2^9 */
inline real real_div(real a, ulong n)
{
    if (a.m == 0)
        return a;
    const ulong wide = a.m << 11; /* 64 bits, so the quotient has at least 55 */
    const ulong q = wide / n;
    return real_round(q, a.e - 11, wide - q * n != 0);
}

inline real real_add(real a, real b)
{
    if (a.m == 0)
        return b;
    if (b.m == 0)
        return a;
    if (a.e < b.e) {
        const real c = a;
        a = b;
        b = c;
    }
    const int apart = a.e - b.e;
    if (apart > 60)
        return real_round(a.m << 10, a.e - 10, 1);
    const ulong below = b.m << 10;
    const ulong sum = (a.m << 10) + (below >> apart);
    return real_round(sum, a.e - 10, (below & ((1UL << apart) - 1)) != 0);
}

inline real real_sqrt(real a)
{
    if (a.m == 0)
        return a;
    ulong m = a.m;
    int e = a.e;
    if (e & 1) {
        m <<= 1;
        e--;
    }
    /* root of m * 2^52, 106 bits, two at a time */
    ulong root = 0, rest = 0;
    for (int pair = 52; pair >= 0; pair--) {
        const ulong bits = pair >= 26 ? (m >> (2 * pair - 52)) & 3 : 0;
        rest = (rest << 2) | bits;
        const ulong trial = (root << 2) | 1;
        root <<= 1;
        if (rest >= trial) {
            rest -= trial;
            root |= 1;
        }
    }
    if (rest > root)
        root++;
    e = (e - 52) / 2;
    if (root >> 53) {
        root >>= 1;
        e++;
    }
    return real_make(root, e);
}

/* a > b; both positive or zero */
inline int real_above(real a, real b)
{
    if (a.m == 0 || b.m == 0)
        return a.m > b.m;
    return a.e != b.e ? a.e > b.e : a.m > b.m;
}
