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
    const char *module[PROJECTIONS];          /* without those of k and v where the first holds all three */
    const char *input_norm, *q_norm, *k_norm; /* or NULL */
    int rotary;
};

/*
 * GGUF files have llama.cpp's names, whatever the family; whether it is rotary is in their metadata. W_q and W_k of the
 * families that rotate neighbouring columns have their rows permuted there, within each head and both alike: the scores
 * are the same sums in another order, and values and outputs are as they were.
 */
static const struct family families[] = {
    {.name = "BERT",
     .container = "layer",
     .module = {"attention.self.query", "attention.self.key", "attention.self.value",
                "attention.output.dense"}},
    {.name = "Llama",
     .container = "layers",
     .module = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"},
     .input_norm = "input_layernorm",
     .q_norm = "self_attn.q_norm",
     .k_norm = "self_attn.k_norm",
     .rotary = 1},
    {.name = "OPT",
     .container = "layers",
     .module = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"}},
    {.name = "ViT",
     .container = "layer",
     .module = {"attention.attention.query", "attention.attention.key", "attention.attention.value",
                "attention.output.dense"}},
    {.name = "DistilBERT",
     .container = "layer",
     .module = {"attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"}},
    {.name = "llama.cpp",
     .container = "blk",
     .module = {"attn_q", "attn_k", "attn_v", "attn_output"},
     .input_norm = "attn_norm",
     .q_norm = "attn_q_norm",
     .k_norm = "attn_k_norm"},
    {.name = "llama.cpp",
     .container = "blk",
     .module = {"attn_q", "attn_k", "attn_v", "attn_o"},
     .input_norm = "attn_norm"},
    {.name = "llama.cpp", .container = "blk", .module = {"attn_q", "attn_k", "attn_v", "attn_out"}},
    {.name = "llama.cpp",
     .container = "blk",
     .module = {"attn_qkv", NULL, NULL, "attn_output"},
     .input_norm = "attn_norm",
     .q_norm = "attn_q_norm",
     .k_norm = "attn_k_norm"},
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

/* A tensor of the matched layer, or NULL; module may be NULL. */
static const struct tensor *layer_tensor(const struct weights *w, const struct match *m, const char *module,
                                         const char *kind) {
    const struct tensor *found;
    char *name;

    if (!module) {
        return NULL;
    }
    name =
        print_text("%.*s%s.%zu.%s.%s", (int)m->prefix, m->name, m->family->container, m->layer, module, kind);
    found = weights_find(w, name);
    release(name);
    return found;
}

/* Some share the names of q, k and v: the output projection's name tells which it is. */
static const struct family *refine(const struct weights *w, const struct match *m) {
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (strcmp(families[i].module[0], m->family->module[0]) == 0 &&
            layer_tensor(w, m, families[i].module[PROJECTIONS - 1], "weight")) {
            return &families[i];
        }
    }
    return m->family;
}

/* The match for the layer asked for (the lowest where none is). Dies when there is none, or two stacks. */
static struct match search(const struct weights *w, const struct request *request) {
    size_t wanted = request->layer ? parse_count(request->layer, "--layer", 0, 999999) : SIZE_MAX;
    size_t lowest = SIZE_MAX, highest = 0;
    struct match best = {0}, m = {0};

    for (size_t i = 0; i < w->n_tensors; i++) {
        for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
            const char *name = w->tensors[i].name;

            if (!match_name(&m, &families[f], name) ||
                (request->prefix &&
                 (strlen(request->prefix) != m.prefix || strncmp(name, request->prefix, m.prefix) != 0))) {
                continue;
            }
            lowest = m.layer < lowest ? m.layer : lowest;
            highest = m.layer > highest ? m.layer : highest;
            if (best.name && strcmp(m.family->module[0], best.family->module[0]) == 0 &&
                (m.prefix != best.prefix || strncmp(m.name, best.name, m.prefix) != 0)) {
                die("%s: has two stacks of layers, '%.*s' and '%.*s'; choose one with --prefix", w->file.path,
                    (int)best.prefix, best.name, (int)m.prefix, m.name);
            }
            if ((wanted == SIZE_MAX || m.layer == wanted) && (!best.name || m.layer < best.layer)) {
                best = m;
            }
            break;
        }
    }
    if (lowest == SIZE_MAX) {
        die("%s: no projection matrices with the names of a BERT or Llama model, or of llama.cpp%s; name "
            "them with "
            "--wq, --wk, --wv",
            w->file.path, request->prefix ? " and that --prefix" : "");
    }
    if (!best.name) {
        die("--layer: %s has layers %zu to %zu, not %zu", w->file.path, lowest, highest, wanted);
    }
    return best;
}

static const struct tensor *named(const struct weights *w, const char *name, const char *option) {
    const struct tensor *tensor = name ? weights_find(w, name) : NULL;

    if (name && !tensor) {
        die("%s: %s has no tensor '%s' (it has %zu, the first is '%.100s')", option, w->file.path, name,
            w->n_tensors, w->n_tensors ? w->tensors[0].name : "");
    }
    return tensor;
}

static void find_by_option(struct names *names, const struct weights *w, const struct request *r) {
    const char *const weight[] = {r->w_q, r->w_k, r->w_v, r->w_o}, *const bias[] = {r->b_q, r->b_k, r->b_v,
                                                                                    r->b_o};
    static const char *const weight_option[] = {"--wq", "--wk", "--wv", "--wo"};
    static const char *const bias_option[] = {"--bq", "--bk", "--bv", "--bo"};

    for (size_t i = 0; i < PROJECTIONS; i++) {
        if (!weight[i] && i < 3) {
            die("%s: not given; --wq, --wk and --wv are needed together", weight_option[i]);
        }
        names->weight[i] = named(w, weight[i], weight_option[i]);
        names->bias[i] = named(w, bias[i], bias_option[i]);
        if (names->bias[i] && !names->weight[i]) {
            die("%s: given without %s", bias_option[i], weight_option[i]);
        }
    }
}

void names_find(struct names *names, const struct weights *w, const struct request *r) {
    struct match m;

    memset(names, 0, sizeof *names);
    if (r->w_q || r->w_k || r->w_v || r->w_o || r->b_q || r->b_k || r->b_v || r->b_o) {
        find_by_option(names, w, r);
        return;
    }
    m = search(w, r);
    m.family = refine(w, &m);
    names->family = m.family->name;
    names->layer = m.layer;
    names->fused = !m.family->module[1];
    for (size_t i = 0; i < PROJECTIONS; i++) {
        names->weight[i] = layer_tensor(w, &m, m.family->module[i], "weight");
        names->bias[i] = layer_tensor(w, &m, m.family->module[i], "bias");
        if (!names->weight[i] && m.family->module[i] && i < 3) {
            die("%s: layer %zu has no tensor %s.weight; name the matrices with --wq, --wk, --wv",
                w->file.path, m.layer, m.family->module[i]);
        }
    }
    names->rotary =
        m.family->rotary || weights_has(w, "rope.dimension_count") || weights_has(w, "rope.freq_base");
    names->input_norm = layer_tensor(w, &m, m.family->input_norm, "weight");
    names->head_norm = layer_tensor(w, &m, m.family->q_norm, "weight");
    if (!names->head_norm) {
        names->head_norm = layer_tensor(w, &m, m.family->k_norm, "weight");
    }
}
