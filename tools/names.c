/*
 * A model's stacks and layers are found through their query projections: PREFIX CONTAINER.N.QUERY.weight,
 * e.g. bert.encoder. layer .0. attention.self.query .weight
 */
#include "names.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

struct family {
    const char *name, *container;
    const char *module[PROJECTIONS];
    int rotary;
};

static const struct family families[] = {
    {"BERT",
     "layer",
     {"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"},
     0},
    {"Llama", "layers", {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"}, 1},
    {"OPT", "layers", {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"}, 0},
    {"ViT",
     "layer",
     {"attention.attention.query", "attention.attention.key", "attention.attention.value",
      "attention.output.dense"},
     0},
    {"DistilBERT",
     "layer",
     {"attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"},
     0},
};

/* Where the search stands: the stack of the layer taken so far. */
struct match {
    const struct family *family;
    const char *name; /* of its query weight */
    size_t prefix;    /* length of the prefix */
    size_t layer;
};

/* Whether name is a query weight of the family; fills in match. */
static int match_name(struct match *match, const struct family *family, const char *name) {
    char tail[128];
    size_t length = strlen(name), tail_length, digits = 0, container = strlen(family->container);
    const char *at;

    tail_length = (size_t)snprintf(tail, sizeof tail, ".%s.weight", family->module[0]);
    if (length < tail_length || strcmp(name + length - tail_length, tail) != 0) {
        return 0;
    }
    at = name + length - tail_length;
    while (at > name && at[-1] >= '0' && at[-1] <= '9') {
        at--;
        digits++;
    }
    if (digits == 0 || digits > 6 || (size_t)(at - name) < container + 1 || at[-1] != '.' ||
        strncmp(at - 1 - container, family->container, container) != 0) {
        return 0;
    }
    match->layer = strtoull(at, NULL, 10);
    at -= 1 + container;
    if (at > name && at[-1] != '.') {
        return 0;
    }
    match->family = family;
    match->name = name;
    match->prefix = (size_t)(at - name);
    return 1;
}

/* A tensor of the matched layer, or NULL. */
static const struct st_tensor *layer_tensor(const struct safetensors *st, const struct match *m,
                                            const struct family *family, size_t projection,
                                            const char *kind) {
    char *name = print_text("%.*s%s.%zu.%s.%s", (int)m->prefix, m->name, family->container, m->layer,
                            family->module[projection], kind);
    const struct st_tensor *found = st_find(st, name);

    release(name);
    return found;
}

/* Llama and OPT share the names of q, k and v: the output projection's name tells which it is. */
static const struct family *refine(const struct safetensors *st, const struct match *m) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (strcmp(families[i].module[0], m->family->module[0]) == 0 &&
            layer_tensor(st, m, &families[i], PROJECTIONS - 1, "weight")) {
            return &families[i];
        }
    }
    return m->family;
}

/* The match for the layer asked for (the lowest where none is). Dies when there is none, or two stacks. */
static struct match search(const struct safetensors *st, const struct request *request) {
    size_t wanted = request->layer ? parse_count(request->layer, "--layer", 0, 999999) : SIZE_MAX;
    size_t lowest = SIZE_MAX, highest = 0;
    struct match best = {0}, m = {0};

    for (size_t i = 0; i < st->n_tensors; i++) {
        for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
            const char *name = st->tensors[i].name;

            if (!match_name(&m, &families[f], name) ||
                (request->prefix &&
                 (strlen(request->prefix) != m.prefix || strncmp(name, request->prefix, m.prefix) != 0))) {
                continue;
            }
            lowest = m.layer < lowest ? m.layer : lowest;
            highest = m.layer > highest ? m.layer : highest;
            if (best.name && strcmp(m.family->module[0], best.family->module[0]) == 0 &&
                (m.prefix != best.prefix || strncmp(m.name, best.name, m.prefix) != 0)) {
                die("%s: has two stacks of layers, '%.*s' and '%.*s'; choose one with --prefix",
                    st->file.path, (int)best.prefix, best.name, (int)m.prefix, m.name);
            }
            if ((wanted == SIZE_MAX || m.layer == wanted) && (!best.name || m.layer < best.layer)) {
                best = m;
            }
            break;
        }
    }
    if (lowest == SIZE_MAX) {
        die("%s: no projection matrices with the names of a BERT or Llama model%s; name them with --wq, "
            "--wk, --wv",
            st->file.path, request->prefix ? " and that --prefix" : "");
    }
    if (!best.name) {
        die("--layer: %s has layers %zu to %zu, not %zu", st->file.path, lowest, highest, wanted);
    }
    return best;
}

static const struct st_tensor *named(const struct safetensors *st, const char *name, const char *option) {
    const struct st_tensor *tensor = name ? st_find(st, name) : NULL;

    if (name && !tensor) {
        die("%s: %s has no tensor '%s' (it has %zu, the first is '%.100s')", option, st->file.path, name,
            st->n_tensors, st->n_tensors ? st->tensors[0].name : "");
    }
    return tensor;
}

static void find_by_option(struct names *names, const struct safetensors *st, const struct request *r) {
    const char *const weight[] = {r->w_q, r->w_k, r->w_v, r->w_o}, *const bias[] = {r->b_q, r->b_k, r->b_v,
                                                                                    r->b_o};
    static const char *const weight_option[] = {"--wq", "--wk", "--wv", "--wo"};
    static const char *const bias_option[] = {"--bq", "--bk", "--bv", "--bo"};

    for (size_t i = 0; i < PROJECTIONS; i++) {
        if (!weight[i] && i < 3) {
            die("%s: not given; --wq, --wk and --wv are needed together", weight_option[i]);
        }
        names->weight[i] = named(st, weight[i], weight_option[i]);
        names->bias[i] = named(st, bias[i], bias_option[i]);
        if (names->bias[i] && !names->weight[i]) {
            die("%s: given without %s", bias_option[i], weight_option[i]);
        }
    }
}

void names_find(struct names *names, const struct safetensors *st, const struct request *r) {
    struct match m;

    memset(names, 0, sizeof *names);
    if (r->w_q || r->w_k || r->w_v || r->w_o || r->b_q || r->b_k || r->b_v || r->b_o) {
        find_by_option(names, st, r);
        return;
    }
    m = search(st, r);
    m.family = refine(st, &m);
    names->family = m.family->name;
    names->rotary = m.family->rotary;
    names->layer = m.layer;
    for (size_t i = 0; i < PROJECTIONS; i++) {
        names->weight[i] = layer_tensor(st, &m, m.family, i, "weight");
        names->bias[i] = layer_tensor(st, &m, m.family, i, "bias");
        if (!names->weight[i] && i < 3) {
            die("%s: layer %zu has no tensor %s.weight; name the matrices with --wq, --wk, --wv",
                st->file.path, m.layer, m.family->module[i]);
        }
    }
}
