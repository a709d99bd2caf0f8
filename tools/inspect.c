/* attn inspect: what each head of a layer looks at, as a table and as pictures. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "heatmap.h"
#include "labels.h"
#include "metrics.h"
#include "model.h"
#include "request.h"
#include "tool.h"

static const char examples[] =
    "Prints a line for each head: the mean entropy of its softmax rows in bits (0: one key; log2(n_kv): all\n"
    "alike), the mean distance |i - j| between query and key, the mean weight on the first key, the "
    "previous,\n"
    "own and next token, the largest weight, the key that gets most, and notes: values that are not finite,\n"
    "saturated or uniform softmax, projection matrices that are the same as another head's.\n"
    "Previous, own, next and distance are left out where keys are not the queries' own positions.\n"
    "Weights are a .safetensors or a .gguf file; see attn head --help.\n"
    "\n"
    "Example: all heads of a layer and their pictures in a grid\n"
    "  attn inspect -w examples/minilm/layer0.safetensors -q examples/minilm/input.npy --png heads.png\n"
    "Example: head 2, large, with tokens\n"
    "  attn inspect -w examples/minilm/layer0.safetensors -q examples/minilm/input.npy -H 2 \\\n"
    "               --tokens examples/minilm/tokens.json --png head2.png\n";

struct inspect_request {
    struct request common;
    const char *head, *png, *tokens, *key_tokens;
};

/* What is known before the first head. */
struct view {
    const struct model *model;
    const struct job *job;
    struct labels queries, keys;
    size_t n_q, n_kv;
};

static void read_options(struct inspect_request *r, int argc, const char **argv) {
    static struct poptOption common[REQUEST_OPTIONS_MAX];
    struct poptOption options[] = {
        {"head", 'H', POPT_ARG_STRING, &r->head, 0, "which head: its number, or all (default)", "I"},
        {"png", 'p', POPT_ARG_STRING, &r->png, 0, "draw the weights: one head large, or all in a grid",
         "FILE"},
        {"tokens", 0, POPT_ARG_STRING, &r->tokens, 0,
         "the rows' tokens: a .json array of strings, or text with one a line", "FILE"},
        {"key-tokens", 0, POPT_ARG_STRING, &r->key_tokens, 0, "the keys' tokens, where keys are others",
         "FILE"},
        {NULL, 0, POPT_ARG_INCLUDE_TABLE, common, 0, "Model, inputs and backend:", NULL},
        POPT_TABLEEND,
    };

    request_options(&r->common, common, REQUEST_OPTIONS_MAX);
    parse_options(argc, argv, options, "attn inspect", examples);
}

static void read_labels(struct view *view, const struct inspect_request *r, const struct inputs *in) {
    if (r->tokens) {
        labels_read(&view->queries, r->tokens, "--tokens", view->n_q);
        if (in->k.data == in->q.data) {
            view->keys = view->queries;
        }
    }
    if (r->key_tokens) {
        labels_read(&view->keys, r->key_tokens, "--key-tokens", view->n_kv);
    }
}

static void warn_input(const struct input *in, const char *name) {
    for (size_t i = 0; i < in->rows * in->columns; i++) {
        if (!isfinite(in->data[i])) {
            printf("NON-FINITE: %zu values of %s, first at [%zu, %zu]\n",
                   count_bad(in->data, in->rows * in->columns), name, i / in->columns, i % in->columns);
            return;
        }
    }
}

static void warn_inputs(const struct inputs *in) {
    warn_input(&in->q, in->k.data == in->q.data ? "the input" : "the queries");
    if (in->k.data != in->q.data) {
        warn_input(&in->k, "the keys");
    }
    if (in->v.data != in->k.data) {
        warn_input(&in->v, "the values");
    }
}

static void print_heading(const struct view *view) {
    printf("%4s %8s %8s %6s %6s %6s %6s  %-16s %-22s %s\n", "head", "entropy", "distance", "first", "prev",
           "own", "next", "largest", "key that gets most", "notes");
    printf("%4s %8s %8s %6s %6s %6s %6s  %-16s %-22s\n", "", "bits", "tokens", "weight", "weight", "weight",
           "weight", "weight at [q,k]", view->keys.text ? "mean, position, token" : "mean, position");
}

/* A number, or a dash where there is none. */
static void print_cell(int width, int digits, double value) {
    if (isnan(value)) {
        printf(" %*s", width, "-");
    } else {
        printf(" %*.*f", width, digits, value);
    }
}

static void print_line(const struct view *view, size_t head, const struct metrics *m, const char *notes) {
    char *at = print_text("%.3f [%zu,%zu]", m->largest, m->largest_row, m->largest_key);
    char *most =
        print_text("%.3f %zu %s", m->most, m->most_key, view->keys.text ? view->keys.text[m->most_key] : "");

    printf("%4zu", head);
    print_cell(8, 2, m->entropy);
    print_cell(8, 2, m->distance);
    print_cell(6, 3, m->first);
    print_cell(6, 3, m->previous);
    print_cell(6, 3, m->own);
    print_cell(6, 3, m->next);
    if (isnan(m->entropy)) { /* no row without a NaN */
        strcpy(at, "-");
        strcpy(most, "-");
    }
    printf(*notes ? "  %-16s %-22s %s\n" : "  %-16s %s\n", at, most, notes);
    release(at);
    release(most);
}

/* A few words under a head's number in the grid. */
static char *make_caption(const struct metrics *m) {
    const char *kind = m->previous >= 0.5 ? ", previous token"
                       : m->own >= 0.5    ? ", own token"
                       : m->next >= 0.5   ? ", next token"
                       : m->first >= 0.5  ? ", first token"
                       : m->uniform       ? ", uniform"
                                          : "";

    return print_text("%.2f bits, max %.2f%s", m->entropy, m->largest, kind);
}

static void inspect_heads(struct engine *e, const struct view *view, size_t first, size_t n,
                          const char *png) {
    size_t count;
    float *attention, *out = get_array(view->n_q * view->model->p_v, sizeof *out, "outputs");
    struct heatmap_grid grid;
    struct metrics m;
    char *text;

    if (!size_product(view->n_q, view->n_kv, &count)) {
        die("the attention weights do not fit the address space; use fewer rows");
    }
    attention = get_array(count, sizeof *attention, "attention weights");
    if (png && n > 1) {
        text = print_text("%s of %s", view->model->title, view->model->path);
        heatmap_grid_open(&grid, text, n, view->n_q, view->n_kv);
        release(text);
    }
    progress_begin("inspecting head", n);
    for (size_t head = first; head < first + n; head++) {
        progress_step(head - first);
        engine_head(e, view->job, head, out, attention);
        metrics_compute(&m, attention, view->job);
        text = metrics_notes(&m, view->model, head, count_bad(out, view->n_q * view->model->p_v));
        progress_hide();
        print_line(view, head, &m, text);
        release(text);
        text = make_caption(&m);
        if (png && n > 1) {
            heatmap_grid_add(&grid, head, text, attention);
        } else if (png) {
            char *title = print_text("%s, head %zu: %s", view->model->title, head, text);

            heatmap_head(png, title, attention, view->n_q, view->n_kv, &view->queries, &view->keys);
            release(title);
        }
        release(text);
    }
    progress_end();
    if (png && n > 1) {
        heatmap_grid_write(&grid, png);
    }
    release(attention);
    release(out);
}

int inspect_main(int argc, const char **argv) {
    static struct inspect_request request; /* static: its texts stay reachable to the end */
    struct model model;
    struct inputs inputs;
    struct engine engine;
    struct job job;
    struct view view = {.model = &model, .job = &job};
    size_t first = 0, n;

    read_options(&request, argc, argv);
    model_load(&model, &request.common);
    inputs_load(&inputs, &model, &request.common);
    job = job_make(&inputs, &request.common);
    view.n_q = inputs.q.rows;
    view.n_kv = inputs.k.rows;
    read_labels(&view, &request, &inputs);
    n = model.n_head;
    if (request.head && strcmp(request.head, "all") != 0) {
        first = parse_count(request.head, "--head", 0, model.n_head - 1);
        n = 1;
    }
    engine_open(&engine, &model, request.common.backend,
                request.common.threads ? parse_count(request.common.threads, "--threads", 1, 4096) : 0);
    printf("%s of %s: %zu heads, %zu queries, %zu keys, %s, weights %s, backend %s\n", model.title,
           model.path, model.n_head, view.n_q, view.n_kv, model.additive ? "additive" : "scaled dot product",
           model.types, attn_context_backend(engine.context));
    warn_inputs(&inputs);
    print_heading(&view);
    inspect_heads(&engine, &view, first, n, request.png);
    if (request.png) {
        printf("wrote %s\n", request.png);
    }
    engine_close(&engine);
    return 0;
}
