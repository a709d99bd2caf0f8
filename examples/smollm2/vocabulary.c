/* Reads the vocabulary and the merges from a GGUF file's metadata into hash tables. */
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "tokenizer.h"

enum { TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4 };

static size_t hash_text(struct gguf_text text) {
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */

    for (size_t i = 0; i < text.bytes; i++) {
        hash = (hash ^ (unsigned char)text.text[i]) * 0x100000001b3;
    }
    return (size_t)(hash ^ hash >> 32);
}

static size_t hash_pair(uint32_t left, uint32_t right) {
    uint64_t hash = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15;

    return (size_t)(hash ^ hash >> 32);
}

/* The slot of a text: its own, or the free one where it belongs. */
static uint32_t *find_slot(const struct tokenizer *t, struct gguf_text text) {
    size_t at = hash_text(text) & t->slot_mask;

    while (t->slots[at] != NO_TOKEN) {
        struct gguf_text there = t->texts[t->slots[at]];

        if (there.bytes == text.bytes && memcmp(there.text, text.text, text.bytes) == 0) {
            break;
        }
        at = (at + 1) & t->slot_mask;
    }
    return &t->slots[at];
}

static struct merge *merge_slot(const struct tokenizer *t, uint32_t left, uint32_t right) {
    size_t at = hash_pair(left, right) & t->merge_mask;

    while (t->merges[at].left != NO_TOKEN && (t->merges[at].left != left || t->merges[at].right != right)) {
        at = (at + 1) & t->merge_mask;
    }
    return &t->merges[at];
}

const struct merge *tokenizer_merge(const struct tokenizer *t, uint32_t left, uint32_t right) {
    const struct merge *merge = merge_slot(t, left, right);

    return merge->left == NO_TOKEN ? NULL : merge;
}

/* A mask for a table that stays at most half full. */
static size_t table_mask(size_t n) {
    size_t size = 16;

    while (size < 2 * n) {
        size *= 2;
    }
    return size - 1;
}

static void read_vocabulary(struct tokenizer *t, const struct gguf *gguf) {
    const struct gguf_value *texts = gguf_texts(gguf, "tokenizer.ggml.tokens");
    const struct gguf_value *types = gguf_integers(gguf, "tokenizer.ggml.token_type");
    const unsigned char *at;

    if (!texts || !types || texts->count == 0 || texts->count != types->count || texts->count > INT32_MAX) {
        die("the file has no vocabulary (tokenizer.ggml.tokens, token_type); use a whole model's GGUF file");
    }
    t->n = texts->count;
    t->texts = get_array(t->n, sizeof *t->texts);
    t->special = get_array(t->n, 1);
    t->slot_mask = table_mask(t->n);
    t->slots = get_array(t->slot_mask + 1, sizeof *t->slots);
    memset(t->slots, 0xff, (t->slot_mask + 1) * sizeof *t->slots);
    at = texts->data;
    for (uint32_t i = 0; i < t->n; i++) {
        uint32_t type = gguf_integer(types, i), *slot;

        t->texts[i] = gguf_next_text(&at);
        slot = find_slot(t, t->texts[i]);
        if (*slot != NO_TOKEN) {
            die("tokens %u and %u of the vocabulary are the same; the file is damaged", *slot, i);
        }
        *slot = i;
        if ((type == TYPE_CONTROL || type == TYPE_USER_DEFINED) && t->texts[i].bytes) {
            if (t->n_special == TOKENIZER_SPECIAL_MAX) {
                die("more than %d special tokens; use SmolLM2's GGUF file", TOKENIZER_SPECIAL_MAX);
            }
            t->special[i] = 1;
            t->specials[t->n_special++] = i;
        }
    }
}

static void read_merges(struct tokenizer *t, const struct gguf *gguf) {
    const struct gguf_value *list = gguf_texts(gguf, "tokenizer.ggml.merges");
    const unsigned char *at;

    if (!list || list->count > INT32_MAX) {
        die("the file has no BPE merges (tokenizer.ggml.merges); use SmolLM2's GGUF file");
    }
    t->merge_mask = table_mask(list->count);
    t->merges = get_array(t->merge_mask + 1, sizeof *t->merges);
    memset(t->merges, 0xff, (t->merge_mask + 1) * sizeof *t->merges);
    at = list->data;
    for (uint32_t rank = 0; rank < list->count; rank++) {
        struct gguf_text pair = gguf_next_text(&at), part = pair, rest = pair;
        const char *space = pair.bytes ? memchr(pair.text + 1, ' ', pair.bytes - 1) : NULL;
        char whole[1024];
        struct merge merge = {.rank = rank}, *slot;

        if (!space || pair.bytes > sizeof whole) {
            die("merge %u is not two tokens with a space between; the file is damaged", rank);
        }
        part.bytes = (size_t)(space - pair.text);
        rest.text = space + 1;
        rest.bytes = pair.bytes - part.bytes - 1;
        memcpy(whole, part.text, part.bytes);
        memcpy(whole + part.bytes, rest.text, rest.bytes);
        merge.left = *find_slot(t, part);
        merge.right = *find_slot(t, rest);
        merge.merged = *find_slot(t, (struct gguf_text){whole, pair.bytes - 1});
        if (merge.left == NO_TOKEN || merge.right == NO_TOKEN || merge.merged == NO_TOKEN) {
            die("merge %u uses a token that the vocabulary does not have; the file is damaged", rank);
        }
        slot = merge_slot(t, merge.left, merge.right);
        if (slot->left == NO_TOKEN) {
            *slot = merge;
        }
    }
}

static size_t put_utf8(uint32_t point, char *to) { /* below U+0800 */
    if (point < 0x80) {
        to[0] = (char)point;
        return 1;
    }
    to[0] = (char)(0xc0 | point >> 6);
    to[1] = (char)(0x80 | (point & 63));
    return 2;
}

static void spell_bytes(struct tokenizer *t) {
    uint32_t next = 256;

    memset(t->point_byte, 0xff, sizeof t->point_byte);
    for (uint32_t byte = 0; byte < 256; byte++) {
        int visible = (byte > ' ' && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
        char text[2];

        t->byte_point[byte] = visible ? byte : next++;
        t->point_byte[t->byte_point[byte]] = (short)byte;
        t->byte_id[byte] = *find_slot(t, (struct gguf_text){text, put_utf8(t->byte_point[byte], text)});
    }
}

static int text_is(struct gguf_text text, const char *what) {
    return text.bytes == strlen(what) && memcmp(text.text, what, text.bytes) == 0;
}

struct tokenizer *tokenizer_open(const struct gguf *gguf) {
    struct tokenizer *t = get_array(1, sizeof *t);
    struct gguf_text model = {"", 0}, pre = {"", 0};
    size_t end = NO_TOKEN;

    gguf_text(gguf, "tokenizer.ggml.model", &model);
    gguf_text(gguf, "tokenizer.ggml.pre", &pre);
    if (!text_is(model, "gpt2") || !text_is(pre, "smollm")) {
        die("the tokenizer is '%.*s' with the rule '%.*s', this example has only gpt2 with smollm; use "
            "SmolLM2's GGUF"
            " file",
            (int)(model.bytes % 100), model.text, (int)(pre.bytes % 100), pre.text);
    }
    read_vocabulary(t, gguf);
    read_merges(t, gguf);
    spell_bytes(t);
    gguf_count(gguf, "tokenizer.ggml.eos_token_id", &end);
    t->end = end < t->n ? (uint32_t)end : NO_TOKEN;
    t->end_of_text = *find_slot(t, (struct gguf_text){"<|endoftext|>", 13});
    return t;
}

void tokenizer_close(struct tokenizer *t) {
    free(t->texts);
    free(t->special);
    free(t->slots);
    free(t->merges);
    free(t);
}

uint32_t tokenizer_special(const struct tokenizer *t, const char *name) {
    uint32_t id = *find_slot(t, (struct gguf_text){name, strlen(name)});

    if (id == NO_TOKEN || !t->special[id]) {
        die("the vocabulary has no special token %s; use --raw", name);
    }
    return id;
}

int tokenizer_is_end(const struct tokenizer *t, uint32_t id) { return id == t->end || id == t->end_of_text; }
