#include "kv/model.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static void *zeros(size_t n, size_t element) {
    void *p = calloc(n ? n : 1, element);
    ck_assert_ptr_nonnull(p);
    return p;
}

size_t model_row(attn_dtype type, size_t columns) {
    size_t block;
    const size_t bytes = attn_dtype_size(type, &block);
    return columns / block * bytes;
}

/* Bytes of a key, and of a value, of all heads. */
static size_t k_bytes(const struct kv_sizes *z) { return z->n_head * model_row(z->k_type, z->p_k); }
static size_t v_bytes(const struct kv_sizes *z) { return z->n_head * model_row(z->v_type, z->p_v); }

void model_open(struct model *m, const struct kv_sizes *z, int counted) {
    *m = (struct model){.z = *z, .counted = counted, .n_numbers = 1};
    m->sequences = zeros(z->n_sequences, sizeof *m->sequences);
    m->holders = zeros(1, sizeof *m->holders);
    for (size_t s = 0; s < z->n_sequences; s++) {
        m->sequences[s].owned = zeros(z->slots, sizeof(size_t));
        m->sequences[s].k = zeros(z->most, k_bytes(z));
        m->sequences[s].v = zeros(z->most, v_bytes(z));
    }
}

void model_close(struct model *m) {
    for (size_t s = 0; s < m->z.n_sequences; s++) {
        free(m->sequences[s].owned);
        free(m->sequences[s].k);
        free(m->sequences[s].v);
    }
    free(m->sequences);
    free(m->holders);
}

size_t model_capacity(const struct kv_sizes *z) { return z->slots * z->block_rows; }

size_t model_free_blocks(const struct model *m) {
    size_t used = 0;
    for (size_t i = 1; i < m->n_numbers; i++) used += m->holders[i] > 0;
    return m->z.n_blocks - used;
}

static size_t slot_of(const struct model *m, size_t key) {
    const size_t block = key / m->z.block_rows;
    return m->z.ring ? block % m->z.slots : block;
}

static void drop(struct model *m, size_t *owned) {
    if (*owned) m->holders[*owned]--;
    *owned = 0;
}

/* A block that this sequence alone has, for the slot. */
static void own(struct model *m, struct model_sequence *s, size_t slot) {
    if (s->owned[slot] && m->holders[s->owned[slot]] == 1) return;
    drop(m, &s->owned[slot]);
    m->holders = realloc(m->holders, (m->n_numbers + 1) * sizeof *m->holders);
    ck_assert_ptr_nonnull(m->holders);
    m->holders[m->n_numbers] = 1;
    s->owned[slot] = m->n_numbers++;
}

/* Who owns what, to go back to. */
struct owners {
    size_t *owned, n_numbers;
    unsigned *holders;
};

static struct owners save(const struct model *m) {
    const size_t slots = m->z.slots;
    struct owners o = {zeros(m->z.n_sequences * slots, sizeof(size_t)), m->n_numbers,
                       zeros(m->n_numbers, sizeof *m->holders)};
    for (size_t s = 0; s < m->z.n_sequences; s++)
        memcpy(o.owned + s * slots, m->sequences[s].owned, slots * sizeof(size_t));
    memcpy(o.holders, m->holders, m->n_numbers * sizeof *m->holders);
    return o;
}

static void restore(struct model *m, const struct owners *o) {
    const size_t slots = m->z.slots;
    for (size_t s = 0; s < m->z.n_sequences; s++)
        memcpy(m->sequences[s].owned, o->owned + s * slots, slots * sizeof(size_t));
    m->n_numbers = o->n_numbers;
    memcpy(m->holders, o->holders, m->n_numbers * sizeof *m->holders);
}

/* Blocks for the rows that are stored; 0 where the sequence's are full. */
static int own_all(struct model *m, const struct model_rows *r) {
    struct model_sequence *s = &m->sequences[r->sequence];
    const size_t after = s->length + r->count, capacity = model_capacity(&m->z);
    if (!m->z.ring && after > capacity) return 0;
    for (size_t key = s->length; key < after && m->counted; key++)
        if (key + capacity >= after) own(m, s, slot_of(m, key));
    return 1;
}

int model_append(struct model *m, const struct model_rows *rows, size_t n) {
    const size_t k_row = k_bytes(&m->z), v_row = v_bytes(&m->z);
    const size_t before = model_free_blocks(m), numbers = m->n_numbers;
    struct owners o = save(m);
    int fits = 1;
    for (size_t i = 0; i < n; i++) fits = fits && own_all(m, &rows[i]);
    if (m->counted)
        fits = fits && m->n_numbers - numbers <= before; /* each number is a block that was free */
    if (!fits) restore(m, &o);
    free(o.owned);
    free(o.holders);
    for (size_t i = 0; i < n && fits; i++) {
        struct model_sequence *s = &m->sequences[rows[i].sequence];
        memcpy(s->k + s->length * k_row, rows[i].k, rows[i].count * k_row);
        memcpy(s->v + s->length * v_row, rows[i].v, rows[i].count * v_row);
        s->length += rows[i].count;
        while (s->length - s->first > model_capacity(&m->z)) s->first++;
    }
    return fits;
}

/* Whether one of the sequence's keys is in the slot. */
static int holds(const struct model *m, const struct model_sequence *s, size_t slot) {
    int found = 0;
    for (size_t key = s->first; key < s->length; key++) found |= slot_of(m, key) == slot;
    return found;
}

void model_fork(struct model *m, size_t from, size_t to) {
    const struct model_sequence *f = &m->sequences[from];
    struct model_sequence *t = &m->sequences[to];
    t->first = f->first;
    t->length = f->length;
    memcpy(t->k, f->k, f->length * k_bytes(&m->z));
    memcpy(t->v, f->v, f->length * v_bytes(&m->z));
    for (size_t slot = 0; slot < m->z.slots; slot++) {
        if (!holds(m, f, slot)) continue;
        t->owned[slot] = f->owned[slot];
        m->holders[t->owned[slot]]++;
    }
}

void model_truncate(struct model *m, size_t sequence, size_t length) {
    struct model_sequence *s = &m->sequences[sequence];
    s->length = length;
    if (s->first > length) s->first = length;
    for (size_t slot = 0; slot < m->z.slots && m->counted; slot++)
        if (!holds(m, s, slot)) drop(m, &s->owned[slot]);
}
