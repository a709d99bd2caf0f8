#include "calls.h"

#include <check.h>
#include <string.h>

void must_fail(struct fixture *f, const char *what, attn_status want, const char *named, int query_too) {
    attn_status got = fixture_call(f);
    const char *text = attn_context_error(f->context);
    ck_assert_msg(got == want, "%s, %s: status %s, not %s (\"%s\")", api_name(f->api), what,
                  attn_status_name(got), attn_status_name(want), text);
    ck_assert_msg(strstr(text, named), "%s, %s: \"%s\" does not name %s", api_name(f->api), what, text,
                  named);
    ck_assert_msg(fixture_untouched(f), "%s, %s: an output was written", api_name(f->api), what);
    if (query_too) {
        size_t bytes = 12345;
        got = fixture_query(f, &bytes);
        ck_assert_msg(got == want, "scratch of %s, %s: status %s, not %s", api_name(f->api), what,
                      attn_status_name(got), attn_status_name(want));
        ck_assert_uint_eq(bytes, 12345);
    }
}

void must_allow(void (*const *make)(struct fixture *), size_t n) {
    attn_context *context = default_context();
    for (size_t i = 0; i < n; i++)
        for (int api = 0; api < N_APIS; api++) {
            struct fixture f;
            size_t bytes;
            fixture_open(&f, (enum api)api, context);
            make[i](&f);
            ck_assert_msg(fixture_call(&f) == ATTN_OK, "%s, variant %zu: %s", api_name((enum api)api), i,
                          attn_context_error(context));
            ck_assert_int_eq(fixture_query(&f, &bytes), ATTN_OK);
            fixture_close(&f);
        }
    attn_context_destroy(context);
}

void must_work(attn_context *context, enum api api) {
    struct fixture f;
    size_t bytes = 0;
    fixture_open(&f, api, context);
    ck_assert_msg(fixture_call(&f) == ATTN_OK, "%s: %s", api_name(api), attn_context_error(context));
    ck_assert_str_eq(attn_context_error(context), "");
    ck_assert_msg(!fixture_untouched(&f), "%s writes nothing", api_name(api));
    ck_assert_int_eq(fixture_query(&f, &bytes), ATTN_OK);
    fixture_close(&f);
}
