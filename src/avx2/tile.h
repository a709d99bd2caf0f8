/* AVX2: sizes of the register tiles and blocks, with their reasons. 16 registers of 8 floats. */
#ifndef ATTN_TILE_H
#define ATTN_TILE_H

enum {
    /* y = x W^T: 6 rows x 2 vectors. 12 accumulators cover the FMA latency (4 cycles, 2 a cycle); + 2 of
     * the panel + 1 broadcast = 15 registers. */
    LINEAR_MR = 6,
    LINEAR_NV = 2,
    LINEAR_NR = 16, /* LINEAR_NV vectors: the panel width */

    /* S^T = K Q^T: 4 keys x 3 vectors of queries. 12 accumulators + 3 of q + 1 broadcast = 16. */
    QK_KEYS = 4,
    /* O^T = V^T P^T: 4 columns of v x 3 vectors of queries; the same budget. */
    PV_COLS = 4,
    POOL_NV = 3,
    /* Exponentials of a step between the products of the next one: four registers are free there, and 12 of them in a
     * row would fill the window (Zen 5, d = 64: 84.8 -> 87 % of the peak). */
    POOL_PIPELINE = 1,
    /* Values in rows far apart are copied side by side first: four passes share a line (Zen 5, rows 4 KiB apart:
     * 74 -> 83 % of the peak). */
    POOL_COPIES = 1,

    /* Few rows, keys in the lanes: 8 columns of a transposed tile + 4 rows' accumulators + 1 = 13. */
    FEW_ROWS = 4,
    /* Queries in the lanes: 8 keys x 1 vector (12 were no faster), 6 keys x 2. */
    FEW_NV = 2,
    FEW_KEYS = 8,
    FEW_KEYS_2 = 6,
    /* P V: rows x vectors of columns. */
    FEW_PV_ROWS = 4,
    FEW_PV_LINEAR = 4, /* rows whose passes take whole rows of V */
    /* From so many rows on the other side's turn is asked for, below that some tiles ahead; up to so many into L1. */
    FEW_TURNS_FROM = 3,
    FEW_NEAR = 0,
    FEW_PV_COLS = 8,
    FEW_PV_COLS_2 = 4,
    FEW_PV_COLS_4 = 2,
    FEW_PV_COLS_8 = 2, /* not used */

    /* Keys whose probabilities wait for P V: 128 x 24 floats = 12 KiB, so that they, the V rows and the
     * outputs of a strip share L1. A multiple of ATTN_KEY_TILE. */
    POOL_KEYS = 128
};

_Static_assert(LINEAR_MR *LINEAR_NV + LINEAR_NV + 1 <= 16, "linear: registers");
_Static_assert(QK_KEYS *POOL_NV + POOL_NV + 1 <= 16, "QK: registers");
_Static_assert(PV_COLS *POOL_NV + POOL_NV + 1 <= 16, "PV: registers");

#endif
