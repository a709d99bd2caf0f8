/*
 * The same bits whatever runs the tasks: 1, 2, 3 or 7 threads, a caller's executor that goes backwards,
 * memory of the caller's (full of NaN) or the context's, the child of a fork, two contexts at once.
 */
#include <pthread.h>
#include <string.h>

#include "exact/exact.h"
#include "support/shapes.h"

static const struct attn_backend *backends[4];

/* Backwards, or in a random order, each task on any worker. */
static void run_backwards(void *pool, size_t n_tasks, attn_task *task, void *arg) {
    (void)pool;
    for (size_t i = n_tasks; i-- > 0;) task(arg, i, i % 5);
}

static void run_interleaved(void *pool, size_t n_tasks, attn_task *task, void *arg) {
    (void)pool;
    for (size_t start = 0; start < 4; start++)
        for (size_t i = start; i < n_tasks; i += 4) task(arg, i, 2 - start % 3);
}

static attn_context *context_of(attn_options options, const char *backend) {
    attn_context *context = NULL;
    options.size = sizeof options;
    options.backend = backend;
    ck_assert_int_eq(attn_context_create(&options, &context), ATTN_OK);
    return context;
}

static uint64_t hash_with(attn_context *context, const struct api_case *c, const struct api_data *d) {
    struct verdict v = {.ok = 1};
    struct api_outputs o = api_case_run(context, c, d, &v);
    const uint64_t hash = v.ok ? exact_hash(c, &o) : 0;
    api_outputs_free(&o);
    return hash;
}

static void expect(const char *how, attn_context *context, const struct api_case *c, const struct api_data *d,
                   uint64_t want) {
    const uint64_t hash = hash_with(context, c, d);
    attn_context_destroy(context);
    ck_assert_msg(hash == want, "%s: other bits with %s", harness_case_text(), how);
}

static void check(const char *backend, const struct api_case *c) {
    struct api_data *d = api_case_make(c);
    attn_context *context = context_of((attn_options){.n_threads = 1}, backend);
    api_case_announce(backend, c);
    api_case_pack(context, c, d);
    const size_t bytes = api_case_scratch(context, c, d);
    const uint64_t want = hash_with(context, c, d);
    ck_assert(want != 0);
    expect("the same context again", context, c, d, want);
    static const size_t counts[] = {2, 3, 7};
    for (size_t i = 0; i < SHAPES_COUNT(counts); i++)
        expect("more threads", context_of((attn_options){.n_threads = counts[i]}, backend), c, d, want);
    const attn_executor backwards = {run_backwards, NULL, 5}, interleaved = {run_interleaved, NULL, 3};
    expect("tasks in reverse", context_of((attn_options){.executor = &backwards}, backend), c, d, want);
    expect("tasks interleaved", context_of((attn_options){.executor = &interleaved}, backend), c, d, want);
    for (unsigned place = 0; place < 2; place++) {
        struct guard scratch = guard_alloc(bytes, place);
        const attn_options options = {
            .n_threads = 1, .scratch = bytes ? scratch.data : NULL, .scratch_bytes = bytes};
        expect("the caller's scratch", context_of(options, backend), c, d, want);
        ck_assert(guard_intact(&scratch));
        guard_free(&scratch);
    }
    api_case_free(d);
}

START_TEST(executors) {
    for (size_t i = 0; i < EXACT_CASES; i++)
        for (int call = API_SDPA; call <= API_MULTIHEAD; call++) {
            const struct api_case c = exact_case(i, (enum api_call)call);
            const int scalar = backends[_i] == &attn_backend_scalar; /* slow, and little to go wrong */
            if (harness_takes(i + (size_t)call, 5) && (!scalar || (i + (size_t)call) % 3 == 0))
                check(backends[_i]->name, &c);
        }
}
END_TEST

/* attn_linear, at sizes that are cut in rows and in columns. */
START_TEST(linear_executors) {
    static const size_t shapes[][3] = {{1, 1000, 300}, {500, 70, 40}, {37, 300, 1100}, {3, 3, 3}};
    struct rng r = rng_make(test_seed(), 5);
    for (size_t s = 0; s < SHAPES_COUNT(shapes); s++) {
        const size_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
        struct grid x = grid_make(&r, 4, (size_t[4]){1, 1, m, k}, 0),
                    w = grid_make(&r, 4, (size_t[4]){1, 1, n, k}, 0);
        struct grid y = grid_make(&r, 4, (size_t[4]){1, 1, m, n}, LAYOUT_PAD_ROW);
        grid_fill(&x, &r, FILL_NORMAL);
        grid_fill(&w, &r, FILL_NORMAL);
        const attn_tensor t_x = grid_tensor(&x), t_w = grid_tensor(&w), t_y = grid_tensor(&y);
        uint64_t want = 0;
        for (size_t threads = 1; threads <= 7; threads += threads == 3 ? 4 : 1) {
            attn_context *context = harness_context(backends[_i]->name, threads);
            const attn_packed *packed = NULL;
            size_t bytes = 0;
            ck_assert_int_eq(attn_pack_linear_bytes(context, &t_w, &bytes), ATTN_OK);
            struct guard memory = guard_alloc(bytes, 1);
            ck_assert_int_eq(attn_pack_linear(context, &t_w, NULL, memory.data, bytes, &packed), ATTN_OK);
            ck_assert_int_eq(attn_linear(context, &t_x, packed, &t_y), ATTN_OK);
            uint64_t hash = EXACT_HASH_START;
            for (size_t i = 0; i < m; i++) hash = exact_hash_floats(hash, grid_f32(&y, 0, 0, i), n);
            want = want ? want : hash;
            ck_assert_msg(hash == want, "%s linear %zu %zu %zu: other bits with %zu threads",
                          backends[_i]->name, m, n, k, threads);
            guard_free(&memory);
            attn_context_destroy(context);
        }
        grid_free(&x);
        grid_free(&w);
        grid_free(&y);
    }
}
END_TEST

struct job {
    struct api_case c;
    struct api_data *d;
    attn_context *context;
    uint64_t want;
    int wrong;
};

static struct job make_job(const char *backend, size_t i, enum api_call call, size_t n_threads) {
    struct job j = {.c = exact_case(i, call)};
    j.d = api_case_make(&j.c);
    j.context = harness_context(backend, n_threads);
    api_case_pack(j.context, &j.c, j.d);
    j.want = hash_with(j.context, &j.c, j.d);
    return j;
}

static int run_in_child(void *arg) {
    struct job *j = arg;
    const int wrong =
        hash_with(j->context, &j->c, j->d) != j->want || hash_with(j->context, &j->c, j->d) != j->want;
    attn_context_destroy(j->context);
    return wrong;
}

START_TEST(after_fork) {
    for (int call = API_SDPA; call <= API_MULTIHEAD; call++) {
        struct job j = make_job(backends[_i]->name, 3, (enum api_call)call, 3);
        ck_assert_int_eq(harness_child(run_in_child, &j), CHILD_ZERO);
        ck_assert_uint_eq(hash_with(j.context, &j.c, j.d), j.want); /* and the parent goes on */
        attn_context_destroy(j.context);
        api_case_free(j.d);
    }
}
END_TEST

static void *run_in_thread(void *arg) {
    struct job *j = arg;
    for (int i = 0; i < (harness_full() ? 30 : 4); i++)
        j->wrong |= hash_with(j->context, &j->c, j->d) != j->want;
    return NULL;
}

START_TEST(two_contexts) {
    struct job jobs[2] = {make_job(backends[_i]->name, 2, API_SDPA, 2),
                          make_job(backends[_i]->name, 4, API_MULTIHEAD, 3)};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, run_in_thread, &jobs[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) {
        ck_assert(!jobs[i].wrong);
        attn_context_destroy(jobs[i].context);
        api_case_free(jobs[i].d);
    }
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("exact: threads");
    TCase *cases = tcase_create("executors");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, executors, 0, n);
    tcase_add_loop_test(cases, linear_executors, 0, n);
    tcase_add_loop_test(cases, after_fork, 0, n);
    tcase_add_loop_test(cases, two_contexts, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
