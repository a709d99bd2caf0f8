"""The peers there are, in the order of their columns. A new peer: its module, and a line of peers()."""


def peers(isa):
    """All peers; isa: "avx2" to keep them to it, otherwise "native"."""
    from peer.blas import Blis, Mkl, OpenBlas
    from peer.ggml_peer import Ggml
    from peer.onnx_peer import OnnxRuntime
    from peer.torch_peer import OneDnn, Torch

    return [OpenBlas(), Blis(isa), Mkl(), OneDnn(), Torch(), OnnxRuntime(), Ggml()]
