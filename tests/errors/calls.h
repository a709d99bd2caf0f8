/* What the tests of the pooling functions share. */
#ifndef ERRORS_CALLS_H
#define ERRORS_CALLS_H

#include "fixture.h"

/* 1 << api, for the columns `apis`. */
enum {
    SDPA = 1 << API_SDPA,
    ADDITIVE = 1 << API_ADDITIVE,
    HEAD = 1 << API_HEAD,
    MULTI = 1 << API_MULTIHEAD,
    HEAD_ADDITIVE = 1 << API_HEAD_ADDITIVE,
    LAYERS = HEAD | MULTI | HEAD_ADDITIVE,
    HAVE_W = ADDITIVE | HEAD_ADDITIVE,
    ALL = SDPA | ADDITIVE | LAYERS
};

/* The broken call fails with that status, names the argument, writes nothing; so does the scratch query,
 * if data is not what is broken. */
void must_fail(struct fixture *f, const char *what, attn_status want, const char *named, int query_too);

/* Every pooling function and its scratch query take a fixture that make[i] changed. */
void must_allow(void (*const *make)(struct fixture *), size_t n);

/* A valid call on that context works: an error before has left nothing behind. */
void must_work(attn_context *context, enum api api);

#endif
