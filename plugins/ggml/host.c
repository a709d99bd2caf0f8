#include "host.h"

#include <dlfcn.h>
#include <string.h>

struct host host;

static int find(void *library, const char *name, void *to) {
    void *symbol = library ? dlsym(library, name) : NULL;
    if (!symbol) symbol = dlsym(RTLD_DEFAULT, name);
    memcpy(to, &symbol, sizeof symbol);
    return symbol != NULL;
}

/* Names of types stand for their numbers, which are part of the GGUF format, too. */
static int types_agree(void) {
    static const struct {
        int type;
        const char *name;
        size_t row; /* bytes of 256 values */
    } all[] = {{GG_F32, "f32", 1024},  {GG_F16, "f16", 512},   {GG_BF16, "bf16", 512},
               {GG_Q8_0, "q8_0", 272}, {GG_Q4_0, "q4_0", 144}, {GG_Q4_1, "q4_1", 160},
               {GG_Q4_K, "q4_K", 144}, {GG_Q6_K, "q6_K", 210}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const char *name = host.ggml_type_name(all[i].type);
        if (!name || strcmp(name, all[i].name) != 0 || host.ggml_row_size(all[i].type, 256) != all[i].row)
            return 0;
    }
    return 1;
}

/* A small graph: where its tensors have what they must have, struct gg_tensor is ggml's; its nodes tell the operations. */
static int tensors_agree(struct gg_context *c) {
    struct gg_tensor *w = host.ggml_new_tensor_4d(c, GG_Q8_0, 64, 3, 1, 1);
    struct gg_tensor *x = host.ggml_new_tensor_4d(c, GG_F32, 64, 5, 1, 1);
    struct gg_tensor *q = host.ggml_new_tensor_4d(c, GG_F32, 32, 7, 4, 2);
    struct gg_tensor *k = host.ggml_new_tensor_4d(c, GG_F16, 32, 9, 2, 2);
    if (!w || !x || !q || !k) return 0;
    struct gg_tensor *y = host.ggml_mul_mat(c, w, x);
    struct gg_tensor *a = host.ggml_flash_attn_ext(c, q, k, k, NULL, 0.25f, 0.0f, 3.0f);
    struct gg_tensor *view = host.ggml_view_1d(c, x, 64, 256);
    if (!y || !a || !view) return 0;
    const float params[] = {0.25f, 0.0f, 3.0f};
    host.ggml_set_name(w, "weights");
    host.op_none = w->op;
    host.op_mul_mat = y->op;
    host.op_flash_attn_ext = a->op;
    host.op_view = view->op;
    host.op_reshape = host.ggml_reshape_2d(c, x, 32, 10)->op;
    host.op_permute = host.ggml_permute(c, q, 0, 2, 1, 3)->op;
    host.op_transpose = host.ggml_transpose(c, x)->op;
    struct gg_graph *graph = host.ggml_new_graph_custom(c, 16, false);
    host.ggml_build_forward_expand(graph, y);
    host.marks = (y->flags & GG_FLAG_COMPUTE) != 0;
    return w->type == GG_Q8_0 && w->ne[0] == 64 && w->ne[1] == 3 && w->nb[0] == 34 && w->nb[1] == 68 &&
           w->nb[2] == 204 && strcmp(w->name, "weights") == 0 && !w->buffer && !w->data && !w->extra &&
           y->src[0] == w && y->src[1] == x && !y->src[2] && y->ne[0] == 3 && y->ne[1] == 5 &&
           y->op != w->op && a->src[0] == q && a->src[1] == k && a->src[2] == k && !a->src[3] &&
           a->ne[1] == 4 && a->ne[2] == 7 && a->ne[3] == 2 &&
           memcmp(a->op_params, params, sizeof params) == 0 && view->view_src == x &&
           view->view_offs == 256 && host.ggml_graph_n_nodes(graph) == 1 &&
           host.ggml_graph_node(graph, 0) == y;
}

/* The structs behind the functions of an object that exists, the CPU backend, hold at their ends what ggml's own functions
 * find there: so they have as many members before that. */
static int interfaces_agree(void) {
    for (size_t i = 0; i < host.ggml_backend_dev_count(); i++) {
        struct gg_device *device = host.ggml_backend_dev_get(i);
        struct gg_device_props props = {.type = -1};
        host.ggml_backend_dev_get_props(device, &props);
        if (props.type != GG_DEVICE_CPU) continue;
        struct gg_buffer_type *type = host.ggml_backend_dev_buffer_type(device);
        struct gg_reg *reg = host.ggml_backend_dev_backend_reg(device);
        struct gg_buffer *buffer = host.ggml_backend_buft_alloc_buffer(type, 4096);
        struct gg_backend *backend = host.ggml_backend_dev_init(device, NULL);
        const int agree = device->reg == reg && reg->api_version == GG_API_VERSION &&
                          type->device == host.ggml_backend_buft_get_device(type) && buffer && backend &&
                          buffer->type == host.ggml_backend_buffer_get_type(buffer) &&
                          buffer->size == host.ggml_backend_buffer_get_size(buffer) &&
                          backend->device == host.ggml_backend_get_device(backend);
        if (buffer) host.ggml_backend_buffer_free(buffer);
        if (backend) host.ggml_backend_free(backend);
        host.cpu_buffers = type;
        return agree;
    }
    return 0;
}

const char *host_find(const void *caller) {
    Dl_info info;
    void *library = NULL;
    if (dladdr(caller, &info) && info.dli_fname) library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
#define HOST_FIND(result, name, arguments) \
    if (!find(library, #name, &host.name)) return "it lacks the function " #name;
    HOST_FUNCTIONS(HOST_FIND)
#undef HOST_FIND
    if (!library || !find(library, "GOMP_parallel", &host.parallel) ||
        !find(library, "omp_get_thread_num", &host.thread))
        host.parallel = NULL;
    if (!types_agree()) return "its element types are others";
    const struct gg_init_params params = {.mem_size = 32 * host.ggml_tensor_overhead() +
                                                      host.ggml_graph_overhead_custom(16, false),
                                          .no_alloc = true};
    struct gg_context *context = host.ggml_init(params);
    const int agree = context && tensors_agree(context);
    if (context) host.ggml_free(context);
    if (!agree) return "its tensors are laid out differently";
    if (!interfaces_agree()) return "it has no CPU backend, or its interface of backends is another";
    return NULL;
}
