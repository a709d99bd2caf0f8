/* Registration, device and backend: what ggml asks of every backend. */
#include <stdlib.h>
#include <string.h>

#include "plugin.h"
#include "team.h"

/* ---- A backend: one a llama_context ----------------------------------------------------------------------- */

void *backend_memory(struct backend *b, size_t bytes) {
    if (bytes > b->memory_bytes) {
        free(b->memory);
        b->memory = malloc(bytes);
        b->memory_bytes = b->memory ? bytes : 0;
    }
    return b->memory;
}

/* With so many threads; keeps what there was where that fails. */
static void open_context(struct backend *b, int n_threads) {
    char error[200];
    attn_executor executor;
    attn_options options = {
        .size = sizeof options, .n_threads = (size_t)n_threads, .error = error, .error_bytes = sizeof error};
    attn_context *context;
    const int before = b->n_threads;
    b->n_threads = n_threads;
    if (team_executor(&b->n_threads, &executor)) options.executor = &executor;
    if (attn_context_create(&options, &context) != ATTN_OK) {
        log_error("%d threads: %s", n_threads, error);
        b->n_threads = before;
        return;
    }
    attn_context_destroy(b->context);
    b->context = context;
}

/*
 * With "-fa auto" llama.cpp looks, while a context is made, whether a row's attention would run on the layer's own device, and
 * gives flash attention up where it would not. So until that is over the attention is declined. The first graph that is
 * planned is that look's, of one row a sequence (or, without the look, a prompt's); graphs of other sizes follow
 * before the context is ready.
 */
static _Thread_local struct {
    int active;
    int64_t rows; /* of the first graph's nodes; 0: not seen yet */
} making;

static int still_making(const struct gg_tensor *node) {
    if (!making.active) return 0;
    const int64_t rows = node->src[0]->ne[1] * node->src[0]->ne[3];
    if (!making.rows) making.rows = rows;
    if (rows != making.rows) making.active = 0;
    return making.active;
}

static void set_n_threads(struct gg_backend *backend, int n_threads) {
    struct backend *b = backend->context;
    making.active = 0;
    if (n_threads >= 1 && n_threads != b->n_threads) open_context(b, n_threads);
}

static int is_view(int op) {
    return op == host.op_none || op == host.op_reshape || op == host.op_view || op == host.op_permute ||
           op == host.op_transpose;
}

/* The next nodes from *at on that are to be computed, views left out; at most `most`. */
static size_t next_nodes(struct gg_graph *graph, int *at, struct gg_tensor **nodes, size_t most) {
    const int end = host.ggml_graph_n_nodes(graph);
    size_t n = 0;
    for (; *at < end && n < most; ++*at) {
        struct gg_tensor *node = host.ggml_graph_node(graph, *at);
        if (!is_view(node->op) && (!host.marks || node->flags & GG_FLAG_COMPUTE)) nodes[n++] = node;
    }
    return n;
}

static int graph_compute(struct gg_backend *backend, struct gg_graph *graph) {
    struct backend *b = backend->context;
    struct gg_tensor *nodes[ATTN_LINEARS];
    int at = 0;
    size_t n = 0;
    for (;;) {
        n += next_nodes(graph, &at, nodes + n, ATTN_LINEARS - n);
        if (!n) return GG_SUCCESS;
        size_t done = 1;
        attn_status status = ATTN_ERROR_ARGUMENT;
        if (nodes[0]->op == host.op_mul_mat) {
            done = products_together(nodes, n);
            status = products_compute(b, nodes, done);
        } else if (nodes[0]->op == host.op_flash_attn_ext) {
            status = attention_compute(b, nodes[0]);
        }
        if (status != ATTN_OK) {
            log_error("%s: %s", nodes[0]->name, attn_context_error(b->context));
            return GG_FAILED;
        }
        n -= done;
        memmove(nodes, nodes + done, n * sizeof *nodes);
    }
}

static const char *backend_name(struct gg_backend *backend) {
    (void)backend;
    return "ATTN";
}

static void backend_free(struct gg_backend *backend) {
    struct backend *b = backend->context;
    attn_context_destroy(b->context);
    free(b->memory);
    free(b);
    free(backend);
}

static struct gg_device compute_device;

static struct gg_backend *init_backend(struct gg_device *device, const char *params) {
    static uint8_t guid[16] = {0x61, 0x74, 0x74, 0x6e, 0x9d, 0x3c, 0x4b, 0x1e,
                               0xa8, 0x52, 0x0f, 0x77, 0xe1, 0x26, 0x5b, 0xc0};
    struct gg_backend *backend = calloc(1, sizeof *backend);
    struct backend *b = calloc(1, sizeof *b);
    (void)device, (void)params;
    if (b) open_context(b, 1);
    if (!backend || !b || !b->context) {
        free(backend);
        free(b);
        return NULL;
    }
    backend->guid = &guid;
    backend->get_name = backend_name;
    backend->free = backend_free;
    backend->graph_compute = graph_compute;
    backend->device = &compute_device;
    backend->context = b;
    making.active = 1;
    making.rows = 0;
    return backend;
}

/* ---- The device ----------------------------------------------------------------------------------------- */

static void say(const struct gg_tensor *node, const char *op, const char *why) {
    const struct gg_tensor *a = node->src[0], *b = node->src[1];
    if (!log_wanted()) return;
    log_once("%s %s [%lld, %lld, %lld, %lld] x %s [%lld, %lld, %lld, %lld]: %s%s", op,
             host.ggml_type_name(a->type), (long long)a->ne[0], (long long)a->ne[1], (long long)a->ne[2],
             (long long)a->ne[3], host.ggml_type_name(b->type), (long long)b->ne[0], (long long)b->ne[1],
             (long long)b->ne[2], (long long)b->ne[3], why ? "declined, " : "taken", why ? why : "");
}

static bool supports_op(struct gg_device *device, const struct gg_tensor *node) {
    const char *why;
    (void)device;
    if (is_view(node->op)) return true;
    if (node->op == host.op_mul_mat) {
        why = product_declined(node);
        say(node, "MUL_MAT", why);
        return !why;
    }
    if (node->op != host.op_flash_attn_ext) return false;
    why = still_making(node) ? "the context is being made" : attention_declined(node);
    say(node, "FLASH_ATTN_EXT", why);
    return !why;
}

static bool supports_buft(struct gg_device *device, struct gg_buffer_type *type) {
    (void)device;
    return type == weights_buffer_type() || host.ggml_backend_buft_is_host(type);
}

/* For weights, and for what is computed from them: llama.cpp asks the device that is registered for the former, that of a
 * backend for the latter, which other backends must be able to read. */
static struct gg_buffer_type *get_buffer_type(struct gg_device *device) {
    (void)device;
    return weights_wanted() ? weights_buffer_type() : host.cpu_buffers;
}
static struct gg_buffer_type *get_compute_buffer_type(struct gg_device *device) {
    (void)device;
    return host.cpu_buffers;
}

static const char *device_name(struct gg_device *device) {
    (void)device;
    return "ATTN";
}

static const char *device_description(struct gg_device *device) {
    (void)device;
    return "libattn: attention and projections";
}

static void get_memory(struct gg_device *device, size_t *free_bytes, size_t *total) {
    (void)device;
    *free_bytes = *total = 0;
}

static int get_type(struct gg_device *device) {
    (void)device;
    return GG_DEVICE_ACCEL;
}

static void get_props(struct gg_device *device, struct gg_device_props *props) {
    *props = (struct gg_device_props){
        .name = device_name(device), .description = device_description(device), .type = GG_DEVICE_ACCEL};
}

static struct gg_device device_0 = {.get_name = device_name,
                                    .get_description = device_description,
                                    .get_memory = get_memory,
                                    .get_type = get_type,
                                    .get_props = get_props,
                                    .init_backend = init_backend,
                                    .get_buffer_type = get_buffer_type,
                                    .supports_op = supports_op,
                                    .supports_buft = supports_buft};

/* ---- Registration --------------------------------------------------------------------------------------- */

static const char *reg_name(struct gg_reg *reg) {
    (void)reg;
    return "ATTN";
}
static size_t get_device_count(struct gg_reg *reg) { return reg->context ? 1 : 0; }
static struct gg_device *get_device(struct gg_reg *reg, size_t index) {
    (void)reg, (void)index;
    return &device_0;
}

static void *address_of(const void *function) { /* of a pointer to a pointer to a function */
    void *address;
    memcpy(&address, function, sizeof address);
    return address;
}

static void *get_proc_address(struct gg_reg *reg, const char *name) {
    static void (*const threads)(struct gg_backend *, int) = set_n_threads;
    static void (*const weights)(int) = weights_set_wanted;
    (void)reg;
    if (strcmp(name, "ggml_backend_set_n_threads") == 0) return address_of(&threads);
    if (strcmp(name, "ggml_attn_set_weights") == 0) return address_of(&weights);
    return NULL;
}

__attribute__((visibility("default"))) struct gg_reg *ggml_backend_init(void);

/* Called by ggml where it loads the plugin. A ggml that cannot be worked with gets NULL and goes on without. */
struct gg_reg *ggml_backend_init(void) {
    static struct gg_reg reg = {.api_version = GG_API_VERSION,
                                .get_name = reg_name,
                                .get_device_count = get_device_count,
                                .get_device = get_device,
                                .get_proc_address = get_proc_address};
    const char *why = host_find(__builtin_return_address(0));
    if (why) {
        log_error("not used with this ggml: %s (interface version %d is wanted)", why, GG_API_VERSION);
        return NULL;
    }
    device_0.reg = &reg;
    compute_device = device_0;
    compute_device.get_buffer_type = get_compute_buffer_type;
    reg.context = &device_0;
    weights_open(&device_0);
    return &reg;
}
