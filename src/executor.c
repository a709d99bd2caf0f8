#include "executor.h"

#include <pthreadpool.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static size_t usable_cpus(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return (size_t)CPU_COUNT(&set);
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (size_t)n : 1;
}

int attn_executor_open(struct attn_pool_threads *e, const attn_executor *external, size_t n_threads) {
    memset(e, 0, sizeof *e);
    e->owner = getpid();
    if (external) {
        e->external = *external;
        e->n_workers = external->n_workers;
        return 1;
    }
    e->n_workers = n_threads ? n_threads : usable_cpus();
    if (e->n_workers == 1) return 1;
    e->threads = pthreadpool_create(e->n_workers);
    return e->threads != NULL;
}

void attn_executor_close(struct attn_pool_threads *e) {
    /* In a child of fork() the threads do not exist: joining them would wait for ever. */
    if (e->threads && e->owner == getpid()) pthreadpool_destroy(e->threads);
    e->threads = NULL;
}

/* pthreadpool of 2021 gives a task no worker number: so each of n_workers items is a worker that takes
 * tasks in ascending order until none is left. */
struct share {
    attn_task *task;
    void *arg;
    size_t n_tasks;
    atomic_size_t next;
};

static void work(void *arg, size_t worker) {
    struct share *s = arg;
    for (;;) {
        const size_t i = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
        if (i >= s->n_tasks) return;
        s->task(s->arg, i, worker);
    }
}

void attn_executor_run(const struct attn_pool_threads *e, size_t n_tasks, attn_task *task, void *arg) {
    if (e->external.run) {
        e->external.run(e->external.pool, n_tasks, task, arg);
    } else if (!e->threads || n_tasks <= 1 || e->owner != getpid()) {
        for (size_t i = 0; i < n_tasks; i++) task(arg, i, 0);
    } else {
        struct share s = {.task = task, .arg = arg, .n_tasks = n_tasks};
        const size_t workers = n_tasks < e->n_workers ? n_tasks : e->n_workers;
        pthreadpool_parallelize_1d(e->threads, work, &s, workers, 0);
    }
}
