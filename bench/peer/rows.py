"""Rows: their names (those of attn_bench), sizes and useful work."""

import csv
import dataclasses
import os
import re

import benchlib
from peer.formats import FORMATS

GOALS = os.path.join(benchlib.ROOT, "bench", "goals.csv")
TYPE = rf"(?:(?P<type>{'|'.join(name for name in FORMATS if name != 'f32')})/)?"
FORMS = {
    "linear": rf"linear/{TYPE}(?P<n_q>\d+)x(?P<p>\d+)x(?P<d>\d+)",
    "prefill": rf"prefill/{TYPE}d(?P<d>\d+)/h(?P<n_head>\d+)-(?P<n_head_kv>\d+)/n(?P<n_kv>\d+)/"
               r"(?P<causal>full|causal)(?P<key_major>/key-major)?",
    "decode": rf"decode/{TYPE}d(?P<d>\d+)/h(?P<n_head>\d+)-(?P<n_head_kv>\d+)/q(?P<n_q>\d+)/n(?P<n_kv>\d+)"
              r"(?P<key_major>/key-major)?",
    "additive": r"additive/(?P<n_q>\d+)x(?P<n_kv>\d+)/c(?P<d>\d+)",
    "head": r"head/n(?P<n_q>\d+)/d(?P<d>\d+)/p(?P<p>\d+)",
    "multihead": r"multihead/n(?P<n_q>\d+)/d(?P<d>\d+)/h(?P<n_head>\d+)",
}
FLOPS_A_BYTE = 6
COLD_BYTES, MAX_COPIES = 256 << 20, 64  # as in bench/stage.h


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    kind: str  # a key of FORMS
    n_q: int = 0  # linear: rows of x
    n_kv: int = 0
    n_head: int = 1
    n_head_kv: int = 1
    d: int = 0  # linear, head, multihead: inputs; otherwise columns of q and k
    p: int = 0  # outputs (of a head); columns of v
    causal: bool = False
    key_major: bool = False  # q, k, v and out lie [row][head][column]
    type: str = "f32"  # of the weights, or of the keys and values

    @property
    def group(self):
        return self.n_head // self.n_head_kv

    @property
    def form(self):
        return FORMATS[self.type]

    @property
    def is_sdpa(self):
        return self.kind in ("prefill", "decode")

    def visible(self):
        """Scores that the rows of all heads see (causal rows have as many queries as keys)."""
        per_head = self.n_q * (self.n_q + 1) // 2 if self.causal else self.n_q * self.n_kv
        return per_head * self.n_head

    def matrices(self):
        """Of a head: for q, k and v, and W_o's part."""
        return 4 if self.kind == "multihead" else 3

    def flops(self):
        projections = 2 * self.n_q * self.d * self.p
        if self.kind == "linear":
            return projections
        if self.kind == "additive":
            return self.visible() * (4 * self.d + 2 * self.p)
        if self.is_sdpa:
            return self.visible() * 2 * (self.d + self.p)
        return self.matrices() * self.n_head * projections + self.visible() * 4 * self.p

    def bytes(self):
        """Bytes of the operand that has to be read once: the weights, or the keys and values."""
        matrix = self.p * self.form.row(self.d)
        if self.kind == "linear":
            return matrix
        if self.is_sdpa or self.kind == "additive":
            return self.n_head_kv * self.n_kv * (self.form.row(self.d) + self.form.row(self.p))
        return self.matrices() * self.n_head * matrix

    def read_bound(self):
        """As row_read_bound() of bench/rows.c, but the weights of heads are taken to stay in cache."""
        bound = self.flops() < FLOPS_A_BYTE * self.bytes()
        return bound and (self.kind == "linear" or self.is_sdpa)

    def copies(self):
        """Sets of weights or of keys and values, so that rows bound by reading find them out of cache."""
        wanted = max(2, COLD_BYTES // self.bytes() + 1)
        return min(wanted, MAX_COPIES) if self.read_bound() else 1

    def unit_and_work(self):
        """The unit that the row is shown in, and how much of it a call does (in units of 1e9)."""
        if self.kind == "additive":
            return "G tanh/s", self.visible() * self.d * 1e-9
        return ("GB/s", self.bytes() * 1e-9) if self.read_bound() else ("GFLOP/s", self.flops() * 1e-9)


def form_of(name):
    """(kind, match), or None."""
    for kind, form in FORMS.items():
        match = re.fullmatch(form, name)
        if match:
            return kind, match
    return None


def parse(name):
    found = form_of(name)
    if not found:
        raise benchlib.Problem(f"{name} is no row: bench/peers --list names some, and their form")
    kind, match = found
    sizes = {key: int(text) for key, text in match.groupdict().items() if text and text.isdigit()}
    sizes["causal"] = match.groupdict().get("causal") == "causal"
    sizes["key_major"] = bool(match.groupdict().get("key_major"))
    sizes["type"] = match.groupdict().get("type") or "f32"
    if kind == "prefill":
        sizes["n_q"] = sizes["n_kv"]
    if kind in ("prefill", "decode", "additive"):
        sizes["p"] = sizes["d"]
    if kind == "multihead":
        sizes["n_head_kv"] = sizes["n_head"]
        sizes["p"] = sizes["d"] // sizes["n_head"]
    if kind in ("head", "multihead"):
        sizes["n_kv"] = sizes["n_q"]
    if min(value for value in sizes.values() if type(value) is int) < 1:
        raise benchlib.Problem(f"{name}: every size must be 1 or more")
    grouped = sizes.get("n_head", 1) % sizes.get("n_head_kv", 1) == 0
    if sizes["d"] % FORMATS[sizes["type"]].block:
        raise benchlib.Problem(f"{name}: rows of {sizes['type']} are whole blocks")
    if not grouped or kind == "multihead" and sizes["d"] % sizes["n_head"]:
        raise benchlib.Problem(f"{name}: its heads do not divide")
    return Row(name=name, kind=kind, **sizes)


def of_goals():
    """The rows of bench/goals.csv that have peers, in its order, once each."""
    with open(GOALS, newline="") as file:
        names = [goal["row"] for goal in csv.DictReader(line for line in file if not line.startswith("#"))]
    return [parse(name) for name in dict.fromkeys(names) if form_of(name)]
