#include "weights.h"

#include <string.h>

size_t attn_weights_row(attn_dtype type, size_t k) {
    return attn_dtype_row(type, type == ATTN_BF16 ? k + k % 2 : k);
}

/* Where a block of the panel lies, and which of its outputs is meant. */
struct place {
    uint8_t *block;
    size_t width, column;
};

/* One of the panel's arrays of 2 or 4 bytes an output, `at` bytes an output into the block. */
static uint8_t *pair_at(const struct place *p, size_t at) { return p->block + at * p->width + 2 * p->column; }
static uint8_t *quad_at(const struct place *p, size_t at) { return p->block + at * p->width + 4 * p->column; }

/* Copies between the panel and the row; one direction or the other. */
static void move(uint8_t *panel, void *row, size_t bytes, int pack) {
    memcpy(pack ? (void *)panel : row, pack ? row : (void *)panel, bytes);
}

/* Four bytes whose sign bits change on the way: signed in the row, plus 128 in the panel. */
static void move_flipped(uint8_t *panel, uint8_t *row, int pack) {
    for (int i = 0; i < 4; i++) *(pack ? panel + i : row + i) = (pack ? row[i] : panel[i]) ^ 0x80;
}

/* ---- Packing ------------------------------------------------------------------------------------------- */

static unsigned low_or_high(const uint8_t *q, int i) { return i < 16 ? q[i] & 15u : q[i - 16] >> 4; }

/* 4-bit values of 32, from q4_0's and q4_1's order: `at` bytes an output into the block. */
static void pack_nibbles(const struct place *p, size_t at, const uint8_t *q) {
    for (int i = 0; i < 32; i++) {
        uint8_t *to = quad_at(p, at + (size_t)(i / 8 * 4)) + i % 4;
        *to = (uint8_t)(i % 8 < 4 ? low_or_high(q, i) : *to | low_or_high(q, i) << 4);
    }
}

static void unpack_nibbles(const struct place *p, size_t at, uint8_t *q) {
    for (int i = 0; i < 32; i++) {
        const uint8_t from = quad_at(p, at + (size_t)(i / 8 * 4))[i % 4];
        const unsigned x = i % 8 < 4 ? from & 15u : from >> 4;
        q[i % 16] = (uint8_t)(i < 16 ? x : q[i % 16] | x << 4);
    }
}

/* Two parts share the bytes of Q4_K: the low halves are the first one's. As q4_0's two halves of 16 they are. */
static void q4_k_part_bytes(const uint8_t *pair, int part, uint8_t to[16]) {
    for (int i = 0; i < 16; i++) {
        const unsigned a = part % 2 ? pair[i] >> 4 : pair[i] & 15u;
        const unsigned b = part % 2 ? pair[i + 16] >> 4 : pair[i + 16] & 15u;
        to[i] = (uint8_t)(a | b << 4);
    }
}

static void pack_q4_k(const struct place *p, const struct attn_q4_k *b) {
    uint32_t words[3] = {0};
    memcpy(pair_at(p, 0), &b->d, 2);
    memcpy(pair_at(p, 2), &b->dmin, 2);
    for (int part = 0; part < 8; part++) {
        int scale, min;
        uint8_t q[16];
        attn_q4_k_part(b->scales, part, &scale, &min);
        words[0] |= ((uint32_t)scale & 15) << 4 * part;
        words[1] |= ((uint32_t)min & 15) << 4 * part;
        words[2] |= (uint32_t)scale >> 4 << 2 * part | (uint32_t)min >> 4 << (16 + 2 * part);
        q4_k_part_bytes(b->q + part / 2 * 32, part, q);
        pack_nibbles(p, 16 + 16 * (size_t)part, q);
    }
    for (size_t i = 0; i < 3; i++) memcpy(quad_at(p, 4 + 4 * i), &words[i], 4);
}

/* attn_q4_k_part() backwards. */
static void set_q4_k_part(uint8_t scales[12], int p, uint32_t scale, uint32_t min) {
    if (p < 4) {
        scales[p] = (uint8_t)(scales[p] | scale);
        scales[p + 4] = (uint8_t)(scales[p + 4] | min);
    } else {
        scales[p + 4] = (uint8_t)((scale & 15) | (min & 15) << 4);
        scales[p - 4] = (uint8_t)(scales[p - 4] | scale >> 4 << 6);
        scales[p] = (uint8_t)(scales[p] | min >> 4 << 6);
    }
}

static void unpack_q4_k(const struct place *p, struct attn_q4_k *b) {
    uint32_t words[3];
    memset(b, 0, sizeof *b);
    memcpy(&b->d, pair_at(p, 0), 2);
    memcpy(&b->dmin, pair_at(p, 2), 2);
    for (size_t i = 0; i < 3; i++) memcpy(&words[i], quad_at(p, 4 + 4 * i), 4);
    for (int part = 0; part < 8; part++) {
        uint8_t q[16], *to = b->q + part / 2 * 32;
        const int up = part % 2 * 4;
        set_q4_k_part(b->scales, part, (words[0] >> 4 * part & 15) | (words[2] >> 2 * part & 3) << 4,
                      (words[1] >> 4 * part & 15) | (words[2] >> (16 + 2 * part) & 3) << 4);
        unpack_nibbles(p, 16 + 16 * (size_t)part, q);
        for (int i = 0; i < 32; i++) to[i] = (uint8_t)(to[i] | low_or_high(q, i) << up);
    }
}

/* Value i of 256: its low 4 and high 2 bits' bytes in ggml's block and their places there, and in the panel. */
struct q6_k_value {
    size_t low, high, part;
    unsigned low_bit, high_bit;
    size_t in; /* the part */
};

static struct q6_k_value q6_k_value(size_t i) {
    const size_t half = i / 128, a = i % 128 / 32, l = i % 32;
    return (struct q6_k_value){.low = 64 * half + 32 * (a % 2) + l,
                               .high = 32 * half + l,
                               .part = i / 16,
                               .low_bit = a < 2 ? 0 : 4,
                               .high_bit = 2 * (unsigned)a,
                               .in = i % 16};
}

enum { Q6_K_PARTS = 18, Q6_K_PART = 12 }; /* bytes an output before the parts, and of one */

static void pack_q6_k(const struct place *p, const struct attn_q6_k *b) {
    memcpy(pair_at(p, 0), &b->d, 2);
    for (size_t i = 0; i < 4; i++) memcpy(quad_at(p, 2 + 4 * i), b->scales + 4 * i, 4);
    for (size_t i = 0; i < 256; i++) {
        const struct q6_k_value v = q6_k_value(i);
        const size_t at = Q6_K_PARTS + Q6_K_PART * v.part, j = v.in / 4;
        uint8_t *low = quad_at(p, at + 4 * (j / 2)) + i % 4, *high = quad_at(p, at + 8) + i % 4;
        if (j % 2 == 0) *low = 0;
        if (j == 0) *high = 0;
        *low = (uint8_t)(*low | (b->ql[v.low] >> v.low_bit & 15) << 4 * (j % 2));
        *high = (uint8_t)(*high | (b->qh[v.high] >> v.high_bit & 3) << 2 * j);
    }
}

static void unpack_q6_k(const struct place *p, struct attn_q6_k *b) {
    memset(b, 0, sizeof *b);
    memcpy(&b->d, pair_at(p, 0), 2);
    for (size_t i = 0; i < 4; i++) memcpy(b->scales + 4 * i, quad_at(p, 2 + 4 * i), 4);
    for (size_t i = 0; i < 256; i++) {
        const struct q6_k_value v = q6_k_value(i);
        const size_t at = Q6_K_PARTS + Q6_K_PART * v.part, j = v.in / 4;
        const uint8_t low = quad_at(p, at + 4 * (j / 2))[i % 4], high = quad_at(p, at + 8)[i % 4];
        b->ql[v.low] = (uint8_t)(b->ql[v.low] | (low >> 4 * (j % 2) & 15) << v.low_bit);
        b->qh[v.high] = (uint8_t)(b->qh[v.high] | (high >> 2 * j & 3) << v.high_bit);
    }
}

/* One block there or back. */
static void move_block(attn_dtype type, const struct place *p, void *row, int pack) {
    switch (type) {
    case ATTN_Q8_0: {
        struct attn_q8_0 *b = row;
        move(pair_at(p, 0), &b->d, 2, pack);
        for (size_t i = 0; i < 8; i++) move_flipped(quad_at(p, 2 + 4 * i), (uint8_t *)b->q + 4 * i, pack);
        break;
    }
    case ATTN_Q4_0: {
        struct attn_q4_0 *b = row;
        move(pair_at(p, 0), &b->d, 2, pack);
        pack ? pack_nibbles(p, 2, b->q) : unpack_nibbles(p, 2, b->q);
        break;
    }
    case ATTN_Q4_1: {
        struct attn_q4_1 *b = row;
        move(pair_at(p, 0), &b->d, 2, pack);
        move(pair_at(p, 2), &b->m, 2, pack);
        pack ? pack_nibbles(p, 4, b->q) : unpack_nibbles(p, 4, b->q);
        break;
    }
    case ATTN_Q4_K: pack ? pack_q4_k(p, row) : unpack_q4_k(p, row); break;
    case ATTN_Q6_K: pack ? pack_q6_k(p, row) : unpack_q6_k(p, row); break;
    default: break;
    }
}

/* Values [from, from + n) of one output; row begins with the first of them. */
static void move_row(attn_dtype type, uint8_t *panel, size_t width, size_t column, size_t from, size_t n,
                     uint8_t *row, int pack) {
    const size_t block = attn_dtype_block(type), bytes = attn_dtype_bytes(type);
    uint8_t *at = panel + from / block * bytes * width;
    switch (type) {
    case ATTN_F32:
        for (size_t i = 0; i < n; i++) move(at + 4 * (i * width + column), row + 4 * i, 4, pack);
        break;
    case ATTN_F16:
        for (size_t i = 0; i < n; i++) move(at + 2 * (i * width + column), row + 2 * i, 2, pack);
        break;
    case ATTN_BF16: /* `from` is even */
        for (size_t i = 0; i < n; i++)
            move(at + 4 * (i / 2 * width + column) + 2 * (i % 2), row + 2 * i, 2, pack);
        break;
    default:
        for (size_t i = 0; i < n / block; i++)
            move_block(type, &(struct place){at + i * bytes * width, width, column}, row + i * bytes, pack);
    }
}

void attn_weights_pack_row(attn_dtype type, const void *row, size_t k, void *panel, size_t width,
                           size_t column) {
    move_row(type, panel, width, column, 0, k, (uint8_t *)(uintptr_t)row, 1);
}

void attn_weights_unpack_row(attn_dtype type, const void *panel, size_t width, size_t column, size_t from,
                             size_t n, void *row) {
    move_row(type, (uint8_t *)(uintptr_t)panel, width, column, from, n, row, 0);
}
