/*
 * Weights in libattn's panels, in place of the original: a buffer type of the plugin's own, which llama.cpp offers every
 * weight to before its own. set_tensor packs, get_tensor gives the original bytes back.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "plugin.h"

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

static pthread_mutex_t lock =
    PTHREAD_MUTEX_INITIALIZER; /* of the packer, a context that packs and nothing else */
static attn_context *packer;
static int wanted = 1;

int weights_wanted(void) {
    const char *text = getenv("ATTN_GGML_WEIGHTS");
    return wanted && !(text && strcmp(text, "0") == 0);
}

void weights_set_wanted(int on) { wanted = on; }

static attn_context *lock_packer(void) {
    const attn_options options = {.size = sizeof options, .n_threads = 1};
    pthread_mutex_lock(&lock);
    if (!packer && attn_context_create(&options, &packer) != ATTN_OK) packer = NULL;
    return packer;
}

static int is_matrix(const struct gg_tensor *t, attn_dtype *type) {
    return type_of(t->type, type) && t->ne[2] == 1 && t->ne[3] == 1 && !t->view_src &&
           t->nb[0] == attn_dtype_size(*type, NULL);
}

/* ---- Tensors -------------------------------------------------------------------------------------------- */

/* Bytes that the packed weights take; 0 where they cannot be packed. */
static size_t bytes_needed(attn_context *context, const attn_tensor *w) {
    size_t bytes;
    return attn_pack_linear_bytes(context, w, &bytes) == ATTN_OK ? bytes : 0;
}

/* Bytes for a tensor; what libattn cannot pack gets those of the original (no operation takes it). */
static size_t bytes_for(struct gg_buffer_type *type, const struct gg_tensor *t) {
    size_t bytes = host.ggml_nbytes(t);
    attn_dtype dtype;
    (void)type;
    if (is_matrix(t, &dtype)) {
        const attn_tensor w = tensor_of(t, dtype);
        attn_context *context = lock_packer();
        const size_t packed = context ? bytes_needed(context, &w) : 0;
        pthread_mutex_unlock(&lock);
        if (packed > bytes) bytes = packed;
    }
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void report(attn_status status, attn_context *context, const char *what, const struct gg_tensor *t) {
    if (status != ATTN_OK)
        log_error("%s of %s: %s", what, t->name, context ? attn_context_error(context) : "no memory");
}

static void set_whole(struct gg_tensor *t, const void *data) {
    attn_dtype dtype = ATTN_F32;
    if (!is_matrix(t, &dtype)) {
        memcpy(t->data, data, host.ggml_nbytes(t));
        return;
    }
    attn_tensor w = tensor_of(t, dtype);
    const attn_packed *packed;
    memcpy(&w.data, &data, sizeof data); /* which is only read */
    attn_context *context = lock_packer();
    const attn_status status =
        context ? attn_pack_linear(context, &w, NULL, t->data, bytes_needed(context, &w), &packed)
                : ATTN_ERROR_MEMORY;
    report(status, context, "packing", t);
    t->extra = status == ATTN_OK ? t->data : NULL;
    pthread_mutex_unlock(&lock);
}

static void get_whole(const struct gg_tensor *t, void *data) {
    attn_dtype dtype = ATTN_F32;
    if (!is_matrix(t, &dtype)) {
        memcpy(data, t->data, host.ggml_nbytes(t));
    } else if (!t->extra) { /* nothing was set */
        memset(data, 0, host.ggml_nbytes(t));
    } else {
        attn_tensor w = tensor_of(t, dtype);
        w.data = data;
        attn_context *context = lock_packer();
        report(context ? attn_unpack_linear(context, t->data, &w, NULL) : ATTN_ERROR_MEMORY, context,
               "unpacking", t);
        pthread_mutex_unlock(&lock);
    }
}

static void set_tensor(struct gg_buffer *b, struct gg_tensor *t, const void *data, size_t offset,
                       size_t size) {
    (void)b;
    if (offset == 0 && size == host.ggml_nbytes(t)) {
        set_whole(t, data);
        return;
    }
    char *all = malloc(host.ggml_nbytes(t));
    if (!all) {
        report(ATTN_ERROR_MEMORY, NULL, "setting a part", t);
        return;
    }
    get_whole(t, all);
    memcpy(all + offset, data, size);
    set_whole(t, all);
    free(all);
}

static void get_tensor(struct gg_buffer *b, const struct gg_tensor *t, void *data, size_t offset,
                       size_t size) {
    (void)b;
    if (offset == 0 && size == host.ggml_nbytes(t)) {
        get_whole(t, data);
        return;
    }
    char *all = malloc(host.ggml_nbytes(t));
    if (!all) {
        report(ATTN_ERROR_MEMORY, NULL, "getting a part", t);
        return;
    }
    get_whole(t, all);
    memcpy(data, all + offset, size);
    free(all);
}

static void memset_tensor(struct gg_buffer *b, struct gg_tensor *t, uint8_t value, size_t offset,
                          size_t size) {
    void *same = malloc(size);
    if (!same) {
        report(ATTN_ERROR_MEMORY, NULL, "filling", t);
        return;
    }
    memset(same, value, size);
    set_tensor(b, t, same, offset, size);
    free(same);
}

/* ---- Buffers -------------------------------------------------------------------------------------------- */

static int init_tensor(struct gg_buffer *b, struct gg_tensor *t) {
    (void)b;
    t->extra = NULL; /* nothing packed yet */
    return GG_SUCCESS;
}

static void free_buffer(struct gg_buffer *b) { free(b->context); }
static void *get_base(struct gg_buffer *b) { return b->context; }
static void clear(struct gg_buffer *b, uint8_t value) { memset(b->context, value, b->size); }

static struct gg_buffer *alloc_buffer(struct gg_buffer_type *type, size_t size) {
    static const struct gg_buffer_functions functions = {.free_buffer = free_buffer,
                                                         .get_base = get_base,
                                                         .init_tensor = init_tensor,
                                                         .memset_tensor = memset_tensor,
                                                         .set_tensor = set_tensor,
                                                         .get_tensor = get_tensor,
                                                         .clear = clear};
    void *memory;
    if (posix_memalign(&memory, size >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT, size)) return NULL;
    if (size >= HUGE_PAGE) madvise(memory, size, MADV_HUGEPAGE);
    struct gg_buffer *b = host.ggml_backend_buffer_init(type, functions, memory, size);
    if (!b) free(memory);
    return b;
}

static const char *get_name(struct gg_buffer_type *type) {
    (void)type;
    return "ATTN";
}
static size_t get_alignment(struct gg_buffer_type *type) {
    (void)type;
    return ALIGNMENT;
}
static bool is_host(struct gg_buffer_type *type) {
    (void)type;
    return false; /* not ggml's layout */
}

static struct gg_buffer_type buffer_type = {.get_name = get_name,
                                            .alloc_buffer = alloc_buffer,
                                            .get_alignment = get_alignment,
                                            .get_alloc_size = bytes_for,
                                            .is_host = is_host};

struct gg_buffer_type *weights_buffer_type(void) {
    return &buffer_type;
}
void weights_open(struct gg_device *device) { buffer_type.device = device; }

/* ---- GGML_OP_MUL_MAT -------------------------------------------------------------------------------------- */

const char *product_declined(const struct gg_tensor *node) {
    const struct gg_tensor *w = node->src[0], *x = node->src[1];
    attn_dtype type;
    if (!w->buffer || w->buffer->type != &buffer_type) return "the weights are not in libattn's panels";
    if (!is_matrix(w, &type)) return "the weights are no matrix of a type that libattn packs";
    if (x->type != GG_F32 || node->type != GG_F32) return "inputs or results are not f32";
    if (x->nb[0] != 4 || node->nb[0] != 4) return "columns are not side by side";
    return NULL;
}

size_t products_together(struct gg_tensor *const *nodes, size_t n) {
    size_t count = 1;
    while (count < n && count < ATTN_LINEARS && nodes[count]->op == host.op_mul_mat &&
           nodes[count]->src[1] == nodes[0]->src[1])
        count++;
    return count;
}

attn_status products_compute(struct backend *b, struct gg_tensor *const *nodes, size_t n) {
    const attn_tensor x = tensor_of(nodes[0]->src[1], ATTN_F32);
    attn_tensor y[ATTN_LINEARS];
    const attn_tensor *outputs[ATTN_LINEARS];
    const attn_packed *weights[ATTN_LINEARS];
    for (size_t i = 0; i < n; i++) {
        y[i] = tensor_of(nodes[i], ATTN_F32);
        outputs[i] = &y[i];
        weights[i] = nodes[i]->src[0]->data;
    }
    return attn_linears(b->context, &x, weights, outputs, n);
}
