"""ONNX operator Attention (opsets 23 to 25) by libattn's public API, through ctypes.

What each of the operator's inputs and attributes becomes:
  3D inputs              strided views [batch, n, head, d] -> [batch, head, n, d], no copies
  past_key, past_value   the first rows of a cache, whose length is the position of the first query
  is_causal              ATTN_CAUSAL_OFFSET; the offset is the past's length, or nonpad_kv_seqlen - n_q
  *_window_size          scoring.window around the same positions
  nonpad_kv_seqlen       scoring.kv_lengths
  attn_mask              scoring.mask, broadcast by its sizes; f16 as it is. One that is shorter than the keys
                         hides the rest: the call gets views of the first keys only
  softcap, scale         scoring.soft_cap, scoring.scale
  qk_matmul_output_mode  2 (with cap and mask): scores. 3 (softmax): weights. 0 (raw) and 1 (with the cap): the
                         scores of a call without what comes later, over all keys
  softmax_precision      nothing: the softmax is f32 or better
"""

import ctypes

import numpy as np

SIZE, POINTER, F32 = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_float
CAUSAL_NONE, CAUSAL_OFFSET = 0, 3
DTYPES = {"float32": 0, "bool": 1, "float16": 2}
NO_BOUND = SIZE(-1).value


class Tensor(ctypes.Structure):
    _fields_ = [("data", POINTER), ("dtype", ctypes.c_int), ("size", SIZE * 4),
                ("stride", ctypes.c_ssize_t * 4)]

    @classmethod
    def of(cls, array):
        """A view of an array of 4 dimensions, which must outlive it."""
        size, stride = array.shape, array.strides
        return cls(array.ctypes.data, DTYPES[array.dtype.name], (SIZE * 4)(*size),
                   (ctypes.c_ssize_t * 4)(*stride))


class Options(ctypes.Structure):
    _fields_ = [("size", SIZE), ("backend", ctypes.c_char_p), ("n_threads", SIZE), ("executor", POINTER),
                ("scratch", POINTER), ("scratch_bytes", SIZE), ("error", ctypes.c_char_p),
                ("error_bytes", SIZE)]


class Scoring(ctypes.Structure):
    """attn_scoring up to soft_cap: the library takes what the caller's version lacks as zero."""
    _fields_ = [("size", SIZE), ("scale", F32), ("causal", ctypes.c_int), ("q_lengths", POINTER),
                ("kv_lengths", POINTER), ("mask", POINTER), ("offsets", POINTER), ("window", POINTER),
                ("prefixes", POINTER), ("q_documents", POINTER), ("kv_documents", POINTER),
                ("alibi_slopes", POINTER), ("soft_cap", F32)]


class SdpaArgs(ctypes.Structure):
    _fields_ = [("size", SIZE)] + [(name, POINTER) for name in
                                   "q k v out scoring lse weights lse_sinks kv kv_sequences scores".split()]


class Library:
    def __init__(self, path):
        self.c = ctypes.CDLL(path)
        self.c.attn_context_error.restype = ctypes.c_char_p
        self.c.attn_context_error.argtypes = [POINTER]
        self.c.attn_context_destroy.restype = None
        self.c.attn_context_destroy.argtypes = [POINTER]
        self.c.attn_backend_list.restype = SIZE
        self.c.attn_backend_list.argtypes = [POINTER, POINTER, SIZE]
        self.c.attn_sdpa.argtypes = [POINTER, POINTER]

    def backends(self):
        """Names of the backends that this machine can run, best first."""
        n = self.c.attn_backend_list(None, None, 0)
        names, runnable = (ctypes.c_char_p * n)(), (ctypes.c_int * n)()
        self.c.attn_backend_list(names, runnable, n)
        return [name.decode() for name, can in zip(names, runnable) if can]


def heads_of(x, n_head):
    """[batch, n, head * d] as a view [batch, head, n, d]; 4D as it is."""
    if x.ndim == 4:
        return x
    batch, n, width = x.shape
    return x.reshape(batch, n, n_head, width // n_head).transpose(0, 2, 1, 3)


def cache_of(past, new):
    """The past's rows, then the new ones."""
    return new if past is None else np.concatenate((past, new), axis=2)


class Attention:
    """A context of one backend, which computes the operator."""

    def __init__(self, library, backend):
        self.c, self.context = library.c, POINTER()
        text = ctypes.create_string_buffer(200)
        options = Options(size=ctypes.sizeof(Options), backend=backend.encode(), n_threads=1,
                          error=ctypes.cast(text, ctypes.c_char_p), error_bytes=len(text))
        if self.c.attn_context_create(ctypes.byref(options), ctypes.byref(self.context)) != 0:
            raise RuntimeError(text.value.decode())

    def close(self):
        self.c.attn_context_destroy(self.context)
        self.context = POINTER()

    def __call__(self, inputs, attributes, wanted):
        """inputs by the schema's names, f32 but for masks and lengths; the outputs that `wanted` names."""
        get = attributes.get
        q = heads_of(inputs["Q"], get("q_num_heads"))
        k = cache_of(inputs.get("past_key"), heads_of(inputs["K"], get("kv_num_heads")))
        v = cache_of(inputs.get("past_value"), heads_of(inputs["V"], get("kv_num_heads")))
        (batch, n_head, n_q, _), n_kv, d_v = q.shape, k.shape[2], v.shape[3]
        flat = inputs["Q"].ndim == 3
        y = np.full((batch, n_q, n_head * d_v) if flat else (batch, n_head, n_q, d_v), np.nan, np.float32)
        outputs = {"Y": y, "present_key": k, "present_value": v}
        looks = {}
        if "qk_matmul_output" in wanted:
            mode = get("qk_matmul_output_mode", 0)
            # keys behind a mask that is shorter are hidden, and no call writes their columns
            looked = np.full((batch, n_head, n_q, n_kv), 0 if mode == 3 else -np.inf, np.float32)
            outputs["qk_matmul_output"] = looked
            if mode >= 2:
                looks = {"weights" if mode == 3 else "scores": looked}
            else:
                early = {name: get(name, 0.0) for name in ("scale", "softcap")[:1 + mode]}
                unused = np.empty((batch, n_head, n_q, d_v), np.float32)
                self._pool(q, k, v, unused, {"scores": looked}, {}, early)
        self._pool(q, k, v, heads_of(y, n_head), looks, inputs, attributes)
        return [outputs[name] for name in wanted]

    def _pool(self, q, k, v, out, looks, inputs, attributes):
        """One call of attn_sdpa. looks: arrays for its outputs with a column for each key."""
        batch, n_q, n_kv = q.shape[0], q.shape[2], k.shape[2]
        scoring = Scoring(size=ctypes.sizeof(Scoring), scale=attributes.get("scale", 0.0),
                          soft_cap=attributes.get("softcap", 0.0),
                          causal=CAUSAL_OFFSET if attributes.get("is_causal", 0) else CAUSAL_NONE)
        tensors = {"q": q, "out": out}
        mask = inputs.get("attn_mask")
        if mask is not None:
            n_kv = min(n_kv, mask.shape[-1])
            mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
            view = Tensor.of(mask)
            scoring.mask = ctypes.addressof(view)
        tensors.update(k=k[:, :, :n_kv], v=v[:, :, :n_kv])
        tensors.update((name, array[:, :, :, :n_kv]) for name, array in looks.items())

        past = inputs["past_key"].shape[2] if "past_key" in inputs else 0
        offsets = np.full(batch, past, np.intp)
        lengths = inputs.get("nonpad_kv_seqlen")
        if lengths is not None:
            offsets = np.ascontiguousarray(lengths - n_q, np.intp)
            lengths = np.minimum(lengths, n_kv).astype(np.uintp)
            scoring.kv_lengths = lengths.ctypes.data
        scoring.offsets = offsets.ctypes.data
        sides = [attributes.get(side + "_window_size", -1) for side in ("left", "right")]
        window = (SIZE * 2)(*(NO_BOUND if side < 0 else side for side in sides))
        if max(sides) >= 0:
            scoring.window = ctypes.addressof(window)

        tensors = {name: Tensor.of(array) for name, array in tensors.items()}
        args = SdpaArgs(size=ctypes.sizeof(SdpaArgs), scoring=ctypes.addressof(scoring),
                        **{name: ctypes.addressof(tensor) for name, tensor in tensors.items()})
        if self.c.attn_sdpa(self.context, ctypes.byref(args)) != 0:
            raise RuntimeError(self.c.attn_context_error(self.context).decode())
