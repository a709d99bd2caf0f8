/*
 * libattn: attention for CPUs. The whole public interface, in one file so that a host includes and reads one.
 *
 * The mathematics (Dive into Deep Learning, eq. 11.5.1): for head i,
 *
 *     h_i = f(W_i^(q) q, W_i^(k) k, W_i^(v) v)   in R^{p_v}
 *
 * with W_i^(q) in R^{p_q x d_q}, W_i^(k) in R^{p_k x d_k}, W_i^(v) in R^{p_v x d_v} and f attention
 * pooling over all key/value rows, sum_j softmax_j(a(q, k_j)) v_j. The score a is either
 *
 *     scaled dot product   a = scale * q.k                     (p_q = p_k; attn_sdpa)
 *     additive (Bahdanau)  a = scale * w.tanh(A_q q + A_k k)   (attn_additive)
 *
 * Names used for sizes throughout: n_head, n_head_kv (heads of queries, of keys and values),
 * n_q, n_kv (rows of queries, of keys and values), d_* (before projection), p_* (after it).
 *
 * Promises that hold for every function (docs/design.md says how they are kept):
 *  - The bits of an output row depend on that row's inputs and the parameters only: not on the number
 *    of threads, on other rows, on the batch or on how the rows were cut into calls. The AVX2, AVX-512
 *    and NEON backends give the same bits as each other; their instruction tiers do for f32 and f16.
 *  - Arguments are checked before anything is written. On an error the outputs are untouched and
 *    attn_context_error() names the argument. Nothing is printed, nothing aborts.
 *  - A row that sees no key gives 0 and a log-sum-exp of -inf. What is not finite in what a row sees shows
 *    in that row only, as in the textbook formula: a score of NaN or +inf makes the row NaN, a score of
 *    -inf weighs 0, NaN or inf in v reaches its column. What a row does not see never enters its sums.
 *
 * Threads: a context serves one call at a time. Different contexts may be used at the same time.
 * Functions without a context argument may be called from any thread at any time.
 *
 * Structs whose first member is `size` grow with later versions: set it to sizeof the struct and zero
 * what you do not use. Members that the caller's version lacks count as zero.
 */
#ifndef ATTN_H
#define ATTN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ATTN_API __attribute__((visibility("default")))
#define ATTN_NODISCARD __attribute__((warn_unused_result))
#else
#define ATTN_API
#define ATTN_NODISCARD
#endif

/* ---- Version, status, backends -------------------------------------------------------------------- */

#define ATTN_VERSION_MAJOR 0
#define ATTN_VERSION_MINOR 1
#define ATTN_VERSION_PATCH 0

/* Version of the library that runs, as "MAJOR.MINOR.PATCH"; the macros give the header's. */
ATTN_API const char *attn_version(void);

typedef enum attn_status {
    ATTN_OK = 0,
    ATTN_ERROR_ARGUMENT, /* a null pointer, an unknown enum value, a struct size of 0, a bad number */
    ATTN_ERROR_SHAPE,    /* sizes that do not fit each other */
    ATTN_ERROR_STRIDE,   /* strides or addresses that are not multiples of the element, or alias */
    ATTN_ERROR_DTYPE,    /* an element type that this function does not take */
    ATTN_ERROR_OVERLAP,  /* an output that shares memory with another argument */
    ATTN_ERROR_OVERFLOW, /* sizes whose product in bytes does not fit the address space */
    ATTN_ERROR_PACKED,   /* not packed weights, or packed by another version or for another backend */
    ATTN_ERROR_BACKEND,  /* a backend that does not exist or that this machine cannot run */
    ATTN_ERROR_SCRATCH,  /* the caller's scratch is too small */
    ATTN_ERROR_MEMORY,   /* the operating system gave no memory or no threads */
    ATTN_ERROR_CAPACITY  /* a cache has no room for what is appended; nothing was written */
} attn_status;

/* Short name of a status, "ok" or for example "shape"; "unknown" for a value outside the enum. */
ATTN_API const char *attn_status_name(attn_status status);

/*
 * The backends built into this library, best first; "scalar" is always the last.
 * Writes up to n names and, for each, whether this machine can run it (1 or 0); either array may be
 * NULL. Returns the number of backends built. The names live as long as the library.
 */
ATTN_API size_t attn_backend_list(const char **names, int *runnable, size_t n);

/*
 * The instruction-set features of this CPU that matter to the backends and that the operating system
 * supports, space-separated. Writes at most bytes characters with the final zero; returns the length
 * that the whole text needs without it (as snprintf does).
 */
ATTN_API size_t attn_cpu_features(char *text, size_t bytes);

/* ---- Context --------------------------------------------------------------------------------------- */

/* Work item `task` of [0, n_tasks), run by worker `worker` of [0, n_workers). */
typedef void attn_task(void *arg, size_t task, size_t worker);

/*
 * The caller's thread pool. run() calls task(arg, i, worker) once for every i in [0, n_tasks), in any
 * order, and returns when all have returned; no two calls that run at the same time may have the same
 * worker. What a task is depends on shapes only, so the results do not depend on the executor.
 */
typedef struct attn_executor {
    void (*run)(void *pool, size_t n_tasks, attn_task *task, void *arg);
    void *pool;       /* passed to run() */
    size_t n_workers; /* 1 or more */
} attn_executor;

typedef struct attn_options {
    size_t size;                   /* sizeof(attn_options) */
    const char *backend;           /* a name of attn_backend_list(); NULL: the environment variable
                                      ATTN_BACKEND if set, otherwise the best one runnable */
    size_t n_threads;              /* of the built-in pool (pthreadpool); 1: the caller's thread only;
                                      0: as many as the CPUs this process may use */
    const attn_executor *executor; /* the caller's pool instead of the built-in one (copied), or NULL */
    void *scratch;                 /* the caller's scratch memory, or NULL: the context allocates its own.
                                      Any alignment; the *_scratch() queries allow for it */
    size_t scratch_bytes;          /* size of scratch */
    char *error;                   /* where attn_context_create() puts the text of an error, or NULL */
    size_t error_bytes;            /* size of error */
    int strict;                    /* 1: nothing is rounded on the way but f32 itself: where the backend is an
                                      instruction tier (avx2dot, avx512vnni, avx512bf16, neondot, neonbf16),
                                      which rounds what it multiplies narrow types by (docs/numerics.md,
                                      section 11), the context gets the backend that it is a tier of */
} attn_options;

/* A backend, an executor and scratch memory. */
typedef struct attn_context attn_context;

/*
 * Creates a context. options may be NULL (all defaults). Its executor's pool and its scratch must
 * outlive the context. Errors: ARGUMENT, BACKEND (unknown or unrunnable name: the text lists what is
 * available), MEMORY. On an error *context is NULL.
 */
ATTN_API ATTN_NODISCARD attn_status attn_context_create(const attn_options *options, attn_context **context);

/* Frees the context; NULL is allowed. After fork() the child may use the context (in the calling
 * thread, the pool's threads being gone) and destroy it. */
ATTN_API void attn_context_destroy(attn_context *context);

/*
 * Makes sure that the context owns at least `bytes` of scratch, so that calls whose *_scratch() query
 * is at most that allocate nothing. Without it a context that owns its scratch grows it when a call
 * needs more. Errors: ARGUMENT, SCRATCH (the scratch is the caller's and smaller), MEMORY.
 */
ATTN_API ATTN_NODISCARD attn_status attn_context_reserve(attn_context *context, size_t bytes);

/* Text of the context's last error, naming the argument; "" when the last call succeeded. Valid until
 * the next call with this context. */
ATTN_API const char *attn_context_error(const attn_context *context);

/* Name of the context's backend. */
ATTN_API const char *attn_context_backend(const attn_context *context);

/* Number of workers of the context's executor. */
ATTN_API size_t attn_context_workers(const attn_context *context);

/* ---- Tensors ---------------------------------------------------------------------------------------- */

typedef enum attn_dtype {
    ATTN_F32 = 0,  /* IEEE binary32 */
    ATTN_BOOL = 1, /* one byte: 0 is false, anything else is true (masks only) */
    ATTN_F16 = 2,  /* IEEE binary16 */
    ATTN_BF16 = 3, /* bfloat16: the upper half of a binary32 */
    /* ggml's block formats, byte for byte: */
    ATTN_Q8_0 = 4, /* 32 values in 34 bytes */
    ATTN_Q4_0 = 5, /* 32 values in 18 bytes */
    ATTN_Q4_K = 6, /* 256 values in 144 bytes (weights only) */
    ATTN_Q6_K = 7, /* 256 values in 210 bytes (weights only) */
    ATTN_Q4_1 = 8  /* 32 values in 20 bytes (weights only) */
} attn_dtype;

/* "f32", "q4_K"; "unknown" for a value outside the enum. */
ATTN_API const char *attn_dtype_name(attn_dtype dtype);

/* Bytes of a block of *block values (may be NULL; 1 but for the block formats). 0 for a value outside the enum. */
ATTN_API size_t attn_dtype_size(attn_dtype dtype, size_t *block);

/*
 * A view of [batch, head, row, column] elements in the caller's memory. Element (b, h, r, c) lies at
 * (char *)data + b*stride[0] + h*stride[1] + r*stride[2] + c*stride[3]. Strides are in bytes and may be
 * anything (0 and negative ones too, in inputs), so [b, n, h, d] or [b, h, n, d] memory and a host's
 * permuted views need no copy; but columns are contiguous: stride[3] is the element's size (any value
 * is allowed where there is only one column). Addresses and strides are multiples of the element's
 * size; no further alignment is needed. Sizes of 0 are allowed for batch and row.
 *
 * Of a block format an element is a block: the column size still counts values and is a multiple of the block,
 * stride[3] is the bytes of a block, and addresses and strides are even.
 */
typedef struct attn_tensor {
    void *data;
    attn_dtype dtype;
    size_t size[4];
    ptrdiff_t stride[4];
} attn_tensor;

/* A contiguous [batch, head, row, column] tensor over data. */
ATTN_API attn_tensor attn_tensor_contiguous(void *data, attn_dtype dtype, size_t batch, size_t head,
                                            size_t row, size_t column);

/*
 * Converts every element of `from` (f32, f16, bf16 or any block format) to `to`, of the same sizes (f32, f16, bf16, q8_0 or
 * q4_0). To f32 exactly, but for q4_1, Q4_K and Q6_K with one rounding, as ggml has it; to f16 and bf16 to nearest even;
 * to q8_0 and q4_0 the bytes of ggml's reference, but that a block with a NaN or an infinity becomes NaN as a whole. The
 * same bytes on every backend. `to` must not overlap `from`. No scratch. Errors: ARGUMENT, SHAPE, STRIDE, DTYPE, OVERLAP,
 * OVERFLOW.
 */
ATTN_API ATTN_NODISCARD attn_status attn_convert(attn_context *context, const attn_tensor *from,
                                                 const attn_tensor *to);

/* ---- Projections: y = x W^T + b ---------------------------------------------------------------------- */

/*
 * Weights packed into the panels that the context's backend reads. Opaque, with a versioned header and
 * without pointers inside: it can be written to a file and mapped again. The caller owns the memory.
 */
typedef struct attn_packed attn_packed;

/* Bytes that attn_pack_linear() needs for w [1, 1, n, k] (n outputs, k inputs; data may be NULL here).
 * Errors: ARGUMENT, SHAPE, DTYPE, OVERFLOW. */
ATTN_API ATTN_NODISCARD attn_status attn_pack_linear_bytes(attn_context *context, const attn_tensor *w,
                                                           size_t *bytes);

/*
 * Packs w [1, 1, n, k] (row o holds the weights of output o; torch.nn.Linear's layout, and a GGUF file's) and bias
 * (n floats, or NULL for none) into memory, which must be 64-byte aligned and at least
 * attn_pack_linear_bytes() long and must not overlap w or bias. *packed is then memory itself.
 * w is f32, f16, bf16, q8_0, q4_0, q4_1, Q4_K or Q6_K and stays that: the packed weights have the bytes of w, of n rounded up
 * to a multiple of 16 (bf16: and of k to one of 2), a header of 64 and the bias.
 * Packing is exact. Errors: ARGUMENT, SHAPE, STRIDE, DTYPE, OVERLAP, OVERFLOW, SCRATCH (memory too
 * small).
 */
ATTN_API ATTN_NODISCARD attn_status attn_pack_linear(attn_context *context, const attn_tensor *w,
                                                     const float *bias, void *memory, size_t bytes,
                                                     const attn_packed **packed);

/*
 * The way back: w [1, 1, n, k] of the packed weights' own type gets the bytes that were packed, bias (n floats, or NULL) the
 * bias, or zeros where none was. So packed weights can be checked, or packed again for another backend, without the file
 * that they came from. w, bias and packed must not overlap. Errors: ARGUMENT, SHAPE, STRIDE, DTYPE (w is of another
 * type), OVERLAP, OVERFLOW, PACKED.
 */
ATTN_API ATTN_NODISCARD attn_status attn_unpack_linear(attn_context *context, const attn_packed *packed,
                                                       const attn_tensor *w, float *bias);

/*
 * Checks that memory (64-byte aligned; a mapped file, say) holds weights packed by this version for the
 * context's backend, wholly inside its `bytes`, and gives them as *packed. AVX2 and NEON share one
 * layout. Errors: ARGUMENT, STRIDE (alignment), PACKED.
 */
ATTN_API ATTN_NODISCARD attn_status attn_packed_open(attn_context *context, const void *memory, size_t bytes,
                                                     const attn_packed **packed);

/* Number of outputs (n) and inputs (k) of packed weights; either pointer may be NULL. */
ATTN_API void attn_packed_shape(const attn_packed *packed, size_t *n, size_t *k);

/* Element type of packed weights; ATTN_F32 for NULL. */
ATTN_API attn_dtype attn_packed_dtype(const attn_packed *packed);

/*
 * y = x W^T + b for every row: x [b, h, m, k], y [b, h, m, n], both f32. No scratch.
 * Weights of another type are converted as attn_convert() does, exactly or with that type's one rounding, and nothing else is
 * rounded: the bits are those of the same call with the converted weights packed as f32. They are never in memory as
 * a whole: at most 256 KiB for each worker, which the context has from its creation on.
 * y must not overlap x or the weights. Errors: ARGUMENT, SHAPE, STRIDE, DTYPE, OVERLAP, OVERFLOW,
 * PACKED.
 */
ATTN_API ATTN_NODISCARD attn_status attn_linear(attn_context *context, const attn_tensor *x,
                                                const attn_packed *w, const attn_tensor *y);

/*
 * y[i] = x w[i]^T + b[i] for n projections of one input, 1 to ATTN_LINEARS of them: Q, K and V, or a gated MLP's two. The bits
 * are those of n calls of attn_linear; the threads meet once (for each three), and rows of x that a tier rounds are
 * rounded once for weights of one type. No output may overlap another output, x or any weights. Errors: as attn_linear.
 */
enum { ATTN_LINEARS = 16 };
ATTN_API ATTN_NODISCARD attn_status attn_linears(attn_context *context, const attn_tensor *x,
                                                 const attn_packed *const *w, const attn_tensor *const *y,
                                                 size_t n);

/* ---- What a query row sees, and how its scores are shaped ---------------------------------------------- */

/*
 * Sequences. Without starts, sequence b of n_sequences = batch is element b of the tensors' batch dimension, with
 * n_q and n_kv rows or fewer (q_lengths, kv_lengths). Ragged batches: the tensors' batch is 1, and sequence b is
 * the rows [q_starts[b], q_starts[b+1]) of q, out and lse and [kv_starts[b], kv_starts[b+1]) of k and v, as in
 * FlashInfer's and vLLM's indptr. Rows and keys are counted within their sequence everywhere below.
 *
 * Positions. Key j stands at position j, query row i at i + offset; offset is that of the sequence:
 *   ATTN_CAUSAL_TOP_LEFT       0
 *   ATTN_CAUSAL_BOTTOM_RIGHT   n_kv - n_q of the sequence: the last query stands on the last key
 *   ATTN_CAUSAL_OFFSET         offsets[b] (a cache's length before these rows came: ONNX's past length)
 *   ATTN_CAUSAL_NONE           offsets[b] where given, otherwise n_kv - n_q (for window and ALiBi only)
 * A causal row sees the keys up to its own position. A position may lie outside the keys.
 */
typedef enum attn_causal {
    ATTN_CAUSAL_NONE = 0,
    ATTN_CAUSAL_TOP_LEFT,
    ATTN_CAUSAL_BOTTOM_RIGHT,
    ATTN_CAUSAL_OFFSET
} attn_causal;

/*
 * Order of operations, as in ONNX Attention and Gemma 2: scale, soft cap, bias (ALiBi, then an additive mask),
 * mask, softmax. A key is visible when the sequence has it and every rule given here allows it; a prefix excepts
 * its keys from causal and window only. All rules combine. Tiles of keys that no row sees cost nothing, and only
 * tiles that a boundary crosses pay for it.
 */
typedef struct attn_scoring {
    size_t size; /* sizeof(attn_scoring) */
    float scale; /* of the scores; 0: 1/sqrt(p_k) for the dot product, 1 for additive */
    attn_causal causal;
    const size_t *q_lengths; /* [batch] rows of each sequence, at most n_q, or NULL: n_q. Later rows are
                                 padding: they see no key. Not with starts */
    const size_t
        *kv_lengths; /* [n_sequences] keys of each sequence, at most n_kv, or NULL: n_kv. With starts:
                                 at most the sequence's own */
    const attn_tensor
        *mask; /* [n_sequences or 1, n_head or 1, n_q or 1, n_kv or 1], broadcast where 1, or NULL.
                                 ATTN_BOOL: true means "attend", false hides the key. ATTN_F32, ATTN_F16: added to
                                 the score; only -inf hides the key (a row of the most negative finite number is
                                 uniform). With starts n_q and n_kv are those of the longest sequence */
    const ptrdiff_t *offsets; /* [n_sequences], see above; or NULL */
    const size_t *window; /* {left, right}: a row at position p sees the keys of [p - left, p + right], both
                                 included; SIZE_MAX: no bound on that side. NULL: no window */
    const size_t
        *prefixes; /* [n_sequences]: the first prefixes[b] keys are visible to all rows of the sequence
                                 (prefix-LM), whatever causal and window say; or NULL */
    const int32_t
        *q_documents; /* [batch][n_q] and [batch][n_kv], with starts one for each row of q and k: a row */
    const int32_t *kv_documents; /* sees the keys of its own document only. Both or neither */
    const float
        *alibi_slopes;  /* [n_head]: -slope * |position of the row - j| is added to the score; or NULL */
    float soft_cap;     /* c > 0: a score s becomes c tanh(s / c); 0: none */
    const float *sinks; /* [n_head]: a logit that each row of the head adds to its softmax's denominator,
                                    without a value (attention sinks, as in gpt-oss and StreamingLLM); or NULL */
    size_t n_sequences; /* of the starts; not read without them */
    const size_t
        *q_starts; /* [n_sequences + 1], ascending, the last one at most q's rows; both or neither. */
    const size_t *kv_starts; /* Rows of q outside all sequences see no key */
} attn_scoring;

/* ---- Rotary position embedding ------------------------------------------------------------------------- */

/* Which two columns of the rotated ones make pair i of [0, dims / 2). */
typedef enum attn_rope_style {
    ATTN_ROPE_INTERLEAVED = 0, /* 2i and 2i + 1 (GPT-J, Llama as published, ggml's "normal") */
    ATTN_ROPE_HALF_SPLIT = 1   /* i and i + dims / 2 (GPT-NeoX; Llama, Qwen, Gemma in Hugging Face) */
} attn_rope_style;

/*
 * How a model's frequencies were stretched to a longer context. f_i = base^(-2i / dims) are the plain ones,
 * in radians a position; s is `factor`.
 */
typedef enum attn_rope_scaling {
    ATTN_ROPE_SCALING_NONE = 0,
    ATTN_ROPE_SCALING_LINEAR, /* f_i / s */
    ATTN_ROPE_SCALING_NTK,    /* base becomes base * s^(dims / (dims - 2)); dims is 4 or more */
    ATTN_ROPE_SCALING_YARN,   /* (1 - r_i) f_i + r_i f_i / s, where r_i rises from 0 to 1 in a straight line
                                 over i, from where a pair turns beta_fast times in the original context
                                 (rounded down) to where it turns beta_slow times (rounded up) */
    ATTN_ROPE_SCALING_LLAMA3 /* the same mixture, by turns t_i = original_context f_i / (2 pi): r_i falls from
                                 1 at t_i = low_freq_factor to 0 at high_freq_factor in a straight line */
} attn_rope_scaling;

typedef struct attn_rope {
    size_t size; /* sizeof(attn_rope) */
    attn_rope_style style;
    size_t dims; /* columns that turn, the first ones; even; 0: all. The others are copied */
    float base;  /* above 1; 0: 10000 */
    attn_rope_scaling scaling;
    float factor;                    /* s, above 0; not read without scaling */
    size_t original_context;         /* YaRN, Llama 3: positions that the model was first trained on */
    float low_freq_factor;           /* Llama 3; 0: 1 */
    float high_freq_factor;          /* Llama 3, above low_freq_factor; 0: 4 */
    float beta_fast;                 /* YaRN; 0: 32 */
    float beta_slow;                 /* YaRN, at most beta_fast; 0: 1 */
    int yarn_exact_range;            /* YaRN: 1 leaves the ends of the ramp unrounded (gpt-oss's
                                    "truncate": false) */
    float attention_factor;          /* multiplies cos and sin; 0: 0.1 ln(s) + 1 with YaRN where s > 1,
                                    otherwise 1 */
    const float *frequency_divisors; /* dims / 2 numbers above 0 that divide the frequencies after scaling
                                        (ggml's rope_freqs.weight, a factor list of LongRoPE); +inf: the
                                        pair does not turn; or NULL */
} attn_rope;

typedef struct attn_rope_args {
    size_t size; /* sizeof(attn_rope_args) */
    const attn_rope *rope;
    const attn_tensor *x;     /* [batch, head, row, column] f32 */
    const attn_tensor *y;     /* of the same sizes, f32, written; may be x itself, with the same strides */
    const int64_t *offsets;   /* [batch], or NULL: 0. The position of row r of sequence b is offsets[b] + r,
                                 or, with positions, */
    const int64_t *positions; /* offsets[b] + positions[b * positions_stride + r]; or NULL. In both cases
                                 within [-2^53, 2^53] */
    size_t positions_stride;  /* numbers from one sequence to the next; 0: all share [row] numbers */
} attn_rope_args;

/*
 * Turns each pair (x0, x1) of columns of a row at position p by the angle p f_i: y0 = x0 cos - x1 sin,
 * y1 = x0 sin + x1 cos (Su et al., 2021). All heads turn alike. cos and sin are rounded to f32 once, from
 * values within 2^-48 of the exact ones (2^-36 at positions of 2^53; docs/numerics.md, section 8). y overlaps
 * nothing but x, and x only where it is the same tensor. Errors: ARGUMENT (position, parameter), SHAPE, STRIDE,
 * DTYPE, OVERLAP, OVERFLOW, SCRATCH, MEMORY.
 */
ATTN_API ATTN_NODISCARD attn_status attn_rope_apply(attn_context *context, const attn_rope_args *args);

/* Scratch bytes that attn_rope_apply() needs for such args (data pointers, offsets and positions may be
 * NULL). Errors: as attn_rope_apply. */
ATTN_API ATTN_NODISCARD attn_status attn_rope_apply_scratch(attn_context *context, const attn_rope_args *args,
                                                            size_t *bytes);

/* ---- Key/value caches ----------------------------------------------------------------------------------- */

/* How the keys of a block lie; values always lie in rows. */
typedef enum attn_kv_layout {
    ATTN_KV_ROWS = 0, /* k [n_blocks, n_head_kv, block_rows, p_k]: with strides, whatever a host keeps */
    ATTN_KV_PANELS =
        1 /* k [n_blocks, n_head_kv, block_rows / 16, p_k * 16]: column c of key i of a panel of 16 keys is
                          element c * 16 + i, so that kernels load 16 keys at once. block_rows is a multiple of 16;
                          k is f32, f16 or bf16 */
} attn_kv_layout;

/*
 * The keys and values of one layer's sequences: a view of arrays that are the caller's (attn_kv_create() lays them
 * out in one piece of memory, a host with a cache of its own fills in the struct). It holds no pointers but
 * these and no state of its own; functions write through them.
 *
 * Key j of sequence s lies in row j % block_rows of block blocks[s * blocks_per_sequence + j / block_rows], where
 * block_rows is v's row size; in a ring j / block_rows is taken modulo blocks_per_sequence. A contiguous cache has
 * one block a sequence, a paged one blocks of 16 or so, which several sequences may share.
 *
 * A ring (firsts given) keeps the last blocks_per_sequence * block_rows keys of a sequence: sequence s has keys
 * [firsts[s], lengths[s]), still counted from its beginning. It serves sliding windows: a call whose rows would see
 * an overwritten key fails. Without a ring firsts counts as 0.
 *
 * Keys and values are f32, f16, bf16, q8_0 or q4_0, k and v each of its own type, blocks byte for byte as ggml has them, so
 * that a host's memory serves as it lies. p_k, p_v of a block type are multiples of 32. Bytes of a key or a value of one head:
 *
 *      type   of p columns   p = 64   p = 128   rows are rounded
 *      f32    4 p            256      512       not
 *      f16    2 p            128      256       to nearest even
 *      bf16   2 p            128      256       to nearest even
 *      q8_0   34 p / 32      68       136       by blocks of 32, as ggml's reference does
 *      q4_0   18 p / 32      36       72        by blocks of 32, as ggml's reference does
 */
typedef struct attn_kv {
    size_t size; /* sizeof(attn_kv) */
    attn_kv_layout layout;
    attn_tensor k;      /* as the layout says */
    attn_tensor v;      /* [n_blocks, n_head_kv, block_rows, p_v] */
    size_t n_sequences; /* of the cache */
    size_t *lengths;    /* [n_sequences]: keys of each */
    size_t *firsts;     /* [n_sequences], or NULL: no ring */
    int32_t *
        blocks; /* [n_sequences][blocks_per_sequence]: those in use first (in a ring by their number), below 0:
                            none; or NULL: sequence s has block s */
    size_t blocks_per_sequence; /* without blocks it counts as 1 */
    uint32_t *
        references; /* [n_blocks]: sequences that have the block, 0: free. Then appending takes free blocks, and
                             copies a shared one before it writes to it. NULL: the blocks are the host's, who puts
                             them into the table before rows are appended; nothing is shared when it is written */
} attn_kv;

/* The sizes of a cache that attn_kv_create() makes. */
typedef struct attn_kv_shape {
    size_t size; /* sizeof(attn_kv_shape) */
    attn_kv_layout layout;
    int ring;                   /* 1: a ring */
    size_t n_sequences;         /* at most */
    size_t n_blocks;            /* for all of them; 0: n_sequences * blocks_per_sequence */
    size_t blocks_per_sequence; /* at most */
    size_t block_rows;          /* panels: a multiple of 16 */
    size_t n_head_kv, p_k, p_v;
    attn_dtype k_dtype, v_dtype; /* as in attn_kv; 0: f32 */
} attn_kv_shape;

/* Bytes of such a cache. Errors: ARGUMENT, SHAPE, DTYPE, OVERFLOW. */
ATTN_API ATTN_NODISCARD attn_status attn_kv_bytes(attn_context *context, const attn_kv_shape *shape,
                                                  size_t *bytes);

/*
 * Lays an empty cache out in memory (64-byte aligned, attn_kv_bytes() long; a file mapping, say) and describes it in
 * *kv, whose `size` the caller has set. Keys and values are not touched. Blocks are [head][row][column]. Errors:
 * ARGUMENT, SHAPE, STRIDE (alignment), DTYPE, OVERFLOW, SCRATCH (memory too small).
 */
ATTN_API ATTN_NODISCARD attn_status attn_kv_create(attn_context *context, const attn_kv_shape *shape,
                                                   void *memory, size_t bytes, attn_kv *kv);

/* Describes a cache that attn_kv_create() laid out, with what was appended since: memory may have moved, or be a file
 * mapped again. Errors: ARGUMENT, STRIDE (alignment), PACKED (no such cache, of another version, cut off, or inconsistent). */
ATTN_API ATTN_NODISCARD attn_status attn_kv_open(attn_context *context, void *memory, size_t bytes,
                                                 attn_kv *kv);

/* Blocks with no references; 0 where the host counts them itself. */
ATTN_API size_t attn_kv_free_blocks(const attn_kv *kv);

typedef struct attn_kv_append_args {
    size_t size; /* sizeof(attn_kv_append_args) */
    const attn_kv *kv;
    const attn_tensor
        *k; /* [batch, n_head_kv, n, p_k] f32, f16 or bf16, whatever the cache's types: rows to append,
                                 in rows whatever the cache's layout */
    const attn_tensor *v; /* [batch, n_head_kv, n, p_v] f32, f16 or bf16 */
    const size_t
        *sequences;        /* [batch, or n_starts]: the cache's sequence of each, no one twice; or NULL: b */
    const size_t *counts;  /* [batch]: rows of each that count, at most n; or NULL: n. Not with starts */
    const size_t *starts;  /* [n_starts + 1], ragged as in attn_scoring: batch is 1 and sequence b is the rows
                                 [starts[b], starts[b + 1]) of k and v; or NULL */
    size_t n_starts;       /* not read without starts */
    const attn_rope *rope; /* turns the keys as they are stored; or NULL */
    const int64_t
        *positions; /* of the rows, for rope: [batch][n], with starts one for each row of k; or NULL: a
                                 row's place in its sequence */
} attn_kv_append_args;

/*
 * Appends rows to sequences and moves their lengths. All or nothing: where one sequence does not fit nothing is written.
 * A ring may overwrite; of more rows than it holds the last ones stay. k and v overlap nothing that is written.
 * Rows become the cache's type as attn_convert() does it, after RoPE, which is in f32: rounded once. Rows that are of that type
 * already and are not turned are copied. No more than 17 rows of one head stand in scratch as f32.
 * Errors: ARGUMENT, SHAPE, STRIDE, DTYPE, OVERLAP, OVERFLOW, SCRATCH, MEMORY, CAPACITY (no free block, or the sequence's
 * blocks are full).
 */
ATTN_API ATTN_NODISCARD attn_status attn_kv_append(attn_context *context, const attn_kv_append_args *args);

/* Scratch bytes that attn_kv_append() needs for such args (data pointers and arrays may be NULL, but starts): more by at most 17
 * rows of p_k floats a worker where types differ, whatever the number of rows. */
ATTN_API ATTN_NODISCARD attn_status attn_kv_append_scratch(attn_context *context,
                                                           const attn_kv_append_args *args, size_t *bytes);

/*
 * Sequence `to`, which must be empty, becomes what `from` is: they share blocks until one of them appends. Nothing is
 * copied. Errors: ARGUMENT (no references), SHAPE.
 */
ATTN_API ATTN_NODISCARD attn_status attn_kv_fork(attn_context *context, const attn_kv *kv, size_t from,
                                                 size_t to);

/*
 * Drops the keys of a sequence from `length` on (rejected drafts; 0: frees it). In a ring what was overwritten stays lost:
 * its first key does not move. Blocks are given back where references are counted. Errors: ARGUMENT, SHAPE (longer than
 * it is).
 */
ATTN_API ATTN_NODISCARD attn_status attn_kv_truncate(attn_context *context, const attn_kv *kv,
                                                     size_t sequence, size_t length);

/* ---- Pooling of projected tensors ----------------------------------------------------------------------- */

typedef struct attn_sdpa_args {
    size_t size;          /* sizeof(attn_sdpa_args) */
    const attn_tensor *q; /* [batch, n_head, n_q, p_k] f32, f16 or bf16 */
    const attn_tensor *
        k; /* [batch, n_head_kv, n_kv, p_k] f32, f16, bf16, q8_0 or q4_0; n_head is a multiple of n_head_kv and
                                    query head i uses key/value head i / (n_head / n_head_kv) */
    const attn_tensor *v;   /* [batch, n_head_kv, n_kv, p_v], as k of any of these types, not the same one */
    const attn_tensor *out; /* [batch, n_head, n_q, p_v] f32, f16 or bf16, written */
    const attn_scoring *scoring;  /* NULL: every key visible, default scale */
    const attn_tensor *lse;       /* [batch, n_head, n_q, 1] f32, written: natural log of the sum of
                                    exponentials of the row's scores (-inf when it sees no key), without a sink;
                                    or NULL */
    const attn_tensor *weights;   /* [batch, n_head, n_q, n_kv] f32, written: the softmax weights, 0 where
                                    not visible; for looking, not for speed; or NULL. With starts n_kv is the longest
                                    sequence's */
    const attn_tensor *lse_sinks; /* as lse, with the sink in the sum (without sinks the same); or NULL */
    const attn_kv *kv; /* keys and values of a cache; then k and v are NULL, and n_kv of a sequence is its
                                     length there, for tensors [.., n_kv] the longest one's. Only q_starts may be
                                     given then, not kv_starts; kv_documents are [n_sequences][n_kv]. Same bits as from
                                     tensors with the same keys and values. Or NULL */
    const size_t *kv_sequences; /* [n_sequences]: the cache's sequence of each, any one as often as wanted; or
                                     NULL: sequence b of the call is that of the cache */
    const attn_tensor
        *scores; /* [batch, n_head, n_q, n_kv] f32, written: the scores as they enter the softmax: natural
                                     units, after scale, soft cap, bias and mask, at least -FLT_MAX ln 2; -inf where not
                                     visible; for looking, not for speed; or NULL. n_kv as for weights */
} attn_sdpa_args;

/*
 * Scaled dot-product attention pooling, fused: never a matrix of n_q x n_kv in memory unless `weights`
 * or `scores` is given, and never a copy of k or v in another type. Types: all arithmetic is that of the f32 values that the
 * elements stand for, so the result has the bits of the f32 call on converted tensors (attn_convert); out of f16 or bf16 is
 * that result rounded once, to nearest even. Outputs must overlap neither inputs nor each other (compared by the span from each tensor's
 * lowest to its highest byte). Errors: ARGUMENT, SHAPE, STRIDE, DTYPE, OVERLAP, OVERFLOW, SCRATCH, MEMORY.
 */
ATTN_API ATTN_NODISCARD attn_status attn_sdpa(attn_context *context, const attn_sdpa_args *args);

/* Scratch bytes that attn_sdpa() needs for such args (data pointers may be NULL); from a cache, whatever its lengths are by
 * then. Errors: as attn_sdpa. */
ATTN_API ATTN_NODISCARD attn_status attn_sdpa_scratch(attn_context *context, const attn_sdpa_args *args,
                                                      size_t *bytes);

typedef struct attn_additive_args {
    size_t size;          /* sizeof(attn_additive_args) */
    const attn_tensor *q; /* [batch, n_head, n_q, p_q] f32 */
    const attn_tensor *k; /* [batch, n_head_kv, n_kv, p_k] f32 */
    const attn_tensor *v; /* [batch, n_head_kv, n_kv, p_v] f32 */
    const attn_packed *const
        *a_q; /* n_head matrices A_q (c x p_q), or NULL: q holds A_q q already, p_q = c */
    const attn_packed *const *a_k; /* n_head_kv matrices A_k (c x p_k), or NULL: k holds A_k k, p_k = c */
    const attn_tensor *w;          /* [1, n_head or 1, 1, c] f32 */
    const attn_tensor *out;        /* as in attn_sdpa_args, from here on, but f32 */
    const attn_scoring *scoring;
    const attn_tensor *lse;
    const attn_tensor *weights;
} attn_additive_args;

/* Additive attention pooling (Bahdanau et al., 2015): a = scale * w.tanh(A_q q + A_k k). As attn_sdpa
 * in everything else. Errors: as attn_sdpa, and PACKED. */
ATTN_API ATTN_NODISCARD attn_status attn_additive(attn_context *context, const attn_additive_args *args);

/* Scratch bytes that attn_additive() needs. Errors: as attn_additive. */
ATTN_API ATTN_NODISCARD attn_status attn_additive_scratch(attn_context *context,
                                                          const attn_additive_args *args, size_t *bytes);

/* ---- Merging partial results --------------------------------------------------------------------------- */

typedef struct attn_merge_args {
    size_t size;             /* sizeof(attn_merge_args) */
    size_t n_parts;          /* any number; 0: rows that see nothing */
    const attn_tensor *outs; /* n_parts tensors [batch, n_head, n_q, p_v] f32: what each part's keys gave */
    const attn_tensor *lses; /* n_parts tensors [batch, n_head, n_q, 1] f32: their log-sum-exps (natural) */
    const attn_tensor *out;  /* [batch, n_head, n_q, p_v] f32, written */
    const attn_tensor *lse;  /* [batch, n_head, n_q, 1] f32, written: the log-sum-exp of all parts; or NULL */
} attn_merge_args;

/*
 * Attention over keys that were pooled in parts, from the (out, lse) pairs of any function above, part by
 * part in the order given: out = sum_i e^(lse_i) out_i / sum_i e^(lse_i). The parts' keys must be disjoint,
 * their scores shaped alike and without sinks; a sink is one more part, its logit as lse and zeros as out.
 * For caches that lie in several places or on several machines, and for prefixes that sequences share
 * (examples/shared_prefix.c).
 *
 * A part whose lse is -inf contributes nothing to that row: its out is not read there and may be NaN. All
 * parts -inf: 0 and -inf. An lse of NaN or +inf makes the row NaN, NaN or inf in an out shows in its column.
 * A row that one part alone sees is that part's, unchanged.
 *
 * Equal to one call over all keys up to a bound, not to the bit: an lse is rounded to f32, by which a part's
 * weight moves by |lse| 2^-24 of itself (docs/numerics.md). attn_sdpa and attn_additive merge their own
 * chunks before that rounding, so their results do not depend on it.
 *
 * out may be the same tensor as outs[0], and lse the same as lses[0] (data and strides), to merge in place;
 * otherwise they must overlap nothing. Inputs may have any strides and overlap each other. No scratch.
 * Errors: ARGUMENT, SHAPE, STRIDE, DTYPE, OVERLAP, OVERFLOW.
 */
ATTN_API ATTN_NODISCARD attn_status attn_merge(attn_context *context, const attn_merge_args *args);

/* ---- Whole heads (eq. 11.5.1) ------------------------------------------------------------------------------ */

typedef enum attn_pooling { ATTN_POOLING_DOT = 0, ATTN_POOLING_ADDITIVE = 1 } attn_pooling;

/*
 * The weights of all heads of a layer. Every head has matrices of its own; they are stacked, head after
 * head, in one packed matrix each: rows [i*p_q, (i+1)*p_q) of w_q are W_i^(q). p_q, p_k and p_v follow
 * from the shapes and need not be related to each other, nor to d_q, d_k and d_v (dot-product pooling
 * needs p_q = p_k). Biases are packed with the matrices.
 */
typedef struct attn_weights {
    size_t size;              /* sizeof(attn_weights) */
    size_t n_head, n_head_kv; /* n_head is a multiple of n_head_kv */
    const attn_packed *w_q;   /* n_head*p_q x d_q */
    const attn_packed *w_k;   /* n_head_kv*p_k x d_k */
    const attn_packed *w_v;   /* n_head_kv*p_v x d_v */
    const attn_packed *w_o;   /* p_o x n_head*p_v, or NULL: attn_multihead gives [h_1; ...; h_h];
                                      attn_head does not read it */
    attn_pooling pooling;
    const attn_packed *const *a_q; /* additive pooling, as in attn_additive_args: n_head matrices or NULL, */
    const attn_packed *const *a_k; /* n_head_kv matrices or NULL, */
    const attn_tensor *w_a;        /* [1, n_head or 1, 1, c] */
} attn_weights;

typedef struct attn_head_args {
    size_t size; /* sizeof(attn_head_args) */
    const attn_weights *weights;
    size_t head;                 /* attn_head: i in [0, n_head); attn_multihead does not read it */
    const attn_tensor *q;        /* [batch, 1, n_q, d_q] f32 */
    const attn_tensor *k;        /* [batch, 1, n_kv, d_k] f32; q, k and v may be the same tensor */
    const attn_tensor *v;        /* [batch, 1, n_kv, d_v] f32 */
    const attn_tensor *out;      /* attn_head: h_i [batch, 1, n_q, p_v]; attn_multihead: [batch, 1, n_q, p_o],
                                    or without w_o [batch, 1, n_q, n_head*p_v]; f32, written */
    const attn_scoring *scoring; /* its mask's head dimension counts n_head for both functions; or NULL */
    const attn_tensor *lse;      /* attn_head: [batch, 1, n_q, 1]; attn_multihead: [batch, n_head, n_q, 1];
                                    or NULL */
    const attn_tensor *attention; /* attn_head: [batch, 1, n_q, n_kv]; attn_multihead: [batch, n_head, n_q,
                                    n_kv]: the softmax weights, for looking; or NULL */
} attn_head_args;

/*
 * One head, end to end: h_i = f(W_i^(q) q, W_i^(k) k, W_i^(v) v) for every query row. The same bits as
 * head i of attn_multihead without w_o. Overlap rule and errors: as attn_sdpa, and PACKED.
 */
ATTN_API ATTN_NODISCARD attn_status attn_head(attn_context *context, const attn_head_args *args);

/* Scratch bytes that attn_head() needs. Errors: as attn_head. */
ATTN_API ATTN_NODISCARD attn_status attn_head_scratch(attn_context *context, const attn_head_args *args,
                                                      size_t *bytes);

/* All heads, and o = W_o [h_1; ...; h_h] where w_o is given. Otherwise as attn_head. */
ATTN_API ATTN_NODISCARD attn_status attn_multihead(attn_context *context, const attn_head_args *args);

/* Scratch bytes that attn_multihead() needs. Errors: as attn_multihead. */
ATTN_API ATTN_NODISCARD attn_status attn_multihead_scratch(attn_context *context, const attn_head_args *args,
                                                           size_t *bytes);

/* ---- A layer with a cache ---------------------------------------------------------------------------------- */

typedef struct attn_step_args {
    size_t size;                 /* sizeof(attn_step_args) */
    const attn_weights *weights; /* dot-product pooling; d_q = d_k = d_v = d */
    const attn_tensor *x;        /* [batch, 1, n, d] f32: hidden states of the tokens that come new */
    const attn_tensor *out; /* [batch, 1, n, p_o], or without w_o [batch, 1, n, n_head*p_v]; f32, written */
    const attn_kv *kv;      /* the layer's cache, which the tokens' keys and values are appended to */
    const size_t
        *sequences; /* as in attn_kv_append_args, with x's rows for k's: which sequence of the cache each
                                    is, */
    const size_t *counts; /* how many of the n rows of each count; or NULL: n. Or */
    const size_t *starts; /* ragged, beginning with 0: x's batch is 1, */
    size_t n_starts;      /* and so many sequences are cut from its rows */
    const float *q_norm; /* [p_q]: each head's q and k is divided by its root mean square and multiplied by */
    const float *k_norm; /* these, before RoPE (Qwen 3, Gemma 3: 1 + weight there); or NULL: not */
    float norm_epsilon;  /* added to the mean square, 0 or more; 0: 1e-6 */
    const attn_rope *rope;    /* turns q and k; or NULL */
    const int64_t *positions; /* as in attn_kv_append_args, for q as well; or NULL */
    const attn_scoring
        *scoring; /* NULL: causal, the last new token on the last key. Without lengths and starts, which
                                    follow from the above; rows are counted among the new tokens, keys in the cache
                                    as it is afterwards (n_kv: its longest of the call's sequences) */
    const attn_tensor *lse; /* [batch, n_head, n, 1], as in attn_head_args; or NULL */
} attn_step_args;

/*
 * One attention layer for new tokens of many sequences, one each (decoding), a few (drafts) or a prompt's (prefill, in one
 * call or in pieces), in any mixture: q, k, v = W x; q/k norm; RoPE; k and v appended to the cache; pooling over the
 * cache; W_o. A token's output has the same bits however the tokens before it and beside it came. Rows that do not count
 * (beyond counts, behind the last start) give 0, whatever W_o's bias, and a log-sum-exp of -inf.
 *
 * On an error the cache is what it was. A ring must still have what the rows see when all of them are in: room for the window
 * and the rows of a call. out and lse overlap nothing, the cache nothing that is read. Errors: as attn_multihead and
 * attn_kv_append.
 */
ATTN_API ATTN_NODISCARD attn_status attn_multihead_step(attn_context *context, const attn_step_args *args);

/* Scratch bytes that attn_multihead_step() needs for such args, whatever the cache's lengths are by then (data pointers
 * and arrays may be NULL, but starts and a paged cache's blocks). Errors: as attn_multihead_step. */
ATTN_API ATTN_NODISCARD attn_status attn_multihead_step_scratch(attn_context *context,
                                                                const attn_step_args *args, size_t *bytes);

#ifdef __cplusplus
}
#endif

#endif
