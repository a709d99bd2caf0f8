/* plugins/ggml/ggml_abi.h against ggml's own headers, the internal one included: compiled by scripts/test-llamacpp.sh with the
 * source package of llama-cpp-python, never run. */
#include <assert.h>
#include <stddef.h>

#include "ggml-backend-impl.h"
#include "ggml.h"
#include "ggml_abi.h"

#define SIZE(ours, theirs) static_assert(sizeof(struct ours) == sizeof(struct theirs), #ours)
#define AT(ours, member, theirs, their_member)                                                          \
    static_assert(offsetof(struct ours, member) == offsetof(struct theirs, their_member) &&             \
                      sizeof(((struct ours *)0)->member) == sizeof(((struct theirs *)0)->their_member), \
                  #ours "." #member)
#define SAME(ours, theirs, member) AT(ours, member, theirs, member)
#define FUNCTION(ours, theirs, member) AT(ours, member, theirs, iface.member)

static_assert(GG_API_VERSION == GGML_BACKEND_API_VERSION, "interface version");
static_assert(GG_F32 == GGML_TYPE_F32 && GG_F16 == GGML_TYPE_F16 && GG_BF16 == GGML_TYPE_BF16, "halves");
static_assert(GG_Q8_0 == GGML_TYPE_Q8_0 && GG_Q4_0 == GGML_TYPE_Q4_0 && GG_Q4_1 == GGML_TYPE_Q4_1, "blocks");
static_assert(GG_Q4_K == GGML_TYPE_Q4_K && GG_Q6_K == GGML_TYPE_Q6_K, "large blocks");
static_assert(GG_SUCCESS == GGML_STATUS_SUCCESS && GG_FAILED == GGML_STATUS_FAILED, "status");
static_assert(GG_DEVICE_CPU == GGML_BACKEND_DEVICE_TYPE_CPU &&
                  GG_DEVICE_ACCEL == GGML_BACKEND_DEVICE_TYPE_ACCEL,
              "device types");
static_assert(GG_FLAG_COMPUTE == GGML_TENSOR_FLAG_COMPUTE, "flags");

SIZE(gg_tensor, ggml_tensor);
SAME(gg_tensor, ggml_tensor, type);
SAME(gg_tensor, ggml_tensor, buffer);
SAME(gg_tensor, ggml_tensor, ne);
SAME(gg_tensor, ggml_tensor, nb);
SAME(gg_tensor, ggml_tensor, op);
SAME(gg_tensor, ggml_tensor, op_params);
SAME(gg_tensor, ggml_tensor, flags);
SAME(gg_tensor, ggml_tensor, src);
SAME(gg_tensor, ggml_tensor, view_src);
SAME(gg_tensor, ggml_tensor, view_offs);
SAME(gg_tensor, ggml_tensor, data);
SAME(gg_tensor, ggml_tensor, name);
SAME(gg_tensor, ggml_tensor, extra);
SIZE(gg_init_params, ggml_init_params);
SAME(gg_init_params, ggml_init_params, mem_size);
SAME(gg_init_params, ggml_init_params, no_alloc);

SIZE(gg_buffer_type, ggml_backend_buffer_type);
FUNCTION(gg_buffer_type, ggml_backend_buffer_type, get_name);
FUNCTION(gg_buffer_type, ggml_backend_buffer_type, alloc_buffer);
FUNCTION(gg_buffer_type, ggml_backend_buffer_type, get_alignment);
FUNCTION(gg_buffer_type, ggml_backend_buffer_type, get_max_size);
FUNCTION(gg_buffer_type, ggml_backend_buffer_type, get_alloc_size);
FUNCTION(gg_buffer_type, ggml_backend_buffer_type, is_host);
SAME(gg_buffer_type, ggml_backend_buffer_type, device);
SAME(gg_buffer_type, ggml_backend_buffer_type, context);

SIZE(gg_buffer_functions, ggml_backend_buffer_i);
SAME(gg_buffer_functions, ggml_backend_buffer_i, free_buffer);
SAME(gg_buffer_functions, ggml_backend_buffer_i, get_base);
SAME(gg_buffer_functions, ggml_backend_buffer_i, init_tensor);
SAME(gg_buffer_functions, ggml_backend_buffer_i, memset_tensor);
SAME(gg_buffer_functions, ggml_backend_buffer_i, set_tensor);
SAME(gg_buffer_functions, ggml_backend_buffer_i, get_tensor);
SAME(gg_buffer_functions, ggml_backend_buffer_i, cpy_tensor);
SAME(gg_buffer_functions, ggml_backend_buffer_i, clear);
SAME(gg_buffer_functions, ggml_backend_buffer_i, reset);
SIZE(gg_buffer, ggml_backend_buffer);
AT(gg_buffer, f, ggml_backend_buffer, iface);
AT(gg_buffer, type, ggml_backend_buffer, buft);
SAME(gg_buffer, ggml_backend_buffer, context);
SAME(gg_buffer, ggml_backend_buffer, size);
SAME(gg_buffer, ggml_backend_buffer, usage);

SIZE(gg_backend, ggml_backend);
SAME(gg_backend, ggml_backend, guid);
FUNCTION(gg_backend, ggml_backend, get_name);
FUNCTION(gg_backend, ggml_backend, free);
FUNCTION(gg_backend, ggml_backend, synchronize);
FUNCTION(gg_backend, ggml_backend, graph_compute);
FUNCTION(gg_backend, ggml_backend, event_record);
FUNCTION(gg_backend, ggml_backend, event_wait);
FUNCTION(gg_backend, ggml_backend, graph_optimize);
SAME(gg_backend, ggml_backend, device);
SAME(gg_backend, ggml_backend, context);

SIZE(gg_device_props, ggml_backend_dev_props);
SAME(gg_device_props, ggml_backend_dev_props, name);
SAME(gg_device_props, ggml_backend_dev_props, description);
SAME(gg_device_props, ggml_backend_dev_props, memory_free);
SAME(gg_device_props, ggml_backend_dev_props, memory_total);
SAME(gg_device_props, ggml_backend_dev_props, type);
SAME(gg_device_props, ggml_backend_dev_props, device_id);
SAME(gg_device_props, ggml_backend_dev_props, caps.mmap_support);

SIZE(gg_device, ggml_backend_device);
FUNCTION(gg_device, ggml_backend_device, get_name);
FUNCTION(gg_device, ggml_backend_device, get_description);
FUNCTION(gg_device, ggml_backend_device, get_memory);
FUNCTION(gg_device, ggml_backend_device, get_type);
FUNCTION(gg_device, ggml_backend_device, get_props);
FUNCTION(gg_device, ggml_backend_device, init_backend);
FUNCTION(gg_device, ggml_backend_device, get_buffer_type);
FUNCTION(gg_device, ggml_backend_device, get_host_buffer_type);
FUNCTION(gg_device, ggml_backend_device, buffer_from_host_ptr);
FUNCTION(gg_device, ggml_backend_device, supports_op);
FUNCTION(gg_device, ggml_backend_device, supports_buft);
FUNCTION(gg_device, ggml_backend_device, offload_op);
SAME(gg_device, ggml_backend_device, reg);
SAME(gg_device, ggml_backend_device, context);

SIZE(gg_reg, ggml_backend_reg);
SAME(gg_reg, ggml_backend_reg, api_version);
FUNCTION(gg_reg, ggml_backend_reg, get_name);
FUNCTION(gg_reg, ggml_backend_reg, get_device_count);
FUNCTION(gg_reg, ggml_backend_reg, get_device);
FUNCTION(gg_reg, ggml_backend_reg, get_proc_address);
SAME(gg_reg, ggml_backend_reg, context);
