/*
 * Everything that attn_scoring can say, every pair of it together, through every call and on every backend: tables that
 * cover all pairs of levels of the factors below. ATTN_TEST_SEED gives other tables.
 */
#include "differential/api_draw.h"
#include "support/covering.h"

static const struct attn_backend *backends[4];

enum factor {
    CAUSAL,
    OFFSETS,
    WINDOW,
    PREFIXES,
    LENGTHS, /* bit 0: of queries, bit 1: of keys */
    RAGGED,
    DOCUMENTS,
    ALIBI,
    SOFT_CAP,
    SINKS,
    MASK,
    MASK_BITS,
    HEADS,
    LSE,
    LSE_SINKS,
    LOOK, /* bit 0: at weights, bit 1: at scores */
    CALL,
    ROWS,
    KEYS,
    WIDTHS,
    SCALE,
    SPOILED,
    FILL,
    LAYOUT,
    WORKERS,
    CACHE,
    N_FACTORS
};

static const struct {
    enum api_call call;
    attn_pooling pooling;
} calls[] = {
    {API_SDPA, ATTN_POOLING_DOT},           {API_SDPA, ATTN_POOLING_DOT},
    {API_ADDITIVE, ATTN_POOLING_DOT},       {API_HEAD, ATTN_POOLING_DOT},
    {API_HEAD, ATTN_POOLING_ADDITIVE},      {API_MULTIHEAD, ATTN_POOLING_DOT},
    {API_MULTIHEAD, ATTN_POOLING_ADDITIVE},
};
static const size_t ragged[] = {0, 0, 1, 3, 9};
static const float caps[] = {0, 1.5f, 30};
static const unsigned mask_bits[] = {15, 0, 8, 12, 6, 9};
static const size_t heads[][2] = {{1, 1}, {4, 2}, {7, 1}, {16, 8}}; /* few rows take several heads at once */
static const unsigned caches[] = {0, 1, 3, 4, 6, 9, 11, 12, 13};    /* as api_case has them */
static const size_t rows[] = {1, 4, 19, 75}, keys[] = {7, 40, 150, 2100, 4150};
static const size_t widths[][2] = {{1, 3}, {8, 16}, {33, 20}};
static const unsigned layouts[] = {0, LAYOUT_BNHD, LAYOUT_PAD_ALL | LAYOUT_NEGATIVE, LAYOUT_FAR};
static const enum fill fills[] = {FILL_NORMAL, FILL_NORMAL, FILL_WIDE, FILL_INTEGER};

static const unsigned levels[N_FACTORS] = {
    [CAUSAL] = 4,
    [OFFSETS] = 3,
    [WINDOW] = 5,
    [PREFIXES] = 2,
    [LENGTHS] = 4,
    [RAGGED] = SHAPES_COUNT(ragged),
    [DOCUMENTS] = 3,
    [ALIBI] = 2,
    [SOFT_CAP] = SHAPES_COUNT(caps),
    [SINKS] = 3,
    [MASK] = 4,
    [MASK_BITS] = SHAPES_COUNT(mask_bits),
    [HEADS] = SHAPES_COUNT(heads),
    [LSE] = 2,
    [LSE_SINKS] = 2,
    [LOOK] = 4,
    [CALL] = SHAPES_COUNT(calls),
    [ROWS] = SHAPES_COUNT(rows),
    [KEYS] = SHAPES_COUNT(keys),
    [WIDTHS] = SHAPES_COUNT(widths),
    [SCALE] = 2,
    [SPOILED] = 2,
    [FILL] = SHAPES_COUNT(fills),
    [LAYOUT] = SHAPES_COUNT(layouts),
    [WORKERS] = 3,
    [CACHE] = SHAPES_COUNT(caches),
};

/* A causal offset needs offsets, lengths of queries go without starts, lse_sinks and scores are attn_sdpa's. */
static int allows(size_t f, unsigned a, size_t g, unsigned b) {
    if (f == CAUSAL && g == OFFSETS) return a != ATTN_CAUSAL_OFFSET || b != API_OFFSETS_NONE;
    if (f == LENGTHS && g == RAGGED) return !(a & 1) || !ragged[b];
    if (f == LOOK && g == CALL) return !(a & 2) || calls[b].call == API_SDPA;
    if (f == LSE_SINKS && g == CALL) return !a || calls[b].call == API_SDPA;
    if (f == CALL && g == CACHE) return !b || calls[a].call == API_SDPA;
    return 1;
}

static void draw_sizes(struct api_case *c, struct rng *r, const unsigned char *l) {
    const int additive = api_is_additive(c);
    const size_t budget =
        additive ? 1000000 : 10000000; /* products, so that the oracles take no longer than the library */
    c->batch = c->ragged ? 1 : 1 + rng_below(r, 3);
    c->n_head = heads[l[HEADS]][0];
    c->n_head_kv = heads[l[HEADS]][1];
    c->p_k = c->p_q = widths[l[WIDTHS]][0];
    c->p_v = widths[l[WIDTHS]][1];
    c->c = c->p_k;
    c->n_kv = keys[l[KEYS]];
    c->n_q = rows[l[ROWS]] * (c->ragged > 3 ? 2 : 1);
    if (c->n_kv > 1000 && c->n_head > 4)
        c->n_head /= 2, c->n_head_kv = c->n_head_kv > 1 ? c->n_head_kv / 2 : 1;
    if (c->n_head % c->n_head_kv) c->n_head = c->n_head_kv;
    while (c->batch > 1 && c->batch * c->n_head * c->n_q * c->n_kv * c->p_k > budget) c->batch--;
    while (c->n_q > 5 && c->batch * c->n_head * c->n_q * c->n_kv * c->p_k > budget) c->n_q -= c->n_q / 4 + 1;
    c->head = rng_below(r, c->n_head);
    c->d_q = 1 + rng_below(r, 12);
    c->d_k = 1 + rng_below(r, 12);
    c->d_v = 1 + rng_below(r, 12);
    c->p_o = c->call == API_MULTIHEAD && rng_chance(r, 50) ? 1 + rng_below(r, 20) : 0;
    c->bias = rng_chance(r, 50);
    c->a_q = additive && rng_chance(r, 50);
    c->a_k = additive && rng_chance(r, 50);
}

/* With all that hides keys at once little is left to see: every other table keeps half of it. */
static void thin(struct api_case *c, struct rng *r) {
    if (rng_chance(r, 50)) c->window = API_WINDOW_NONE;
    if (rng_chance(r, 50)) c->documents = API_DOCUMENTS_NONE;
    if (rng_chance(r, 50)) c->mask = API_MASK_NONE;
    if (rng_chance(r, 50)) c->q_lengths = 0;
    if (rng_chance(r, 50)) c->kv_lengths = 0;
    if (rng_chance(r, 50)) c->causal = ATTN_CAUSAL_NONE;
    if (c->offsets == API_OFFSETS_FAR && rng_chance(r, 66)) c->offsets = API_OFFSETS_NEAR;
}

static struct api_case case_of(const unsigned char *l, uint64_t stream) {
    struct rng r = rng_make(test_seed(), ~stream);
    struct api_case c = {.call = calls[l[CALL]].call,
                         .pooling = calls[l[CALL]].pooling,
                         .ragged = ragged[l[RAGGED]],
                         .causal = (attn_causal)l[CAUSAL],
                         .offsets = (enum api_offsets)l[OFFSETS],
                         .window = (enum api_window)l[WINDOW],
                         .prefixes = l[PREFIXES],
                         .q_lengths = l[LENGTHS] & 1,
                         .kv_lengths = l[LENGTHS] >> 1,
                         .documents = (enum api_documents)l[DOCUMENTS],
                         .alibi = l[ALIBI],
                         .soft_cap = caps[l[SOFT_CAP]],
                         .sinks = (enum api_sinks)l[SINKS],
                         .mask = (enum api_mask)l[MASK],
                         .mask_bits = mask_bits[l[MASK_BITS]],
                         .lse = l[LSE],
                         .lse_sinks = l[LSE_SINKS],
                         .weights = l[LOOK] & 1,
                         .scores = l[LOOK] >> 1,
                         .scale = l[SCALE] ? 0.7f : 0,
                         .spoiled = l[SPOILED] && rng_chance(&r, 30),
                         .fill = fills[l[FILL]],
                         .layout = layouts[l[LAYOUT]],
                         .n_workers = 1 + l[WORKERS],
                         .cache = caches[l[CACHE]],
                         .stream = stream};
    draw_sizes(&c, &r, l);
    if (stream / 1000 % 2) thin(&c, &r);
    return c;
}

START_TEST(all_pairs_are_there) {
    for (uint64_t table = 0; table < 3; table++) {
        struct covering t = covering_make(N_FACTORS, levels, allows, table);
        size_t all;
        const size_t missing = covering_missing(&t, levels, allows, &all);
        ck_assert_msg(missing == 0 && all > 2000, "%zu of %zu pairs are in no row of %zu", missing, all,
                      t.n_rows);
        ck_assert_uint_lt(t.n_rows, 120);
        covering_free(&t);
    }
}
END_TEST

enum { TABLES = 8 };

START_TEST(pairs) {
    const struct attn_backend *b = backends[_i / TABLES];
    const uint64_t table = (uint64_t)(_i % TABLES);
    struct covering t = covering_make(N_FACTORS, levels, allows, table);
    for (size_t i = 0; i < t.n_rows; i++) {
        const struct api_case c = case_of(t.rows + i * N_FACTORS, 1000 * table + i);
        if (harness_takes(i + (size_t)_i, 7)) api_expect(b->name, &c);
    }
    covering_free(&t);
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("differential: what rows see, how scores are shaped");
    TCase *cases = tcase_create("pairs");
    tcase_set_timeout(cases, 600);
    tcase_add_test(cases, all_pairs_are_there);
    tcase_add_loop_test(cases, pairs, 0, TABLES * n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
