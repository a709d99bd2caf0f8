/* The oracle of bound.h. The letters and the numbers of roundings are those of docs/numerics.md. */
#include "bound.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "order.h"

#define U32 0x1p-24     /* unit roundoff of f32 */
#define U64 0x1p-53     /* and of double */
#define TINY32 0x1p-149 /* the smallest f32: bounds what an operation loses by underflow */
#define LOG2E 1.44269504088896340736
#define LN2 0.69314718055994530942

enum attn_bound_arith attn_bound_arith_of(const char *backend) {
    return strcmp(backend, "scalar") == 0 ? ATTN_BOUND_SCALAR : ATTN_BOUND_SIMD;
}

int attn_bound_holds(double got, double want, double err) {
    if (isinf(err) && !isnan(want)) return 1;
    if (isnan(got) || isnan(want)) return isnan(got) && isnan(want);
    return got == want || fabs(got - want) <= err;
}

static double gamma_n(double n, double u) { return n * u < 0.5 ? n * u / (1 - n * u) : INFINITY; }

/* Bound on the relative effect of n roundings of the backend, plus that of the oracle's own n64. */
static double rounding(enum attn_bound_arith a, double n, double n64) {
    return (a == ATTN_BOUND_SIMD ? gamma_n(n, U32) : gamma_n(n64, U64)) + gamma_n(n64, U64);
}

/* A bound as given out: the scalar backend rounds its result to f32; no bound is NaN. */
static double finish(enum attn_bound_arith a, double value, double err) {
    if (a == ATTN_BOUND_SCALAR) err += U32 * (fabs(value) + err) + TINY32;
    return isnan(value) ? 0 : isfinite(err) && fabs(value) + err < FLT_MAX ? err : INFINITY;
}

/* ---- Projection ----------------------------------------------------------------------------------- */

void attn_bound_linear_row(enum attn_bound_arith arith, const double *x, const double *x_err, const float *w,
                           size_t w_row, const float *bias, size_t n, size_t k, double *y, double *y_err) {
    size_t blocks = (k + ATTN_K_BLOCK - 1) / ATTN_K_BLOCK;
    double steps = (double)(k < ATTN_K_BLOCK ? k : ATTN_K_BLOCK) + (double)blocks - 1;
    double g = rounding(arith, steps, (double)k + 2);
    for (size_t o = 0; o < n; o++) {
        const float *row = w + o * w_row;
        double sum = bias ? bias[o] : 0, mag = fabs(sum), carried = 0;
        for (size_t i = 0; i < k; i++) {
            double t = x[i] * row[i];
            sum += t;
            mag += fabs(t);
        }
        for (size_t i = 0; x_err && i < k; i++) carried += x_err[i] * fabs((double)row[i]);
        double err = carried + g * (mag + carried) + (double)(k + blocks) * TINY32;
        if (mag + carried > FLT_MAX) err = INFINITY;
        y[o] = sum;
        y_err[o] = finish(arith, sum, err);
    }
}

/* ---- Scores --------------------------------------------------------------------------------------- */

/* Sums over the inner index: the score without its scale, the errors carried into it, the magnitude that
 * roundings act on, and what underflow may lose. */
struct sums {
    double sum, carried, mag, lost;
};

static struct sums dot_sums(const struct attn_bound_row *r, size_t j, double c) {
    const double *k = r->k + j * r->d_k;
    struct sums s = {0};
    for (size_t i = 0; i < r->d_k; i++) {
        double q = fabs(r->q[i]), kk = fabs(k[i]);
        double qe = r->q_err ? r->q_err[i] : 0, ke = r->k_err ? r->k_err[j * r->d_k + i] : 0;
        s.sum += r->q[i] * k[i];
        s.carried += qe * kk + (q + qe) * ke;
        s.mag += (q + qe) * (kk + ke);
        s.lost += TINY32 * (kk + ke + 1);
        if (r->arith == ATTN_BOUND_SIMD && (q + qe) * c > FLT_MAX) s.mag = INFINITY;
    }
    return s;
}

static struct sums additive_sums(const struct attn_bound_row *r, size_t j) {
    const double *k = r->k + j * r->d_k;
    struct sums s = {0};
    double g_sum = rounding(r->arith, 1, 1), g_tanh = rounding(r->arith, 7, 7); /* SLEEF: 3.5 ulp are 7 u */
    for (size_t i = 0; i < r->d_k; i++) {
        double a = r->q[i] + k[i], t = tanh(a), w = fabs(r->w[i]);
        double d = (r->q_err ? r->q_err[i] : 0) + (r->k_err ? r->k_err[j * r->d_k + i] : 0);
        d += g_sum * (fabs(a) + d) + TINY32;
        double edge = fabs(a) > d ? 1 / cosh(fabs(a) - d) : 1; /* the derivative's largest value: edge^2 */
        double te = fmin(d * edge * edge, 2);
        /* SIMD: absolute from 1/16 on (1 - 2 / (1 + e^2a e^2b)), relative below, and for the scalar's tanh */
        int absolute = r->arith == ATTN_BOUND_SIMD && fabs(a) + d >= 0.0625;
        te += g_tanh * (absolute ? 1 : fabs(t) + te) + TINY32;
        s.sum += r->w[i] * t;
        s.carried += w * te;
        s.mag += w * (fabs(t) + te);
        s.lost += TINY32 * 3;
    }
    return s;
}

/* Soft cap of a score in log2 units, s within e: C tanh(s / C), C = cap log2 e. Returns the new error. C and 1 / C are f32
 * in every backend. */
static double cap_score(const struct attn_bound_row *r, double *s, double e) {
    double cap = r->soft_cap * LOG2E, x = *s / cap, t = tanh(x);
    double constants = gamma_n(3, U32), g_x = rounding(r->arith, 1, 3) + constants;
    double d = (e + g_x * (fabs(*s) + e)) / cap + TINY32;
    double edge = fabs(x) > d ? 1 / cosh(fabs(x) - d) : 1;
    double te = fmin(d * edge * edge, 2);
    te += rounding(r->arith, 7, 7) * (fabs(t) + te) + TINY32;
    *s = cap * t;
    if (isnan(e)) return NAN;
    return cap * (te + g_x * (fabs(t) + te)) + TINY32;
}

/* Score of key j in log2 units; *err bounds the backend's error. */
static double score(const struct attn_bound_row *r, size_t j, double *err) {
    double c = r->scale * LOG2E, ac = fabs(c), d = (double)r->d_k;
    struct sums t = r->w ? additive_sums(r, j) : dot_sums(r, j, ac);
    double s = c * t.sum;
    double e = ac * (t.carried + (rounding(r->arith, d + 3, d + 4) + r->scale_err) * t.mag) + t.lost +
               TINY32 * t.mag;
    if (r->arith == ATTN_BOUND_SIMD && ac * t.mag > FLT_MAX) e = INFINITY;
    if (r->soft_cap > 0) e = cap_score(r, &s, e);
    if (r->slope != 0) {
        double m = r->slope * fabs(r->position - (double)j) * LOG2E;
        s -= m;
        e += rounding(r->arith, 4, 4) * fabs(m) + rounding(r->arith, 1, 1) * (fabs(m) + fabs(s) + e) + TINY32;
    }
    if (r->mask && r->mask[j] != 0) {
        double m = r->mask[j] * LOG2E;
        s += m;
        e += rounding(r->arith, 1, 1) * (fabs(m) + fabs(s) + e) + TINY32;
    }
    if (s + e <= -FLT_MAX || s == -INFINITY) { /* the clamp leaves no error */
        *err = 0;
        return -FLT_MAX;
    }
    *err = isnan(e) ? INFINITY : e;
    return s < -FLT_MAX ? -FLT_MAX : s;
}

/* ---- Softmax of one row --------------------------------------------------------------------------- */

struct softmax {
    size_t n;                /* visible keys */
    size_t *key;             /* their positions */
    double *s, *e, *w, *up;  /* score and its error, weight and the error it shares with the denominator */
    double top, log2_sum;    /* S, L */
    double high, low, stale; /* S_hi, T_lo, D */
    double chunk_keys, chunk_tiles, rescales, chunks; /* N, N_t, R, C */
    double shared;                                    /* A, the sum of up */
    double max_delta;                                 /* largest error of an exponent */
    int nan;
    int sink; /* s[n], e[n], w[n] and up[n] are a sink's */
};

/* Walks the visible keys tile by tile: lowest maximum of a tile, and how often the running maximum of
 * the worst chunk can have moved. */
static void count_steps(struct softmax *m) {
    size_t i = 0, chunk = SIZE_MAX, keys = 0, tiles = 0, moves = 0;
    double seen = 0;
    m->low = INFINITY;
    while (i < m->n) {
        size_t tile = m->key[i] / ATTN_KEY_TILE, at = m->key[i] / ATTN_CHUNK;
        double hi = -INFINITY, lo = -INFINITY;
        int fresh = at != chunk;
        if (fresh) {
            chunk = at;
            keys = tiles = moves = 0;
            m->chunks++;
        }
        for (; i < m->n && m->key[i] / ATTN_KEY_TILE == tile; i++, keys++) {
            hi = fmax(hi, m->s[i] + m->e[i]);
            lo = fmax(lo, m->s[i] - m->e[i]);
        }
        tiles++;
        moves += !fresh && hi > seen;
        seen = fresh ? lo : fmax(seen, lo);
        m->low = fmin(m->low, lo);
        m->high = fmax(m->high, hi);
        m->chunk_keys = fmax(m->chunk_keys, (double)keys);
        m->chunk_tiles = fmax(m->chunk_tiles, (double)tiles);
        m->rescales = fmax(m->rescales, (double)moves);
    }
}

static void limit_rescales(struct softmax *m) {
    double spread = m->high - m->low, size = U32 * (fabs(m->high) + fabs(m->low) + ATTN_RESCALE);
    m->stale = fmin(ATTN_RESCALE + size, spread);
    if (size <= 1) /* otherwise m + 8 may round to m */
        m->rescales = fmin(m->rescales, floor(spread / (ATTN_RESCALE - 1)));
}

/* A sink is merged as a chunk of its own would be whose one key has no value, wherever that is done. */
static void add_sink(const struct attn_bound_row *r, struct softmax *m) {
    double s = *r->sink * LOG2E, e = rounding(r->arith, 2, 2) * fabs(s) + TINY32;
    m->s[m->n] = s;
    m->e[m->n] = e;
    m->sink = 1;
    m->top = fmax(m->top, s);
    m->high = fmax(m->high, s + e);
    m->low = fmin(m->low, s - e);
    m->chunks++;
}

static void gather(const struct attn_bound_row *r, struct softmax *m) {
    m->top = m->high = -INFINITY;
    for (size_t j = 0; j < r->n_kv; j++) {
        if (r->mask && r->mask[j] == -INFINITY) continue;
        m->key[m->n] = j;
        m->s[m->n] = score(r, j, &m->e[m->n]);
        m->nan |= isnan(m->s[m->n]) || m->s[m->n] == INFINITY;
        m->top = fmax(m->top, m->s[m->n++]);
    }
}

/* Weights, and what they share, over the keys gathered and, with_sink, the row's sink. */
static void softmax_row(const struct attn_bound_row *r, struct softmax *m, int with_sink) {
    double sum = 0;
    m->shared = m->max_delta = m->chunks = m->chunk_keys = m->chunk_tiles = m->rescales = 0;
    m->high = -INFINITY;
    if (m->nan || (m->n == 0 && !with_sink)) return;
    count_steps(m);
    if (with_sink) add_sink(r, m);
    size_t n = m->n + (m->sink ? 1 : 0);
    limit_rescales(m);
    for (size_t i = 0; i < n; i++) sum += exp2(m->s[i] - m->top);
    m->log2_sum = m->top + log2(sum);
    double factors = rounding(r->arith, 2 * (m->rescales + m->chunks), 2); /* exp2: 1 ulp is 2 u */
    for (size_t i = 0; i < n; i++) {
        /* s - top first: log2_sum loses the digits of log2(sum) when top is large */
        double path = m->high - m->s[i] + m->e[i] + 2 * m->stale;
        double delta = m->e[i] + rounding(r->arith, 1, 2) * path, x = m->s[i] - m->top - log2(sum);
        m->w[i] = exp2(m->s[i] - m->top) / sum;
        m->up[i] =
            delta < 1 ? m->w[i] * expm1(delta * LN2 + log1p(factors)) : exp2(x + delta) * (1 + factors);
        m->shared += m->up[i];
        m->max_delta = fmax(m->max_delta, delta + log1p(factors) / LN2);
    }
    if (!(m->shared < 1)) m->shared = 1;
}

/* ---- What a row gives ----------------------------------------------------------------------------- */

static double denominator_steps(const struct softmax *m) {
    return 4 + m->chunk_tiles + m->rescales + 2 * (m->chunks - 1);
}

/* What underflow may take from one probability on its way to the end, relative to the denominator: a
 * probability is at most 2^ATTN_RESCALE, and a factor that it meets is off by at most TINY32. */
static double tiny(const struct softmax *m) { return 1024 * TINY32 * (m->rescales + m->chunks + 1); }

static void pool_column(const struct attn_bound_row *r, const struct softmax *m, size_t c, double *out,
                        double *out_err) {
    double sum = 0, n = (double)m->n;
    for (size_t i = 0; i < m->n; i++) sum += m->w[i] * r->v[m->key[i] * r->d_v + c];
    double moved = 0, far = 0, mag = 0, big = 0, carried = 0, worst = 0, total = 0;
    for (size_t i = 0; i < m->n; i++) {
        size_t at = m->key[i] * r->d_v + c;
        double ve = r->v_err ? r->v_err[at] : 0, w = m->w[i] + m->up[i], dist = fabs(r->v[at] - sum);
        double size = fabs(r->v[at]) + ve;
        moved += m->up[i] * dist;
        far = fmax(far, dist);
        mag += w * size;
        big = fmax(big, size);
        carried += w * ve;
        worst = fmax(worst, ve);
        total += size;
    }
    if (m->sink) { /* a value of 0 */
        moved += m->up[m->n] * fabs(sum);
        far = fmax(far, fabs(sum));
    }
    if (m->shared < 1) { /* otherwise what holds for every convex combination of the values */
        double rest = 1 - m->shared;
        far = fmin(moved / rest, far);
        big = fmin(mag / rest, big);
        worst = fmin(carried / rest, worst);
    }
    double steps = m->chunk_keys + m->rescales + 2 * (m->chunks - 1) + 2 * denominator_steps(m) + 2;
    double err = far + worst + rounding(r->arith, steps, 3 * n + 6) * big;
    err += tiny(m) * (total + n * (big + 1));
    if (r->arith == ATTN_BOUND_SIMD && 512 * total > FLT_MAX) /* probabilities reach 2^ATTN_RESCALE */
        err = INFINITY;
    if (out) *out = sum;
    if (out_err) *out_err = finish(r->arith, sum, err);
}

/* Error of log2 of the denominator, in log2 units. */
static double log2_sum_error(const struct attn_bound_row *r, const struct softmax *m) {
    double n = (double)m->n + m->sink, g = rounding(r->arith, denominator_steps(m), n + 2) + tiny(m) * n;
    double e = m->shared < 1 ? fmin(-log1p(-m->shared) / LN2, m->max_delta) : m->max_delta;
    return e + g / (1 - g) / LN2;
}

static void give_lse(const struct attn_bound_row *r, const struct softmax *m, double *lse, double *lse_err) {
    if (m->nan || (m->n == 0 && !m->sink)) {
        if (lse) *lse = m->nan ? NAN : -INFINITY;
        if (lse_err) *lse_err = 0;
        return;
    }
    double value = m->log2_sum * LN2, e = log2_sum_error(r, m);
    /* |log2 l|: the maximum may be stale by D */
    double log_l = m->log2_sum - m->top + m->stale + (m->high - m->top) + e;
    double err = LN2 * (e + rounding(r->arith, 2, 2) * log_l);
    err += rounding(r->arith, 3, 6) * (fabs(value) + err) + TINY32;
    if (lse) *lse = value;
    if (lse_err) *lse_err = finish(r->arith, value, err);
}

static void give_weights(const struct attn_bound_row *r, const struct softmax *m,
                         const struct attn_bound_result *to) {
    double g = rounding(r->arith, 2 * denominator_steps(m) + 2, 2 * (double)m->n + 6);
    double rest = 1 - m->shared, lost = tiny(m) * (double)(m->n + 1);
    for (size_t j = 0; j < r->n_kv; j++) {
        if (to->weights) to->weights[j] = 0;
        if (to->weights_err) to->weights_err[j] = 0;
    }
    for (size_t i = 0; i < m->n; i++) {
        double w = m->w[i], err = 1;
        if (rest > 0) err = fmin(1, (m->up[i] + w * m->shared + g * (w + m->up[i])) / rest) + lost;
        if (to->weights) to->weights[m->key[i]] = m->nan ? NAN : w;
        if (to->weights_err) to->weights_err[m->key[i]] = m->nan ? 0 : finish(r->arith, w, err);
    }
}

/* From base 2 to natural units. */
static void give_scores(const struct attn_bound_row *r, const struct softmax *m,
                        const struct attn_bound_result *to) {
    for (size_t j = 0; j < r->n_kv; j++) {
        if (to->scores) to->scores[j] = -INFINITY;
        if (to->scores_err) to->scores_err[j] = 0;
    }
    for (size_t i = 0; i < m->n; i++) {
        double s = m->s[i] * LN2, e = LN2 * m->e[i],
               err = e + rounding(r->arith, 2, 3) * (fabs(s) + e) + TINY32;
        if (fabs(m->s[i]) + m->e[i] > FLT_MAX) err = INFINITY; /* in base 2 it may overflow */
        if (to->scores) to->scores[m->key[i]] = s;
        if (to->scores_err) to->scores_err[m->key[i]] = finish(r->arith, s, err);
    }
}

int attn_bound_pool_row(const struct attn_bound_row *r, const struct attn_bound_result *to) {
    struct softmax m = {0};
    size_t n = r->n_kv + 1; /* and a sink */
    int sink = r->sink && *r->sink != -INFINITY;
    double *memory = calloc(n, 4 * sizeof *memory + sizeof *m.key);
    if (!memory) return -1;
    m.s = memory;
    m.e = m.s + n;
    m.w = m.e + n;
    m.up = m.w + n;
    m.key = (size_t *)(void *)(m.up + n);
    gather(r, &m);
    softmax_row(r, &m, 0);
    give_lse(r, &m, to->lse, to->lse_err);
    if (sink) softmax_row(r, &m, 1);
    give_lse(r, &m, to->lse_sinks, to->lse_sinks_err);
    for (size_t c = 0; c < r->d_v; c++) {
        double *out = to->out ? to->out + c : NULL, *err = to->out_err ? to->out_err + c : NULL;
        if (m.n > 0 && !m.nan) {
            pool_column(r, &m, c, out, err);
            continue;
        }
        if (out) *out = m.nan ? NAN : 0;
        if (err) *err = 0;
    }
    give_weights(r, &m, to);
    give_scores(r, &m, to);
    free(memory);
    return 0;
}
