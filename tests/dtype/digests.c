/* The conversions of every backend give ggml's bytes: ggml.txt has the digests of what ggml gives (ggml.py). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dtype/draw.h"
#include "dtype/suite.h"
#include "support/harness.h"

static const struct {
    attn_dtype type;
    int rounds; /* f32 to it too */
} types[] = {{ATTN_F16, 1},  {ATTN_BF16, 1}, {ATTN_Q8_0, 1}, {ATTN_Q4_0, 1},
             {ATTN_Q4_1, 0}, {ATTN_Q4_K, 0}, {ATTN_Q6_K, 0}};
enum { TYPES = sizeof types / sizeof *types };

static union piece {
    float f32[DRAW_PIECE];
    uint32_t bits[DRAW_PIECE];
    uint64_t words[DRAW_PIECE / 2];
} from, to;

static uint64_t piece_to(const struct attn_backend *b, size_t type, size_t piece, uint64_t sum) {
    const size_t words = attn_dtype_row(types[type].type, DRAW_PIECE) / sizeof(uint64_t);
    for (size_t i = 0; i < words; i++) from.words[i] = draw_word(3 + type, piece * words + i);
    b->to_f32(types[type].type, from.words, DRAW_PIECE, to.f32);
    for (size_t i = 0; i < DRAW_PIECE; i++)
        if (isnan(to.f32[i])) to.bits[i] = 0x7fc00000;
    return draw_digest(sum, to.words, DRAW_PIECE / 2, piece * (DRAW_PIECE / 2));
}

static uint64_t piece_from(const struct attn_backend *b, size_t type, size_t piece, uint64_t sum) {
    const size_t words = attn_dtype_row(types[type].type, DRAW_PIECE) / sizeof(uint64_t);
    for (size_t i = 0; i < DRAW_PIECE; i++) from.bits[i] = draw_float(piece * DRAW_PIECE + i);
    b->from_f32(types[type].type, from.f32, DRAW_PIECE, to.words);
    return draw_digest(sum, to.words, words, piece * words);
}

/* Of the first pieces, or of all. */
static void expected(const char *name, int rounds, uint64_t sums[2]) {
    char line[100], type[16], way[8];
    FILE *f = fopen(DTYPE_DIGESTS, "r");
    ck_assert_msg(f != NULL, "cannot open %s", DTYPE_DIGESTS);
    int found = 0;
    while (!found && fgets(line, sizeof line, f)) {
        unsigned long long few, all;
        ck_assert(sscanf(line, "%15s %7s %llx %llx", type, way, &few, &all) == 4);
        found = !strcmp(type, name) && !strcmp(way, rounds ? "from" : "to");
        sums[0] = few;
        sums[1] = all;
    }
    fclose(f);
    ck_assert_msg(found, "%s has no line for %s", DTYPE_DIGESTS, name);
}

/* The scalar backend takes long: of all it is asked for a few only. */
static void check(const struct attn_backend *b, size_t type, int rounds) {
    const char *name = attn_dtype_name(types[type].type);
    const int all = harness_full() && strcmp(b->name, "scalar") != 0;
    uint64_t sum = 0, sums[2];
    harness_case("%s, %s %s f32", b->name, name, rounds ? "from" : "to");
    expected(name, rounds, sums);
    for (size_t piece = 0; piece < (all ? DRAW_PIECES : DRAW_FEW); piece++)
        sum = (rounds ? piece_from : piece_to)(b, type, piece, sum);
    ck_assert_msg(sum == sums[all], "%s: the digest is %016llx, ggml's %016llx", harness_case_text(),
                  (unsigned long long)sum, (unsigned long long)sums[all]);
}

START_TEST(ggml_bytes) {
    const struct attn_backend *backends[4];
    const size_t n = harness_backends(backends);
    for (size_t i = 0; i < n; i++) {
        for (size_t type = 0; type < TYPES; type++) {
            check(backends[i], type, 0);
            if (types[type].rounds) check(backends[i], type, 1);
        }
    }
}
END_TEST

void add_digest_tests(Suite *suite) {
    TCase *tc = tcase_create("digests");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, ggml_bytes);
    suite_add_tcase(suite, tc);
}
