"""The inputs of a row, the same arrays for all peers, and the shape of its result.

kind            inputs                                               result
linear          x [n_q, d], w: [p, d] a copy                          [n_q, p]
prefill, decode q [n_head, n_q, d], k, v: [n_head_kv, n_kv, d] a copy [n_head, n_q, d]
additive        q [n_q, d], k, v: [n_kv, d], w_a [d]                  [n_q, p]
head, multihead x [n_q, d], w_q, w_k, w_v [n_head*p, d], w_o [d, n_head*p]  [n_q, p]; [n_q, d]

w, k and v are of the row's type (formats.py): rows of block formats are bytes.
Of rows with key_major, q, k and v are views of [row, head, column] memory. Scores have a variance near 1, as
of trained weights, with the default scale. Peers must not write to the inputs.
"""

import numpy as np

from peer.formats import BLOCKS, from_f32, random_blocks


class Case:
    def __init__(self, row):
        self.row = row
        self._random = np.random.default_rng(1)
        copies = range(row.copies())
        if row.kind == "linear":
            self.x = self._normal(row.n_q, row.d)
            self.w = [self._typed(row.p, row.d) for _ in copies]
        elif row.is_sdpa:
            self.q = self._heads(self._normal, row.n_head, row.n_q, row.d)
            self.k = [self._heads(self._typed, row.n_head_kv, row.n_kv, row.d) for _ in copies]
            self.v = [self._heads(self._typed, row.n_head_kv, row.n_kv, row.p) for _ in copies]
        elif row.kind == "additive":
            self.q = self._normal(row.n_q, row.d)
            self.k = [self._normal(row.n_kv, row.d)]
            self.v = [self._normal(row.n_kv, row.p)]
            self.w_a = self._normal(row.d, scale=row.d**-0.5)
        else:
            self._weights(row)

    def _weights(self, row):
        width = row.n_head * row.p
        self.x = self._normal(row.n_q, row.d)
        self.w_q, self.w_k, self.w_v = (self._normal(width, row.d, scale=row.d**-0.5) for _ in range(3))
        self.w_qkv = np.concatenate([self.w_q, self.w_k, self.w_v])
        self.w_o = self._normal(row.d, width, scale=width**-0.5)

    def _normal(self, *shape, scale=1):
        array = self._random.standard_normal(shape, np.float32)
        array *= np.float32(scale)
        return array

    def _typed(self, *shape):
        """Random values of the row's type."""
        if self.row.type in BLOCKS:
            return random_blocks(self.row.type, self._random, *shape)
        return from_f32(self.row.type, self._normal(*shape))

    def _heads(self, make, heads, rows, columns):
        if self.row.key_major:
            return make(rows, heads, columns).transpose(1, 0, 2)
        return make(heads, rows, columns)

    def grouped_q(self):
        """q as [n_head_kv, group*n_q, d]: rows without a mask do not care which head of a group they are."""
        row = self.row
        return np.ascontiguousarray(self.q).reshape(row.n_head_kv, row.group * row.n_q, row.d)

    def ungroup(self, out):
        """The result of grouped_q() as [n_head, n_q, p]."""
        return np.asarray(out).reshape(self.row.n_head, self.row.n_q, self.row.p)


def interleaved(heads):
    """[head, row, column] as contiguous [1, row, head*column]; no copy of key-major memory."""
    return np.ascontiguousarray(heads.transpose(1, 0, 2)).reshape(1, heads.shape[1], -1)


def separated(rows, n_head):
    """The reverse of interleaved(): [head, row, column]."""
    rows = np.asarray(rows)
    return rows.reshape(-1, n_head, rows.shape[-1] // n_head).transpose(1, 0, 2)
