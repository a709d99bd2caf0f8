/*
 * attn_multihead_step() over caches of any pair of types: the bits of the public calls whose pooling reads f32 tensors with
 * what the cache's rows dequantise to, however the tokens come and wherever the rows lie.
 */
#include <string.h>

#include "step/step_case.h"
#include "support/shapes.h"

enum { N_TYPES = 5 };

static const attn_dtype types[N_TYPES] = {ATTN_F32, ATTN_F16, ATTN_BF16, ATTN_Q8_0, ATTN_Q4_0};
static const struct attn_backend *backends[4];

static const struct step_cache_shape shapes[] = {
    {.layout = ATTN_KV_ROWS, .host = 1},
    {.layout = ATTN_KV_ROWS, .block_rows = 16},
    {.layout = ATTN_KV_ROWS, .block_rows = 5},
    {.layout = ATTN_KV_PANELS, .block_rows = 16},
    {.layout = ATTN_KV_ROWS, .block_rows = 5, .ring = 1},
};

static size_t whole_blocks(attn_dtype type, size_t columns) {
    size_t block;
    attn_dtype_size(type, &block);
    return (columns + block - 1) / block * block;
}

static void check_tokens(const struct step_case *c, const struct step_outputs *a,
                         const struct step_outputs *b, const char *how) {
    const size_t width = step_case_width(c);
    for (size_t i = 0; i < step_case_tokens(c); i++)
        ck_assert_msg(memcmp(a->out + i * width, b->out + i * width, width * sizeof(float)) == 0 &&
                          memcmp(a->lse + i * c->n_head, b->lse + i * c->n_head, c->n_head * sizeof(float)) ==
                              0,
                      "%s: token %zu has other bits%s", harness_case_text(), i, how);
}

static void check_case(attn_context *context, size_t i) {
    const attn_dtype k = types[i % N_TYPES], v = types[i / N_TYPES % N_TYPES];
    struct step_cache_shape whole = {.layout = ATTN_KV_ROWS, .host = 1, .k_type = k, .v_type = v},
                            shape = shapes[i % SHAPES_COUNT(shapes)];
    struct step_case c = step_case_draw(i, i == 9 || i == 34);
    struct step_cache cache;
    struct step_layer layer;
    struct verdict verdict = {.ok = 1};
    char text[64] = ", types ";
    shape.k_type = k;
    shape.v_type = v;
    if (shape.layout == ATTN_KV_PANELS && (k == ATTN_Q8_0 || k == ATTN_Q4_0)) shape.layout = ATTN_KV_ROWS;
    if (c.scoring != STEP_WINDOW && c.scoring != STEP_SHAPED) shape.ring = 0;
    c.p_k = whole_blocks(k, c.p_k);
    c.p_v = whole_blocks(v, c.p_v);
    strcat(strcat(strcat(text, attn_dtype_name(k)), " and "), attn_dtype_name(v));
    step_case_announce(attn_context_backend(context), &c, text);
    struct step_data *d = step_data_make(&c);
    struct step_outputs want = step_outputs_make(&c), got = step_outputs_make(&c);
    step_cache_make(context, &c, &whole, &cache);
    step_layer_pack(context, &c, d, &layer);
    for (size_t s = 0, first = 0; s < c.n_sequences; first += c.lengths[s++])
        if (c.lengths[s]) step_compose(context, &c, d, &layer, &cache, s, first, 1, &want);
    step_case_run(context, &c, d, &shape, (enum step_schedule)(i % N_STEP_SCHEDULES), &got, &verdict);
    HARNESS_ASSERT(&verdict);
    check_tokens(&c, &want, &got, "");
    step_layer_free(&layer);
    step_cache_free(&cache);
    step_outputs_free(&want);
    step_outputs_free(&got);
    step_data_free(d);
}

START_TEST(composition) {
    attn_context *context = harness_context(backends[_i]->name, 1);
    const int slow = strcmp(backends[_i]->name, "scalar") == 0;
    for (size_t i = 0; i < 2 * N_TYPES * N_TYPES; i++)
        if (harness_takes(i, 9) && (!slow || i % 7 == 3)) check_case(context, i);
    attn_context_destroy(context);
}
END_TEST

int main(void) {
    const int n = (int)harness_backends(backends);
    Suite *suite = suite_create("step: types");
    TCase *cases = tcase_create("types");
    tcase_set_timeout(cases, 600);
    tcase_add_loop_test(cases, composition, 0, n);
    suite_add_tcase(suite, cases);
    return harness_main(suite);
}
