/* attn head: computes one head, all heads or the multi-head output, and compares it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "engine.h"
#include "model.h"
#include "npy.h"
#include "request.h"
#include "tool.h"

static const char examples[] =
    "Computes h_i = f(W_q q, W_k k, W_v v) for a head i of a model's layer, or for all of them.\n"
    "Weights are a .safetensors file (F32, F16, BF16) or a .gguf file (F32, F16, BF16, Q8_0, Q4_0, Q4_1, "
    "Q4_K,\n"
    "Q6_K; Q5_0, Q5_1 and Q5_K become f32), with the names of Hugging Face or of llama.cpp; the number of "
    "heads\n"
    "is in a .gguf file's metadata. Inputs are f16, f32 or f64 (rounded to f32); the result is written as "
    "f32.\n"
    "Exit code: 0; 1 when --check or --expect finds an element beyond its bound; 2 for bad input.\n"
    "\n"
    "Example: all heads of a layer, checked against the scalar reference\n"
    "  attn head -w examples/minilm/layer0.safetensors -q examples/minilm/input.npy --check --out heads.npy\n"
    "Example: head 3 of layer 5, causal, on one backend\n"
    "  attn head -w model.safetensors -l 5 -n 32 -H 3 -q x.npy --causal bottom-right -b avx2 --out h3.npy\n"
    "Example: layer 7 of a quantised model\n"
    "  attn head -w model-Q4_K_M.gguf -l 7 -q x.npy --causal bottom-right --check\n"
    "Example: additive scores, matrices by name\n"
    "  attn head -w bahdanau.safetensors -n 1 --wq dec.w --wk enc.w --wv enc.v --additive --w score.w \\\n"
    "            -q decoder.npy -k encoder.npy --out context.npy\n";

struct head_request {
    struct request common;
    const char *head, *out, *expect;
    int multihead, check;
};

static void read_options(struct head_request *r, int argc, const char **argv) {
    static struct poptOption common[REQUEST_OPTIONS_MAX];
    struct poptOption options[] = {
        {"head", 'H', POPT_ARG_STRING, &r->head, 0, "which head to compute: its number, or all (default)",
         "I"},
        {"multihead", 'm', POPT_ARG_NONE, &r->multihead, 0, "compute W_o [h_1; ...; h_h] + b_o instead",
         NULL},
        {"out", 'o', POPT_ARG_STRING, &r->out, 0, "write h_i [n_q, p_v], all [heads, n_q, p_v] or [n_q, p_o]",
         "FILE"},
        {"check", 0, POPT_ARG_NONE, &r->check, 0, "compare with the scalar reference at the derived bound",
         NULL},
        {"expect", 0, POPT_ARG_STRING, &r->expect, 0, "compare with this .npy at the derived bound", "FILE"},
        {NULL, 0, POPT_ARG_INCLUDE_TABLE, common, 0, "Model, inputs and backend:", NULL},
        POPT_TABLEEND,
    };

    request_options(&r->common, common, REQUEST_OPTIONS_MAX);
    parse_options(argc, argv, options, "attn head", examples);
}

static void plan_result(struct result *r, const struct head_request *request, const struct model *m,
                        const struct inputs *in) {
    if (request->multihead) {
        if (request->head) {
            die("--multihead: takes all heads; leave out --head");
        }
        if (!m->w_o.data) {
            die("--multihead: the model has no W_o; name it with --wo");
        }
        *r = (struct result){.kind = OUTPUT_MULTIHEAD, .rank = 2, .size = {in->q.rows, m->w_o.n}};
    } else if (request->head && strcmp(request->head, "all") != 0) {
        *r = (struct result){.kind = OUTPUT_HEAD, .rank = 2, .size = {in->q.rows, m->p_v}};
        r->head = parse_count(request->head, "--head", 0, m->n_head - 1);
    } else {
        *r = (struct result){.kind = OUTPUT_HEADS, .rank = 3, .size = {m->n_head, in->q.rows, m->p_v}};
    }
}

static float *compute(struct engine *e, const struct job *job, const struct result *r) {
    size_t count = r->size[0] * r->size[1];
    float *out;

    if (r->rank == 3 && !size_product(count, r->size[2], &count)) {
        die("the result does not fit the address space; use fewer rows");
    }
    out = get_array(count, sizeof *out, "result");
    progress_begin("computing", 0);
    if (r->kind == OUTPUT_HEAD) {
        engine_head(e, job, r->head, out, NULL);
    } else if (r->kind == OUTPUT_HEADS) {
        engine_heads(e, job, out);
    } else {
        engine_multihead(e, job, out);
    }
    progress_end();
    return out;
}

static void describe(const struct engine *e, const struct result *r, const struct inputs *in, double time) {
    const struct model *m = e->model;

    printf("%s of %s: %zu query heads, %zu key/value heads, p_q %zu, p_k %zu, p_v %zu, %s, weights %s\n",
           m->title, m->path, m->n_head, m->n_head_kv, m->p_q, m->p_k, m->p_v,
           m->additive ? "additive" : "scaled dot product", m->types);
    if (r->kind == OUTPUT_HEAD) {
        printf("head %zu", r->head);
    } else {
        printf(r->kind == OUTPUT_HEADS ? "all heads" : "multi-head output");
    }
    printf(": %zu queries, %zu keys, backend %s, %zu thread%s, %.3g ms\n", in->q.rows, in->k.rows,
           attn_context_backend(e->context), attn_context_workers(e->context),
           attn_context_workers(e->context) == 1 ? "" : "s", 1e3 * time);
}

int head_main(int argc, const char **argv) {
    static struct head_request request; /* static: its texts stay reachable to the end */
    struct model model;
    struct inputs inputs;
    struct engine engine;
    struct result result;
    struct job job;
    double start;
    float *out;
    int ok = 1;

    read_options(&request, argc, argv);
    if (!request.out && !request.check && !request.expect) {
        die("nothing to do: give --out, --check or --expect; see attn head --help");
    }
    model_load(&model, &request.common);
    inputs_load(&inputs, &model, &request.common);
    plan_result(&result, &request, &model, &inputs);
    job = job_make(&inputs, &request.common);
    engine_open(&engine, &model, request.common.backend,
                request.common.threads ? parse_count(request.common.threads, "--threads", 1, 4096) : 0);
    start = seconds();
    result.data = out = compute(&engine, &job, &result);
    describe(&engine, &result, &inputs, seconds() - start);
    if (request.out) {
        npy_write(request.out, out, result.size, result.rank);
        printf("wrote %s %s f32\n", request.out, npy_shape_text(result.size, result.rank));
    }
    if (request.check) {
        ok &= compare_check(&result, &model, &job, attn_context_backend(engine.context));
    }
    if (request.expect) {
        ok &= compare_expect(&result, &model, &job, attn_context_backend(engine.context), request.expect);
    }
    engine_close(&engine);
    release(out);
    return ok ? 0 : EXIT_DIFFERS;
}
