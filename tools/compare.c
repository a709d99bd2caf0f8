/* Comparing results with a reference, head by head. */
#include "compare.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bound.h"
#include "npy.h"
#include "tool.h"

/* Running totals over all elements. */
struct totals {
    double error, bound; /* the largest error, and the bound of that element */
    size_t at;           /* its index in the result */
    double share;        /* the largest error / bound of any element */
    size_t over;         /* elements beyond their bound */
    size_t first_over;
};

static void add(struct totals *t, size_t at, double got, double want, double bound) {
    double error = got == want || (isnan(got) && isnan(want)) ? 0 : fabs(got - want);

    if (!attn_bound_holds(got, want, bound)) {
        if (t->over++ == 0) {
            t->first_over = at;
        }
    } else if (bound > 0 && error / bound > t->share) {
        t->share = error / bound;
    }
    /* A NaN on one side only is the largest error there can be. */
    if (error > t->error || (isnan(error) && !isnan(t->error)) || at == 0) {
        t->error = error;
        t->bound = bound;
        t->at = at;
    }
}

static char *place(const struct result *r, size_t at) {
    size_t index[3];

    for (size_t i = r->rank; i-- > 0; at /= r->size[i]) {
        index[i] = at % r->size[i];
    }
    return npy_shape_text(index, r->rank);
}

static int report(const struct result *r, const struct totals *t, const char *reference) {
    printf("%s: largest error %.3g at %s, bound there %.3g; ", reference, t->error, place(r, t->at),
           t->bound);
    if (t->over) {
        printf("EXCEEDED by %zu elements, first %s\n", t->over, place(r, t->first_over));
        return 0;
    }
    printf("at most %.2g %% of any bound: ok\n", 100 * t->share);
    return 1;
}

static struct attn_bound_matrix bound_matrix(const struct matrix *m) {
    return (struct attn_bound_matrix){.data = m->data, .n = m->n, .k = m->k, .bias = m->bias};
}

static struct attn_bound_matrix *bound_list(const struct matrix *list, size_t n) {
    struct attn_bound_matrix *copy = NULL;

    if (list) {
        copy = get_array(n, sizeof *copy, "A");
        for (size_t i = 0; i < n; i++) {
            copy[i] = bound_matrix(&list[i]);
        }
    }
    return copy;
}

/* The exact values of one head's output (or of the multi-head output) and their bounds. */
static void oracle(const struct model *m, const struct job *job, enum attn_bound_arith arith, int multihead,
                   size_t head, double *want, double *bound) {
    struct attn_bound_weights w = {.n_head = m->n_head, .n_head_kv = m->n_head_kv};
    struct attn_bound_matrix *a_q = bound_list(m->a_q, m->n_head), *a_k = bound_list(m->a_k, m->n_head_kv);
    struct attn_bound_result to = {.out = want, .out_err = bound};
    struct job_tensors tensors;
    attn_head_args args = job_args(job, head, NULL, multihead ? m->w_o.n : m->p_v, NULL, &tensors);
    attn_tensor w_a;

    w.w_q = bound_matrix(&m->w_q);
    w.w_k = bound_matrix(&m->w_k);
    w.w_v = bound_matrix(&m->w_v);
    w.w_o = bound_matrix(&m->w_o);
    w.a_q = a_q;
    w.a_k = a_k;
    if (m->additive) {
        w.pooling = ATTN_POOLING_ADDITIVE;
        w_a = attn_tensor_contiguous(m->w_a, ATTN_F32, 1, m->w_a_heads, 1, m->c);
        w.w_a = &w_a;
    }
    if ((multihead ? attn_bound_multihead : attn_bound_head)(arith, &w, &args, &to) != 0) {
        die("no memory for the double-precision oracle; use fewer rows");
    }
    release(a_q);
    release(a_k);
}

/* Memory for one part of a result: a head's output, or the whole multi-head output. */
struct part {
    size_t count, n_parts, first_head;
    int multihead;
    double *want, *bound, *bound_scalar;
    float *scalar;
};

static struct part part_make(const struct result *r) {
    struct part p = {.n_parts = 1, .multihead = r->kind == OUTPUT_MULTIHEAD, .first_head = r->head};

    p.count = r->size[r->rank - 2] * r->size[r->rank - 1];
    if (r->kind == OUTPUT_HEADS) {
        p.n_parts = r->size[0];
        p.first_head = 0;
    }
    p.want = get_array(p.count, sizeof *p.want, "comparison");
    p.bound = get_array(p.count, sizeof *p.bound, "comparison");
    p.bound_scalar = get_array(p.count, sizeof *p.bound_scalar, "comparison");
    p.scalar = get_array(p.count, sizeof *p.scalar, "comparison");
    return p;
}

static void part_free(struct part *p) {
    release(p->want);
    release(p->bound);
    release(p->bound_scalar);
    release(p->scalar);
}

int compare_check(const struct result *r, const struct model *m, const struct job *job, const char *backend) {
    struct totals totals = {0};
    struct part p = part_make(r);
    int is_scalar = strcmp(backend, "scalar") == 0;
    struct engine reference;

    if (!is_scalar) {
        engine_open(&reference, m, "scalar", 1);
    }
    progress_begin("check: head", p.multihead ? 0 : p.n_parts);
    for (size_t i = 0; i < p.n_parts; i++) {
        size_t head = p.first_head + i;

        progress_step(i);
        oracle(m, job, attn_bound_arith_of(backend), p.multihead, head, p.want, p.bound);
        if (!is_scalar) { /* both sides err, each within its own bound */
            oracle(m, job, ATTN_BOUND_SCALAR, p.multihead, head, p.want, p.bound_scalar);
            if (p.multihead) {
                engine_multihead(&reference, job, p.scalar);
            } else {
                engine_head(&reference, job, head, p.scalar, NULL);
            }
        }
        for (size_t j = 0; j < p.count; j++) {
            size_t at = i * p.count + j;

            add(&totals, at, r->data[at], is_scalar ? p.want[j] : p.scalar[j],
                p.bound[j] + p.bound_scalar[j]);
        }
    }
    progress_end();
    if (!is_scalar) {
        engine_close(&reference);
    }
    part_free(&p);
    return report(r, &totals, is_scalar ? "check against double precision" : "check against scalar");
}

int compare_expect(const struct result *r, const struct model *m, const struct job *job, const char *backend,
                   const char *path) {
    struct totals totals = {0};
    struct part p = part_make(r);
    struct npy array;
    double *expected, rounded;
    int ok;

    npy_read(&array, path, "--expect");
    if (array.rank != r->rank || memcmp(array.size, r->size, r->rank * sizeof *r->size) != 0) {
        die("--expect: %s has shape %s, the result has %s", path, npy_shape_text(array.size, array.rank),
            npy_shape_text(r->size, r->rank));
    }
    expected = npy_doubles(&array);
    /* What the file's own type rounded away; our oracle's bound covers double's. */
    rounded = array.dtype == DTYPE_F64 ? 0 : array.dtype == ATTN_F32 ? 0x1p-24 : 0x1p-11;
    progress_begin("expect: head", p.multihead ? 0 : p.n_parts);
    for (size_t i = 0; i < p.n_parts; i++) {
        progress_step(i);
        oracle(m, job, attn_bound_arith_of(backend), p.multihead, p.first_head + i, p.want, p.bound);
        for (size_t j = 0; j < p.count; j++) {
            size_t at = i * p.count + j;

            add(&totals, at, r->data[at], expected[at], p.bound[j] + rounded * fabs(expected[at]));
        }
    }
    progress_end();
    ok = report(r, &totals, print_text("expect %s", path));
    release(expected);
    npy_free(&array);
    part_free(&p);
    return ok;
}
