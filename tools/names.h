/* Finding a layer's projection matrices by the names that models give them. */
#ifndef ATTN_TOOL_NAMES_H
#define ATTN_TOOL_NAMES_H

#include <stddef.h>

#include "request.h"
#include "safetensors.h"

enum { PROJECTIONS = 4 }; /* q, k, v, o */

struct names {
    const struct st_tensor *weight[PROJECTIONS]; /* weight[3] may be NULL */
    const struct st_tensor *bias[PROJECTIONS];   /* each may be NULL */
    const char *family;                          /* "BERT", or NULL: by option */
    int rotary;                                  /* the family's models rotate q and k by position */
    size_t layer;
};

/* By the options --wq ... --bo where --wq is given, otherwise by known names; dies when nothing fits. */
void names_find(struct names *names, const struct safetensors *st, const struct request *request);

#endif
