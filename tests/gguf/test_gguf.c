/*
 * The GGUF reader: floats of every block type equal to what the gguf package makes of them (blocks.gguf,
 * written by record.py), metadata, and files that lie.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf.h"
#include "hostile.h"

static const char *blocks_path;

attn_context *get_context(void) {
    static attn_context *context;

    if (!context) {
        ck_assert_int_eq(attn_context_create(NULL, &context), ATTN_OK);
    }
    return context;
}

static void open_blocks(struct gguf *gguf) {
    char error[512];

    ck_assert_msg(gguf_open(gguf, blocks_path, error, sizeof error), "%s", error);
}

START_TEST(test_floats) {
    struct gguf gguf;
    size_t compared = 0;

    open_blocks(&gguf);
    for (size_t i = 0; i < gguf.n_tensors; i++) {
        const struct gguf_tensor *tensor = &gguf.tensors[i], *floats;
        char name[64];
        float got[1024], want[1024];

        snprintf(name, sizeof name, "%.*s.floats", (int)tensor->name.bytes, tensor->name.text);
        floats = gguf_tensor(&gguf, name);
        if (!floats) {
            continue;
        }
        ck_assert_msg(gguf_has_floats(tensor->type), "%s", name);
        ck_assert_uint_eq(tensor->size[0], floats->size[0]);
        ck_assert_uint_eq(tensor->rows, floats->rows);
        ck_assert_uint_le(tensor->size[0], 1024);
        ck_assert_int_eq(strncmp(gguf_type_name(tensor->type), name, tensor->name.bytes), 0);
        for (size_t row = 0; row < tensor->rows; row++) {
            ck_assert_int_eq(gguf_floats(get_context(), tensor, row, 1, got), ATTN_OK);
            ck_assert_int_eq(gguf_floats(get_context(), floats, row, 1, want), ATTN_OK);
            ck_assert_msg(memcmp(got, want, tensor->size[0] * sizeof *got) == 0, "%s, row %zu", name, row);
        }
        compared++;
    }
    ck_assert_uint_eq(compared, 10); /* every type that gguf_floats() takes, F32 being the others' measure */
    gguf_close(&gguf);
}
END_TEST

START_TEST(test_metadata) {
    static const char *const texts[] = {"a", "", "long text"};
    struct gguf gguf;
    struct gguf_text text;
    const struct gguf_value *list;
    const unsigned char *at;
    size_t count;
    double number;

    open_blocks(&gguf);
    ck_assert(gguf_count(&gguf, "test.count", &count) && count == 7);
    ck_assert(!gguf_count(&gguf, "test.negative", &count) && !gguf_count(&gguf, "test.number", &count));
    ck_assert(!gguf_count(&gguf, "test.texts", &count) && !gguf_count(&gguf, "test", &count));
    ck_assert(gguf_count_at(&gguf, "test.count", 5, &count) && count == 7);
    ck_assert(gguf_count_at(&gguf, "test.integers", 2, &count) && count == 3);
    ck_assert(!gguf_count_at(&gguf, "test.integers", 3, &count) &&
              !gguf_count_at(&gguf, "test.texts", 0, &count));
    ck_assert(!gguf_count_at(&gguf, "test.negative", 0, &count) && !gguf_count_at(&gguf, "test", 0, &count));
    ck_assert(gguf_number(&gguf, "test.negative", &number) && number == -3);
    ck_assert(gguf_number(&gguf, "test.number", &number) && number == 0.1);
    ck_assert(gguf_number(&gguf, "test.count", &number) && number == 7);
    ck_assert(!gguf_number(&gguf, "general.architecture", &number));
    ck_assert(gguf_text(&gguf, "general.architecture", &text) && text.bytes == 6 &&
              !memcmp(text.text, "blocks", 6));
    ck_assert(!gguf_text(&gguf, "test.count", &text));
    list = gguf_texts(&gguf, "test.texts");
    ck_assert(list && list->count == 3 && !gguf_integers(&gguf, "test.texts"));
    at = list->data;
    for (size_t i = 0; i < 3; i++) {
        text = gguf_next_text(&at);
        ck_assert(text.bytes == strlen(texts[i]) && memcmp(text.text, texts[i], text.bytes) == 0);
    }
    list = gguf_integers(&gguf, "test.integers");
    ck_assert(list && list->count == 3 && gguf_integer(list, 2) == 3 && !gguf_texts(&gguf, "test.integers"));
    ck_assert(!gguf_tensor(&gguf, "Q4_") && !gguf_tensor(&gguf, "") && !gguf_value(&gguf, "test.texts2"));
    gguf_close(&gguf);
}
END_TEST

int main(int argc, char **argv) {
    Suite *suite = suite_create("gguf");
    TCase *good = tcase_create("good");
    SRunner *runner = srunner_create(suite);
    int failed;

    if (argc != 2) {
        fprintf(stderr, "usage: %s blocks.gguf\n", argv[0]);
        return EXIT_FAILURE;
    }
    blocks_path = argv[1];
    suite_add_tcase(suite, good);
    tcase_add_test(good, test_floats);
    tcase_add_test(good, test_metadata);
    add_hostile_tests(suite, blocks_path);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
