/* Threads that start together, to measure what a machine gives when all of them work. */
#ifndef BENCH_TEAM_H
#define BENCH_TEAM_H

#include <stddef.h>
#include <time.h>

typedef void team_part(void *arg, size_t member, size_t n_members);

/*
 * Runs part(arg, member, n_members) in n_members threads (the caller is one) `passes` times, all starting a
 * pass at once. Returns the seconds of the shortest pass, -1 when threads could not be had. A pass is as long
 * as the CPU time of its slowest member: the time that other programs took from it does not count, so a
 * limit stays a limit on a busy machine.
 */
double team_run(size_t n_members, int passes, team_part *part, void *arg);

/* Seconds of one of the system's clocks. */
double team_clock(clockid_t clock);

#endif
