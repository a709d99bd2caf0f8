#ifndef GGML_ATTN_TEAM_H
#define GGML_ATTN_TEAM_H

#include "attn/attn.h"

/* ggml's own threads as an executor of *n_threads workers, which must outlive it; 0 where ggml has no OpenMP team. */
int team_executor(int *n_threads, attn_executor *executor);

#endif
