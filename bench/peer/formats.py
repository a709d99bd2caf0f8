"""Element types of weights, keys and values: how they lie in memory, and random values of them."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Format:
    code: int
    """attn_dtype"""
    ggml: int
    """enum ggml_type"""
    storage: type
    """of the arrays that hold it; those of block formats have bytes for columns"""
    block: int = 1
    """values a block"""
    bytes: int = 4
    """of a block"""
    scales: tuple = ()
    """(offset in a block, binary16 value) of the fields that are not left to chance"""

    def row(self, columns):
        return columns // self.block * self.bytes


# Of q8_0 and q4_0 the scales make the variance of random quants 1.
FORMATS = {
    "f32": Format(0, 0, np.float32),
    "f16": Format(2, 1, np.float16, bytes=2),
    "bf16": Format(3, 30, np.uint16, bytes=2),
    "q8_0": Format(4, 8, np.uint8, 32, 34, ((0, 1 / 74),)),
    "q4_0": Format(5, 2, np.uint8, 32, 18, ((0, 1 / 4.6),)),
    "q4_K": Format(6, 12, np.uint8, 256, 144, ((0, 2**-11), (2, 2**-9))),
    "q6_K": Format(7, 14, np.uint8, 256, 210, ((208, 2**-11),)),
}
BLOCKS = tuple(name for name, form in FORMATS.items() if form.block > 1)


def to_bf16(array):
    """Rounded to nearest even, as uint16. No NaN."""
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_f32(name, array):
    """The array's values in f32, f16 or bf16."""
    return to_bf16(array) if name == "bf16" else array.astype(FORMATS[name].storage, copy=False)


def random_blocks(name, random, *shape):
    """Blocks of a format, shape[-1] values a row: [..., bytes of a row]."""
    form = FORMATS[name]
    blocks = random.integers(0, 256, (*shape[:-1], shape[-1] // form.block, form.bytes), np.uint8)
    for offset, value in form.scales:
        blocks[..., offset:offset + 2] = np.array([value], np.float16).view(np.uint8)
    return blocks.reshape(*shape[:-1], form.row(shape[-1]))


def quants(name, blocks):
    """(unsigned quants [..., blocks, 32], scales [..., blocks] in f32) of q8_0 or q4_0."""
    form = FORMATS[name]
    blocks = blocks.reshape(*blocks.shape[:-1], -1, form.bytes)
    scales = blocks[..., :2].copy().view(np.float16)[..., 0].astype(np.float32)
    data = blocks[..., 2:]
    if name == "q8_0":
        return data + np.uint8(128), scales
    return np.concatenate([data & 15, data >> 4], axis=-1), scales
