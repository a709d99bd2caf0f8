/*
 * What a backend of ggml and ggml itself hand each other: interface version 2 (ggml-backend-impl.h, which is not among the
 * headers that packages install) and the tensor of ggml.h. Only what the plugin reads or fills has its own type.
 * host.c compares this with the library in the process, tests/llamacpp/abi.c with ggml's own headers.
 */
#ifndef GGML_ABI_H
#define GGML_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GG_API_VERSION = 2, GG_DIMS = 4, GG_OP_PARAMS = 16, GG_SOURCES = 10, GG_NAME = 64 };

enum gg_type {
    GG_F32 = 0,
    GG_F16 = 1,
    GG_Q4_0 = 2,
    GG_Q4_1 = 3,
    GG_Q8_0 = 8,
    GG_Q4_K = 12,
    GG_Q6_K = 14,
    GG_BF16 = 30
};
enum gg_status { GG_FAILED = -1, GG_SUCCESS = 0 };
enum gg_device_type { GG_DEVICE_CPU = 0, GG_DEVICE_ACCEL = 3 };
enum { GG_FLAG_COMPUTE = 16 };

struct gg_buffer;
struct gg_graph;
struct gg_context;

struct gg_tensor {
    int type;
    struct gg_buffer *buffer;
    int64_t ne[GG_DIMS]; /* elements; ne[0] are columns */
    size_t nb[GG_DIMS];  /* bytes from one to the next; nb[0] of a block */
    int op;
    int32_t op_params[GG_OP_PARAMS];
    int32_t flags;
    struct gg_tensor *src[GG_SOURCES];
    struct gg_tensor *view_src;
    size_t view_offs;
    void *data;
    char name[GG_NAME];
    void *extra;
    char padding[8];
};

struct gg_init_params {
    size_t mem_size;
    void *mem_buffer;
    bool no_alloc;
};

/* ---- Buffers -------------------------------------------------------------------------------------- */

struct gg_buffer_type {
    const char *(*get_name)(struct gg_buffer_type *);
    struct gg_buffer *(*alloc_buffer)(struct gg_buffer_type *, size_t size);
    size_t (*get_alignment)(struct gg_buffer_type *);
    size_t (*get_max_size)(struct gg_buffer_type *);
    size_t (*get_alloc_size)(struct gg_buffer_type *, const struct gg_tensor *);
    bool (*is_host)(struct gg_buffer_type *);
    struct gg_device *device;
    void *context;
};

struct gg_buffer_functions {
    void (*free_buffer)(struct gg_buffer *);
    void *(*get_base)(struct gg_buffer *);
    int (*init_tensor)(struct gg_buffer *, struct gg_tensor *);
    void (*memset_tensor)(struct gg_buffer *, struct gg_tensor *, uint8_t value, size_t offset, size_t size);
    void (*set_tensor)(struct gg_buffer *, struct gg_tensor *, const void *, size_t offset, size_t size);
    void (*get_tensor)(struct gg_buffer *, const struct gg_tensor *, void *, size_t offset, size_t size);
    void (*set_tensor_2d)(void);
    void (*get_tensor_2d)(void);
    bool (*cpy_tensor)(struct gg_buffer *, const struct gg_tensor *from, struct gg_tensor *to);
    void (*clear)(struct gg_buffer *, uint8_t value);
    void (*reset)(struct gg_buffer *);
};

struct gg_buffer {
    struct gg_buffer_functions f;
    struct gg_buffer_type *type;
    void *context;
    size_t size;
    int usage;
};

/* ---- Backend, device, registration -------------------------------------------------------------------- */

struct gg_backend {
    uint8_t (*guid)[16];
    const char *(*get_name)(struct gg_backend *);
    void (*free)(struct gg_backend *);
    void (*async[5])(void);
    void (*synchronize)(struct gg_backend *);
    void (*plan[4])(void);
    int (*graph_compute)(struct gg_backend *, struct gg_graph *);
    void (*event_record)(void);
    void (*event_wait)(void);
    void (*graph_optimize)(void);
    struct gg_device *device;
    void *context;
};

struct gg_device_props {
    const char *name;
    const char *description;
    size_t memory_free;
    size_t memory_total;
    int type;
    const char *device_id;
    struct {
        bool async, host_buffer, buffer_from_host_ptr, events, mmap_support;
    } caps;
};

struct gg_device {
    const char *(*get_name)(struct gg_device *);
    const char *(*get_description)(struct gg_device *);
    void (*get_memory)(struct gg_device *, size_t *free, size_t *total);
    int (*get_type)(struct gg_device *);
    void (*get_props)(struct gg_device *, struct gg_device_props *);
    struct gg_backend *(*init_backend)(struct gg_device *, const char *params);
    struct gg_buffer_type *(*get_buffer_type)(struct gg_device *);
    struct gg_buffer_type *(*get_host_buffer_type)(struct gg_device *);
    struct gg_buffer *(*buffer_from_host_ptr)(struct gg_device *, void *, size_t size, size_t max_tensor);
    bool (*supports_op)(struct gg_device *, const struct gg_tensor *);
    bool (*supports_buft)(struct gg_device *, struct gg_buffer_type *);
    bool (*offload_op)(struct gg_device *, const struct gg_tensor *);
    void (*event[3])(void);
    struct gg_reg *reg;
    void *context;
};

struct gg_reg {
    int api_version;
    const char *(*get_name)(struct gg_reg *);
    size_t (*get_device_count)(struct gg_reg *);
    struct gg_device *(*get_device)(struct gg_reg *, size_t index);
    void *(*get_proc_address)(struct gg_reg *, const char *name);
    void *context;
};

#endif
