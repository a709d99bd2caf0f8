/* NEON: sizes of the register tiles and blocks, with their reasons. 32 registers of 4 floats. */
#ifndef ATTN_TILE_H
#define ATTN_TILE_H

enum {
    /* y = x W^T: 6 rows x 4 vectors, the panels of AVX2. 24 accumulators cover the FMA latency of cores that
     * start four a cycle (4 cycles: 16) with slack; + 4 of the panel + 2 rows of x in flight = 30. */
    LINEAR_MR = 6,
    LINEAR_NV = 4,
    LINEAR_NR = 16, /* LINEAR_NV vectors: the panel width */

    /* S^T = K Q^T: 8 keys x 3 vectors of queries. 24 accumulators + 3 of q + 4 keys in flight = 31. 4 x 4
     * would see 16 queries a block instead of 12, but its 16 chains just cover the latency, without slack. */
    QK_KEYS = 8,
    /* O^T = V^T P^T: 8 columns of v (2 vectors, used by lane) x 3 vectors of queries: 24 + 3 + 2 = 29. */
    PV_COLS = 8,
    POOL_NV = 3,
    /* Exponentials of a step between the products of the next one: most cores' windows are too small for 24. */
    POOL_PIPELINE = 1,
    /* Values in rows far apart are copied side by side first: two passes share a line, and L1 has 4 ways. */
    POOL_COPIES = 1,

    /* Few rows, keys in the lanes: 4 columns of a transposed tile + 8 rows' accumulators + 1 = 13. */
    FEW_ROWS = 8,
    /* Queries in the lanes: not used (8 rows at most). */
    FEW_NV = 2,
    FEW_KEYS = 8,
    FEW_KEYS_2 = 8,
    /* P V: rows x vectors of columns, 16 accumulators. */
    FEW_PV_ROWS = 4,
    FEW_PV_LINEAR = 4, /* rows whose passes take whole rows of V */
    /* From so many rows on the other side's turn is asked for, below that some tiles ahead; up to so many into L1. */
    FEW_TURNS_FROM = 3,
    FEW_NEAR = 8,
    FEW_PV_COLS = 8,
    FEW_PV_COLS_2 = 8,
    FEW_PV_COLS_4 = 4,
    FEW_PV_COLS_8 = 4, /* not used */

    /* Keys whose probabilities wait for P V: 256 x 12 floats = 12 KiB, so that they, the V rows and the
     * outputs of a strip share L1. A multiple of ATTN_KEY_TILE. */
    POOL_KEYS = 256,

    /* Scalars loaded ahead of their products in uk_linear and uk_qk; see UKERNEL_FENCE. */
    LINEAR_AHEAD = 2,
    QK_AHEAD = 4
};

_Static_assert(LINEAR_MR *LINEAR_NV + LINEAR_NV + LINEAR_AHEAD <= 32, "linear: registers");
_Static_assert(QK_KEYS *POOL_NV + POOL_NV + QK_AHEAD <= 32, "QK: registers");
_Static_assert(PV_COLS *POOL_NV + POOL_NV + PV_COLS / 4 <= 32, "PV: registers");

#endif
