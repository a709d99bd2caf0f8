/*
 * Encoding: special tokens are cut out, the rest is split into words by SmolLM's rule, each byte of a word
 * becomes a symbol, and the pair of neighbours that comes first in the list of merges is merged until none
 * is in it.
 */
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "unicode.h"

/* A merge that was possible when it was put on the heap: outdated once one of its symbols has changed. */
struct candidate {
    const struct merge *merge;
    size_t left, right; /* symbols */
};

/* A doubly linked list of what a word consists of. */
struct symbol {
    uint32_t id;           /* NO_TOKEN: a byte that the vocabulary lacks, or merged into its left neighbour */
    size_t previous, next; /* NOWHERE at the ends */
};

#define NOWHERE SIZE_MAX

struct encoder {
    const struct tokenizer *t;
    struct ids *ids;
    struct symbol *symbols;
    struct candidate *heap; /* the best one first, each before its children 2i + 1 and 2i + 2 */
    size_t n_heap, symbol_room, heap_room;
    /* the text between two special tokens: n code points, where each begins, and what it is */
    uint32_t *points;
    size_t *offsets;
    unsigned char *kinds;
    size_t n, point_room, offset_room, kind_room;
};

void ids_append(struct ids *ids, uint32_t id) {
    ids->id = make_room(ids->id, &ids->room, ids->n + 1, sizeof *ids->id);
    ids->id[ids->n++] = id;
}

/* ---- Merging ------------------------------------------------------------------------------------------ */

static int before(const struct candidate *a, const struct candidate *b) {
    return a->merge->rank != b->merge->rank ? a->merge->rank < b->merge->rank : a->left < b->left;
}

static void push(struct encoder *e, struct candidate candidate) {
    size_t at = e->n_heap++;

    e->heap = make_room(e->heap, &e->heap_room, e->n_heap, sizeof *e->heap);
    while (at && before(&candidate, &e->heap[(at - 1) / 2])) {
        e->heap[at] = e->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    e->heap[at] = candidate;
}

static struct candidate pop(struct encoder *e) {
    struct candidate best = e->heap[0], last = e->heap[--e->n_heap];
    size_t at = 0, child;

    while ((child = 2 * at + 1) < e->n_heap) {
        if (child + 1 < e->n_heap && before(&e->heap[child + 1], &e->heap[child])) {
            child++;
        }
        if (!before(&e->heap[child], &last)) {
            break;
        }
        e->heap[at] = e->heap[child];
        at = child;
    }
    e->heap[at] = last;
    return best;
}

static void consider(struct encoder *e, size_t left, size_t right) {
    struct candidate candidate = {.left = left, .right = right};

    if (left == NOWHERE || right == NOWHERE || e->symbols[left].id == NO_TOKEN ||
        e->symbols[right].id == NO_TOKEN) {
        return;
    }
    candidate.merge = tokenizer_merge(e->t, e->symbols[left].id, e->symbols[right].id);
    if (candidate.merge) {
        push(e, candidate);
    }
}

/* Appends the tokens of a word: a heap makes long words, of spaces say, cost n log n. */
static void encode_word(struct encoder *e, const char *word, size_t bytes) {
    struct symbol *symbols;

    e->symbols = make_room(e->symbols, &e->symbol_room, bytes, sizeof *e->symbols);
    symbols = e->symbols;
    for (size_t i = 0; i < bytes; i++) {
        symbols[i].id = e->t->byte_id[(unsigned char)word[i]];
        symbols[i].previous = i ? i - 1 : NOWHERE;
        symbols[i].next = i + 1 < bytes ? i + 1 : NOWHERE;
    }
    e->n_heap = 0;
    for (size_t i = 1; i < bytes; i++) {
        consider(e, i - 1, i);
    }
    while (e->n_heap) {
        struct candidate best = pop(e);
        struct symbol *left = &symbols[best.left], *right = &symbols[best.right];

        if (left->id != best.merge->left || right->id != best.merge->right || left->next != best.right) {
            continue;
        }
        left->id = best.merge->merged;
        left->next = right->next;
        right->id = NO_TOKEN;
        if (left->next != NOWHERE) {
            symbols[left->next].previous = best.left;
        }
        consider(e, left->previous, best.left);
        consider(e, best.left, left->next);
    }
    for (size_t i = 0; i < bytes; i++) {
        if (symbols[i].id != NO_TOKEN) {
            ids_append(e->ids, symbols[i].id);
        }
    }
}

/* ---- Splitting ---------------------------------------------------------------------------------------- */

/* The code point at text[*at], which then stands behind it; dies on what is not UTF-8. */
static uint32_t take_point(const char *text, size_t bytes, size_t *at) {
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    unsigned char first = (unsigned char)text[*at];
    size_t more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    uint32_t point = more ? first & (0x3f >> more) : first;
    int good = (first < 0x80 || (first >= 0xc2 && first <= 0xf4)) && more < bytes - *at;

    for (size_t i = 1; good && i <= more; i++) {
        good = ((unsigned char)text[*at + i] & 0xc0) == 0x80;
        point = point << 6 | ((unsigned char)text[*at + i] & 0x3f);
    }
    if (!good || point < least[more] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) {
        die("the prompt is not UTF-8 (byte %zu of a part of %zu); convert it, with iconv say", *at + 1,
            bytes);
    }
    *at += more + 1;
    return point;
}

static void classify(struct encoder *e, const char *text, size_t bytes) {
    e->points = make_room(e->points, &e->point_room, bytes + 1, sizeof *e->points);
    e->offsets = make_room(e->offsets, &e->offset_room, bytes + 1, sizeof *e->offsets);
    e->kinds = make_room(e->kinds, &e->kind_room, bytes + 1, sizeof *e->kinds);
    e->n = 0;
    for (size_t at = 0; at < bytes; e->n++) {
        e->offsets[e->n] = at;
        e->points[e->n] = take_point(text, bytes, &at);
        e->kinds[e->n] = (unsigned char)unicode_kind(e->points[e->n]);
    }
    e->offsets[e->n] = bytes;
}

/* 's 't 'm 'd 're 've 'll: code points of the one that stands at `at`, or 0. */
static size_t contraction(const uint32_t *points, size_t at, size_t end) {
    uint32_t a = at + 1 < end ? points[at + 1] : 0, b = at + 2 < end ? points[at + 2] : 0;

    if (points[at] != '\'') {
        return 0;
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd') {
        return 2;
    }
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/*
 * Where the word that begins at `at` ends. llama.cpp's two rules for "smollm": first every number's digit is
 * cut out; then, between them,
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * `end` is where the stretch without numbers ends.
 */
static size_t word_end(const struct encoder *e, size_t at, size_t end) {
    size_t length = contraction(e->points, at, end), run = at;
    unsigned char kind;

    if (length) {
        return at + length;
    }
    if (e->points[at] == ' ' && at + 1 < end) { /* belongs to the word behind it */
        run++;
    }
    kind = e->kinds[run];
    if (kind != UNICODE_SPACE) {
        while (run < end && e->kinds[run] == kind) {
            run++;
        }
        return run;
    }
    for (run = at; run < end && e->kinds[run] == UNICODE_SPACE; run++) {}
    return run < end && run - at > 1 ? run - 1 : run; /* the last space is left to the next word */
}

static void encode_plain(struct encoder *e, const char *text, size_t bytes) {
    size_t stop = 0; /* of the stretch without numbers */

    classify(e, text, bytes);
    for (size_t at = 0, end; at < e->n; at = end) {
        if (e->kinds[at] == UNICODE_NUMBER) {
            end = stop = at + 1;
        } else {
            for (; stop < e->n && (stop <= at || e->kinds[stop] != UNICODE_NUMBER); stop++) {}
            end = word_end(e, at, stop);
        }
        encode_word(e, text + e->offsets[at], e->offsets[end] - e->offsets[at]);
    }
}

/* The longest special token whose name stands at the beginning of the text, or NO_TOKEN. */
static uint32_t special_at(const struct tokenizer *t, const char *text, size_t bytes) {
    uint32_t found = NO_TOKEN;

    for (size_t i = 0; i < t->n_special; i++) {
        struct gguf_text name = t->texts[t->specials[i]];

        if (name.bytes <= bytes && memcmp(name.text, text, name.bytes) == 0 &&
            (found == NO_TOKEN || name.bytes > t->texts[found].bytes)) {
            found = t->specials[i];
        }
    }
    return found;
}

void tokenizer_encode(const struct tokenizer *t, const char *text, size_t bytes, int special,
                      struct ids *ids) {
    struct encoder e = {.t = t, .ids = ids};
    size_t begin = 0;

    for (size_t at = 0; special && at < bytes; at++) {
        uint32_t id = special_at(t, text + at, bytes - at);

        if (id != NO_TOKEN) {
            encode_plain(&e, text + begin, at - begin);
            ids_append(ids, id);
            begin = at + t->texts[id].bytes;
            at = begin - 1;
        }
    }
    encode_plain(&e, text + begin, bytes - begin);
    free(e.symbols);
    free(e.heap);
    free(e.points);
    free(e.offsets);
    free(e.kinds);
}

/* ---- Decoding ----------------------------------------------------------------------------------------- */

size_t tokenizer_decode(const struct tokenizer *t, uint32_t id, char *bytes, size_t room) {
    struct gguf_text text = t->texts[id];
    size_t n = 0;

    for (size_t at = 0; at < text.bytes && !t->special[id];) {
        unsigned char first = (unsigned char)text.text[at++];
        uint32_t point = first;

        if (first >= 0xc0 && first < 0xe0 &&
            at < text.bytes) { /* only code points below U+0200 spell bytes */
            point = (uint32_t)(first & 31) << 6 | ((unsigned char)text.text[at++] & 63);
        }
        if (point < 512 && t->point_byte[point] >= 0) {
            if (n < room) {
                bytes[n] = (char)t->point_byte[point];
            }
            n++;
        }
    }
    return n;
}
