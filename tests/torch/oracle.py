"""Attention in float64 by torch: a problem, what torch gives for it, and the same by plain tensor code.

torch's own functions come first: scaled_dot_product_attention for what it can say, flex_attention (whose
masks and score changes are functions of sequence, head, row and key) for the rest, MultiheadAttention and
Linear for layers. Plain code gives what these do not (the softmax weights) and has to agree with them where
they do.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.attention.flex_attention as flex

F64 = torch.float64
AGREE = 1e-13  # of 1 + the value: float64's own roundings
NONE, TOP_LEFT, BOTTOM_RIGHT, OFFSET = range(4)  # attn_causal
flex._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True  # not traced first: seconds less, the same sums


@dataclass
class Problem:
    """What attn_sdpa takes. Lists have an entry a sequence; mask, slopes, sinks, documents are tensors."""
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scale: float = 0.0
    causal: int = NONE
    offsets: list = None
    window: list = None  # left, right; -1: no bound
    prefixes: list = None
    q_lengths: list = None
    kv_lengths: list = None
    starts: list = None  # q_starts, kv_starts
    documents: list = None  # of rows and of keys: [batch, n] int32
    mask: torch.Tensor = None  # bool, float32 or float16
    slopes: torch.Tensor = None
    cap: float = 0.0
    sinks: torch.Tensor = None
    results: dict = field(default_factory=dict)

    def sequences(self):
        """Of each: number, element of the batch, first row, rows, first key, keys, rows and keys that count,
        offset of its positions."""
        count = len(self.starts[0]) - 1 if self.starts else self.q.shape[0]
        for s in range(count):
            q0, q1 = self.starts[0][s:s + 2] if self.starts else (0, self.q.shape[2])
            k0, k1 = self.starts[1][s:s + 2] if self.starts else (0, self.k.shape[2])
            rows = self.q_lengths[s] if self.q_lengths else q1 - q0
            keys = self.kv_lengths[s] if self.kv_lengths else k1 - k0
            offset = 0 if self.causal == TOP_LEFT else keys - rows
            if self.causal == OFFSET or (self.causal == NONE and self.offsets):
                offset = self.offsets[s]
            yield s, 0 if self.starts else s, q0, q1 - q0, k0, k1 - k0, rows, keys, offset


def agree(what, a, b):
    """Fails where two results are further apart than float64's roundings; infinities must be the same."""
    a, b = torch.broadcast_tensors(a, b)
    same = (a == b) | ((a - b).abs() <= AGREE * (1 + b.abs()))
    if not bool(same.all()):
        raise AssertionError(f"{what}: {float(a[~same][0])} by torch, {float(b[~same][0])} by plain code")


def scale_of(p):
    return p.scale or 1 / math.sqrt(p.q.shape[3])


# ---- Plain tensor code ---------------------------------------------------------------------------------

def pool(scores, visible, sinks, v):
    """out, lse, weights and lse with the sink of scores [.., n_q, n_kv]; rows that see nothing give 0."""
    scores = scores.masked_fill(~visible, -math.inf)
    lse = torch.logsumexp(scores, -1, keepdim=True)
    total = lse if sinks is None else torch.logaddexp(lse, sinks.to(F64).view(-1, 1, 1))
    weights = torch.exp(scores - total).masked_fill(~visible | (total == -math.inf), 0)
    return weights @ v, lse, weights, total


def plain(p):
    """Sequence by sequence, with a matrix of what each row sees."""
    batch, heads, n_q, _ = p.q.shape
    group = heads // p.k.shape[1]
    longest = max((s[5] for s in p.sequences()), default=0)
    out = torch.zeros(batch, heads, n_q, p.v.shape[3], dtype=F64)
    lse = torch.full((batch, heads, n_q, 1), -math.inf, dtype=F64)
    total = lse.clone()
    if p.sinks is not None:
        total[:] = p.sinks.to(F64).view(1, -1, 1, 1)
    weights = torch.zeros(batch, heads, n_q, longest, dtype=F64)
    for s, b, q0, rows_all, k0, keys_all, rows, keys, offset in p.sequences():
        q = p.q[b, :, q0:q0 + rows].to(F64)
        k = p.k[b, :, k0:k0 + keys].to(F64).repeat_interleave(group, 0)
        v = p.v[b, :, k0:k0 + keys].to(F64).repeat_interleave(group, 0)
        at, j = torch.arange(rows)[:, None] + offset, torch.arange(keys)[None, :]
        sees = torch.ones(rows, keys, dtype=torch.bool)
        if p.causal != NONE:
            sees &= j <= at
        if p.window:
            sees &= (j >= at - p.window[0]) if p.window[0] >= 0 else True
            sees &= (j <= at + p.window[1]) if p.window[1] >= 0 else True
        if p.prefixes:
            sees |= j < p.prefixes[s]
        if p.documents:
            sees &= p.documents[0][b, q0:q0 + rows, None] == p.documents[1][b, None, k0:k0 + keys]
        scores = q @ k.mT * scale_of(p)
        scores = p.cap * torch.tanh(scores / p.cap) if p.cap else scores
        if p.slopes is not None:
            scores = scores - p.slopes.to(F64).view(-1, 1, 1) * (at - j).abs()
        sees = sees.expand(heads, rows, keys)
        if p.mask is not None:
            mask = p.mask[s if p.mask.shape[0] > 1 else 0]
            mask = mask[:, :rows if mask.shape[1] > 1 else 1, :keys if mask.shape[2] > 1 else 1]
            sees = sees & (mask if mask.dtype == torch.bool else mask != -math.inf)
            scores = scores if mask.dtype == torch.bool else scores + mask.to(F64)
        at = (b, slice(None), slice(q0, q0 + rows))
        out[at], lse[at], weights[(*at, slice(0, keys))], total[at] = pool(scores, sees, p.sinks, v)
    return {"out": out, "lse": lse, "weights": weights, "lse_sinks": total}


# ---- torch's own ---------------------------------------------------------------------------------------

def sdpa_says(p):
    """Whether scaled_dot_product_attention can express the problem."""
    more = (p.offsets, p.window, p.prefixes, p.q_lengths, p.starts, p.documents, p.slopes, p.sinks)
    masks = (p.mask is not None) + bool(p.kv_lengths) + (p.causal != NONE)
    return all(x is None for x in more) and not p.cap and masks <= 1 and p.causal in (NONE, TOP_LEFT)


def by_sdpa(p):
    mask = p.mask
    if p.kv_lengths:  # key padding
        mask = torch.arange(p.k.shape[2]) < torch.tensor(p.kv_lengths).view(-1, 1, 1, 1)
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(F64)
    return torch.nn.functional.scaled_dot_product_attention(
        p.q.to(F64), p.k.to(F64), p.v.to(F64), attn_mask=mask, is_causal=p.causal == TOP_LEFT,
        scale=p.scale or None, enable_gqa=p.q.shape[1] != p.k.shape[1])


def by_flex(p):
    """out and lse, without sinks: one function says what each row sees, another shapes the scores."""
    batch, heads, n_q, _ = p.q.shape
    n_kv = p.k.shape[2]
    row = {name: torch.full((batch, n_q), -1) for name in ("sequence", "number", "position")}
    key = {name: torch.full((batch, n_kv), -2) for name in ("sequence", "number")}
    for s, b, q0, _, k0, _, rows, keys, offset in p.sequences():
        row["sequence"][b, q0:q0 + rows] = key["sequence"][b, k0:k0 + keys] = s
        row["number"][b, q0:q0 + rows] = torch.arange(rows)
        row["position"][b, q0:q0 + rows] = torch.arange(rows) + offset
        key["number"][b, k0:k0 + keys] = torch.arange(keys)
    prefixes = torch.tensor(p.prefixes or [0])

    def masked(b, h, i, j):
        size = p.mask.shape
        places = row["sequence"][b, i], h, row["number"][b, i], key["number"][b, j]
        return p.mask[tuple(place.clamp(0, n - 1) for place, n in zip(places, size))]

    def sees(b, h, i, j):
        at, number = row["position"][b, i], key["number"][b, j]
        allowed = number == number
        if p.causal != NONE:
            allowed = allowed & (number <= at)
        if p.window and p.window[0] >= 0:
            allowed = allowed & (at - number <= p.window[0])
        if p.window and p.window[1] >= 0:
            allowed = allowed & (number - at <= p.window[1])
        if p.prefixes:
            allowed = allowed | (number < prefixes[row["sequence"][b, i].clamp(0)])
        if p.documents:
            allowed = allowed & (p.documents[0][b, i] == p.documents[1][b, j])
        if p.mask is not None and p.mask.dtype == torch.bool:
            allowed = allowed & masked(b, h, i, j)
        return allowed & (row["sequence"][b, i] == key["sequence"][b, j])

    def shaped(score, b, h, i, j):
        if p.cap:
            score = p.cap * torch.tanh(score / p.cap)
        if p.slopes is not None:
            score = score - p.slopes[h].to(F64) * (row["position"][b, i] - key["number"][b, j]).abs()
        if p.mask is not None and p.mask.dtype != torch.bool:
            score = score + masked(b, h, i, j).to(F64)
        return score

    blocks = flex.create_block_mask(sees, batch, heads, n_q, n_kv, device="cpu")
    out, aux = flex.flex_attention(p.q.to(F64), p.k.to(F64), p.v.to(F64), score_mod=shaped, block_mask=blocks,
                                   scale=scale_of(p), enable_gqa=p.q.shape[1] != p.k.shape[1],
                                   return_aux=flex.AuxRequest(lse=True))
    return out, aux.lse[..., None]


def solve(p, wanted):
    """The results that are asked for, by torch where it has them. by: which function gave them."""
    mine = plain(p)
    by = "plain"
    if sdpa_says(p) and p.k.shape[2]:
        by, out = "sdpa", by_sdpa(p)
        agree("scaled_dot_product_attention", out, mine["out"])
        mine["out"] = out
    if p.q.numel() and p.k.shape[2]:
        out, lse = by_flex(p)
        if p.sinks is not None:  # a sink takes its share of the denominator (gpt-oss)
            sinks = p.sinks.to(F64).view(1, -1, 1, 1)
            total = torch.logaddexp(lse, sinks)
            out = out * torch.sigmoid(lse - sinks).nan_to_num(0)
        else:
            total = lse
        agree("flex_attention, out", out, mine["out"])
        agree("flex_attention, lse", lse, mine["lse"])
        agree("flex_attention, lse with sinks", total, mine["lse_sinks"])
        if by == "plain":
            by, mine["out"] = "flex", out
        mine["lse"], mine["lse_sinks"] = lse, total
    p.results = {name: mine[name] for name in wanted}
    return by


def additive(q, k, v, w, a_q, a_k, scale, visible, bias):
    """Bahdanau's scores w.tanh(A_q q + A_k k) of [batch, head, n, p], A and w one a head; bias is added."""
    q, k, v, w = (x.to(F64) for x in (q, k, v, w))
    group = q.shape[1] // k.shape[1]
    q = q if a_q is None else q @ a_q.to(F64).mT
    k = k if a_k is None else k @ a_k.to(F64).mT
    k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    inner = torch.tanh(q[:, :, :, None, :] + k[:, :, None, :, :])
    scores = (scale or 1) * (inner * w[:, :, :, None, :]).sum(-1)
    scores = scores if bias is None else scores + bias.to(F64)
    out, lse, weights, _ = pool(scores, visible.expand_as(scores), None, v)
    return {"out": out, "lse": lse, "weights": weights}
