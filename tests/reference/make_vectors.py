#!/usr/bin/env python3
"""Writes vectors.txt: inputs, and what attn.h's mathematics gives for them in NumPy float64.

Run by hand (python3 make_vectors.py > vectors.txt) when a case is added; the result is committed.
Textbook formulas only, nothing of the library. The format, whitespace separated:

    case KIND NAME
    number NAME VALUE
    array NAME BATCH HEAD ROW COLUMN   followed by the values
    end

Matrices and vectors are arrays [1, heads, rows, columns]; arrays that begin with want_ are the results.
"""
import numpy as np

NONE, TOP_LEFT, BOTTOM_RIGHT = 0, 1, 2
rng = np.random.default_rng(20240611)


def f32(*shape, size=1.0):
    """Random values that f32 holds exactly."""
    return (rng.standard_normal(shape) * size).astype(np.float32).astype(np.float64)


def emit(kind, name, numbers, arrays, results):
    print("case", kind, name)
    for key, value in numbers.items():
        print("number", key, repr(float(value)))
    for key, value in arrays.items():
        write(key, value, np.float32)
    for key, value in results.items():
        write("want_" + key, value, np.float64)
    print("end")


def write(name, value, dtype):
    value = np.asarray(value, np.float64)
    shape = (1,) * (4 - value.ndim) + value.shape
    print("array", name, *shape)
    for row in value.reshape(-1, shape[3]):
        print(*(str(dtype(x)) if dtype is np.float32 else repr(float(x)) for x in row))


def visible(shape, causal=NONE, q_lengths=None, kv_lengths=None, mask=None):
    """(what is added to the scores, -inf where hidden) for scores [batch, head, n_q, n_kv]."""
    batch, _, n_q, n_kv = shape
    add = np.zeros(shape)
    i, j = np.arange(n_q)[:, None], np.arange(n_kv)[None, :]
    for b in range(batch):
        q_len = n_q if q_lengths is None else q_lengths[b]
        kv_len = n_kv if kv_lengths is None else kv_lengths[b]
        see = (i < q_len) & (j < kv_len)
        if causal == TOP_LEFT:
            see &= j <= i
        if causal == BOTTOM_RIGHT:
            see &= j <= i + kv_len - q_len
        add[b][:, ~see] = -np.inf
    if mask is not None:
        add = add + (np.where(mask != 0, 0, -np.inf) if mask.dtype == bool else mask)
    return add


def pool(scores, add, v):
    """Softmax of scores + add, times v; rows that see nothing give 0 and -inf."""
    hidden = np.isneginf(add)
    s = np.where(hidden, -np.inf, scores + np.where(hidden, 0, add))
    top = s.max(axis=-1, keepdims=True)
    p = np.exp(s - np.where(np.isneginf(top), 0, top))
    total = p.sum(axis=-1, keepdims=True)
    weights = np.divide(p, total, out=np.zeros_like(p), where=total > 0)
    with np.errstate(divide="ignore"):
        lse = np.where(total > 0, top + np.log(total), -np.inf)
    return {"out": weights @ v, "lse": lse, "weights": weights}


def dot_scores(q, k, scale):
    return (scale or 1 / np.sqrt(q.shape[-1])) * q @ k.swapaxes(-1, -2)


def additive_scores(q, k, w, scale):
    """w: [heads or 1, c]."""
    t = np.tanh(q[..., :, None, :] + k[..., None, :, :])
    return (scale or 1) * np.einsum("bhijc,hc->bhij", t, np.broadcast_to(w, (q.shape[1], w.shape[1])))


def grouped(x, n_head):
    return np.repeat(x, n_head // x.shape[1], axis=1)


def options(causal=NONE, scale=0.0, q_lengths=None, kv_lengths=None, mask=None):
    numbers, arrays = {"causal": causal, "scale": scale}, {}
    for key, value in (("q_lengths", q_lengths), ("kv_lengths", kv_lengths)):
        if value is not None:
            arrays[key] = value
    if mask is not None:
        arrays["mask_bool" if mask.dtype == bool else "mask_f32"] = mask
    return numbers, arrays


def linear(name, batch, head, m, k, n, bias):
    x, w = f32(batch, head, m, k), f32(n, k)
    arrays, y = {"x": x, "w": w}, x @ w.T
    if bias:
        arrays["bias"] = f32(n)
        y = y + arrays["bias"]
    emit("linear", name, {}, arrays, {"out": y})


def sdpa(name, batch, n_head, n_head_kv, n_q, n_kv, p_k, p_v, size=1.0, **rules):
    q, k = f32(batch, n_head, n_q, p_k, size=size), f32(batch, n_head_kv, n_kv, p_k)
    v = f32(batch, n_head_kv, n_kv, p_v)
    scores = dot_scores(q, grouped(k, n_head), rules.get("scale"))
    add = visible(scores.shape, **{key: x for key, x in rules.items() if key != "scale"})
    numbers, arrays = options(**rules)
    emit("sdpa", name, numbers, {"q": q, "k": k, "v": v, **arrays}, pool(scores, add, grouped(v, n_head)))


def additive(name, batch, n_head, n_head_kv, n_q, n_kv, p_q, p_k, c, p_v, matrices, shared_w, **rules):
    q, k = f32(batch, n_head, n_q, p_q), f32(batch, n_head_kv, n_kv, p_k)
    v, w = f32(batch, n_head_kv, n_kv, p_v), f32(1 if shared_w else n_head, c)
    arrays = {"q": q, "k": k, "v": v, "w_a": w[:, None, :]}
    aq, ak = q, k
    if matrices:
        arrays["a_q"], arrays["a_k"] = f32(n_head, c, p_q), f32(n_head_kv, c, p_k)
        aq = np.einsum("bhip,hcp->bhic", q, arrays["a_q"])
        ak = np.einsum("bhip,hcp->bhic", k, arrays["a_k"])
    scores = additive_scores(aq, grouped(ak, n_head), w, rules.get("scale"))
    add = visible(scores.shape, **{key: x for key, x in rules.items() if key != "scale"})
    numbers, more = options(**rules)
    emit("additive", name, numbers, {**arrays, **more}, pool(scores, add, grouped(v, n_head)))


def heads(name, batch, n_head, n_head_kv, n_q, n_kv, d, p, p_o=None, bias=False, c=None, head=None, **rules):
    """d = (d_q, d_k, d_v), p = (p_q, p_k, p_v); c: additive pooling; head: attn_head of that head."""
    x = [f32(batch, 1, n, width) for n, width in zip((n_q, n_kv, n_kv), d)]
    count = (n_head, n_head_kv, n_head_kv)
    w = [f32(h * rows, cols, size=cols**-0.5) for h, rows, cols in zip(count, p, d)]
    b = [f32(len(m)) if bias else np.zeros(len(m)) for m in w]
    q, k, v = ((x[i] @ w[i].T + b[i]).reshape(batch, -1, count[i], p[i]).swapaxes(1, 2) for i in range(3))
    arrays = {"q": x[0], "k": x[1], "v": x[2], "w_q": w[0], "w_k": w[1], "w_v": w[2]}
    if bias:
        arrays.update(b_q=b[0], b_k=b[1], b_v=b[2])
    if c:
        arrays["w_a"] = f32(n_head, 1, c)
        arrays["a_q"], arrays["a_k"] = f32(n_head, c, p[0]), f32(n_head_kv, c, p[1])
        q = np.einsum("bhip,hcp->bhic", q, arrays["a_q"])
        k = np.einsum("bhip,hcp->bhic", k, arrays["a_k"])
        scores = additive_scores(q, grouped(k, n_head), arrays["w_a"][:, 0], rules.get("scale"))
    else:
        scores = dot_scores(q, grouped(k, n_head), rules.get("scale"))
    add = visible(scores.shape, **{key: y for key, y in rules.items() if key != "scale"})
    result = pool(scores, add, grouped(v, n_head))
    numbers, more = options(**rules)
    numbers.update(n_head=n_head, n_head_kv=n_head_kv)
    if head is not None:
        numbers["head"] = head
        result = {key: y[:, head : head + 1] for key, y in result.items()}
    else:
        result["out"] = result["out"].swapaxes(1, 2).reshape(batch, 1, n_q, -1)
        if p_o:
            arrays["w_o"] = f32(p_o, n_head * p[2])
            result["out"] = result["out"] @ arrays["w_o"].T
            if bias:
                arrays["b_o"] = f32(p_o)
                result["out"] = result["out"] + arrays["b_o"]
    emit("multihead" if head is None else "head", name, numbers, {**arrays, **more}, result)


def masks(*shape):
    """An additive mask with hidden keys, one row of which sees nothing."""
    mask = np.where(rng.random(shape) < 0.3, -np.inf, f32(*shape))
    mask[0, 0, 1] = -np.inf
    return mask


def main():
    linear("one", 1, 1, 1, 1, 1, False)
    linear("small", 1, 1, 3, 5, 4, False)
    linear("bias", 2, 3, 2, 19, 17, True)
    linear("two_k_blocks", 1, 1, 1, 1100, 2, True)

    sdpa("one", 1, 1, 1, 1, 1, 1, 1)
    sdpa("plain", 2, 2, 2, 5, 7, 8, 8)
    sdpa("d_k_not_d_v", 1, 3, 3, 4, 9, 5, 11, scale=0.75)
    sdpa("grouped", 1, 6, 2, 3, 18, 4, 3)
    sdpa("top_left", 1, 1, 1, 7, 5, 4, 4, causal=TOP_LEFT)
    sdpa("bottom_right", 1, 2, 1, 5, 9, 4, 4, causal=BOTTOM_RIGHT)
    sdpa("bottom_right_sees_nothing", 1, 1, 1, 9, 5, 4, 4, causal=BOTTOM_RIGHT)
    sdpa("lengths", 3, 1, 1, 6, 8, 4, 4, q_lengths=[6, 2, 0], kv_lengths=[5, 8, 3])
    sdpa("lengths_bottom_right", 2, 1, 1, 6, 8, 4, 4, causal=BOTTOM_RIGHT, q_lengths=[6, 3], kv_lengths=[7, 4])
    sdpa("mask_bool", 2, 2, 2, 3, 20, 4, 4, mask=rng.random((1, 2, 3, 20)) < 0.6)
    sdpa("mask_f32", 2, 2, 1, 3, 20, 4, 4, mask=masks(2, 1, 3, 20), causal=TOP_LEFT)
    sdpa("mask_keys", 2, 2, 2, 3, 20, 4, 4, mask=rng.random((2, 1, 1, 20)) < 0.6)
    sdpa("mask_rows", 1, 2, 2, 4, 17, 4, 4, mask=f32(1, 2, 4, 1))
    sdpa("large_scores", 1, 1, 1, 4, 70, 4, 4, size=40.0)
    sdpa("negative_scale", 1, 1, 1, 2, 33, 3, 2, scale=-2.5)

    additive("one", 1, 1, 1, 1, 1, 1, 1, 1, 1, False, True)
    additive("plain", 2, 2, 2, 3, 6, 5, 5, 5, 4, False, True)
    additive("matrices", 1, 4, 2, 3, 6, 4, 3, 7, 5, True, False)
    additive("rules", 2, 2, 1, 4, 19, 3, 5, 6, 2, True, True, causal=BOTTOM_RIGHT, scale=1.5,
             kv_lengths=[19, 6], mask=masks(1, 2, 4, 19))

    shape = dict(d=(6, 5, 7), p=(4, 4, 3))
    heads("dot", 2, 4, 4, 3, 5, bias=True, head=2, **shape)
    heads("grouped_dot", 1, 4, 2, 3, 5, head=3, causal=TOP_LEFT, **shape)
    heads("additive", 1, 2, 2, 3, 5, d=(6, 5, 7), p=(4, 2, 3), c=5, bias=True, head=1, mask=masks(1, 2, 3, 5))
    heads("dot", 2, 4, 4, 3, 5, p_o=6, bias=True, **shape)
    heads("no_w_o", 1, 3, 3, 4, 4, causal=TOP_LEFT, **shape)
    heads("grouped_dot", 1, 4, 2, 3, 18, p_o=5, mask=rng.random((1, 4, 3, 18)) < 0.7, **shape)
    heads("additive", 1, 4, 2, 3, 5, d=(6, 5, 7), p=(4, 2, 3), p_o=4, c=5, bias=True, scale=0.5, **{})


if __name__ == "__main__":
    main()
