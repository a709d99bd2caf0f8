/* The broken slots of saboteurs.h. */
#include "differential/saboteurs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "order.h"

const struct attn_backend *honest;

/* ---- Broken linear slots ---- */

static float *last_y(const struct attn_linear_task *t) {
    return t->y + (ptrdiff_t)(t->m - 1) * t->y_row + (ptrdiff_t)(t->o1 - t->o0) - 1;
}

static void linear_skips_last_row(const struct attn_linear_task *t) {
    struct attn_linear_task less = *t;
    if (--less.m) honest->linear(&less);
}

static void linear_skips_last_column(const struct attn_linear_task *t) {
    const size_t n = t->o1 - t->o0;
    float *y = malloc(t->m * n * sizeof *y);
    struct attn_linear_task elsewhere = *t;
    elsewhere.y = y;
    elsewhere.y_row = (ptrdiff_t)n;
    honest->linear(&elsewhere);
    for (size_t i = 0; i < t->m; i++) memcpy(t->y + (ptrdiff_t)i * t->y_row, y + i * n, (n - 1) * sizeof *y);
    free(y);
}

static void linear_writes_one_past(const struct attn_linear_task *t) {
    honest->linear(t);
    last_y(t)[1] = 0;
}

static void linear_writes_one_before(const struct attn_linear_task *t) {
    honest->linear(t);
    t->y[-1] = 0;
}

static void linear_reads_one_past(const struct attn_linear_task *t) {
    honest->linear(t);
    (void)*(const volatile float *)(t->x + (ptrdiff_t)(t->m - 1) * t->x_row + (ptrdiff_t)t->k);
}

static void linear_reads_one_before(const struct attn_linear_task *t) {
    honest->linear(t);
    (void)*(const volatile float *)(t->x - 1);
}

static void linear_reads_past_panels(const struct attn_linear_task *t) {
    honest->linear(t);
    const size_t unit = ATTN_PANEL_UNIT, whole = (t->n + unit - 1) / unit * unit;
    if (t->o1 == t->n) (void)*(const volatile float *)((const float *)t->panels + whole * t->k);
}

static void linear_writes_an_input(const struct attn_linear_task *t) {
    honest->linear(t);
    *(volatile float *)(uintptr_t)t->x = *t->x;
}

static void linear_adds_to_old_output(const struct attn_linear_task *t) {
    const float old = *last_y(t);
    honest->linear(t);
    *last_y(t) += 0 * old;
}

static void linear_forgets_bias(const struct attn_linear_task *t) {
    struct attn_linear_task without = *t;
    without.bias = NULL;
    honest->linear(&without);
}

static void linear_is_inexact(const struct attn_linear_task *t) {
    honest->linear(t);
    *last_y(t) *= 1 + 0x1p-14f;
}

/* ---- Broken pool slots (a part has no outputs of its own to break) ---- */

static ptrdiff_t at(const struct attn_pool_task *t, size_t r, ptrdiff_t row, ptrdiff_t head) {
    const size_t i = t->first + r;
    return (ptrdiff_t)(i / t->group) * row + (ptrdiff_t)(i % t->group) * head;
}

static float *out_of(const struct attn_pool_task *t, size_t r) {
    return (float *)t->out + at(t, r, t->out_row, t->out_head);
}

/* A row of keys or values. */
static const float *row_of(const char *from, ptrdiff_t bytes) {
    return (const float *)(const void *)(from + bytes);
}

static size_t last_key(const struct attn_pool_task *t) {
    size_t end = 0;
    for (size_t r = 0; r < t->n_rows; r++) end = t->lo[r] < t->hi[r] && t->hi[r] > end ? t->hi[r] : end;
    return end;
}

static void pool_skips_last_row(const struct attn_pool_task *t) {
    struct attn_pool_task less = *t;
    if (--less.n_rows) honest->pool(&less);
}

static void pool_skips_last_column(const struct attn_pool_task *t) {
    struct attn_pool_task less = *t;
    if (--less.d_v) honest->pool(&less);
}

static void pool_skips_last_key(const struct attn_pool_task *t) {
    struct attn_pool_task less = *t;
    const size_t end = last_key(t);
    size_t hi[ATTN_ROWS_MAX * ATTN_BLOCKS_MAX];
    for (size_t r = 0; r < t->n_rows; r++) hi[r] = end && t->hi[r] == end ? end - 1 : t->hi[r];
    less.hi = hi;
    honest->pool(&less);
}

static void pool_ignores_mask(const struct attn_pool_task *t) {
    struct attn_pool_task open = *t;
    open.mask_kind = ATTN_MASK_NONE;
    honest->pool(&open);
}

static void pool_ignores_mask_heads(const struct attn_pool_task *t) {
    struct attn_pool_task one = *t;
    one.mask_head = 0;
    honest->pool(&one);
}

static void pool_ignores_ranges(const struct attn_pool_task *t) {
    struct attn_pool_task open = *t;
    size_t hi[ATTN_ROWS_MAX * ATTN_BLOCKS_MAX];
    for (size_t r = 0; r < t->n_rows; r++) hi[r] = t->lo[r] < t->hi[r] ? last_key(t) : t->hi[r];
    open.hi = hi;
    honest->pool(&open);
}

static void pool_multiplies_hidden(const struct attn_pool_task *t) {
    honest->pool(t);
    for (size_t r = 0; r < t->n_rows && !t->part; r++)
        for (size_t j = t->lo[r]; j < t->hi[r]; j++)
            *out_of(t, r) += 0 * *row_of(t->v, (ptrdiff_t)j * t->v_row);
}

static void pool_reads_one_key_past(const struct attn_pool_task *t) {
    honest->pool(t);
    if (last_key(t))
        (void)*(const volatile float *)(row_of(t->k, (ptrdiff_t)(last_key(t) - 1) * t->k_row) + t->d_k);
}

static void pool_reads_one_value_past(const struct attn_pool_task *t) {
    honest->pool(t);
    if (last_key(t))
        (void)*(const volatile float *)(row_of(t->v, (ptrdiff_t)(last_key(t) - 1) * t->v_row) + t->d_v);
}

static void pool_reads_one_query_past(const struct attn_pool_task *t) {
    honest->pool(t);
    (void)*(const volatile float *)((const float *)t->q + at(t, t->n_rows - 1, t->q_row, t->q_head) +
                                    (ptrdiff_t)t->d_k);
}

static void pool_writes_one_past(const struct attn_pool_task *t) {
    honest->pool(t);
    if (!t->part) out_of(t, t->n_rows - 1)[t->d_v] = 0;
}

static void pool_writes_next_row(const struct attn_pool_task *t) {
    honest->pool(t);
    if (!t->part && (t->first + t->n_rows) % t->group) /* its memory exists, but belongs to another block */
        *out_of(t, t->n_rows) = 0;
}

static void pool_trusts_scratch(const struct attn_pool_task *t) {
    const float old = *(const float *)t->scratch;
    honest->pool(t);
    if (!t->part) *out_of(t, 0) += 0 * old;
}

static void pool_writes_past_scratch(const struct attn_pool_task *t) {
    honest->pool(t);
    const struct attn_pool_size size = {
        .score = t->score, .d_k = t->d_k, .d_v = t->d_v, .heads = t->heads, .blocks = 1};
    const size_t bytes = (honest->pool_scratch(&size) + ATTN_ALIGN - 1) / ATTN_ALIGN * ATTN_ALIGN;
    *(volatile char *)((char *)t->scratch + bytes) = 0;
}

static void pool_is_inexact(const struct attn_pool_task *t) {
    honest->pool(t);
    if (!t->part) *out_of(t, t->n_rows - 1) *= 1 + 0x1p-10f;
}

static void pool_gives_lse_in_base_2(const struct attn_pool_task *t) {
    honest->pool(t);
    if (t->lse) t->lse[at(t, 0, t->lse_row, t->lse_head)] *= 1.44269504f;
}

static void pool_gives_scores_in_base_2(const struct attn_pool_task *t) {
    honest->pool(t);
    for (size_t j = 0; t->scores && j < t->n_weights; j++)
        t->scores[at(t, 0, t->scores_row, t->scores_head) + (ptrdiff_t)j] *= 1.44269504f;
}

static void pool_leaves_hidden_weights(const struct attn_pool_task *t) {
    struct attn_pool_task less = *t;
    less.n_weights = last_key(t);
    honest->pool(&less);
}

static size_t too_little_scratch(const struct attn_pool_size *size) { return honest->pool_scratch(size) / 2; }

static void merge_drops_last(const struct attn_pool_task *t, size_t n_chunks, size_t stride) {
    honest->merge(t, n_chunks > 1 ? n_chunks - 1 : 1, stride);
}

static void merge_repeats_first(const struct attn_pool_task *t, size_t n_chunks, size_t stride) {
    if (n_chunks > 1) memcpy(t->part + stride, t->part, sizeof(float) * t->n_rows);
    honest->merge(t, n_chunks, stride);
}

static void merge_skips_last_row(const struct attn_pool_task *t, size_t n_chunks, size_t stride) {
    float *const last = out_of(t, t->n_rows - 1), before = *last;
    honest->merge(t, n_chunks, stride);
    *last = before;
}

/* ---- Broken rules of attn_scoring ---- */

static void pool_sees_one_key_before(const struct attn_pool_task *t) {
    struct attn_pool_task more = *t;
    size_t lo[ATTN_ROWS_MAX * ATTN_BLOCKS_MAX];
    for (size_t r = 0; r < t->n_rows; r++) lo[r] = t->lo[r] - (t->lo[r] > 0 && t->lo[r] < t->hi[r]);
    more.lo = lo;
    honest->pool(&more);
}

static void pool_ignores_prefix(const struct attn_pool_task *t) {
    struct attn_pool_task less = *t;
    static const size_t none[ATTN_ROWS_MAX * ATTN_BLOCKS_MAX];
    less.also = none;
    honest->pool(&less);
}

static void pool_ignores_documents(const struct attn_pool_task *t) {
    struct attn_pool_task open = *t;
    open.q_documents = open.kv_documents = NULL;
    honest->pool(&open);
}

/* A sequence that begins a row late. */
static void pool_starts_one_row_late(const struct attn_pool_task *t) {
    struct attn_pool_task late = *t;
    late.k += t->k_row;
    late.v += t->v_row;
    honest->pool(&late);
}

static void pool_forgets_sinks(const struct attn_pool_task *t) {
    struct attn_pool_task without = *t;
    without.sinks = NULL;
    honest->pool(&without);
}

static void merge_forgets_sinks(const struct attn_pool_task *t, size_t n_chunks, size_t stride) {
    struct attn_pool_task without = *t;
    without.sinks = NULL;
    honest->merge(&without, n_chunks, stride);
}

static void pool_slopes_of_the_next_head(const struct attn_pool_task *t) {
    struct attn_pool_task other = *t;
    float *slopes = malloc(t->group * t->heads * sizeof *slopes);
    for (size_t h = 0; t->slopes && h < t->group * t->heads; h++)
        slopes[h] = t->slopes[(h + 1) % (t->group * t->heads)];
    if (t->slopes) other.slopes = slopes;
    honest->pool(&other);
    free(slopes);
}

static void pool_forgets_soft_cap(const struct attn_pool_task *t) {
    struct attn_pool_task without = *t;
    without.cap = 0;
    honest->pool(&without);
}

/* The score of a visible key in natural units, with an f32 mask added too early. */
static double score_capped_late(const struct attn_pool_task *t, size_t r, size_t j) {
    const float *q = (const float *)t->q + at(t, r, t->q_row, t->q_head),
                *k = row_of(t->k, (ptrdiff_t)j * t->k_row);
    const double cap = t->cap * 0.69314718055994530942;
    double s = ((const float *)t->mask)[at(t, r, t->mask_row, t->mask_head) + (ptrdiff_t)j * t->mask_key];
    for (size_t i = 0; i < t->d_k; i++) s += (double)t->scale * q[i] * k[i];
    s = cap * tanh(s / cap);
    if (t->slopes)
        s -= t->slopes[(t->first + r) % t->group] *
             fabs((double)t->position + (double)((t->first + r) / t->group) - (double)j);
    return s;
}

static void pool_caps_after_mask(const struct attn_pool_task *t) {
    honest->pool(t);
    if (t->part || !(t->cap > 0) || t->mask_kind != ATTN_MASK_F32 || t->score != ATTN_SCORE_DOT || t->sinks ||
        t->q_documents || t->heads > 1)
        return;
    for (size_t r = 0; r < t->n_rows; r++)
        for (size_t c = 0; c < t->d_v; c++) {
            double sum = 0, all = 0;
            for (size_t j = t->lo[r]; j < t->hi[r]; j++) {
                const ptrdiff_t m = at(t, r, t->mask_row, t->mask_head) + (ptrdiff_t)j * t->mask_key;
                if (((const float *)t->mask)[m] == -INFINITY) continue;
                const double p = exp(score_capped_late(t, r, j));
                all += p;
                sum += p * row_of(t->v, (ptrdiff_t)j * t->v_row)[c];
            }
            if (all > 0 && !t->also[r]) out_of(t, r)[c] = (float)(sum / all);
        }
}

/* ---- Broken combine slots ---- */

static void combine_drops_last_part(const struct attn_combine_task *t) {
    struct attn_combine_task less = *t;
    less.n_parts -= t->n_parts > 1;
    honest->combine(&less);
}

static void combine_skips_last_row(const struct attn_combine_task *t) {
    struct attn_combine_task less = *t;
    if (--less.n_rows) honest->combine(&less);
}

static void combine_skips_last_column(const struct attn_combine_task *t) {
    float *const last = attn_combine_row(t, t->out, t->n_rows - 1) + t->out->size[3] - 1, before = *last;
    honest->combine(t);
    *last = before;
}

static void combine_reads_hidden(const struct attn_combine_task *t) {
    honest->combine(t);
    for (size_t i = 0; i < t->n_parts; i++)
        *attn_combine_row(t, t->out, 0) += 0 * *attn_combine_row(t, &t->outs[i], 0);
}

static void combine_ignores_lse(const struct attn_combine_task *t) {
    struct attn_combine_task same = *t;
    if (!t->n_parts) return;
    attn_tensor *lses = malloc(t->n_parts * sizeof *lses);
    for (size_t i = 0; i < t->n_parts; i++) lses[i] = t->lses[0];
    same.lses = lses;
    honest->combine(&same);
    free(lses);
}

static void combine_is_inexact(const struct attn_combine_task *t) {
    honest->combine(t);
    *attn_combine_row(t, t->out, t->n_rows - 1) *= 1 + 0x1p-12f;
}

static void combine_gives_lse_in_base_2(const struct attn_combine_task *t) {
    honest->combine(t);
    if (t->lse) *attn_combine_row(t, t->lse, 0) *= 1.44269504f;
}

static void combine_writes_one_past(const struct attn_combine_task *t) {
    honest->combine(t);
    attn_combine_row(t, t->out, t->n_rows - 1)[t->out->size[3]] = 0;
}

static void combine_reads_one_past(const struct attn_combine_task *t) {
    honest->combine(t);
    for (size_t i = 0; i < t->n_parts; i++)
        (void)*(const volatile float *)(attn_combine_row(t, &t->outs[i], t->n_rows - 1) + t->out->size[3]);
}

static void combine_writes_an_input(const struct attn_combine_task *t) {
    honest->combine(t);
    if (t->n_parts > 1) *attn_combine_row(t, &t->outs[1], 0) *= 2;
}

/* ---- All of them ---- */

#define LINEAR(slot, crash, in_calls) \
    { #slot, slot, NULL, NULL, NULL, crash, in_calls, NULL }
#define POOL(slot, crash, in_calls) \
    { #slot, NULL, slot, NULL, NULL, crash, in_calls, NULL }
#define MERGE(slot) \
    { #slot, NULL, NULL, slot, NULL, 0, 0, NULL }
#define COMBINE(slot, crash) \
    { #slot, NULL, NULL, NULL, NULL, crash, 0, slot }

const struct saboteur saboteurs[] = {
    LINEAR(linear_skips_last_row, 0, 1),
    LINEAR(linear_skips_last_column, 0, 1),
    LINEAR(linear_writes_one_past, 0, 0),
    LINEAR(linear_writes_one_before, 0, 0),
    LINEAR(linear_reads_one_past, 1, 0),
    LINEAR(linear_reads_one_before, 1, 0),
    LINEAR(linear_reads_past_panels, 1, 0),
    LINEAR(linear_writes_an_input, 1, 1),
    LINEAR(linear_adds_to_old_output, 0, 1),
    LINEAR(linear_forgets_bias, 0, 1),
    LINEAR(linear_is_inexact, 0, 0),
    POOL(pool_skips_last_row, 0, 1),
    POOL(pool_skips_last_column, 0, 1),
    POOL(pool_skips_last_key, 0, 1),
    POOL(pool_ignores_mask, 0, 1),
    POOL(pool_ignores_mask_heads, 0, 1),
    POOL(pool_ignores_ranges, 0, 1),
    POOL(pool_multiplies_hidden, 0, 0),
    POOL(pool_reads_one_key_past, 1, 0),
    POOL(pool_reads_one_value_past, 1, 0),
    POOL(pool_reads_one_query_past, 1, 0),
    POOL(pool_writes_one_past, 0, 1),
    POOL(pool_writes_next_row, 0, 0),
    POOL(pool_trusts_scratch, 0, 1),
    POOL(pool_writes_past_scratch, 1, 0),
    POOL(pool_is_inexact, 0, 0),
    POOL(pool_gives_lse_in_base_2, 0, 1),
    POOL(pool_gives_scores_in_base_2, 0, 1),
    POOL(pool_leaves_hidden_weights, 0, 1),
    POOL(pool_sees_one_key_before, 0, 1),
    POOL(pool_ignores_prefix, 0, 1),
    POOL(pool_ignores_documents, 0, 1),
    POOL(pool_starts_one_row_late, 0, 1),
    POOL(pool_forgets_sinks, 0, 1),
    POOL(pool_slopes_of_the_next_head, 0, 1),
    POOL(pool_forgets_soft_cap, 0, 1),
    POOL(pool_caps_after_mask, 0, 1),
    MERGE(merge_forgets_sinks),
    MERGE(merge_drops_last),
    MERGE(merge_repeats_first),
    MERGE(merge_skips_last_row),
    {"too_little_scratch", NULL, NULL, NULL, too_little_scratch, 0, 0,
     NULL}, /* writes into a guard, or into its canary */
    COMBINE(combine_drops_last_part, 0),
    COMBINE(combine_skips_last_row, 0),
    COMBINE(combine_skips_last_column, 0),
    COMBINE(combine_reads_hidden, 0),
    COMBINE(combine_ignores_lse, 0),
    COMBINE(combine_is_inexact, 0),
    COMBINE(combine_gives_lse_in_base_2, 0),
    COMBINE(combine_writes_one_past, 0),
    COMBINE(combine_reads_one_past, 1),
    COMBINE(combine_writes_an_input, 1),
};

const size_t n_saboteurs = sizeof saboteurs / sizeof *saboteurs;
