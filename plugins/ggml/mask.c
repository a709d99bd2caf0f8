/*
 * llama.cpp hands attention a dense mask for whatever a row sees. Mostly that is a causal pattern, with or without a window,
 * or all keys up to a length: said as such, invisible keys cost nothing and no mask is read in the kernels. The look costs
 * two bytes a score of one head, once for all heads and both products.
 */
#include <stdint.h>

#include "plugin.h"

enum { ZERO = 0x0000, HIDDEN = 0xfc00 };

struct row {
    size_t from, to; /* the visible keys */
    int plain;       /* 0: something that is neither 0 nor -inf, or a gap */
};

/* How many of n equal `value` from the start on; in pieces that compilers vectorise. */
static size_t run_of(const uint16_t *m, size_t n, uint16_t value) {
    enum { PIECE = 64 };
    size_t i = 0;
    for (; i + PIECE <= n; i += PIECE) {
        uint16_t other = 0;
        for (size_t j = 0; j < PIECE; j++) other |= (uint16_t)(m[i + j] ^ value);
        if (other) break;
    }
    while (i < n && m[i] == value) i++;
    return i;
}

static struct row look_row(const uint16_t *m, size_t n) {
    struct row r;
    r.from = run_of(m, n, HIDDEN);
    r.to = r.from + run_of(m + r.from, n - r.from, ZERO);
    r.plain = r.to > r.from && r.to + run_of(m + r.to, n - r.to, HIDDEN) == n;
    return r;
}

static const uint16_t *mask_row(const attn_tensor *mask, size_t b, size_t i) {
    return (const uint16_t *)((const char *)mask->data + (ptrdiff_t)b * mask->stride[0] +
                              (ptrdiff_t)i * mask->stride[2]);
}

/* What fits the rows so far: every one ends one key behind the one before it (steps), or where it ends (level); it begins
 * with the first one (flat), or `left` keys before its own end and at key 0 at the earliest (slides). */
struct fit {
    int steps, level, flat, slides;
    size_t first, left;
    int left_known;
};

static int fit_row(struct fit *f, const struct row *r, const struct row *before) {
    if (before && r->to != before->to + 1) f->steps = 0;
    if (before && r->to != before->to) f->level = 0;
    if (r->from != f->first) f->flat = 0;
    if (r->from) {
        const size_t left = r->to - 1 - r->from;
        if (f->left_known && left != f->left) f->slides = 0;
        f->left = left;
        f->left_known = 1;
    }
    return (f->steps || f->level) && (f->flat || (f->slides && f->steps));
}

/* Rows that begin at key 0 must not have more keys than the window lets them. */
static int window_holds(const struct fit *f, size_t longest_at_0) {
    return !f->left_known || longest_at_0 <= f->left + 1;
}

struct mask_shape mask_look(const attn_tensor *mask, ptrdiff_t *offsets, size_t *kv_lengths) {
    const struct mask_shape dense = {.dense = 1};
    const size_t n_seq = mask->size[0], n_q = mask->size[2], n_kv = mask->size[3];
    struct fit f = {.steps = 1, .level = 1, .flat = 1, .slides = 1};
    size_t longest_at_0 = 0;
    for (size_t b = 0; b < n_seq; b++) {
        struct row before = {0};
        for (size_t i = 0; i < n_q; i++) {
            const struct row r = look_row(mask_row(mask, b, i), n_kv);
            if (!r.plain) return dense;
            if (b == 0 && i == 0) f.first = r.from;
            if (!fit_row(&f, &r, i ? &before : NULL)) return dense;
            if (!r.from && r.to > longest_at_0) longest_at_0 = r.to;
            if (!i) offsets[b] = (ptrdiff_t)r.to - 1;
            kv_lengths[b] = r.to;
            before = r;
        }
    }
    if (f.flat) {
        for (size_t b = 0; b < n_seq; b++) {
            offsets[b] -= (ptrdiff_t)f.first;
            kv_lengths[b] -= f.first;
        }
        return (struct mask_shape){.causal = !f.level, .left = SIZE_MAX, .first = f.first};
    }
    if (!window_holds(&f, longest_at_0)) return dense;
    return (struct mask_shape){.causal = 1, .left = f.left};
}
