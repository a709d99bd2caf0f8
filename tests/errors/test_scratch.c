/* How scratch grows with the number of keys: by the partial results of a chunk and by the caller's own
 * projections, never by anything of n_q x n_kv. Only queries: no memory of such sizes is needed. */

#include "fixture.h"
#include "order.h"
#include "suite.h"

enum { MANY_ROWS = 100000, LANES = 16 /* rows of a partial result are rounded up to this */ };

static const size_t chunk_counts[] = {1, 2, 3, 4, 16, 489, 10000};

/* Scratch of the fixture's call with so many queries and keys, default scoring, no weights, no scores. */
static size_t scratch_of(struct fixture *f, size_t n_q, size_t n_kv) {
    size_t bytes = 0;
    f->scoring_argument = NULL;
    f->argument[T_WEIGHTS] = f->argument[T_SCORES] = NULL;
    for (int i = 0; i < N_TENSORS; i++) {
        attn_tensor *t = &f->tensor[i];
        if (i == T_MASK || i == T_W || i == T_WEIGHTS || i == T_SCORES) continue;
        t->size[2] = i == T_K || i == T_V ? n_kv : n_q;
        t->stride[1] = (ptrdiff_t)t->size[2] * t->stride[2];
        t->stride[0] = (ptrdiff_t)t->size[1] * t->stride[1];
    }
    ck_assert_msg(fixture_query(f, &bytes) == ATTN_OK, "%s, %zu x %zu: %s", api_name(f->api), n_q, n_kv,
                  attn_context_error(f->context));
    return bytes;
}

static size_t heads_kv(enum api api) { return api == API_HEAD || api == API_HEAD_ADDITIVE ? 1 : N_HEAD_KV; }

/* Bytes of a key's row in all projections that the call keeps: whole stacks, and additive features. */
static size_t projected_bytes(enum api api) {
    const size_t stacks = api == API_SDPA || api == API_ADDITIVE ? 0 : P_K + P_V;
    return BATCH * N_HEAD_KV * (stacks + (api == API_SDPA ? 0 : C)) * sizeof(float);
}

static void check_few_rows(struct fixture *f) {
    const size_t rows = N_Q * N_HEAD / N_HEAD_KV, blocks = BATCH * heads_kv(f->api);
    const size_t floor = rows * (P_V + 2) * sizeof(float) * blocks;
    const size_t most = (rows + LANES - 1) / LANES * LANES * (P_V + 2) * sizeof(float) * blocks;
    const size_t base = scratch_of(f, N_Q, 1);
    if (f->api == API_SDPA) { /* to the byte: whole chunks of keys */
        const size_t step = scratch_of(f, N_Q, 3 * ATTN_CHUNK) - scratch_of(f, N_Q, 2 * ATTN_CHUNK);
        ck_assert_msg(step == 0 || (step >= floor && step <= most), "%s: a chunk takes %zu bytes",
                      attn_context_backend(f->context), step);
        for (size_t i = 0; i < sizeof chunk_counts / sizeof *chunk_counts; i++) {
            const size_t chunks = chunk_counts[i], want = base + (chunks > 1 ? chunks * step : 0);
            ck_assert_uint_eq(scratch_of(f, N_Q, (chunks - 1) * ATTN_CHUNK + 1), want);
            ck_assert_uint_eq(scratch_of(f, N_Q, chunks * ATTN_CHUNK), want);
        }
        return;
    }
    for (size_t i = 0; i < sizeof chunk_counts / sizeof *chunk_counts; i++) {
        const size_t n_kv = chunk_counts[i] * ATTN_CHUNK, bytes = scratch_of(f, N_Q, n_kv);
        ck_assert_msg(bytes <= base + chunk_counts[i] * most + n_kv * projected_bytes(f->api),
                      "%s, %s: %zu bytes for %zu keys", attn_context_backend(f->context), api_name(f->api),
                      bytes, n_kv);
    }
}

/* Enough blocks of rows for any number of threads: no partial results, whatever n_kv is. */
static void check_many_rows(struct fixture *f) {
    const size_t base = scratch_of(f, MANY_ROWS, 1);
    for (size_t i = 0; i < sizeof chunk_counts / sizeof *chunk_counts; i++) {
        const size_t n_kv = chunk_counts[i] * ATTN_CHUNK, bytes = scratch_of(f, MANY_ROWS, n_kv);
        if (f->api == API_SDPA) ck_assert_uint_eq(bytes, base);
        ck_assert_msg(bytes <= base + n_kv * projected_bytes(f->api), "%s, %s: %zu bytes for %zu keys",
                      attn_context_backend(f->context), api_name(f->api), bytes, n_kv);
    }
}

START_TEST(growth) {
    const char *names[8];
    int runnable[8];
    const size_t n = attn_backend_list(names, runnable, 8);
    for (size_t i = 0; i < n && i < 8; i++) {
        const attn_options options = {.size = sizeof options, .backend = names[i], .n_threads = 1};
        attn_context *context;
        if (!runnable[i]) continue;
        ck_assert_int_eq(attn_context_create(&options, &context), ATTN_OK);
        for (int api = 0; api < N_APIS; api++) {
            struct fixture f;
            fixture_open(&f, (enum api)api, context);
            check_few_rows(&f);
            check_many_rows(&f);
            fixture_close(&f);
        }
        attn_context_destroy(context);
    }
}
END_TEST

void add_scratch_tests(Suite *suite) {
    TCase *t = tcase_create("scratch");
    tcase_add_test(t, growth);
    suite_add_tcase(suite, t);
}
