"""torch: linear layers, scaled_dot_product_attention, and what the textbook writes; oneDNN through torch."""

import importlib.util
import warnings

from peer import Peer, Prepared
from peer.formats import from_f32


def numpy(out):
    return out.float().numpy()


class TorchPeer(Peer):
    install = "pip install torch (or bench/peers --install DIR)"
    torch = None
    types = ("f32", "f16", "bf16")

    def missing(self):
        if importlib.util.find_spec("torch") is None:
            return "is not installed"
        try:
            import torch
        except (ImportError, OSError, ValueError) as error:  # a CUDA build without CUDA's libraries
            return f"cannot be loaded ({error})"
        TorchPeer.torch = torch
        warnings.filterwarnings("ignore", module="torch")
        return None

    def set_threads(self, n):
        self.torch.set_num_threads(n)

    def prepare(self, case):
        kind = "_sdpa" if case.row.is_sdpa else "_" + case.row.kind
        with self.torch.inference_mode():
            ways = getattr(self, kind)(case) if hasattr(self, kind) else {}
        return {name: Prepared([self._inference(call) for call in calls], result)
                for name, (calls, result) in ways.items()}

    def _inference(self, call):
        inference_mode = self.torch.inference_mode

        def run():
            with inference_mode():
                return call()

        return run

    def _tensor(self, array, type):
        """The memory of an array of a type as a tensor."""
        t = self.torch.from_numpy(array)
        return t.view(self.torch.bfloat16) if type == "bf16" else t

    def _rounded(self, array, type):
        """The values of an f32 array in a type."""
        return self._tensor(from_f32(type, array), type)

    def _reordered(self, w, rows):
        """oneDNN's own layout of a weight for x of so many rows, and the function that multiplies by it."""
        mkldnn = self.torch.ops.mkldnn
        packed = mkldnn._reorder_linear_weight(w, rows)
        return lambda x: mkldnn._linear_pointwise(x, packed, None, "none", [], "")


class OneDnn(TorchPeer):
    """oneDNN's inner product with weights in its own layout, as torch.compile with freezing calls it."""

    name = "oneDNN"
    types = ("f32", "bf16")

    def missing(self):
        why = super().missing()
        if why or self.torch.backends.mkldnn.is_available():
            return why
        return "is not part of this torch"

    def version(self):
        words = self.torch.__config__.show().split()
        for name in ("MKL-DNN", "oneDNN"):
            at = next((i for i, word in enumerate(words) if name in word), None)
            if at is not None:
                return f"{words[at + 1].lstrip('v')} in torch"
        return "in torch"

    def _linear(self, case):
        row = case.row
        x = self._rounded(case.x, row.type)
        products = [self._reordered(self._tensor(w, row.type), row.n_q) for w in case.w]
        return {"": ([lambda f=f: f(x) for f in products], numpy)}


class Torch(TorchPeer):
    name = "torch"

    def version(self):
        return f"{self.torch.__version__} ({self.torch.backends.cpu.get_cpu_capability()})"

    def _linear(self, case):
        linear, x = self.torch.nn.functional.linear, self._rounded(case.x, case.row.type)
        weights = [self._tensor(w, case.row.type) for w in case.w]
        return {"linear": ([lambda w=w: linear(x, w) for w in weights], numpy)}

    def _sdpa(self, case):
        torch, row = self.torch, case.row
        sdpa = torch.nn.functional.scaled_dot_product_attention
        pairs = [(self._tensor(k, row.type)[None], self._tensor(v, row.type)[None])
                 for k, v in zip(case.k, case.v)]
        q = self._rounded(case.q, row.type)[None]
        ungroup = lambda out: case.ungroup(numpy(out))  # noqa: E731
        options = {"is_causal": row.causal, "enable_gqa": row.group > 1}
        calls = [lambda k=k, v=v: sdpa(q, k, v, **options) for k, v in pairs]
        ways = {"sdpa": (calls, lambda out: out[0].float().numpy())}
        if row.group > 1 and not row.causal:
            rows = self._rounded(case.grouped_q(), row.type)[None]
            ways["sdpa, group as rows"] = [lambda k=k, v=v: sdpa(rows, k, v) for k, v in pairs], ungroup
        if row.kind == "decode":
            scaled = self._rounded(case.grouped_q() * row.d**-0.5, row.type)
            ways["matmul, softmax, matmul"] = [
                lambda k=k[0], v=v[0]: torch.softmax(scaled @ k.mT, -1) @ v for k, v in pairs], ungroup
        return ways

    def _additive(self, case):
        torch = self.torch
        q, k, v, w = (torch.from_numpy(a) for a in (case.q, case.k[0], case.v[0], case.w_a))

        def textbook():
            features = torch.tanh(q.unsqueeze(1) + k.unsqueeze(0))
            weights = torch.softmax(features @ w, dim=-1)
            return weights @ v

        return {"textbook": ([textbook], numpy)}

    def _head(self, case):
        """Projections in one product, and in oneDNN's layout of the weights; then the fused attention."""
        torch, row = self.torch, case.row
        linear = torch.nn.functional.linear
        x, w_qkv, w_o = (torch.from_numpy(a) for a in (case.x, case.w_qkv, case.w_o))
        out = (lambda y: linear(y, w_o)) if row.kind == "multihead" else None
        ways = {"linear, sdpa": ([self._pooled(case, x, lambda a: linear(a, w_qkv), out)], numpy)}
        if torch.backends.mkldnn.is_available():
            packed_out = self._reordered(w_o, row.n_q) if out else None
            packed = self._reordered(w_qkv, row.n_q)
            ways["oneDNN, sdpa"] = [self._pooled(case, x, packed, packed_out)], numpy
        if row.kind == "multihead":
            ways["nn.MultiheadAttention"] = [self._module(case, x)], lambda y: y[0][0].numpy()
        return ways

    _multihead = _head

    def _pooled(self, case, x, project, project_out):
        sdpa = self.torch.nn.functional.scaled_dot_product_attention
        row = case.row

        def call():
            q, k, v = project(x).view(1, row.n_q, 3, row.n_head, row.p).permute(2, 0, 3, 1, 4)
            y = sdpa(q, k, v).transpose(1, 2).reshape(row.n_q, row.n_head * row.p)
            return project_out(y) if project_out else y

        return call

    def _module(self, case, x):
        torch, row = self.torch, case.row
        module = torch.nn.MultiheadAttention(row.d, row.n_head, bias=False, batch_first=True).eval()
        module.in_proj_weight.copy_(torch.from_numpy(case.w_qkv))
        module.out_proj.weight.copy_(torch.from_numpy(case.w_o))
        batch = x[None]
        return lambda: module(batch, batch, batch, need_weights=False)
