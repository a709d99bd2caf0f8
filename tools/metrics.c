/* What a head's attention weights say about it. */
#include "metrics.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

/* Thresholds of the flags. A row is one-hot when its largest weight is at least 0.99, even when its entropy
 * is at least 0.99 of the largest possible; a head is called so when 9 rows of 10 are; it is named after a
 * position that takes at least half of its weight. */
#define ONE_HOT 0.99
#define EVEN 0.99
#define MOST_ROWS 0.9
#define HALF 0.5

/* A mean that knows how many values it has. */
struct mean {
    double sum;
    size_t n;
};

static void mean_add(struct mean *mean, double value) {
    mean->sum += value;
    mean->n++;
}

static double mean_value(const struct mean *mean) { return mean->n ? mean->sum / (double)mean->n : NAN; }

/* Sums over all rows. */
struct sums {
    struct mean entropy, evenness, distance, near[3];
    size_t rows, choosing, one_hot, even; /* choosing: rows that see two keys or more */
    double *key;
};

/* Queries and keys are the same positions when there are as many, or when the last ones are aligned. */
static int has_positions(const struct job *job, ptrdiff_t *offset) {
    size_t n_q = job->inputs->q.rows, n_kv = job->inputs->k.rows;

    *offset = job->scoring.causal == ATTN_CAUSAL_BOTTOM_RIGHT ? (ptrdiff_t)n_kv - (ptrdiff_t)n_q : 0;
    return n_q == n_kv || job->scoring.causal != ATTN_CAUSAL_NONE;
}

static size_t visible_keys(const struct job *job, size_t row, ptrdiff_t offset) {
    ptrdiff_t n_kv = (ptrdiff_t)job->inputs->k.rows, end = (ptrdiff_t)row + offset + 1;

    if (job->scoring.causal == ATTN_CAUSAL_NONE) {
        return (size_t)n_kv;
    }
    return (size_t)(end < 0 ? 0 : end > n_kv ? n_kv : end);
}

static void add_row(struct metrics *m, struct sums *s, const float *weights, size_t row, size_t n_kv,
                    size_t visible, ptrdiff_t position) {
    double entropy = 0, distance = 0, top = 0;

    for (size_t j = 0; j < n_kv; j++) {
        double w = weights[j];

        entropy -= w > 0 ? w * log2(w) : 0;
        distance += w * fabs((double)position - (double)j);
        s->key[j] += w;
        top = w > top ? w : top;
        if (w > m->largest) {
            m->largest = w;
            m->largest_row = row;
            m->largest_key = j;
        }
    }
    s->rows++;
    entropy = fmax(entropy, 0); /* a weight may be a rounding above 1 */
    mean_add(&s->entropy, entropy);
    mean_add(&s->distance, distance);
    for (ptrdiff_t d = -1; d <= 1; d++) {
        if (position + d >= 0 && position + d < (ptrdiff_t)n_kv) {
            mean_add(&s->near[d + 1], weights[position + d]);
        }
    }
    if (visible > 1) {
        double share = entropy / log2((double)visible);

        mean_add(&s->evenness, share);
        s->choosing++;
        s->one_hot += top >= ONE_HOT;
        s->even += share >= EVEN;
    }
}

void metrics_compute(struct metrics *m, const float *weights, const struct job *job) {
    size_t n_q = job->inputs->q.rows, n_kv = job->inputs->k.rows;
    struct sums s = {.key = get_array(n_kv, sizeof(double), "metrics")};
    ptrdiff_t offset;
    int positions = has_positions(job, &offset);

    memset(m, 0, sizeof *m);
    for (size_t row = 0; row < n_q; row++) {
        size_t visible = visible_keys(job, row, offset), bad = count_bad(weights + row * n_kv, n_kv);

        m->bad_weights += bad;
        if (bad == 0 && visible > 0) {
            add_row(m, &s, weights + row * n_kv, row, n_kv, visible, (ptrdiff_t)row + offset);
        }
    }
    m->entropy = mean_value(&s.entropy);
    m->evenness = mean_value(&s.evenness);
    m->first = s.rows ? s.key[0] / (double)s.rows : NAN;
    m->distance = positions ? mean_value(&s.distance) : NAN;
    m->previous = positions ? mean_value(&s.near[0]) : NAN;
    m->own = positions ? mean_value(&s.near[1]) : NAN;
    m->next = positions ? mean_value(&s.near[2]) : NAN;
    m->most = s.rows ? 0 : NAN;
    for (size_t j = 0; j < n_kv && s.rows; j++) {
        if (s.key[j] / (double)s.rows > m->most) {
            m->most = s.key[j] / (double)s.rows;
            m->most_key = j;
        }
    }
    m->saturated = s.choosing && (double)s.one_hot >= MOST_ROWS * (double)s.choosing;
    m->uniform = s.choosing && (double)s.even >= MOST_ROWS * (double)s.choosing;
    release(s.key);
}

size_t count_bad(const float *data, size_t n) {
    size_t bad = 0;

    for (size_t i = 0; i < n; i++) {
        bad += !isfinite(data[i]);
    }
    return bad;
}

/* ---- Notes ------------------------------------------------------------------------------------------ */

/* Appends to *text, with "; " between parts. */
static void append(char **text, char *part) {
    char *longer = **text ? print_text("%s; %s", *text, part) : copy_text(part);

    release(*text);
    release(part);
    *text = longer;
}

/* Rows [i*p, (i+1)*p) of a matrix, with their bias. */
static int same_rows(const struct matrix *m, size_t p, size_t i, size_t j) {
    size_t floats = p * m->k;

    return memcmp(m->data + i * floats, m->data + j * floats, floats * sizeof *m->data) == 0 &&
           (!m->bias || memcmp(m->bias + i * p, m->bias + j * p, p * sizeof *m->bias) == 0);
}

/* The lowest head before i whose rows are the same, bit for bit; SIZE_MAX when there is none. */
static size_t find_twin(const struct matrix *m, size_t p, size_t i) {
    for (size_t j = 0; j < i; j++) {
        if (same_rows(m, p, i, j)) {
            return j;
        }
    }
    return SIZE_MAX;
}

static void note_twins(char **text, const struct model *m, size_t head) {
    size_t group = m->n_head / m->n_head_kv, kv = head / group, q, k, v;

    q = find_twin(&m->w_q, m->p_q, head);
    k = find_twin(&m->w_k, m->p_k, kv);
    v = find_twin(&m->w_v, m->p_v, kv);
    if (q != SIZE_MAX && q / group == kv) {
        append(text, print_text("SAME W_q as head %zu, whose key/value head it shares", q));
    } else if (q != SIZE_MAX && q / group == k && k == v) {
        append(text, print_text("SAME W_q, W_k, W_v as head %zu", q));
    } else {
        if (q != SIZE_MAX) {
            append(text, print_text("SAME W_q as head %zu", q));
        }
        if (head % group == 0 && k != SIZE_MAX) { /* once for a key/value head */
            append(text, print_text("SAME W_k as head %zu", k * group));
        }
        if (head % group == 0 && v != SIZE_MAX) {
            append(text, print_text("SAME W_v as head %zu", v * group));
        }
    }
}

static void note_bad(char **text, const struct matrix *m, size_t p, size_t i, const char *name) {
    size_t bad = count_bad(m->data + i * p * m->k, p * m->k);

    bad += m->bias ? count_bad(m->bias + i * p, p) : 0;
    if (bad) {
        append(text, print_text("NON-FINITE: %zu values of %s", bad, name));
    }
}

char *metrics_notes(const struct metrics *x, const struct model *m, size_t head, size_t bad_outputs) {
    char *text = copy_text("");
    size_t kv = head / (m->n_head / m->n_head_kv);

    note_bad(&text, &m->w_q, m->p_q, head, "W_q");
    note_bad(&text, &m->w_k, m->p_k, kv, "W_k");
    note_bad(&text, &m->w_v, m->p_v, kv, "W_v");
    if (x->bad_weights) {
        append(&text, print_text("NON-FINITE: %zu attention weights", x->bad_weights));
    }
    if (bad_outputs) {
        append(&text, print_text("NON-FINITE: %zu outputs", bad_outputs));
    }
    if (x->saturated) {
        append(&text, copy_text("SATURATED softmax"));
    }
    if (x->uniform) {
        append(&text, copy_text("UNIFORM softmax"));
    }
    note_twins(&text, m, head);
    if (x->previous >= HALF) {
        append(&text, copy_text("looks at the previous token"));
    } else if (x->own >= HALF) {
        append(&text, copy_text("looks at its own token"));
    } else if (x->next >= HALF) {
        append(&text, copy_text("looks at the next token"));
    } else if (x->first >= HALF) {
        append(&text, copy_text("looks at the first token"));
    }
    return text;
}
