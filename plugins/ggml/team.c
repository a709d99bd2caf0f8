/*
 * The threads that libattn's tasks run on. ggml's CPU backend keeps a team of OpenMP threads that wait for work actively; threads
 * of the plugin's own would compete with them for the same processors. So tasks run on that very team, where there is one.
 */
#include <stdatomic.h>

#include "team.h"
#include "host.h"

struct share {
    attn_task *task;
    void *arg;
    size_t n_tasks;
    atomic_size_t next;
};

static void work(void *arg) {
    struct share *s = arg;
    const size_t worker = (size_t)host.thread();
    for (;;) {
        const size_t i = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
        if (i >= s->n_tasks) return;
        s->task(s->arg, i, worker);
    }
}

static void run(void *pool, size_t n_tasks, attn_task *task, void *arg) {
    const int *n_threads = pool;
    struct share s = {.task = task, .arg = arg, .n_tasks = n_tasks};
    if (n_tasks == 1 || *n_threads == 1) {
        for (size_t i = 0; i < n_tasks; i++) task(arg, i, 0);
        return;
    }
    host.parallel(work, &s, (unsigned)*n_threads, 0);
}

int team_executor(int *n_threads, attn_executor *executor) {
    if (!host.parallel) return 0;
    *executor = (attn_executor){.run = run, .pool = n_threads, .n_workers = (size_t)*n_threads};
    return 1;
}
