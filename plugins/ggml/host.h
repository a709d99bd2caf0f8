/* The ggml that loaded the plugin: its functions, found in the process, and what was checked about it. */
#ifndef GGML_HOST_H
#define GGML_HOST_H

#include "ggml_abi.h"

/* result, name, arguments: of libggml-base and libggml. */
#define HOST_FUNCTIONS(X)                                                                              \
    X(struct gg_context *, ggml_init, (struct gg_init_params))                                         \
    X(void, ggml_free, (struct gg_context *))                                                          \
    X(size_t, ggml_tensor_overhead, (void))                                                            \
    X(const char *, ggml_type_name, (int))                                                             \
    X(const char *, ggml_version, (void))                                                              \
    X(size_t, ggml_row_size, (int type, int64_t ne))                                                   \
    X(size_t, ggml_nbytes, (const struct gg_tensor *))                                                 \
    X(struct gg_tensor *, ggml_new_tensor_4d,                                                          \
      (struct gg_context *, int type, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3))             \
    X(struct gg_tensor *, ggml_set_name, (struct gg_tensor *, const char *))                           \
    X(struct gg_tensor *, ggml_mul_mat, (struct gg_context *, struct gg_tensor *, struct gg_tensor *)) \
    X(struct gg_tensor *, ggml_flash_attn_ext,                                                         \
      (struct gg_context *, struct gg_tensor * q, struct gg_tensor * k, struct gg_tensor * v,          \
       struct gg_tensor * mask, float scale, float max_bias, float soft_cap))                          \
    X(struct gg_tensor *, ggml_view_1d,                                                                \
      (struct gg_context *, struct gg_tensor *, int64_t ne0, size_t offset))                           \
    X(struct gg_tensor *, ggml_reshape_2d,                                                             \
      (struct gg_context *, struct gg_tensor *, int64_t ne0, int64_t ne1))                             \
    X(struct gg_tensor *, ggml_permute, (struct gg_context *, struct gg_tensor *, int, int, int, int)) \
    X(struct gg_tensor *, ggml_transpose, (struct gg_context *, struct gg_tensor *))                   \
    X(struct gg_graph *, ggml_new_graph_custom, (struct gg_context *, size_t size, bool grads))        \
    X(size_t, ggml_graph_overhead_custom, (size_t size, bool grads))                                   \
    X(void, ggml_build_forward_expand, (struct gg_graph *, struct gg_tensor *))                        \
    X(int, ggml_graph_n_nodes, (struct gg_graph *))                                                    \
    X(struct gg_tensor *, ggml_graph_node, (struct gg_graph *, int))                                   \
    X(struct gg_buffer *, ggml_backend_buffer_init,                                                    \
      (struct gg_buffer_type *, struct gg_buffer_functions, void *context, size_t size))               \
    X(struct gg_buffer *, ggml_backend_buft_alloc_buffer, (struct gg_buffer_type *, size_t))           \
    X(struct gg_device *, ggml_backend_buft_get_device, (struct gg_buffer_type *))                     \
    X(bool, ggml_backend_buft_is_host, (struct gg_buffer_type *))                                      \
    X(struct gg_buffer_type *, ggml_backend_buffer_get_type, (struct gg_buffer *))                     \
    X(size_t, ggml_backend_buffer_get_size, (struct gg_buffer *))                                      \
    X(void, ggml_backend_buffer_free, (struct gg_buffer *))                                            \
    X(struct gg_backend *, ggml_backend_dev_init, (struct gg_device *, const char *params))            \
    X(void, ggml_backend_free, (struct gg_backend *))                                                  \
    X(struct gg_device *, ggml_backend_get_device, (struct gg_backend *))                              \
    X(struct gg_buffer_type *, ggml_backend_dev_buffer_type, (struct gg_device *))                     \
    X(struct gg_reg *, ggml_backend_dev_backend_reg, (struct gg_device *))                             \
    X(size_t, ggml_backend_dev_count, (void))                                                          \
    X(struct gg_device *, ggml_backend_dev_get, (size_t))                                              \
    X(void, ggml_backend_dev_get_props, (struct gg_device *, struct gg_device_props *))

struct host {
#define HOST_MEMBER(result, name, arguments) result(*name) arguments;
    HOST_FUNCTIONS(HOST_MEMBER)
#undef HOST_MEMBER
    struct gg_buffer_type *cpu_buffers;
    int marks; /* whether nodes that are to be computed carry GG_FLAG_COMPUTE */
    int op_none, op_reshape, op_view, op_permute, op_transpose, op_mul_mat, op_flash_attn_ext;
    /* Of libgomp where ggml's CPU backend has it, otherwise NULL. */
    void (*parallel)(void (*task)(void *), void *arg, unsigned n_threads, unsigned flags);
    int (*thread)(void);
};

extern struct host host;

/* Fills `host` from the process that `caller`, an address in ggml's code, belongs to. NULL, or why this ggml cannot be worked
 * with. */
const char *host_find(const void *caller);

#endif
