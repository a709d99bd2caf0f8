"""Weights in the types that files have, and GGUF files of them, after the formats' descriptions.

Rounding is to nearest even (f16, bf16), q8_0 as ggml's reference quantises. Each rounder gives the bytes and
the values that they stand for. Plain Python.
"""

import struct
from array import array

GGUF_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q2_K": 10, "Q8_0": 8, "I32": 26, "BF16": 30}
U32, STRING, ARRAY = 4, 8, 9  # types of metadata values


def floats(values):
    return struct.unpack(f"<{len(values)}f", struct.pack(f"<{len(values)}f", *values))


def round_f32(values):
    return struct.pack(f"<{len(values)}f", *values), list(floats(values))


def round_f16(values):
    raw = struct.pack(f"<{len(values)}e", *values)
    return raw, list(struct.unpack(f"<{len(values)}e", raw))


def round_bf16(values):
    words = struct.unpack(f"<{len(values)}I", struct.pack(f"<{len(values)}f", *values))
    upper = array("H", [(w + 0x7FFF + (w >> 16 & 1)) >> 16 for w in words])
    return upper.tobytes(), list(
        struct.unpack(f"<{len(values)}f", b"".join(struct.pack("<HH", 0, u) for u in upper))
    )


def round_q8_0(values):
    """Blocks of 32 values: d = largest magnitude / 127 as f16, then 32 signed bytes."""
    raw, back = [], []
    for i in range(0, len(values), 32):
        block = values[i : i + 32]
        d = floats([max(map(abs, block)) / 127])[0]
        inverse = floats([1 / d])[0] if d else 0.0
        half = struct.pack("<e", d)
        q = [int(abs(x) + 0.5) * (1 if x > 0 else -1) for x in floats([x * inverse for x in block])]
        raw.append(half + struct.pack("<32b", *q))
        d = struct.unpack("<e", half)[0]
        back += [d * x for x in q]
    return b"".join(raw), back


ROUNDERS = {"F32": round_f32, "F16": round_f16, "BF16": round_bf16, "Q8_0": round_q8_0}


def text(string):
    raw = string if isinstance(string, bytes) else string.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(x):
    """Metadata: a string, a count or a list of counts."""
    if isinstance(x, str):
        return struct.pack("<I", STRING) + text(x)
    if isinstance(x, list):
        return struct.pack("<IIQ", ARRAY, U32, len(x)) + b"".join(struct.pack("<I", n) for n in x)
    return struct.pack("<II", U32, x)


def gguf_bytes(tensors, metadata=None, version=3, alignment=32, magic=b"GGUF", tail=b"", **lies):
    """tensors: a dict of name: (type, shape, bytes), the shape as NumPy has it. lies: n_tensors, n_values;
    type, rank, sizes (fastest first), offset of the first tensor."""
    metadata = metadata or {}
    head = magic + struct.pack("<I", version)
    head += struct.pack("<QQ", lies.get("n_tensors", len(tensors)), lies.get("n_values", len(metadata)))
    head += b"".join(text(key) + value(x) for key, x in metadata.items())
    data = b""
    for i, (name, (kind, shape, raw)) in enumerate(tensors.items()):
        lie = lies if i == 0 else {}
        sizes = lie.get("sizes", shape[::-1])
        head += text(name) + struct.pack("<I", lie.get("rank", len(sizes)))
        head += struct.pack(f"<{len(sizes)}Q", *sizes)
        head += struct.pack("<IQ", lie.get("type", GGUF_TYPES.get(kind, kind)), lie.get("offset", len(data)))
        data += raw + bytes(-len(raw) % alignment)
    return head + bytes(-len(head) % alignment) + data + tail
