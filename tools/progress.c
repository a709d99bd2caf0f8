/*
 * The progress line. A call of the library may take long, so a thread of its own wakes up after a second
 * and rewrites the line five times a second until the work ends.
 */
#include "tool.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static struct {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    int running, end;
    int hidden, shown; /* shown: the line is on the terminal now */
    const char *what;
    size_t total;
    size_t done;
    double start;
} progress = {.mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static void show(void) {
    double elapsed = seconds() - progress.start;

    if (progress.total) {
        fprintf(stderr, "\rattn: %s %zu of %zu, %.0f s\033[K", progress.what, progress.done + 1,
                progress.total, elapsed);
    } else {
        fprintf(stderr, "\rattn: %s, %.0f s\033[K", progress.what, elapsed);
    }
    fflush(stderr);
}

static void erase(void) {
    if (progress.shown) {
        fputs("\r\033[K", stderr);
        progress.shown = 0;
    }
}

static void *tick(void *unused) {
    struct timespec when;

    (void)unused;
    clock_gettime(CLOCK_REALTIME, &when);
    when.tv_sec++;
    pthread_mutex_lock(&progress.mutex);
    while (!progress.end) {
        if (pthread_cond_timedwait(&progress.wake, &progress.mutex, &when) == 0 || progress.end) {
            continue;
        }
        if (!progress.hidden) {
            show();
            progress.shown = 1;
        }
        when.tv_nsec += 200 * 1000 * 1000;
        if (when.tv_nsec >= 1000 * 1000 * 1000) {
            when.tv_nsec -= 1000 * 1000 * 1000;
            when.tv_sec++;
        }
    }
    erase();
    pthread_mutex_unlock(&progress.mutex);
    return NULL;
}

void progress_begin(const char *what, size_t total) {
    progress_end();
    if (!isatty(STDERR_FILENO)) {
        return;
    }
    progress.what = what;
    progress.total = total;
    progress.done = 0;
    progress.start = seconds();
    progress.end = progress.hidden = progress.shown = 0;
    progress.running = pthread_create(&progress.thread, NULL, tick, NULL) == 0;
}

void progress_step(size_t done) {
    pthread_mutex_lock(&progress.mutex);
    progress.done = done;
    progress.hidden = 0;
    pthread_mutex_unlock(&progress.mutex);
}

void progress_hide(void) {
    pthread_mutex_lock(&progress.mutex);
    erase();
    progress.hidden = 1;
    pthread_mutex_unlock(&progress.mutex);
}

void progress_end(void) {
    if (!progress.running) {
        return;
    }
    pthread_mutex_lock(&progress.mutex);
    progress.end = 1;
    pthread_cond_signal(&progress.wake);
    pthread_mutex_unlock(&progress.mutex);
    pthread_join(progress.thread, NULL);
    progress.running = 0;
}
