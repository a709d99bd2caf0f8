"""ONNX Runtime: models of one node (or of the few that a row is made of), run on bound memory."""

import importlib.util

import numpy as np

from peer import Peer, Prepared
from peer.data import interleaved, separated
from peer.formats import quants

OPSET, IR_VERSION, CONTRIB = 23, 10, "com.microsoft"


class OnnxRuntime(Peer):
    name = "ONNX Runtime"
    install = "pip install onnxruntime onnx"
    follows_isa = False
    types = ("f32", "q8_0", "q4_0")

    def __init__(self):
        self.n_threads = 1
        self.ort = self.onnx = None

    def missing(self):
        if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnx") is None:
            return "is not installed"
        import onnx
        import onnxruntime
        self.ort, self.onnx = onnxruntime, onnx
        self.ort.set_default_logger_severity(3)
        return None

    def version(self):
        return self.ort.__version__

    def set_threads(self, n):
        self.n_threads = n

    def prepare(self, case):
        kind = "_sdpa" if case.row.is_sdpa else "_" + case.row.kind
        return getattr(self, kind)(case)

    # One model

    def _session(self, nodes, inputs, outputs, constants=None):
        """inputs, constants: {name: array}; outputs: {name: shape}."""
        helper, types = self.onnx.helper, self.onnx.TensorProto
        kinds = {"f": types.FLOAT, "i": types.INT32, "u": types.UINT8}
        graph = helper.make_graph(
            nodes, "row",
            [helper.make_tensor_value_info(name, kinds[a.dtype.kind], a.shape) for name, a in inputs.items()],
            [helper.make_tensor_value_info(name, types.FLOAT, shape) for name, shape in outputs.items()],
            [helper.make_tensor(name, kinds[a.dtype.kind], a.shape, a.tobytes(), raw=True)
             for name, a in (constants or {}).items()])
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        options = self.ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.n_threads, 1
        return self.ort.InferenceSession(model.SerializeToString(), options,
                                         providers=["CPUExecutionProvider"])

    def _call(self, session, inputs, outputs, in_place=None):
        """
        A callable of a session on these arrays (no copies); in_place: {output: input} share memory.
        It returns the first output.
        """
        value, binding = self.ort.OrtValue.ortvalue_from_numpy, session.io_binding()
        bound = {name: value(array) for name, array in inputs.items()}
        results = {name: value(np.zeros(shape, np.float32)) for name, shape in outputs.items()}
        results |= {name: bound[source] for name, source in (in_place or {}).items()}
        for name, a in bound.items():
            binding.bind_ortvalue_input(name, a)
        for name, a in results.items():
            binding.bind_ortvalue_output(name, a)
        first = results[next(iter(outputs))]

        def call(_keep=(inputs, bound, results)):
            session.run_with_iobinding(binding)
            return first

        return call

    def _model(self, nodes, inputs, outputs, constants, result):
        session = self._session(nodes, inputs, outputs, constants)
        return Prepared([self._call(session, inputs, outputs)], result)

    # Rows

    def _linear(self, case):
        if case.row.type != "f32":
            return {"MatMulNBits": self._linear_blocks(case)}
        node = self.onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
        outputs = {"y": (case.row.n_q, case.row.p)}
        models = [self._model([node], {"x": case.x}, outputs, {"w": np.ascontiguousarray(w.T)}, None)
                  for w in case.w]
        return {"MatMul": Prepared([model.calls[0] for model in models], lambda y: y.numpy())}

    def _linear_blocks(self, case):
        """Blocks of 32 with a scale each; products of integers (accuracy level 4)."""
        row, bits = case.row, {"q8_0": 8, "q4_0": 4}[case.row.type]
        node = self.onnx.helper.make_node("MatMulNBits", ["x", "w", "scales"], ["y"], domain=CONTRIB, K=row.d,
                                          N=row.p, bits=bits, block_size=32, accuracy_level=4)
        models = []
        for w in case.w:
            unsigned, scales = quants(row.type, w)
            if bits == 4:  # two neighbours a byte, the first in the low half
                unsigned = unsigned[..., ::2] | unsigned[..., 1::2] << 4
            models.append(self._model([node], {"x": case.x}, {"y": (row.n_q, row.p)},
                                      {"w": unsigned, "scales": scales}, None))
        return Prepared([model.calls[0] for model in models], lambda y: y.numpy())

    def _sdpa(self, case):
        row, ways = case.row, {}
        if row.type != "f32":
            return ways
        # Attention of opset 23 counts the heads of a group otherwise: rows of one head instead
        if not row.causal or row.group == 1:
            ways["Attention"] = self._attention(case)
        if (not row.causal or row.group == 1) and (row.kind == "prefill" or row.key_major):
            ways["MultiHeadAttention"] = self._multi_head_attention(case)
        if row.causal or row.kind == "decode" and row.n_q == 1 and not row.key_major:
            ways["GroupQueryAttention"] = self._group_query_attention(case)
        return ways

    def _over_copies(self, session, case, bind):
        return [bind(session, k, v) for k, v in zip(case.k, case.v)]

    def _attention(self, case):
        """Memory as the row has it; queries of a group as rows."""
        row, helper = case.row, self.onnx.helper
        q, causal = case.grouped_q(), int(row.causal)
        if row.key_major:
            q, shape = interleaved(q), interleaved
            node = helper.make_node("Attention", ["q", "k", "v"], ["y"], is_causal=causal,
                                    q_num_heads=row.n_head_kv, kv_num_heads=row.n_head_kv)
            result = lambda y: case.ungroup(separated(y.numpy(), row.n_head_kv))  # noqa: E731
        else:
            q, shape = q[None], lambda a: a[None]
            node = helper.make_node("Attention", ["q", "k", "v"], ["y"], is_causal=causal)
            result = lambda y: case.ungroup(y.numpy())  # noqa: E731
        return self._of_qkv(case, node, q, shape, result)

    def _multi_head_attention(self, case):
        """[row][head*column], the operator's own layout."""
        row = case.row
        node = self.onnx.helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain=CONTRIB,
                                          num_heads=row.n_head_kv, unidirectional=int(row.causal))
        return self._of_qkv(case, node, interleaved(case.grouped_q()), interleaved,
                            lambda y: case.ungroup(separated(y.numpy(), row.n_head_kv)))

    def _of_qkv(self, case, node, q, shape, result):
        copies = [{"q": q, "k": shape(k), "v": shape(v)} for k, v in zip(case.k, case.v)]
        outputs = {"y": q.shape}
        session = self._session([node], copies[0], outputs)
        return Prepared([self._call(session, inputs, outputs) for inputs in copies], result)

    def _group_query_attention(self, case):
        """With a cache in [head][key][d], filled by the call with the keys and values of its queries."""
        row = case.row
        names = ["q", "k", "v", "past_k", "past_v", "last", "total"]
        node = self.onnx.helper.make_node("GroupQueryAttention", names, ["y", "present_k", "present_v"],
                                          domain=CONTRIB, num_heads=row.n_head, kv_num_heads=row.n_head_kv)
        new = slice(row.n_kv - row.n_q, row.n_kv)
        cache = (1, row.n_head_kv, row.n_kv, row.d)
        copies = [{"q": interleaved(case.q), "k": interleaved(k[:, new]), "v": interleaved(v[:, new]),
                   "past_k": np.array(k)[None] if row.causal else k[None],
                   "past_v": np.array(v)[None] if row.causal else v[None],
                   "last": np.array([row.n_kv - 1], np.int32), "total": np.array([row.n_kv], np.int32)}
                  for k, v in zip(case.k, case.v)]
        shape = copies[0]["q"].shape
        session = self._session([node], copies[0], {"y": shape, "present_k": cache, "present_v": cache})
        shared = {"present_k": "past_k", "present_v": "past_v"}
        calls = [self._call(session, inputs, {"y": shape}, shared) for inputs in copies]
        return Prepared(calls, lambda y: separated(y.numpy(), row.n_head))

    def _additive(self, case):
        node, row = self.onnx.helper.make_node, case.row
        nodes = [node("Add", ["q", "k"], ["sum"]), node("Tanh", ["sum"], ["features"]),
                 node("MatMul", ["features", "w"], ["scores"]),
                 node("Softmax", ["scores"], ["weights"], axis=-1),
                 node("MatMul", ["weights", "v"], ["y"])]
        inputs = {"q": case.q[:, None], "k": case.k[0][None], "v": case.v[0]}
        return {"textbook": self._model(nodes, inputs, {"y": (row.n_q, row.p)}, {"w": case.w_a},
                                        lambda y: y.numpy())}

    def _head(self, case):
        """The contributed Attention: projections and pooling in one node; W_o behind it."""
        row, node = case.row, self.onnx.helper.make_node
        width = row.n_head * row.p
        constants = {"w": np.ascontiguousarray(case.w_qkv.T), "b": np.zeros(3 * width, np.float32)}
        nodes = [node("Attention", ["x", "w", "b"], ["h"], domain=CONTRIB, num_heads=row.n_head)]
        outputs = {"h": (1, row.n_q, width)}
        if row.kind == "multihead":
            nodes.append(node("MatMul", ["h", "w_o"], ["y"]))
            constants["w_o"] = np.ascontiguousarray(case.w_o.T)
            outputs = {"y": (1, row.n_q, row.d)}
        return {"Attention": self._model(nodes, {"x": case.x[None]}, outputs, constants,
                                         lambda y: y.numpy()[0])}

    _multihead = _head
