/* Every host call but http (see examples/c/fetch.c), by hzc.h: a reactor whose response has a line `ok WHAT` or
 * `FAIL WHAT` for each check. It needs all capabilities; no entry "hzc-test"; the secret "token" of the value
 * "opensesame"; an input blob of which byte i is i * 7 modulo 251, 100,000 of them. The request is not looked at. */
#include "hzc.h"
#include "hzc_http.h"

static hzc_buf lines;

static void check(bool good, const char *what) {
    hzc_puts(&lines, good ? "ok " : "FAIL ");
    hzc_puts(&lines, what);
    hzc_puts(&lines, "\n");
}

static bool is(hzc_result result, const char *text) { return !result.error && hzc_equal(result.bytes, hzc_text(text)); }

static void simple(void) {
    static uint8_t some[4096], more[4096];
    check(hzc_log(HZC_INFO, hzc_text("a line: üñï")) == 0, "log");
    check(hzc_log(HZC_DEBUG, hzc_text("")) == 0, "log of nothing");
    check(hzc_log(9, hzc_text("x")) == HZC_INVALID, "log of no level");
    int64_t start = hzc_now();
    check(start > 0 && hzc_now() >= start, "now");
    check(hzc_random(some, sizeof some) == 0 && hzc_random(more, sizeof more) == 0, "random");
    check(memcmp(some, more, sizeof some) != 0, "random differs");
    check(is(hzc_secret(hzc_text("token")), "opensesame"), "secret");
    int32_t error = hzc_secret(hzc_text("absent")).error;
    check(error == HZC_NOT_FOUND || error == HZC_DENIED, "secret that was not granted");
}

static void keys(void) {
    static uint8_t large[100000];
    hzc_bytes key = hzc_text("hzc-test");
    int64_t version = 99, first = 0;
    check(hzc_kv_get(key, &version).error == HZC_NOT_FOUND && version == 0, "kv_get of what is not there");
    check(hzc_kv_delete(key, 1) == HZC_CONFLICT, "kv_delete of a version that is not there");
    check(hzc_kv_put(key, hzc_text("one"), HZC_ABSENT) == 0, "kv_put where nothing is");
    check(hzc_kv_put(key, hzc_text("two"), HZC_ABSENT) == HZC_CONFLICT, "kv_put where something is");
    check(is(hzc_kv_get(key, &first), "one") && first > 0, "kv_get of what was put");
    check(hzc_kv_put(key, hzc_text("two"), first) == 0, "kv_put over its version");
    check(hzc_kv_put(key, hzc_text("three"), first) == HZC_CONFLICT, "kv_put over an old version");
    check(is(hzc_kv_get(key, &version), "two") && version > first, "kv_get of what was put over it");
    check(is(hzc_kv_get(key, NULL), "two"), "kv_get without version");
    check(hzc_kv_delete(key, first) == HZC_CONFLICT, "kv_delete of an old version");
    check(hzc_kv_put(key, hzc_text(""), HZC_ANY) == 0 && is(hzc_kv_get(key, &version), "") && version > 0, "an empty value");
    for (size_t i = 0; i < sizeof large; i++) large[i] = (uint8_t)(i * 31);
    check(hzc_kv_put(key, hzc_make(large, sizeof large), HZC_ANY) == 0, "kv_put of 100,000 bytes");
    hzc_result got = hzc_kv_get(key, &version);
    check(!got.error && hzc_equal(got.bytes, hzc_make(large, sizeof large)), "kv_get of 100,000 bytes");
    check(hzc_kv_delete(key, version) == 0, "kv_delete of its version");
    check(hzc_kv_get(key, &version).error == HZC_NOT_FOUND && version == 0, "kv_get of what was deleted");
    check(hzc_kv_delete(key, HZC_ANY) == HZC_NOT_FOUND || hzc_kv_delete(key, HZC_ANY) == 0, "kv_delete of nothing");
}

static void blobs(void) {
    static uint8_t part[4096];
    int64_t size = hzc_input_size(), at = 0;
    check(size == 100000, "input_size");
    bool good = true;
    for (int64_t got; (got = hzc_input_read(at, part, sizeof part)) > 0; at += got)
        for (int64_t i = 0; i < got; i++) good = good && part[i] == (at + i) * 7 % 251;
    check(good && at == size, "input_read from start to end");
    check(hzc_input_read(99999, part, 10) == 1 && part[0] == 99999 * 7 % 251, "input_read at the end");
    check(hzc_input_read(100000, part, 10) == 0 && hzc_input_read(1 << 30, part, 10) == 0, "input_read behind the end");
    check(hzc_input_read(-1, part, 10) == HZC_INVALID, "input_read before the start");
    check(hzc_output(hzc_text("part"), hzc_text("some ")) == 5, "output");
    check(hzc_output(hzc_text("part"), hzc_text("more")) == 9, "output goes on");
    check(hzc_output(hzc_text("part"), hzc_text("")) == 9, "output of nothing");
}

static hzc_bytes serve(hzc_bytes request) {
    (void)request;
    simple();
    keys();
    blobs();
    return hzc_done(&lines);
}

HZC_REACTOR(serve);
