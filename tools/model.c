/* Loads the matrices of a layer and works out its shape. */
#include "model.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "names.h"
#include "npy.h"
#include "tool.h"

enum { HEADS_MAX = 1 << 16, CONFIG_MAX = 1 << 20 };

static struct matrix load_matrix(const struct weights *w, const struct tensor *weight,
                                 const struct tensor *bias) {
    struct matrix m = {0};

    if (!weight) {
        return m;
    }
    if (weight->rank != 2 || weight->count == 0) {
        die("%s: tensor %.200s has shape %s; a matrix [outputs, inputs] is needed", w->file.path,
            weight->name, npy_shape_text(weight->size, weight->rank));
    }
    m.n = weight->size[0];
    m.k = weight->size[1];
    m.stored = weights_read(w, weight);
    m.data = dtype_floats(&m.stored, weight->name);
    if (bias) {
        if (bias->count != m.n) {
            die("%s: bias %.200s has shape %s; %.200s has %zu outputs", w->file.path, bias->name,
                npy_shape_text(bias->size, bias->rank), weight->name, m.n);
        }
        m.bias = weights_floats(w, bias);
    }
    return m;
}

/* ---- Number of heads -------------------------------------------------------------------------------- */

/* config.json beside the weights, as Hugging Face's directories have it; NULL when there is none. */
static json_t *load_config(const char *weights) {
    const char *slash = strrchr(weights, '/');
    char *path = print_text("%.*sconfig.json", slash ? (int)(slash - weights + 1) : 0, weights), *text;
    json_error_t error;
    json_t *root = NULL;
    size_t bytes;

    if (access(path, F_OK) == 0) {
        text = file_read_text(path, "config", CONFIG_MAX, &bytes);
        root = json_loadb(text, bytes, 0, &error);
        release(text);
        if (!root) {
            die("%s: not JSON: %s; mend it, or give --heads and move it away", path, error.text);
        }
    }
    release(path);
    return root;
}

/* A count of config.json, or 0. Multimodal models keep their language model's under text_config. */
static size_t config_count(json_t *config, const char *const *keys) {
    json_t *inner = json_object_get(config, "text_config");

    for (; *keys; keys++) {
        json_t *value = json_object_get(config, *keys);

        value = value ? value : json_object_get(inner, *keys);
        if (json_is_integer(value) && json_integer_value(value) > 0 &&
            json_integer_value(value) <= HEADS_MAX) {
            return (size_t)json_integer_value(value);
        }
    }
    return 0;
}

/* The number of heads of a GGUF file's layer, and what its metadata says besides: that must fit the shapes. */
static size_t metadata_heads(const struct model *m, const struct weights *w, size_t layer) {
    size_t heads = weights_count(w, "attention.head_count", layer), kv, length;

    if (heads == 0 || heads > HEADS_MAX) {
        die("--heads: not given, and the metadata of %s has no attention.head_count from 1 to %d", m->path,
            HEADS_MAX);
    }
    kv = weights_count(w, "attention.head_count_kv", layer);
    kv = kv ? kv : heads;
    length = weights_count(w, "attention.key_length", layer);
    length = length ? length : m->w_q.n / heads;
    if (m->w_q.n / heads != length || m->w_q.n % heads || m->w_k.n % kv || m->w_k.n / kv != length) {
        die("%s: W_q has %zu outputs and W_k %zu; the metadata's %zu and %zu heads of %zu do not fit that; "
            "the file is "
            "damaged, or give --heads",
            m->path, m->w_q.n, m->w_k.n, heads, kv, length);
    }
    return heads;
}

static void find_heads(struct model *m, const struct weights *w, size_t layer, const struct request *r) {
    static const char *const heads[] = {"num_attention_heads", "n_heads", "n_head", NULL};
    static const char *const kv_heads[] = {"num_key_value_heads", NULL};
    json_t *config = w->is_gguf || (r->heads && r->kv_heads) ? NULL : load_config(m->path);

    if (r->heads) {
        m->n_head = parse_count(r->heads, "--heads", 1, HEADS_MAX);
    } else if (w->is_gguf) {
        m->n_head = metadata_heads(m, w, layer);
    } else {
        m->n_head = config_count(config, heads);
    }
    if (m->n_head == 0) {
        die("--heads: not given, and there is no config.json with num_attention_heads beside %s", m->path);
    }
    if (m->w_q.n % m->n_head) {
        die("--heads: W_q has %zu outputs, which %zu heads do not divide", m->w_q.n, m->n_head);
    }
    m->p_q = m->w_q.n / m->n_head;
    if (r->kv_heads) {
        m->n_head_kv = parse_count(r->kv_heads, "--kv-heads", 1, HEADS_MAX);
    } else if (!m->additive && m->w_k.n % m->p_q == 0) {
        m->n_head_kv = m->w_k.n / m->p_q; /* p_k = p_q, so the shape tells, whatever the configuration says */
    } else {
        m->n_head_kv =
            w->is_gguf ? weights_count(w, "attention.head_count_kv", layer) : config_count(config, kv_heads);
        m->n_head_kv = m->n_head_kv ? m->n_head_kv : m->n_head;
    }
    json_decref(config);
}

/* Rows [first, first + n) of a matrix. */
static struct matrix slice(const struct matrix *m, size_t first, size_t n) {
    struct matrix part = {.stored = m->stored,
                          .data = m->data + first * m->k,
                          .bias = m->bias ? m->bias + first : NULL,
                          .n = n,
                          .k = m->k};

    part.stored.data = (char *)m->stored.data + (ptrdiff_t)first * m->stored.stride[2];
    part.stored.size[2] = n;
    return part;
}

/* W_q holds the rows of all three: heads of one size, those of q, of k, of v. */
static void split(struct model *m, const struct weights *w, size_t layer, const struct request *r) {
    struct matrix all = m->w_q;
    size_t heads, kv, p;

    heads = r->heads ? parse_count(r->heads, "--heads", 1, HEADS_MAX)
                     : weights_count(w, "attention.head_count", layer);
    kv = r->kv_heads ? parse_count(r->kv_heads, "--kv-heads", 1, HEADS_MAX)
                     : weights_count(w, "attention.head_count_kv", layer);
    kv = kv ? kv : heads;
    if (heads == 0 || heads > HEADS_MAX || kv > HEADS_MAX) {
        die("--heads: not given, and the metadata of %s has no attention.head_count from 1 to %d", m->path,
            HEADS_MAX);
    }
    p = all.n / (heads + 2 * kv);
    if (p == 0 || all.n % (heads + 2 * kv)) {
        die("--heads: W_q, W_k and W_v have %zu outputs together, which %zu heads and twice %zu do not "
            "divide",
            all.n, heads, kv);
    }
    m->w_q = slice(&all, 0, heads * p);
    m->w_k = slice(&all, heads * p, kv * p);
    m->w_v = slice(&all, (heads + kv) * p, kv * p);
}

static void check_shape(struct model *m) {
    if (m->n_head % m->n_head_kv) {
        die("--kv-heads: %zu query heads are not a multiple of %zu key/value heads", m->n_head, m->n_head_kv);
    }
    if (m->w_k.n % m->n_head_kv || m->w_v.n % m->n_head_kv) {
        die("--kv-heads: W_k has %zu outputs and W_v %zu, which %zu key/value heads do not divide", m->w_k.n,
            m->w_v.n, m->n_head_kv);
    }
    m->d_q = m->w_q.k;
    m->d_k = m->w_k.k;
    m->d_v = m->w_v.k;
    m->p_k = m->w_k.n / m->n_head_kv;
    m->p_v = m->w_v.n / m->n_head_kv;
    if (!m->additive && m->p_q != m->p_k) {
        die("p_q is %zu and p_k %zu: the dot product needs them equal; give --kv-heads, or --additive",
            m->p_q, m->p_k);
    }
    if (m->w_o.data && m->w_o.k != m->n_head * m->p_v) {
        die("W_o has %zu inputs; %zu heads of %zu values need %zu", m->w_o.k, m->n_head, m->p_v,
            m->n_head * m->p_v);
    }
}

/* ---- Additive scores -------------------------------------------------------------------------------- */

static const struct tensor *need(const struct weights *w, const char *name, const char *option) {
    const struct tensor *tensor = weights_find(w, name);

    if (!tensor) {
        die("%s: %s has no tensor '%s'", option, w->file.path, name);
    }
    return tensor;
}

/* A_q or A_k: a matrix for every head ([heads, c, p]), or one that all share ([c, p]); NULL: identity. */
static struct matrix *load_scorer(const struct weights *w, const char *name, const char *option, size_t heads,
                                  size_t c, size_t p) {
    const struct tensor *tensor;
    struct matrix *list;
    float *data;

    if (!name) {
        if (p != c) {
            die("%s: not given, so that it is the identity; but p is %zu and w has %zu elements a head",
                option, p, c);
        }
        return NULL;
    }
    tensor = need(w, name, option);
    if (tensor->rank < 2 || tensor->rank > 3 || tensor->size[tensor->rank - 2] != c ||
        tensor->size[tensor->rank - 1] != p || (tensor->rank == 3 && tensor->size[0] != heads)) {
        die("%s: tensor %.200s has shape %s; [%zu, %zu] or [%zu, %zu, %zu] is needed", option, tensor->name,
            npy_shape_text(tensor->size, tensor->rank), c, p, heads, c, p);
    }
    data = weights_floats(w, tensor);
    list = get_array(heads, sizeof *list, name);
    for (size_t i = 0; i < heads; i++) {
        list[i] = (struct matrix){.data = data + (tensor->rank == 3 ? i * c * p : 0), .n = c, .k = p};
        list[i].stored = attn_tensor_contiguous(list[i].data, ATTN_F32, 1, 1, c, p);
    }
    return list;
}

static void load_additive(struct model *m, const struct weights *file, const struct request *r) {
    const struct tensor *w;

    if (!m->additive) {
        if (r->a_q || r->a_k || r->w_a) {
            die("--aq, --ak and --w belong to additive scores; add --additive");
        }
        return;
    }
    if (!r->w_a) {
        die("--w: additive scores need the tensor w; name it");
    }
    w = need(file, r->w_a, "--w");
    if (w->rank < 1 || w->rank > 2 || w->count == 0 ||
        (w->rank == 2 && w->size[0] != 1 && w->size[0] != m->n_head)) {
        die("--w: tensor %.200s has shape %s; [c] or [%zu, c] is needed", w->name,
            npy_shape_text(w->size, w->rank), m->n_head);
    }
    m->w_a_heads = w->rank == 2 ? w->size[0] : 1;
    m->c = w->size[w->rank - 1];
    m->w_a = weights_floats(file, w);
    m->a_q = load_scorer(file, r->a_q, "--aq", m->n_head, m->c, m->p_q);
    m->a_k = load_scorer(file, r->a_k, "--ak", m->n_head_kv, m->c, m->p_k);
}

/* ---- All together ----------------------------------------------------------------------------------- */

/* The types of the projections, each once. */
static char *list_types(const struct names *names) {
    char *text = copy_text("");

    for (size_t i = 0; i < PROJECTIONS; i++) {
        const char *name = names->weight[i] ? names->weight[i]->type_name : NULL;
        size_t before = 0;
        char *longer;

        while (before < i &&
               !(name && names->weight[before] && !strcmp(names->weight[before]->type_name, name))) {
            before++;
        }
        if (name && before == i) {
            longer = print_text("%s%s%.20s", text, i ? " and " : "", name);
            release(text);
            text = longer;
        }
    }
    return text;
}

/* What the model does and this command does not. */
static void note_limits(const struct weights *w, const struct names *names) {
    if (names->rotary && w->is_gguf) {
        note("models of architecture '%.*s' rotate queries and keys by their position; this command does not",
             (int)w->model.bytes, w->model.text);
    } else if (names->rotary) {
        note("models with %s's names rotate queries and keys by their position; this command does not",
             names->family);
    }
    if (names->head_norm) {
        note("the model norms each head by %.200s; this command does not", names->head_norm->name);
    }
    if (names->input_norm) {
        note("the model norms the layer's input by %.200s; --q is what comes out of that",
             names->input_norm->name);
    }
}

void model_load(struct model *m, const struct request *r) {
    struct weights w;
    struct names names;

    memset(m, 0, sizeof *m);
    if (!r->weights) {
        die("--weights: give the model's .safetensors or .gguf file");
    }
    m->path = r->weights;
    m->additive = r->additive;
    weights_open(&w, r->weights);
    names_find(&names, &w, r);
    m->title = names.family ? print_text("layer %zu", names.layer) : copy_text(names.weight[0]->name);
    m->types = list_types(&names);
    m->w_q = load_matrix(&w, names.weight[0], names.bias[0]);
    m->w_k = load_matrix(&w, names.weight[1], names.bias[1]);
    m->w_v = load_matrix(&w, names.weight[2], names.bias[2]);
    m->w_o = load_matrix(&w, names.weight[3], names.bias[3]);
    if (names.fused) {
        split(m, &w, names.layer, r);
    }
    find_heads(m, &w, names.layer, r);
    check_shape(m);
    load_additive(m, &w, r);
    note_limits(&w, &names);
    weights_close(&w);
}

static struct input load_input(const char *path, const char *option, const char *columns, size_t needed) {
    struct npy array;
    struct input input;

    npy_read(&array, path, option);
    if (array.rank == 3 && array.size[0] == 1) { /* a batch of one */
        array.size[0] = array.size[1];
        array.size[1] = array.size[2];
        array.rank = 2;
    }
    if (array.rank != 2 || array.count == 0) {
        die("%s: %s has shape %s; one sequence [rows, %zu] is needed", option, path,
            npy_shape_text(array.size, array.rank), needed);
    }
    if (array.size[1] != needed) {
        die("%s: %s has shape %s; the matrix takes %s = %zu columns", option, path,
            npy_shape_text(array.size, array.rank), columns, needed);
    }
    input = (struct input){.data = npy_floats(&array), .rows = array.size[0], .columns = array.size[1]};
    npy_free(&array);
    return input;
}

void inputs_load(struct inputs *in, const struct model *m, const struct request *r) {
    if (!r->q) {
        die("--q: give the .npy file of the inputs");
    }
    in->q = load_input(r->q, "--q", "d_q", m->d_q);
    in->k = r->k ? load_input(r->k, "--k", "d_k", m->d_k) : in->q;
    in->v = r->v ? load_input(r->v, "--v", "d_v", m->d_v) : in->k;
    if (in->k.columns != m->d_k) {
        die("--k: W_k takes d_k = %zu columns, but %s has %zu; give the keys' own file", m->d_k, r->q,
            in->k.columns);
    }
    if (in->v.columns != m->d_v) {
        die("--v: W_v takes d_v = %zu columns, but the keys' file has %zu; give the values' own file", m->d_v,
            in->v.columns);
    }
    if (in->k.rows != in->v.rows) {
        die("--v: %zu rows of values and %zu of keys; there must be as many", in->v.rows, in->k.rows);
    }
}
