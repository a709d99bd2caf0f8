/* AVX-512: sizes of the register tiles and blocks, with their reasons. 32 registers of 16 floats. */
#ifndef ATTN_TILE_H
#define ATTN_TILE_H

enum {
    /* y = x W^T: 6 rows x 4 vectors. 24 accumulators + 4 of the panel + 1 broadcast = 29 registers. Six
     * rows of x also stay clear of L1 set conflicts at power-of-two strides, so x needs no packing. */
    LINEAR_MR = 6,
    LINEAR_NV = 4,
    LINEAR_NR = 64, /* LINEAR_NV vectors: the panel width */

    /* S^T = K Q^T: 8 keys x 3 vectors of queries. 24 accumulators + 3 of q + 1 broadcast = 28. */
    QK_KEYS = 8,
    /* O^T = V^T P^T: 8 columns of v x 3 vectors of queries; the same budget. */
    PV_COLS = 8,
    POOL_NV = 3,
    /* Exponentials straight from the accumulators: storing the scores first would cost 1.5 multiply-add slots a vector
     * (Zen 5, 512-bit stores), more than the pipelining wins. */
    POOL_PIPELINE = 0,
    /* Values in rows far apart are read where they lie: two passes share a line, and copying cost 2 points (Zen 5). */
    POOL_COPIES = 0,

    /* Few rows, keys in the lanes: 16 columns of a transposed tile + 8 rows' accumulators = 24. */
    FEW_ROWS = 8,
    /* Queries in the lanes: 16 keys x 1 vector, 8 keys x 2: 16 chains, twice what covers the latency. */
    FEW_NV = 2,
    FEW_KEYS = 16,
    FEW_KEYS_2 = 8,
    /* P V: rows x vectors of columns, 16 accumulators; a line of V is read by one pass only. */
    FEW_PV_ROWS = 8,
    FEW_PV_LINEAR = 2,   /* rows whose passes take whole rows of V */
    FEW_PAIRS_ALONE = 3, /* rows of pairs of bf16 that one head alone takes in a pass */
    /* From so many rows on the other side's turn is asked for, below that some tiles ahead; up to so many into L1. */
    FEW_TURNS_FROM = 9,
    FEW_NEAR = 4,
    FEW_PV_COLS = 8,
    FEW_PV_COLS_2 = 8,
    FEW_PV_COLS_3 = 8,
    FEW_PV_COLS_4 = 4,
    FEW_PV_COLS_8 = 2,

    /* Keys whose probabilities wait for P V: 256 x 48 floats = 48 KiB; the loads and stores of the output
     * accumulators are then 1/256 of the products. A multiple of ATTN_KEY_TILE. */
    POOL_KEYS = 256
};

_Static_assert(LINEAR_MR *LINEAR_NV + LINEAR_NV + 1 <= 32, "linear: registers");
_Static_assert(QK_KEYS *POOL_NV + POOL_NV + 1 <= 32, "QK: registers");
_Static_assert(PV_COLS *POOL_NV + POOL_NV + 1 <= 32, "PV: registers");

#endif
