"""The cases: tables of those that are committed, and how random ones are drawn. Each is (kind, name, numbers,
arrays) as in file.h; inputs are float32 values, results float64."""

import random
import zlib

import torch

from oracle import BOTTOM_RIGHT, F64, NONE, OFFSET, TOP_LEFT, Problem, additive, agree, pool, solve

# ---- attn_sdpa: name, (batch, heads, heads of keys, n_q, n_kv, p_k, p_v), what draw_problem() takes ----

SDPA = [  # what scaled_dot_product_attention has
    ("one", (1, 1, 1, 1, 1, 1, 1), {}),
    ("d1", (1, 2, 1, 3, 29, 1, 1), {"weights": 1}),
    ("d7", (2, 3, 3, 5, 11, 7, 7), {"weights": 1}),
    ("d64_causal", (1, 2, 2, 33, 33, 64, 40), {"causal": TOP_LEFT}),
    ("d80_gqa4_bool", (1, 4, 1, 9, 50, 80, 80), {"mask": ("bool", (1, 4, 9, 50))}),
    ("d128_scale", (1, 1, 1, 9, 41, 128, 128), {"scale": 0.046875}),
    ("d127_peaky", (1, 2, 1, 6, 61, 127, 33), {"size": 6.0}),
    ("gqa4_padding_step", (3, 4, 1, 1, 70, 48, 48), {"kv_lengths": [70, 1, 37]}),
    ("gqa8_step", (1, 8, 1, 1, 300, 40, 40), {}),
    ("gqa8_padding", (2, 8, 1, 19, 45, 20, 18), {"kv_lengths": [45, 16]}),
    ("gqa71_step", (1, 71, 1, 1, 83, 64, 33), {}),
    ("gqa71_rows", (1, 71, 1, 5, 33, 9, 10), {"causal": TOP_LEFT}),
    ("mla_step", (1, 6, 1, 1, 21, 576, 512), {"scale": 0.041666668}),
    ("mla_rows", (1, 1, 1, 16, 19, 576, 512), {"causal": TOP_LEFT}),
    ("mla_expanded", (1, 2, 2, 12, 12, 192, 128), {"causal": TOP_LEFT}),
    ("mla_expanded_step", (1, 3, 3, 1, 17, 192, 128), {}),
    ("rows70", (1, 2, 1, 70, 130, 40, 24), {"mask": ("bool", (1, 1, 70, 130))}),
    ("bias_f32", (2, 4, 2, 6, 39, 16, 17), {"mask": ("f32", (2, 4, 6, 39)), "weights": 1}),
    ("bias_f32_of_keys", (2, 2, 2, 31, 35, 8, 5), {"mask": ("f32", (1, 2, 1, 35))}),
    ("bias_f16", (1, 4, 4, 18, 70, 11, 13), {"mask": ("f16", (1, 1, 18, 70))}),
    ("negative_scale", (1, 2, 2, 7, 40, 31, 8), {"scale": -0.25}),
    ("chunks", (1, 2, 1, 1, 4200, 3, 2), {}),
]

FEATURES = [  # the rest, by flex_attention
    ("no_keys", (1, 2, 1, 3, 0, 8, 8), {"sinks": 1}),
    ("bottom_right", (1, 4, 2, 9, 41, 32, 32), {"causal": BOTTOM_RIGHT, "weights": 1}),
    ("bottom_right_more_rows", (1, 2, 2, 40, 25, 16, 16), {"causal": BOTTOM_RIGHT}),
    ("offsets", (3, 2, 1, 7, 60, 24, 20), {"causal": OFFSET, "offsets": [20, -3, 100]}),
    ("offsets_step", (2, 8, 2, 1, 90, 32, 32), {"causal": OFFSET, "offsets": [89, 40]}),
    ("window_causal", (1, 4, 1, 70, 70, 16, 16), {"causal": BOTTOM_RIGHT, "window": [15, 0]}),
    ("window_both", (1, 2, 2, 50, 50, 7, 9), {"window": [5, 11], "weights": 1}),
    ("window_step", (1, 8, 2, 1, 300, 16, 16), {"causal": BOTTOM_RIGHT, "window": [63, 0]}),
    ("window_left_only", (2, 2, 1, 12, 64, 5, 6), {"window": [20, -1], "offsets": [30, 0]}),
    ("prefix", (2, 4, 2, 33, 33, 16, 16), {"causal": TOP_LEFT, "prefixes": [7, 33]}),
    ("prefix_window", (1, 2, 1, 16, 90, 20, 8), {"causal": BOTTOM_RIGHT, "window": [9, 0], "prefixes": [4]}),
    ("documents", (2, 2, 2, 45, 45, 16, 9), {"causal": TOP_LEFT, "documents": 4}),
    ("documents_shuffled", (1, 4, 1, 17, 70, 9, 7), {"documents": -3}),
    ("alibi", (1, 8, 8, 9, 40, 16, 16), {"causal": BOTTOM_RIGHT, "alibi": 1, "weights": 1}),
    ("alibi_both_sides", (2, 4, 2, 30, 30, 8, 8), {"alibi": 1}),
    ("alibi_step", (1, 8, 1, 1, 222, 32, 32), {"causal": OFFSET, "offsets": [221], "alibi": 1}),
    ("cap", (1, 4, 2, 20, 55, 64, 64), {"causal": BOTTOM_RIGHT, "cap": 50.0, "size": 3.0}),
    ("cap_small", (1, 2, 2, 35, 35, 31, 31), {"cap": 1.5, "size": 2.0, "weights": 1}),
    ("cap_step", (2, 8, 2, 1, 80, 20, 20), {"cap": 30.0, "size": 4.0, "kv_lengths": [80, 51]}),
    ("sinks", (1, 8, 2, 11, 40, 16, 16), {"causal": BOTTOM_RIGHT, "sinks": 1, "weights": 1}),
    ("sinks_step", (2, 8, 1, 1, 64, 64, 64), {"sinks": 1, "kv_lengths": [64, 0]}),
    ("lengths", (3, 2, 1, 8, 50, 12, 12), {"q_lengths": [8, 0, 3], "kv_lengths": [50, 20, 0],
                                          "causal": BOTTOM_RIGHT}),
    ("ragged_mixed", (1, 4, 2, 70, 120, 16, 24), {"causal": BOTTOM_RIGHT,
                                                "starts": [[0, 1, 40, 40, 69], [0, 50, 89, 100, 120]]}),
    ("ragged_window", (1, 8, 1, 40, 190, 20, 8), {"causal": BOTTOM_RIGHT, "window": [31, 0], "sinks": 1,
                                                 "starts": [[0, 1, 2, 18, 40], [0, 100, 101, 150, 190]]}),
    ("gemma2", (1, 2, 1, 5, 20, 256, 256), {"causal": BOTTOM_RIGHT, "window": [8, 0], "cap": 50.0,
                                            "scale": 0.0625, "size": 2.0}),
    ("gpt_oss", (1, 32, 4, 1, 45, 64, 64), {"causal": BOTTOM_RIGHT, "window": [20, 0], "sinks": 1}),
    ("tree", (1, 8, 2, 13, 90, 32, 32), {"mask": ("bool", (1, 1, 13, 90)), "causal": BOTTOM_RIGHT}),
    ("everything", (2, 8, 4, 17, 61, 19, 11),
     {"causal": OFFSET, "offsets": [38, 20], "window": [30, 4], "prefixes": [3, 0], "q_lengths": [17, 11],
      "kv_lengths": [61, 47], "documents": 2, "alibi": 1, "cap": 9.0, "sinks": 1,
      "mask": ("f16", (2, 1, 17, 61))}),
    ("everything_few", (1, 71, 1, 2, 99, 12, 5),
     {"causal": BOTTOM_RIGHT, "window": [50, 0], "prefixes": [5], "alibi": 1, "cap": 4.0, "sinks": 1,
      "mask": ("f32", (1, 71, 1, 99))}),
]

# name, (batch, heads, heads of keys, n_q, n_kv, p_q, p_k, p_v, c; 0: no matrices), heads of w, options
ADDITIVE = [
    ("one", (1, 1, 1, 1, 1, 1, 1, 1, 1), 1, {}),
    ("bahdanau", (2, 1, 1, 5, 23, 40, 61, 80, 33), 1, {"kv_lengths": [23, 9]}),
    ("heads", (1, 6, 2, 7, 19, 9, 12, 10, 17), 6, {"mask": ("bool", (1, 6, 7, 19))}),
    ("projected", (2, 4, 4, 18, 30, 16, 16, 7, 0), 4, {"causal": TOP_LEFT}),
    ("wide", (1, 2, 1, 3, 40, 128, 128, 64, 0), 1, {"scale": 0.5}),
    ("rows70", (1, 2, 2, 70, 23, 7, 8, 9, 5), 2, {"mask": ("f32", (1, 1, 1, 23))}),
]

# name, rows, outputs, inputs, bias
LINEAR = [("one", 1, 1, 1, 1), ("odd", 3, 17, 33, 1), ("step", 1, 70, 200, 1), ("no_bias", 13, 130, 70, 0),
          ("rows70", 70, 31, 80, 1), ("long", 2, 9, 1100, 0)]

# name, batch, n_q, n_kv (0: self-attention), embed_dim, heads, kdim, vdim, bias, option
MULTIHEAD = [
    ("one", 1, 1, 1, 1, 1, None, None, 1, None),
    ("d7", 2, 9, 13, 7, 1, None, None, 1, None),
    ("minilm_like", 2, 16, 0, 48, 12, None, None, 1, "padding"),
    ("causal", 1, 37, 0, 32, 4, None, None, 1, "causal"),
    ("cross", 1, 11, 26, 48, 3, 20, 33, 0, "bool"),
    ("d80_bias", 1, 5, 40, 80, 1, 37, 31, 1, "f32"),
    ("step", 3, 1, 50, 40, 8, None, None, 1, "padding"),
]


def generator(seed):
    return torch.Generator().manual_seed(seed)


def seed_of(*words):
    """A case's inputs depend on its name only: a new case moves no other."""
    return zlib.crc32(" ".join(map(str, words)).encode())


def draw_mask(g, kind, size):
    """A quarter is hidden; the first key of a row never, as softmax in torch would be NaN."""
    hidden = torch.rand(size, generator=g) < 0.25
    hidden[..., :1] = False
    if kind == "bool":
        return ~hidden
    bias = (2 * torch.randn(size, generator=g)).masked_fill(hidden, -torch.inf)
    return bias if kind == "f32" else bias.to(torch.float16)


def draw_documents(g, count, batch, n):
    """count > 0: so many runs; below 0: so many numbers in any order."""
    if count < 0:
        return torch.randint(0, -count, (batch, n), generator=g, dtype=torch.int32)
    return (torch.arange(n) * count // max(n, 1)).to(torch.int32).repeat(batch, 1)


def draw_problem(seed, sizes, mask=None, documents=0, alibi=0, sinks=0, size=1.0, weights=0, **rest):
    """The inputs, and everything else as Problem has it. size: of the queries; above 1 few keys take all."""
    batch, heads, heads_kv, n_q, n_kv, p_k, p_v = sizes
    g = generator(seed)
    p = Problem(size * torch.randn(batch, heads, n_q, p_k, generator=g),
                torch.randn(batch, heads_kv, n_kv, p_k, generator=g),
                torch.randn(batch, heads_kv, n_kv, p_v, generator=g), **rest)
    p.scale = float(torch.tensor(p.scale))  # what a float holds
    p.mask = draw_mask(g, *mask) if mask else None
    p.slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads) if alibi else None
    p.sinks = 2 * torch.randn(heads, generator=g) if sinks else None
    p.documents = [draw_documents(g, documents, batch, n) for n in (n_q, n_kv)] if documents else None
    return p


def row(values, dtype=torch.int64):
    """A list or a vector as [1, 1, 1, n]."""
    return torch.as_tensor(values, dtype=dtype).reshape(1, 1, 1, -1)


def sdpa_case(name, p, weights=0):
    wanted = ["out", "lse"] + ["weights"] * bool(weights) + ["lse_sinks"] * (p.sinks is not None)
    by = solve(p, wanted)
    arrays = {"q": p.q, "k": p.k, "v": p.v}
    for key in ("offsets", "window", "prefixes", "q_lengths", "kv_lengths"):
        if getattr(p, key) is not None:
            arrays[key] = row(getattr(p, key))
    for key, values in zip(("q", "kv"), p.starts or []):
        arrays[key + "_starts"] = row(values)
    for key, values in zip(("q", "kv"), p.documents or []):
        arrays[key + "_documents"] = values[:, None, None, :]
    if p.slopes is not None:
        arrays["slopes"] = row(p.slopes, torch.float32)
    if p.sinks is not None:
        arrays["sinks"] = row(p.sinks, torch.float32)
    if p.mask is not None:
        kinds = {torch.bool: "bool", torch.float32: "f32", torch.float16: "f16"}
        arrays["mask_" + kinds[p.mask.dtype]] = p.mask
    arrays.update({"want_" + key: value for key, value in p.results.items()})
    return "sdpa", f"{name}:{by}", {"scale": p.scale, "causal": p.causal, "cap": p.cap}, arrays


def additive_case(name, seed, sizes, heads_w, mask=None, causal=NONE, kv_lengths=None, scale=0.0):
    batch, heads, heads_kv, n_q, n_kv, p_q, p_k, p_v, c = sizes
    g = generator(seed)
    arrays = {"q": torch.randn(batch, heads, n_q, p_q, generator=g),
              "k": torch.randn(batch, heads_kv, n_kv, p_k, generator=g),
              "v": torch.randn(batch, heads_kv, n_kv, p_v, generator=g),
              "w_a": torch.randn(1, heads_w, 1, c or p_q, generator=g)}
    if c:
        arrays["a_q"] = torch.randn(1, heads, c, p_q, generator=g) / p_q ** 0.5
        arrays["a_k"] = torch.randn(1, heads_kv, c, p_k, generator=g) / p_k ** 0.5
    visible = torch.ones(batch, 1, n_q, n_kv, dtype=torch.bool)
    if causal == TOP_LEFT:
        visible = visible.tril()
    if kv_lengths:
        visible = visible & (torch.arange(n_kv) < torch.tensor(kv_lengths).view(-1, 1, 1, 1))
        arrays["kv_lengths"] = row(kv_lengths)
    bias = None
    if mask:
        m = draw_mask(g, *mask)
        arrays["mask_" + mask[0]] = m
        visible = visible & (m if mask[0] == "bool" else m != -torch.inf)
        bias = None if mask[0] == "bool" else m
    inputs = (arrays.get(key) for key in ("q", "k", "v", "w_a", "a_q", "a_k"))
    results = additive(*inputs, scale, visible, bias)
    arrays.update({"want_" + key: value for key, value in results.items()})
    return "additive", name, {"scale": scale, "causal": causal}, arrays


def linear_case(name, seed, m, n, k, bias):
    g = generator(seed)
    layer = torch.nn.Linear(k, n, bias=bool(bias), dtype=F64)
    arrays = {"x": torch.randn(1, 1, m, k, generator=g), "w": torch.randn(1, 1, n, k, generator=g) / k ** 0.5}
    if bias:
        arrays["bias"] = row(torch.randn(n, generator=g), torch.float32)
    with torch.no_grad():
        layer.weight.copy_(arrays["w"][0, 0])
        if bias:
            layer.bias.copy_(arrays["bias"].flatten())
        arrays["want_out"] = layer(arrays["x"].to(F64))
    return "linear", name, {}, arrays


def multihead_case(name, seed, batch, n_q, n_kv, embed, heads, kdim, vdim, bias, option):
    """torch.nn.MultiheadAttention; its weights per head, and the log-sum-exp of its scores by plain code."""
    g = generator(seed)
    layer = torch.nn.MultiheadAttention(embed, heads, bias=bool(bias), kdim=kdim, vdim=vdim, batch_first=True,
                                        dtype=F64)
    for parameter in layer.parameters():  # float32 values
        width = parameter.shape[-1] if parameter.ndim > 1 else 4
        parameter.data.copy_(torch.randn(parameter.shape, generator=g) / width ** 0.5)
    q = torch.randn(batch, 1, n_q, embed, generator=g)
    k = torch.randn(batch, 1, n_kv, kdim or embed, generator=g) if n_kv else q
    v = torch.randn(batch, 1, n_kv, vdim or embed, generator=g) if n_kv else q
    n_kv = k.shape[2]
    arrays = {"q": q, "k": k, "v": v}
    weights = layer.in_proj_weight.chunk(3) if layer.in_proj_weight is not None else (
        layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
    for key, w in zip(("w_q", "w_k", "w_v", "w_o"), (*weights, layer.out_proj.weight)):
        arrays[key] = w.detach().to(torch.float32)[None, None]
    biases = (*layer.in_proj_bias.chunk(3), layer.out_proj.bias) if bias else ()
    for key, b in zip(("b_q", "b_k", "b_v", "b_o"), biases):
        arrays[key] = row(b.detach(), torch.float32)
    mask, padding, visible = None, None, torch.ones(batch, 1, n_q, n_kv, dtype=torch.bool)
    if option == "causal":
        visible = visible.tril()
        mask = ~visible[0, 0]  # here true hides
    elif option == "padding":
        lengths = torch.randint(1, n_kv + 1, (batch,), generator=g)
        padding = torch.arange(n_kv) >= lengths[:, None]
        visible = visible & ~padding[:, None, None, :]
        arrays["kv_lengths"] = row(lengths)
    elif option:
        m = draw_mask(g, option, (n_q, n_kv))
        arrays["mask_" + option] = m[None, None]
        mask = ~m if option == "bool" else m.to(F64)
        visible = visible & (m if option == "bool" else m != -torch.inf)
    with torch.no_grad():
        q, k, v = (x[:, 0].to(F64) for x in (q, k, v))
        out, attention = layer(q, k, v, attn_mask=mask, key_padding_mask=padding, need_weights=True,
                               average_attn_weights=False)
        q, k, v = (torch.nn.functional.linear(x, w, b).unflatten(-1, (heads, -1)).transpose(1, 2)
                   for x, w, b in zip((q, k, v), weights, biases or (None, None, None)))
        scores = q @ k.mT / (embed // heads) ** 0.5 + (mask if option == "f32" else 0)
        _, lse, mine, _ = pool(scores, visible.expand_as(scores), None, v)
    agree("MultiheadAttention, weights", attention, mine)
    arrays.update(want_out=out[:, None], want_lse=lse, want_weights=attention)
    numbers = {"n_head": heads, "n_head_kv": heads, "causal": TOP_LEFT if option == "causal" else NONE}
    return "multihead", name, numbers, arrays


def committed():
    """File by file: its name and its cases."""
    for file, table in (("sdpa", SDPA), ("features", FEATURES)):
        yield file, [sdpa_case(name, draw_problem(seed_of("sdpa", name), sizes, **options),
                               options.get("weights", 0)) for name, sizes, options in table]
    yield "additive", [additive_case(name, seed_of("additive", name), sizes, heads_w, **options)
                       for name, sizes, heads_w, options in ADDITIVE]
    yield "layers", ([linear_case(name, seed_of("linear", name), *rest) for name, *rest in LINEAR] +
                     [multihead_case(name, seed_of("multihead", name), *rest) for name, *rest in MULTIHEAD])


# ---- Random ones ---------------------------------------------------------------------------------------

WIDTHS = [1, 2, 3, 7, 8, 15, 16, 17, 24, 31, 32, 40, 64, 65, 80, 96, 100, 128, 192, 256, 320, 512, 576, 1000]
MOST = 1_500_000  # products of a case: so that the oracle in C does not take longer than torch


def draw_starts(r, n_q, n_kv):
    count = r.randint(1, 6)
    return [sorted([0, *(r.randint(0, n) for _ in range(count - 1)), n]) for n in (n_q, n_kv)]


def random_sdpa(r, name):
    while True:
        group, heads_kv = r.choice([1, 1, 2, 3, 4, 7, 8, 71, 128]), r.choice([1, 1, 2, 3])
        batch, n_q = r.choice([1, 1, 2, 3]), r.choice([1, 1, 2, 5, 16, r.randint(1, 70)])
        n_kv = r.randint(0, 300)
        p_k, p_v = r.choice(WIDTHS), r.choice(WIDTHS)
        if batch * group * heads_kv * n_q * max(n_kv, 1) * (p_k + p_v) <= MOST:
            break

    def chance(percent):
        return r.randrange(100) < percent

    o = {"causal": r.choice([NONE, TOP_LEFT, BOTTOM_RIGHT, OFFSET]) if chance(60) else NONE}
    if chance(20):
        batch, o["starts"] = 1, draw_starts(r, n_q, n_kv)
    keys = [b - a for a, b in zip(o["starts"][1], o["starts"][1][1:])] if "starts" in o else [n_kv] * batch
    rows = [b - a for a, b in zip(o["starts"][0], o["starts"][0][1:])] if "starts" in o else [n_q] * batch
    if o["causal"] == OFFSET or chance(15):
        o["offsets"] = [r.randint(-5, n + 5) for n in keys]
    if chance(20):
        o["kv_lengths"] = [r.randint(0, n) for n in keys]
    if chance(15) and "starts" not in o:
        o["q_lengths"] = [r.randint(0, n_q) for _ in keys]
    if chance(25):
        o["window"] = [r.choice([-1, 0, r.randint(0, 40)]), r.choice([-1, 0, r.randint(0, 40)])]
    if chance(15):
        o["prefixes"] = [r.randint(0, n // 2 + 3) for n in keys]
    if chance(15):
        o["documents"] = r.choice([2, 5, -2, -3])
    if chance(20):
        o["cap"] = r.choice([1.5, 30.0, 50.0])
    if chance(30):
        full = len(keys), group * heads_kv, max(rows), max(keys)
        o["mask"] = r.choice(["bool", "f32", "f16"]), tuple(r.choice([1, n]) for n in full)
    if chance(30):
        o["scale"] = r.choice([0.375, -0.2, 1.0 / 16])
    o.update(alibi=chance(15), sinks=chance(20), weights=chance(30), size=r.choice([1.0, 1.0, 3.0]))
    p = draw_problem(r.getrandbits(40), (batch, group * heads_kv, heads_kv, n_q, n_kv, p_k, p_v), **o)
    return sdpa_case(name, p, o["weights"])


def random_case(r, name):
    kind, seed = r.choices(["sdpa", "additive", "linear", "multihead"], [8, 1, 1, 1])[0], r.getrandbits(40)
    if kind == "sdpa":
        return random_sdpa(r, name)
    if kind == "linear":
        return linear_case(name, seed, r.randint(1, 80), r.randint(1, 200), r.choice(WIDTHS), r.randint(0, 1))
    if kind == "multihead":
        heads, n_q, n_kv = r.choice([1, 2, 3, 7]), r.randint(1, 40), r.randint(0, 60)
        wide = [r.choice([None, *range(1, 60)]) if n_kv else None for _ in range(2)]
        return multihead_case(name, seed, r.randint(1, 3), n_q, n_kv, heads * r.randint(1, 40), heads, *wide,
                              r.randint(0, 1), r.choice([None, "causal", "padding", "bool", "f32"]))
    heads_kv, c, width = r.choice([1, 2]), r.choice([0, r.randint(1, 40)]), r.randint(1, 70)
    heads, batch = heads_kv * r.choice([1, 2, 3]), r.randint(1, 2)
    n_q, n_kv = r.randint(1, 40), r.randint(1, 60)
    sizes = batch, heads, heads_kv, n_q, n_kv, width, r.randint(1, 70) if c else width, r.randint(1, 70), c
    size = tuple(r.choice([1, n]) for n in (batch, heads, n_q, n_kv))
    mask = r.choice([None, ("bool", size), ("f32", size)])
    lengths = r.choice([None, [r.randint(0, n_kv) for _ in range(batch)]])
    return additive_case(name, seed, sizes, r.choice([1, heads]), mask, r.choice([NONE, TOP_LEFT]), lengths,
                         r.choice([0.0, 0.5, -0.25]))


def batch_of_random(seed, count):
    r = random.Random(seed)
    return [random_case(r, f"{seed}.{i}") for i in range(count)]
