#include "rope_frequencies.h"

#include "dd.h"

static struct dd clamp01(struct dd x) { return x.hi < 0.0 ? dd_of(0.0) : x.hi > 1.0 ? dd_of(1.0) : x; }

/* The pair, as a real number, that turns `turns` times in the original context: context f = 2 pi turns. */
static struct dd pair_of_turns(const struct attn_rope_key *key, double turns, struct dd log_base) {
    const struct dd log_2pi = {0x1.d67f1c864beb5p+0, -0x1.65b5a1b7ff5dfp-54}; /* check: ln(2 pi) */
    const struct dd log_ratio = dd_sub(dd_sub(dd_log((double)key->original_context), dd_log(turns)), log_2pi);
    return dd_div(dd_mul(dd_of((double)(key->dims / 2)), log_ratio), log_base);
}

/* Ends of YaRN's ramp: the first pair's index where it leaves 0, and how long it is. Never shorter than 0.001, as
 * in the implementations that models come with. */
static void yarn_range(const struct attn_rope_key *key, struct dd log_base, struct dd *first,
                       struct dd *length) {
    struct dd low = pair_of_turns(key, key->from, log_base), high = pair_of_turns(key, key->to, log_base);
    const double most = (double)(key->dims - 1);
    if (!key->exact_range) {
        low = dd_of(floor(low.hi));
        high = dd_of(ceil(high.hi));
    }
    *first = low.hi < 0.0 ? dd_of(0.0) : low;
    *length = dd_sub(high.hi > most ? dd_of(most) : high, *first);
    if (length->hi < 0.001) *length = dd_of(0.001);
}

void attn_rope_frequencies(const struct attn_rope_key *key, const float *divisors, size_t n_padded,
                           double *turns) {
    const struct dd inverse_2pi = {0x1.45f306dc9c883p-3, -0x1.6b01ec5417056p-57}; /* check: 1 / (2 pi) */
    const struct dd one = dd_of(1.0), dims = dd_of((double)key->dims);
    struct dd log_base = dd_log(key->base), first = one, length = one;
    if (key->scaling == ATTN_ROPE_SCALING_NTK)
        log_base = dd_add(log_base, dd_div(dd_mul(dd_log(key->factor), dims), dd_sub(dims, dd_of(2.0))));
    if (key->scaling == ATTN_ROPE_SCALING_YARN) yarn_range(key, log_base, &first, &length);
    const struct dd step = dd_exp(dd_div(dd_scale(log_base, 1), dd_minus(dims)));
    const struct dd context = dd_of((double)key->original_context), factor = dd_of(key->factor);
    struct dd turn = inverse_2pi; /* of pair i, before scaling */
    for (size_t i = 0; i < n_padded; i++) {
        struct dd scaled = turn, ramp = dd_of(0.0);
        if (key->scaling == ATTN_ROPE_SCALING_LINEAR) ramp = one;
        if (key->scaling == ATTN_ROPE_SCALING_YARN)
            ramp = clamp01(dd_div(dd_sub(dd_of((double)i), first), length));
        if (key->scaling == ATTN_ROPE_SCALING_LLAMA3)
            ramp = clamp01(dd_div(dd_sub(dd_of(key->to), dd_mul(context, turn)),
                                  dd_sub(dd_of(key->to), dd_of(key->from))));
        if (ramp.hi > 0.0) /* (1 - r) f + r f / s */
            scaled = dd_mul(turn, dd_add(dd_sub(one, ramp), dd_div(ramp, factor)));
        if (divisors && i < key->dims / 2)
            scaled = isinf(divisors[i]) ? dd_of(0.0) : dd_div(scaled, dd_of((double)divisors[i]));
        turns[i] = i < key->dims / 2 ? scaled.hi : 0.0;
        turns[n_padded + i] = i < key->dims / 2 ? scaled.lo : 0.0;
        turn = dd_mul(turn, step);
    }
}
