/* Finding a layer's projection matrices by the names that models give them. */
#ifndef ATTN_TOOL_NAMES_H
#define ATTN_TOOL_NAMES_H

#include <stddef.h>

#include "request.h"
#include "weights.h"

enum { PROJECTIONS = 4 }; /* q, k, v, o */

struct names {
    const struct tensor *weight[PROJECTIONS]; /* weight[3] may be NULL */
    const struct tensor *bias[PROJECTIONS];   /* each may be NULL */
    const char *family;                       /* "BERT", or NULL: by option */
    size_t layer;
    int fused; /* weight[0] and bias[0] hold the rows of q, then those of k and v, which are NULL */

    /* What the models do besides, and this command does not. */
    int rotary;                      /* q and k are rotated by position */
    const struct tensor *input_norm; /* what goes into W_q has been through it; or NULL */
    const struct tensor *head_norm;  /* one that each head of q or k goes through; or NULL */
};

/* By the options --wq ... --bo where --wq is given, otherwise by known names; dies when nothing fits. */
void names_find(struct names *names, const struct weights *weights, const struct request *request);

#endif
