/* Counts its calls: the request is the name of a counter, the response its new value.
 * Two calls at the same time count as two: a value is put only over the version that it was made from. */
#include "hzc.h"
#include "hzc_http.h"

enum { TRIES = 64 };

static uint64_t number_of(hzc_bytes text) {
    uint64_t number = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9') hzc_fail();
        number = number * 10 + (text.ptr[i] - '0');
    }
    return number;
}

static hzc_bytes refused(const char *what, int64_t error) {
    hzc_buf out = {0};
    hzc_puts(&out, "counter: ");
    hzc_puts(&out, what);
    hzc_puts(&out, ": ");
    hzc_puts(&out, hzc_reason(error));
    return hzc_done(&out);
}

static hzc_bytes serve(hzc_bytes request) {
    hzc_bytes name = request.len ? request : hzc_text("counter");
    for (int i = 0; i < TRIES; i++) {
        int64_t version = HZC_ABSENT;
        hzc_result old = hzc_kv_get(name, &version);
        if (old.error && old.error != HZC_NOT_FOUND) return refused("get", old.error);
        hzc_buf value = {0};
        hzc_put_number(&value, (int64_t)number_of(old.bytes) + 1);
        int32_t put = hzc_kv_put(name, hzc_done(&value), version);
        if (put == 0) return hzc_done(&value);
        if (put != HZC_CONFLICT) return refused("put", put);
    }
    return refused("put", HZC_CONFLICT);
}

HZC_REACTOR(serve);
