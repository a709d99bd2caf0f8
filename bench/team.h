/* Threads that start together, to measure what a machine gives when all of them work. */
#ifndef BENCH_TEAM_H
#define BENCH_TEAM_H

#include <stddef.h>
#include <time.h>

typedef void team_part(void *arg, size_t member, size_t n_members);

/*
 * What a pass is timed by: the CPU time of its slowest member, so that what other programs took from it does not count and a
 * limit stays one on a busy machine; or, where the members share what is measured (memory), the time from the first one's
 * start to the last one's end: members that take turns on a CPU have the memory for themselves and would seem twice as fast.
 */
enum team_timing { TEAM_CPU, TEAM_WALL };

/*
 * Runs part(arg, member, n_members) in n_members threads (the caller is one) `passes` times, all starting a
 * pass at once. Returns the seconds of the shortest pass, -1 when threads could not be had.
 */
double team_run(size_t n_members, int passes, enum team_timing timing, team_part *part, void *arg);

/* Seconds of one of the system's clocks. */
double team_clock(clockid_t clock);

#endif
