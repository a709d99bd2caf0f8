/* Weights of every type in panels: how they lie, in portable C. src/common/linear_types.h reads them. */
#ifndef ATTN_WEIGHTS_H
#define ATTN_WEIGHTS_H

#include "dtype.h"

/*
 * A panel of `width` outputs has exactly width times the bytes of a row of its type (bf16: of an even number of values, the
 * last one zero), so panel p starts p * nr * attn_weights_row() bytes in, and any multiple of the block along k likewise.
 *
 *     f32, f16   [k][width]
 *     bf16       [k / 2][width][2]: what vdpbf16ps and bfdot take, and a shift or a mask away from f32
 *
 * Block formats: for each block of values along k, of all outputs of the panel,
 *
 *     q8_0       d [width]; [8][width][4], each value plus 128: unsigned, as vpdpbusd takes them
 *     q4_0       d [width]; [4][width][4]
 *     q4_1       d [width]; m [width]; [4][width][4]
 *     Q4_K       d [width]; dmin [width]; [3][width] words of 32 bits: the low four bits of part p's scale at bit 4p of
 *                the first, of its min of the second, their high two bits at bits 2p and 16 + 2p of the third;
 *                [32][width][4]
 *     Q6_K       d [width]; scales [4][width][4], four parts of 16 each; for each part { [2][width][4]; [width][4] }
 *
 * d, m, dmin are binary16. The integers lie as dot products of four take them (vpdpbusd, sdot), the four bytes of an
 * output side by side: of q8_0 values 4i to 4i + 3; of 4 bits, values 8i to 8i + 3 in the low halves and 8i + 4 to
 * 8i + 7 in the high ones; the third group of Q6_K has bits 4 and 5 of values 4j + i of the part at bit 2j of
 * byte i.
 */

/* Bytes of one output's k values, its share of the panel. */
size_t attn_weights_row(attn_dtype type, size_t k);

/* Output `column` of a panel from a row of k values as they lie in a tensor, and back: the same bytes. */
void attn_weights_pack_row(attn_dtype type, const void *row, size_t k, void *panel, size_t width,
                           size_t column);
/* Values [from, from + n): from begins a block (bf16: is even), n is a multiple of it. */
void attn_weights_unpack_row(attn_dtype type, const void *panel, size_t width, size_t column, size_t from,
                             size_t n, void *row);

#endif
