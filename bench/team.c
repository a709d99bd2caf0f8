#include "team.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

struct team {
    team_part *part;
    void *arg;
    size_t n_members;
    int passes;
    enum team_timing timing;
    atomic_size_t arrived; /* at all pass starts so far */
    struct member *members;
};

struct member {
    struct team *team;
    size_t index;
    double *start, *end; /* of each pass */
};

double team_clock(clockid_t clock) {
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/*
 * Returns when all members have arrived `times` times. Spinning lets them go within a fraction of a
 * microsecond of each other, which a sleeping barrier does not; yielding now and then lets a member arrive
 * that shares this CPU.
 */
static void meet(struct team *team, size_t times) {
    size_t spins = 0;

    atomic_fetch_add(&team->arrived, 1);
    while (atomic_load_explicit(&team->arrived, memory_order_acquire) < times * team->n_members) {
        if (++spins % 4096 == 0) {
            sched_yield();
        }
    }
}

static void *member_run(void *arg) {
    const struct member *m = arg;
    const clockid_t clock = m->team->timing == TEAM_WALL ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID;

    for (int pass = 0; pass < m->team->passes; pass++) {
        meet(m->team, (size_t)pass + 1);
        m->start[pass] = team_clock(clock);
        m->team->part(m->team->arg, m->index, m->team->n_members);
        m->end[pass] = team_clock(clock);
    }
    return NULL;
}

static double shortest_pass(const struct team *team) {
    double shortest = -1;

    for (int pass = 0; pass < team->passes; pass++) {
        double first = team->members[0].start[pass], longest = 0;
        for (size_t i = 1; i < team->n_members && team->timing == TEAM_WALL; i++) {
            const double start = team->members[i].start[pass];
            first = start < first ? start : first;
        }
        for (size_t i = 0; i < team->n_members; i++) {
            const struct member *m = &team->members[i];
            const double seconds = m->end[pass] - (team->timing == TEAM_WALL ? first : m->start[pass]);
            longest = seconds > longest ? seconds : longest;
        }
        if (shortest < 0 || longest < shortest) {
            shortest = longest;
        }
    }
    return shortest;
}

double team_run(size_t n_members, int passes, enum team_timing timing, team_part *part, void *arg) {
    const size_t n_times = n_members * (size_t)passes;
    struct team team = {.part = part, .arg = arg, .n_members = n_members, .passes = passes, .timing = timing};
    pthread_t *threads = calloc(n_members, sizeof *threads);
    double *times = calloc(2 * n_times, sizeof *times);
    double seconds = -1;
    size_t started = 1;

    team.members = calloc(n_members, sizeof *team.members);
    if (!threads || !times || !team.members) {
        goto out;
    }
    for (size_t i = 0; i < n_members; i++) {
        double *start = times + 2 * i * (size_t)passes;
        team.members[i] = (struct member){&team, i, start, start + passes};
    }
    while (started < n_members &&
           pthread_create(&threads[started], NULL, member_run, &team.members[started]) == 0) {
        started++;
    }
    /* Where a thread is missing the others wait for arrivals that this one makes in its place. */
    if (started < n_members) {
        atomic_fetch_add(&team.arrived, n_times);
    } else {
        member_run(&team.members[0]);
        seconds = shortest_pass(&team);
    }
    while (--started > 0) {
        pthread_join(threads[started], NULL);
    }
out:
    free(threads);
    free(times);
    free(team.members);
    return seconds;
}
