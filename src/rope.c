#include "rope.h"

#include <math.h>
#include <string.h>

#include "dd.h"
#include "size.h"

/* ---- Parameters --------------------------------------------------------------------------------------- */

static attn_status bad(attn_context *c, const char *name, const char *member, double value,
                       const char *want) {
    return attn_fail(c, ATTN_ERROR_ARGUMENT, "%s.%s is %g; it must be %s", name, member, value, want);
}

static int is_positive(float x) { return x > 0.0f && isfinite(x); }

/* *x = value, or what 0 means. */
static attn_status positive(attn_context *c, const char *name, const char *member, float value,
                            float otherwise, double *x) {
    if (value == 0.0f) value = otherwise;
    if (!is_positive(value)) return bad(c, name, member, (double)value, "a finite number above 0");
    *x = (double)value;
    return ATTN_OK;
}

static attn_status read_dims(attn_context *c, const char *name, const attn_rope *r, size_t columns,
                             struct attn_rope_plan *p) {
    const size_t dims = r->dims ? r->dims : columns;
    const int ntk = r->scaling == ATTN_ROPE_SCALING_NTK;
    if (dims > columns)
        return attn_fail(c, ATTN_ERROR_SHAPE, "%s.dims is %zu, more than the %zu columns", name, dims,
                         columns);
    if (dims % 2 || dims < (ntk ? 4 : 2))
        return attn_fail(c, ATTN_ERROR_SHAPE, "%s.dims is %zu%s; it must be even and at least %d", name, dims,
                         r->dims ? "" : " (all columns)", ntk ? 4 : 2);
    if (dims > PTRDIFF_MAX / 32)
        return attn_fail(c, ATTN_ERROR_OVERFLOW, "%s.dims is %zu, too large", name, dims);
    p->key.dims = dims;
    p->columns = columns;
    p->n = dims / 2;
    p->n_padded = attn_ceil_div(p->n, ATTN_PANEL_UNIT) * ATTN_PANEL_UNIT;
    return ATTN_OK;
}

static attn_status read_mixture(attn_context *c, const char *name, const attn_rope *r,
                                struct attn_rope_key *key) {
    if (r->scaling != ATTN_ROPE_SCALING_YARN && r->scaling != ATTN_ROPE_SCALING_LLAMA3) return ATTN_OK;
    if (!r->original_context)
        return bad(c, name, "original_context", 0.0, "the model's first context length");
    key->original_context = r->original_context;
    if (r->scaling == ATTN_ROPE_SCALING_YARN) {
        if (r->yarn_exact_range != 0 && r->yarn_exact_range != 1)
            return bad(c, name, "yarn_exact_range", r->yarn_exact_range, "0 or 1");
        key->exact_range = r->yarn_exact_range;
        ATTN_TRY(positive(c, name, "beta_fast", r->beta_fast, 32.0f, &key->from));
        ATTN_TRY(positive(c, name, "beta_slow", r->beta_slow, 1.0f, &key->to));
        if (key->to > key->from) return bad(c, name, "beta_slow", key->to, "at most beta_fast");
    } else {
        ATTN_TRY(positive(c, name, "low_freq_factor", r->low_freq_factor, 1.0f, &key->from));
        ATTN_TRY(positive(c, name, "high_freq_factor", r->high_freq_factor, 4.0f, &key->to));
        if (key->to <= key->from) return bad(c, name, "high_freq_factor", key->to, "above low_freq_factor");
    }
    return ATTN_OK;
}

static attn_status read_divisors(attn_context *c, const char *name, const attn_rope *r,
                                 struct attn_rope_plan *p) {
    p->divisors = r->frequency_divisors;
    if (p->divisors && (uintptr_t)p->divisors % sizeof(float))
        return attn_fail(c, ATTN_ERROR_STRIDE, "%s.frequency_divisors is not aligned to its elements", name);
    for (size_t i = 0; p->divisors && i < p->n; i++)
        if (!(p->divisors[i] > 0.0f))
            return attn_fail(c, ATTN_ERROR_ARGUMENT, "%s.frequency_divisors[%zu] is %g; it must be above 0",
                             name, i, (double)p->divisors[i]);
    return ATTN_OK;
}

attn_status attn_rope_read(attn_context *c, const char *name, const attn_rope *rope, size_t columns,
                           struct attn_rope_plan *p) {
    attn_rope r;
    double factor = 1.0, magnitude = 1.0;
    memset(p, 0, sizeof *p); /* the padding too: keys are compared by their bytes */
    ATTN_TRY(attn_struct_read(c, name, &r, sizeof r, rope));
    if (r.style != ATTN_ROPE_INTERLEAVED && r.style != ATTN_ROPE_HALF_SPLIT)
        return bad(c, name, "style", (double)r.style, "of attn_rope_style");
    if ((unsigned)r.scaling > ATTN_ROPE_SCALING_LLAMA3)
        return bad(c, name, "scaling", (double)r.scaling, "of attn_rope_scaling");
    ATTN_TRY(read_dims(c, name, &r, columns, p));
    ATTN_TRY(positive(c, name, "base", r.base, 10000.0f, &p->key.base));
    if (p->key.base <= 1.0) return bad(c, name, "base", p->key.base, "above 1");
    if (r.scaling != ATTN_ROPE_SCALING_NONE) ATTN_TRY(positive(c, name, "factor", r.factor, 0.0f, &factor));
    p->key.scaling = r.scaling;
    p->key.factor = factor;
    ATTN_TRY(read_mixture(c, name, &r, &p->key));
    const int yarn = r.scaling == ATTN_ROPE_SCALING_YARN && factor > 1.0;
    ATTN_TRY(positive(c, name, "attention_factor", r.attention_factor, 1.0f, &magnitude));
    p->magnitude = yarn && r.attention_factor == 0.0f ? 0.1 * dd_log(factor).hi + 1.0 : magnitude;
    p->interleaved = r.style == ATTN_ROPE_INTERLEAVED;
    return read_divisors(c, name, &r, p);
}

struct attn_span attn_rope_span(const struct attn_rope_plan *p) {
    return attn_span_of("rope.frequency_divisors", p->divisors, p->n * sizeof *p->divisors);
}

/* ---- Frequencies ---------------------------------------------------------------------------------------- */

size_t attn_rope_memory_bytes(const struct attn_rope_plan *p) {
    return p->n > ATTN_ROPE_CACHED ? 2 * p->n_padded * sizeof(double) : 0;
}

static int holds(const struct attn_rope_cache *cache, const struct attn_rope_plan *p) {
    return memcmp(&cache->key, &p->key, sizeof p->key) == 0 && cache->divided == (p->divisors != NULL) &&
           (!p->divisors || memcmp(cache->divisors, p->divisors, p->n * sizeof *p->divisors) == 0);
}

void attn_rope_prepare(attn_context *c, struct attn_rope_plan *p, void *memory) {
    struct attn_rope_cache *cache = &c->rope;
    if (p->n > ATTN_ROPE_CACHED) {
        attn_rope_frequencies(&p->key, p->divisors, p->n_padded, memory);
        p->turns = memory;
        return;
    }
    p->turns = cache->turns;
    if (holds(cache, p)) return;
    attn_rope_frequencies(&p->key, p->divisors, p->n_padded, cache->turns);
    memcpy(&cache->key, &p->key, sizeof p->key);
    cache->divided = p->divisors != NULL;
    if (p->divisors) memcpy(cache->divisors, p->divisors, p->n * sizeof *p->divisors);
}

/* ---- Tables and rows ------------------------------------------------------------------------------------ */

size_t attn_rope_row_bytes(const struct attn_rope_plan *p) { return 4 * p->n_padded * sizeof(float); }

size_t attn_rope_rows_of_task(const struct attn_rope_plan *p, size_t columns_of_all) {
    /* Bytes; columns to turn, some 20 us: shorter runs of a head's rows read slower from memory. */
    enum { TABLE = 32 << 10, WORK = 1 << 17 };
    return attn_max(1, attn_min(TABLE / attn_rope_row_bytes(p), WORK / attn_max(1, columns_of_all)));
}

attn_status attn_rope_positions_check(attn_context *c, const char *name, const int64_t *positions,
                                      int64_t first, size_t n) {
    const int64_t most = INT64_C(1) << 53;
    for (size_t i = 0; i < n; i++) {
        int64_t at;
        if (!positions && i == 1) i = n - 1; /* they rise one by one: the ends are enough */
        const int over = positions ? __builtin_add_overflow(first, positions[i], &at)
                                   : __builtin_add_overflow(first, i, &at);
        if (over || at < -most || at > most)
            return attn_fail(c, ATTN_ERROR_ARGUMENT, "%s: the position of row %zu is not within +-2^53", name,
                             i);
    }
    return ATTN_OK;
}

void attn_rope_table(const attn_context *c, const struct attn_rope_plan *p, const int64_t *positions,
                     int64_t first, size_t n_rows, float *table) {
    const struct attn_rope_table_task t = {.turns_hi = p->turns,
                                           .turns_lo = p->turns + p->n_padded,
                                           .n_padded = p->n_padded,
                                           .magnitude = p->magnitude,
                                           .interleaved = p->interleaved,
                                           .positions = positions,
                                           .first = first,
                                           .n_rows = n_rows,
                                           .table = table};
    c->backend->rope_table(&t);
}

void attn_rope_rotate(const attn_context *c, const struct attn_rope_plan *p,
                      const struct attn_rope_rows *rows) {
    const struct attn_rope_task t = {.table = rows->table,
                                     .n = p->n,
                                     .n_padded = p->n_padded,
                                     .columns = p->columns,
                                     .interleaved = p->interleaved,
                                     .n_rows = rows->n_rows,
                                     .n_head = rows->n_head,
                                     .x = rows->x,
                                     .x_row = rows->x_row,
                                     .x_head = rows->x_head,
                                     .y = rows->y,
                                     .y_row = rows->y_row,
                                     .y_head = rows->y_head};
    c->backend->rope(&t);
}
