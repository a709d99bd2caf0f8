#include "rows.h"

#include <stdio.h>
#include <string.h>

#include "shapes.h"
#include "typed.h"

/* m rows, n outputs, k inputs */
#define LINEAR(M, N, K) \
    { .kind = ROW_LINEAR, .batch = 1, .n_head = 1, .n_head_kv = 1, .n_q = (M), .p = (N), .d = (K) }

#define SDPA(D, HEADS, HEADS_KV, N_Q, N_KV, CAUSAL, KEY_MAJOR)                                  \
    {                                                                                           \
        .kind = ROW_SDPA, .batch = 1, .n_head = (HEADS), .n_head_kv = (HEADS_KV), .n_q = (N_Q), \
        .n_kv = (N_KV), .d = (D), .p = (D), .causal = (CAUSAL), .key_major = (KEY_MAJOR)        \
    }
#define PREFILL(D, N, CAUSAL) SDPA(D, 8, 8, N, N, CAUSAL, false)
#define FULL ATTN_CAUSAL_NONE
#define CAUSAL ATTN_CAUSAL_TOP_LEFT

/* 32768 keys of 8 heads, as a grouped-query model's cache has them */
#define DECODE(N_Q, GROUP, KEY_MAJOR) SDPA(128, 8 * (GROUP), 8, N_Q, 32768, FULL, KEY_MAJOR)

#define PREFILL_FROM(CACHE, N)                                                                        \
    {                                                                                                 \
        .kind = ROW_SDPA, .batch = 1, .n_head = 8, .n_head_kv = 8, .n_q = (N), .n_kv = (N), .d = 128, \
        .p = 128, .causal = CAUSAL, .cache = (CACHE)                                                  \
    }
#define DECODE_TREE(N_Q, GROUP)                                                                           \
    {                                                                                                     \
        .kind = ROW_SDPA, .batch = 1, .n_head = 8 * (GROUP), .n_head_kv = 8, .n_q = (N_Q), .n_kv = 32768, \
        .d = 128, .p = 128, .tree = true                                                                  \
    }
#define DECODE_FROM(CACHE, N_Q, GROUP)                                                                    \
    {                                                                                                     \
        .kind = ROW_SDPA, .batch = 1, .n_head = 8 * (GROUP), .n_head_kv = 8, .n_q = (N_Q), .n_kv = 32768, \
        .d = 128, .p = 128, .cache = (CACHE)                                                              \
    }

/* One head's keys and values as they grow; what bench/growth looks at */
#define GROW(N, CAUSAL) SDPA(128, 1, 1, N, N, CAUSAL, false)
#define GROW_DECODE(N) SDPA(128, 1, 1, 1, N, FULL, false)
#define GROW_WARM(N)                                                                                \
    {                                                                                               \
        .kind = ROW_SDPA, .batch = 1, .n_head = 1, .n_head_kv = 1, .n_q = 1, .n_kv = (N), .d = 128, \
        .p = 128, .warm = true                                                                      \
    }

#define HEAD(N, D, P) \
    { .kind = ROW_HEAD, .batch = 1, .n_head = 1, .n_head_kv = 1, .n_q = (N), .n_kv = (N), .d = (D), .p = (P) }
#define MULTIHEAD(N, D, H)                                                                           \
    {                                                                                                \
        .kind = ROW_MULTIHEAD, .batch = 1, .n_head = (H), .n_head_kv = (H), .n_q = (N), .n_kv = (N), \
        .d = (D), .p = (D) / (H)                                                                     \
    }

/* The same rows with weights, or keys and values, of another type */
#define LINEAR_OF(TYPE, M, N, K)                                                                     \
    {                                                                                                \
        .kind = ROW_LINEAR, .batch = 1, .n_head = 1, .n_head_kv = 1, .n_q = (M), .p = (N), .d = (K), \
        .type = (TYPE)                                                                               \
    }
#define SDPA_OF(TYPE, D, GROUP, N_Q, N_KV, CAUSAL, CACHE)                                                  \
    {                                                                                                      \
        .kind = ROW_SDPA, .batch = 1, .n_head = 8 * (GROUP), .n_head_kv = 8, .n_q = (N_Q), .n_kv = (N_KV), \
        .d = (D), .p = (D), .causal = (CAUSAL), .cache = (CACHE), .type = (TYPE)                           \
    }
#define LINEARS_OF(TYPE)                                                                                \
    LINEAR_OF(TYPE, 512, 4096, 4096), LINEAR_OF(TYPE, 64, 2048, 2048), LINEAR_OF(TYPE, 16, 4096, 4096), \
        LINEAR_OF(TYPE, 4, 4096, 4096), LINEAR_OF(TYPE, 1, 4096, 4096)
#define PREFILLS_OF(TYPE, D)                                                                              \
    SDPA_OF(TYPE, D, 1, 2048, 2048, FULL, CACHE_NONE), SDPA_OF(TYPE, D, 1, 512, 512, CAUSAL, CACHE_NONE), \
        SDPA_OF(TYPE, D, 1, 2048, 2048, CAUSAL, CACHE_NONE),                                              \
        SDPA_OF(TYPE, D, 1, 4096, 4096, CAUSAL, CACHE_NONE)
#define DECODES_OF(TYPE)                                                                                  \
    SDPA_OF(TYPE, 128, 1, 1, 32768, FULL, CACHE_NONE), SDPA_OF(TYPE, 128, 4, 1, 32768, FULL, CACHE_NONE), \
        SDPA_OF(TYPE, 128, 8, 1, 32768, FULL, CACHE_NONE)
#define PANELS_OF(TYPE) \
    SDPA_OF(TYPE, 128, 1, 1, 32768, FULL, CACHE_PANELS), SDPA_OF(TYPE, 128, 4, 1, 32768, FULL, CACHE_PANELS)

#define APPEND_TO(TYPE, CACHE)                                                                         \
    {                                                                                                  \
        .kind = ROW_APPEND, .n_head_kv = 8, .n_kv = 2048, .d = 128, .p = 128, .batch = 1, .n_head = 8, \
        .cache = (CACHE), .type = (TYPE)                                                               \
    }
#define APPENDS_TO(CACHE) APPEND_TO(ATTN_F32, CACHE), APPEND_TO(ATTN_F16, CACHE), APPEND_TO(ATTN_BF16, CACHE)

static const struct row rows[] = {
    LINEAR(2048, 2048, 2048),
    LINEAR(512, 4096, 4096),
    LINEAR(512, 64, 4096), /* one head's projection */
    LINEAR(128, 128, 2048),
    LINEAR(77, 512, 512), /* CLIP's text length */
    LINEAR(64, 2048, 2048),
    LINEAR(16, 4096, 4096),
    LINEAR(8, 4096, 4096),
    LINEAR(4, 4096, 4096),
    LINEAR(2, 4096, 4096),
    LINEAR(1, 4096, 4096),

    PREFILL(128, 512, FULL),
    PREFILL(128, 2048, FULL),
    PREFILL(128, 4096, FULL),
    PREFILL(128, 512, CAUSAL),
    PREFILL(128, 2048, CAUSAL),
    PREFILL(128, 4096, CAUSAL),
    PREFILL(64, 512, FULL),
    PREFILL(64, 2048, FULL),
    PREFILL(64, 4096, FULL),
    PREFILL(64, 512, CAUSAL),
    PREFILL(64, 2048, CAUSAL),
    PREFILL(64, 4096, CAUSAL),
    SDPA(128, 32, 8, 4096, 4096, CAUSAL, false),
    SDPA(128, 8, 8, 2048, 2048, FULL, true),
    SDPA(128, 8, 8, 2048, 2048, CAUSAL, true),
    SDPA(80, 8, 8, 2048, 2048, FULL, false),  /* a multiple of 16 only */
    SDPA(100, 8, 8, 2048, 2048, FULL, false), /* tails in every vector */

    DECODE(1, 1, false),
    DECODE(1, 4, false),
    DECODE(1, 8, false),
    DECODE(1, 1, true),
    DECODE(1, 4, true),
    DECODE(1, 8, true),
    DECODE(4, 4, false), /* 16 rows a key: a few draft tokens, or a short turn of a chat */
    DECODE(4, 4, true),
    DECODE(8, 4, false),
    DECODE_TREE(8, 4),
    DECODE_FROM(CACHE_PAGED, 1, 1),
    DECODE_FROM(CACHE_PAGED, 1, 4),
    DECODE_FROM(CACHE_PAGED, 4, 4),
    DECODE_FROM(CACHE_PAGED, 8, 4),
    DECODE_FROM(CACHE_PANELS, 1, 1),
    DECODE_FROM(CACHE_PANELS, 1, 4),
    DECODE_FROM(CACHE_PANELS, 4, 4),
    DECODE_FROM(CACHE_PANELS, 8, 4),
    PREFILL_FROM(CACHE_PAGED, 2048),
    PREFILL_FROM(CACHE_PANELS, 2048),
    {.kind = ROW_SDPA,
     .batch = 1,
     .n_head = 8,
     .n_head_kv = 8,
     .n_q = 8192,
     .n_kv = 8192,
     .d = 128,
     .p = 128,
     .causal = CAUSAL,
     .window = 1024},

    GROW(512, FULL),
    GROW(2048, FULL),
    GROW(8192, FULL),
    GROW(32768, FULL),
    GROW(512, CAUSAL),
    GROW(2048, CAUSAL),
    GROW(8192, CAUSAL),
    GROW(32768, CAUSAL),
    GROW_DECODE(1024),
    GROW_DECODE(4096),
    GROW_DECODE(32768),
    GROW_DECODE(131072),
    GROW_DECODE(1000000),
    GROW_WARM(1024),
    GROW_WARM(4096),
    GROW_WARM(32768),
    GROW_WARM(131072),
    GROW_WARM(1000000),

    {.kind = ROW_ADDITIVE,
     .batch = 1,
     .n_head = 1,
     .n_head_kv = 1,
     .n_q = 128,
     .n_kv = 1024,
     .d = 256,
     .p = 256},

    LINEARS_OF(ATTN_F16),
    LINEARS_OF(ATTN_BF16),
    LINEAR_OF(ATTN_BF16, 2048, 2048, 2048),
    LINEAR_OF(ATTN_BF16, 512, 64, 4096),
    LINEAR_OF(ATTN_BF16, 128, 128, 2048),
    LINEARS_OF(ATTN_Q8_0),
    LINEARS_OF(ATTN_Q4_0),
    LINEARS_OF(ATTN_Q4_1),
    LINEARS_OF(ATTN_Q4_K),
    LINEARS_OF(ATTN_Q6_K),
    PREFILLS_OF(ATTN_F16, 128),
    PREFILLS_OF(ATTN_F16, 64),
    PREFILLS_OF(ATTN_BF16, 128),
    PREFILLS_OF(ATTN_BF16, 64),
    PREFILLS_OF(ATTN_Q8_0, 128),
    PREFILLS_OF(ATTN_Q4_0, 128),
    DECODES_OF(ATTN_F16),
    DECODES_OF(ATTN_BF16),
    DECODES_OF(ATTN_Q8_0),
    DECODES_OF(ATTN_Q4_0),
    DECODE_FROM(CACHE_PANELS, 1, 8),
    PANELS_OF(ATTN_F16),
    PANELS_OF(ATTN_BF16),
    APPENDS_TO(CACHE_PAGED),
    APPENDS_TO(CACHE_PANELS),
    APPEND_TO(ATTN_Q8_0, CACHE_PAGED),
    APPEND_TO(ATTN_Q4_0, CACHE_PAGED),

    HEAD(512, 768, 64),
    HEAD(128, 512, 64),
    MULTIHEAD(512, 768, 12),
    MULTIHEAD(2048, 2048, 16),
};

enum {
    N_ROWS = sizeof rows / sizeof *rows,
    N_LINEAR = SHAPES_COUNT(shapes_linear),
    N_SDPA = SHAPES_COUNT(shapes_sdpa),
    N_ADDITIVE = SHAPES_COUNT(shapes_additive)
};

/* Behind the table: the shapes that the tests run, and the unfused counterparts of the table's rows. */
static struct row more[N_LINEAR + N_SDPA + N_ADDITIVE + N_ROWS];
static size_t n_more;

static struct row pool_row(enum row_kind kind, const struct shape_pool *s) {
    return (struct row){.kind = kind,
                        .label = s->name,
                        .batch = s->batch,
                        .n_head = s->n_head,
                        .n_head_kv = s->n_head_kv,
                        .n_q = s->n_q,
                        .n_kv = s->n_kv,
                        .d = s->p_k,
                        .p = s->p_v,
                        .causal = s->causal ? ATTN_CAUSAL_BOTTOM_RIGHT : ATTN_CAUSAL_NONE};
}

static struct row shared_row(size_t i) {
    if (i < N_LINEAR) {
        const struct shape_linear *s = &shapes_linear[i];
        struct row row = LINEAR(s->m, s->n, s->k);
        row.label = s->name;
        return row;
    }
    i -= N_LINEAR;
    return i < N_SDPA ? pool_row(ROW_SDPA, &shapes_sdpa[i])
                      : pool_row(ROW_ADDITIVE, &shapes_additive[i - N_SDPA]);
}

/* Packed keys and values have one layout, whatever that of q and out. */
static bool has_unfused(const struct row *r) {
    return r->kind != ROW_LINEAR && r->kind != ROW_ADDITIVE && !r->key_major && !r->cache && !r->window &&
           !r->tree && r->type == ATTN_F32;
}

size_t row_count(void) {
    if (n_more == 0) {
        for (size_t i = 0; i < N_LINEAR + N_SDPA + N_ADDITIVE; i++) {
            more[n_more++] = shared_row(i);
        }
        for (size_t i = 0; i < N_ROWS; i++) {
            if (has_unfused(&rows[i])) {
                more[n_more] = rows[i];
                more[n_more++].unfused = true;
            }
        }
    }
    return N_ROWS + n_more;
}

const struct row *row_get(size_t i) { return i < N_ROWS ? &rows[i] : &more[i - N_ROWS]; }

static bool is_decode(const struct row *r) { return r->n_q * 16 <= r->n_kv && r->n_q < 64; }

static const char *causal_suffix(const struct row *r) {
    return r->causal == ATTN_CAUSAL_NONE ? "full" : "causal";
}

static void fused_name(const struct row *r, char *name, size_t bytes) {
    static const char *const kinds[] = {"linear", "prefill", "additive", "head", "multihead", "append"};
    char kind[32];
    static const char *const caches[] = {"", "/paged", "/panels"};
    const char *layout = r->key_major ? "/key-major" : caches[r->cache], *state = r->warm   ? "/warm"
                                                                                  : r->tree ? "/tree-mask"
                                                                                            : "";
    char window[32] = "";
    snprintf(kind, sizeof kind, "%s%s%s", r->kind == ROW_SDPA && is_decode(r) ? "decode" : kinds[r->kind],
             r->type ? "/" : "", r->type ? attn_dtype_name(r->type) : "");

    if (r->window) snprintf(window, sizeof window, "/window%zu", r->window);

    if (r->label) {
        snprintf(name, bytes, "%s/%s", kind, r->label);
        return;
    }
    switch (r->kind) {
    case ROW_LINEAR: snprintf(name, bytes, "%s/%zux%zux%zu", kind, r->n_q, r->p, r->d); break;
    case ROW_SDPA:
        if (is_decode(r)) {
            snprintf(name, bytes, "%s/d%zu/h%zu-%zu/q%zu/n%zu%s%s", kind, r->d, r->n_head, r->n_head_kv,
                     r->n_q, r->n_kv, layout, state);
        } else {
            snprintf(name, bytes, "%s/d%zu/h%zu-%zu/n%zu/%s%s%s", kind, r->d, r->n_head, r->n_head_kv,
                     r->n_kv, causal_suffix(r), layout, window);
        }
        break;
    case ROW_ADDITIVE: snprintf(name, bytes, "%s/%zux%zu/c%zu", kind, r->n_q, r->n_kv, r->d); break;
    case ROW_HEAD: snprintf(name, bytes, "%s/n%zu/d%zu/p%zu", kind, r->n_q, r->d, r->p); break;
    case ROW_APPEND:
        snprintf(name, bytes, "%s/d%zu/h%zu/n%zu%s", kind, r->d, r->n_head_kv, r->n_kv, layout);
        break;
    case ROW_MULTIHEAD: snprintf(name, bytes, "%s/n%zu/d%zu/h%zu", kind, r->n_q, r->d, r->n_head); break;
    }
}

void row_name(const struct row *r, char name[ROW_NAME_BYTES]) {
    static const char prefix[] = "unfused/";
    const size_t skip = r->unfused ? sizeof prefix - 1 : 0;

    memcpy(name, prefix, skip);
    fused_name(r, name + skip, ROW_NAME_BYTES - skip);
}

/* Scores that the rows of all heads see. */
static double visible(const struct row *r) {
    double scores = 0;

    for (size_t i = 0; i < r->n_q; i++) {
        size_t seen = r->n_kv;
        if (r->causal == ATTN_CAUSAL_TOP_LEFT && i + 1 < seen) {
            seen = i + 1;
        } else if (r->causal == ATTN_CAUSAL_BOTTOM_RIGHT) {
            seen = i + 1 + r->n_kv > r->n_q ? i + 1 + r->n_kv - r->n_q : 0;
        }
        if (r->window && seen > r->window + 1) {
            seen = r->window + 1;
        }
        scores += (double)seen;
    }
    return scores * (double)(r->batch * r->n_head);
}

double row_tanhs(const struct row *r) { return r->kind == ROW_ADDITIVE ? visible(r) * (double)r->d : 0; }

double row_flops(const struct row *r) {
    const double n_q = (double)(r->batch * r->n_q), n_kv = (double)(r->batch * r->n_kv);
    const double d = (double)r->d, p = (double)r->p;
    const double hp = (double)r->n_head * p, hp_kv = (double)r->n_head_kv * p;
    double flops = 0;

    switch (r->kind) {
    case ROW_APPEND: break;
    case ROW_LINEAR: flops = 2 * n_q * p * d; break;
    case ROW_SDPA: flops = visible(r) * 2 * (d + p); break;
    case ROW_ADDITIVE: /* add, tanh, multiply and add; then the weighted sum */
        flops = visible(r) * (4 * d + 2 * p);
        break;
    case ROW_MULTIHEAD: /* W_o, then what head has too */
        flops = 2 * n_q * hp * d;
        /* fallthrough */
    case ROW_HEAD: flops += 2 * d * (n_q * hp + 2 * n_kv * hp_kv) + visible(r) * 4 * p; break;
    }
    return flops;
}

/* Weights, or elements of keys and values. */
static double row_values(const struct row *r) {
    const double d = (double)r->d, p = (double)r->p;
    double values = 0;

    switch (r->kind) {
    case ROW_LINEAR: values = p * d; break;
    case ROW_SDPA:
    case ROW_APPEND:
    case ROW_ADDITIVE: values = (double)(r->batch * r->n_head_kv * r->n_kv) * (d + p); break;
    case ROW_MULTIHEAD:
        values = (double)r->n_head * p * d;
        /* fallthrough */
    case ROW_HEAD: values += (double)(r->n_head + 2 * r->n_head_kv) * p * d; break;
    }
    return values;
}

double row_bytes(const struct row *r) {
    return typed_bytes(r->type, row_values(r)) +
           (r->kind == ROW_APPEND ? typed_bytes(ATTN_F32, row_values(r)) : 0);
}

/* As if the values were f32: reading them stays as much of the work where they are smaller. */
bool row_read_bound(const struct row *r) {
    const double flops_a_value = 24; /* 4 of a group of 8 heads is bound by reading, 8 of 16 rows is not */
    return r->kind != ROW_ADDITIVE && row_flops(r) < flops_a_value * row_values(r);
}

enum limit row_limit(const struct row *r, const char *backend) {
    static const char *const int8[] = {"avx512bf16", "neonbf16", "avx512vnni", "neondot", "avx2dot"};
    size_t block, i = 0;
    attn_dtype_size(r->type, &block);
    while (i < 5 && strcmp(backend, int8[i]) != 0) i++;
    if (i < 2 && r->type == ATTN_BF16) return LIMIT_BF16;
    return i < 5 && block > 1 && r->kind == ROW_LINEAR ? LIMIT_INT8 : LIMIT_F32;
}
