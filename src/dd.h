/*
 * Numbers of some 104 bits as unevaluated sums of two doubles (double-double arithmetic: Dekker, 1971), for
 * what is computed once a call. Only + - * / and fma, so the bits are the same on every machine.
 */
#ifndef ATTN_DD_H
#define ATTN_DD_H

#include <math.h>

struct dd {
    double hi, lo; /* |lo| is at most half a unit in the last place of hi */
};

static inline struct dd dd_of(double x) { return (struct dd){x, 0.0}; }

/* a + b where |a| >= |b| or a is 0. */
static inline struct dd dd_quick(double a, double b) {
    const double s = a + b;
    return (struct dd){s, b - (s - a)};
}

static inline struct dd dd_add(struct dd a, struct dd b) {
    const double s = a.hi + b.hi, v = s - a.hi, rest = (a.hi - (s - v)) + (b.hi - v);
    const double t = a.lo + b.lo, w = t - a.lo, last = (a.lo - (t - w)) + (b.lo - w);
    const struct dd sum = dd_quick(s, rest + t);
    return dd_quick(sum.hi, sum.lo + last);
}

static inline struct dd dd_minus(struct dd a) { return (struct dd){-a.hi, -a.lo}; }

static inline struct dd dd_sub(struct dd a, struct dd b) { return dd_add(a, dd_minus(b)); }

static inline struct dd dd_mul(struct dd a, struct dd b) {
    const double p = a.hi * b.hi, rest = fma(a.hi, b.hi, -p);
    return dd_quick(p, rest + (a.hi * b.lo + a.lo * b.hi));
}

/* Long division: three quotients of one double each. */
static inline struct dd dd_div(struct dd a, struct dd b) {
    const double q0 = a.hi / b.hi;
    struct dd rest = dd_sub(a, dd_mul(b, dd_of(q0)));
    const double q1 = rest.hi / b.hi;
    rest = dd_sub(rest, dd_mul(b, dd_of(q1)));
    return dd_add(dd_quick(q0, q1), dd_of(rest.hi / b.hi));
}

/* A power of two times a: exact. */
static inline struct dd dd_scale(struct dd a, int exponent) {
    return (struct dd){ldexp(a.hi, exponent), ldexp(a.lo, exponent)};
}

static inline struct dd dd_ln2(void) { /* check: ln 2 */
    return (struct dd){0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};
}

/* Natural logarithm of x > 0. With x = m 2^e, m in [0.7, 1.42]: ln m = 2 atanh z, z = (m - 1) / (m + 1), |z| < 0.18;
 * the series is cut at z^45, below 2^-110. */
static inline struct dd dd_log(double x) {
    int e;
    double m = frexp(x, &e);
    if (m < 0.71) {
        m *= 2.0;
        e--;
    }
    const struct dd one = dd_of(1.0), z = dd_div(dd_sub(dd_of(m), one), dd_add(dd_of(m), one));
    const struct dd square = dd_mul(z, z);
    struct dd sum = dd_of(0.0);
    for (int k = 43; k >= 1; k -= 2) sum = dd_add(dd_mul(sum, square), dd_div(one, dd_of(k)));
    return dd_add(dd_mul(dd_of(e), dd_ln2()), dd_scale(dd_mul(sum, z), 1));
}

/* e^x for |x| below 700. With x = k ln 2 + 512 r, |r| < 2^-10: e^r - 1 by its series, cut at r^11, below 2^-130, and
 * (1 + s)^2 - 1 = 2 s + s^2 nine times. */
static inline struct dd dd_exp(struct dd x) {
    const double k = rint(x.hi / dd_ln2().hi);
    const struct dd r = dd_scale(dd_sub(x, dd_mul(dd_of(k), dd_ln2())), -9);
    struct dd s = dd_of(0.0);
    for (int i = 10; i >= 1; i--) s = dd_div(dd_mul(r, dd_add(dd_of(1.0), s)), dd_of(i));
    for (int i = 0; i < 9; i++) s = dd_add(dd_scale(s, 1), dd_mul(s, s));
    return dd_scale(dd_add(dd_of(1.0), s), (int)k);
}

#endif
