/* Runs tasks on the caller's pool, on pthreadpool, or in the caller's thread. Never decides what a task is. */
#ifndef ATTN_EXECUTOR_H
#define ATTN_EXECUTOR_H

#include <sys/types.h>

#include "attn/attn.h"

struct attn_pool_threads {
    attn_executor external; /* run == NULL: the built-in pool */
    void *threads;          /* pthreadpool_t, or NULL: the caller's thread only */
    size_t n_workers;
    pid_t owner; /* the process whose threads they are */
};

/* external: the caller's executor or NULL. n_threads: 0 means one for each usable CPU.
 * Returns 0 where the operating system gives no threads. */
int attn_executor_open(struct attn_pool_threads *e, const attn_executor *external, size_t n_threads);
void attn_executor_close(struct attn_pool_threads *e);

/* task(arg, i, worker) for i in [0, n_tasks); returns when all are done. */
void attn_executor_run(const struct attn_pool_threads *e, size_t n_tasks, attn_task *task, void *arg);

#endif
