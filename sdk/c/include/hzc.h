/*
 * hzc.h: the guest side of Hanzo Compute's ABI, version 1. Header only; C11 with clang, for wasm32.
 *
 * A guest answers a request, some bytes, with a response, some bytes. It is one of two kinds:
 *
 *   reactor   HZC_REACTOR(serve)    exports memory, alloc and handle; called in memory, the fastest
 *   command   HZC_COMMAND(serve)    an ordinary WASI program: request on stdin, response on stdout
 *
 * where you write `static hzc_bytes serve(hzc_bytes request)`. The same serve does for both.
 *
 * It builds with or without a C library, see README.md:
 *
 *   clang --target=wasm32-wasi ...                            with wasi-libc; memory comes from malloc
 *   clang --target=wasm32 -ffreestanding -nostdlib ...        without; memory comes from a bump allocator
 *
 * Host calls are imports of the module "hzc", and each needs its capability. Only those that the
 * guest calls are imported, so a guest asks for no more than it uses.
 */
#ifndef HZC_H
#define HZC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__wasi__)
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#elif !defined(__wasm32__)
#error "hzc.h is for wasm32: build with --target=wasm32-wasi, or --target=wasm32 -ffreestanding -nostdlib"
#elif __STDC_HOSTED__
#error "without a C library clang needs -ffreestanding (and -nostdlib); with one, use --target=wasm32-wasi"
#endif

/* The version of the ABI that this file describes. */
#define HZC_ABI 1

/* Bytes somewhere in memory: a request, a key, a value. They need not end with a zero. */
typedef struct {
    const uint8_t *ptr;
    size_t len;
} hzc_bytes;

/* What a call gave: bytes, or an error below zero. Behind bytes that were taken stands a zero, not counted. */
typedef struct {
    int32_t error;
    hzc_bytes bytes;
} hzc_result;

/* Errors of host calls. */
enum {
    HZC_NOT_FOUND = -1,   /* no such key, secret or host */
    HZC_DENIED = -2,      /* the capability does not extend to this */
    HZC_INVALID = -3,     /* an argument cannot be understood */
    HZC_CONFLICT = -4,    /* the entry is not of the expected version */
    HZC_OVER_LIMIT = -5,  /* too large, or too many calls */
    HZC_UNAVAILABLE = -6, /* the other side did not answer; trying again may help */
    HZC_TIMED_OUT = -7,   /* it took too long */
};

/* Levels of hzc_log. */
enum { HZC_DEBUG = 0, HZC_INFO = 1, HZC_WARNING = 2, HZC_ERROR = 3 };

/* What hzc_kv_put and hzc_kv_delete expect of the entry, besides the number of a version. */
enum { HZC_ANY = -1, HZC_ABSENT = 0 };

/* --- the host's functions as they are imported; below are friendlier forms ------------------ */

#define HZC_IMPORT(name) __attribute__((import_module("hzc"), import_name(name)))

HZC_IMPORT("log") int32_t hzc_host_log(int32_t level, const void *ptr, size_t len);
HZC_IMPORT("now") int64_t hzc_host_now(void);
HZC_IMPORT("random") int32_t hzc_host_random(void *ptr, size_t len);
HZC_IMPORT("take") int32_t hzc_host_take(void *ptr, size_t len);
HZC_IMPORT("kv_get") int64_t hzc_host_kv_get(const void *key, size_t key_len, int64_t *version_out);
HZC_IMPORT("kv_put")
int32_t hzc_host_kv_put(const void *key, size_t key_len, const void *value, size_t value_len, int64_t expect);
HZC_IMPORT("kv_delete") int32_t hzc_host_kv_delete(const void *key, size_t key_len, int64_t expect);
HZC_IMPORT("secret") int64_t hzc_host_secret(const void *name, size_t name_len);
HZC_IMPORT("http") int64_t hzc_host_http(const void *head, size_t head_len, const void *body, size_t body_len);
HZC_IMPORT("input_size") int64_t hzc_host_input_size(void);
HZC_IMPORT("input_read") int64_t hzc_host_input_read(int64_t offset, void *ptr, size_t len);
HZC_IMPORT("output") int64_t hzc_host_output(const void *name, size_t name_len, const void *ptr, size_t len);

/* --- memory --------------------------------------------------------------------------------- */

#if defined(__wasi__)

/* `size` bytes, or NULL. */
static inline void *hzc_alloc(size_t size) { return malloc(size ? size : 1); }

/* Gives back what hzc_alloc gave. */
static inline void hzc_free(const void *ptr) { free((void *)(uintptr_t)ptr); }

#else

extern unsigned char __heap_base;

/* Weak: however many files include this, the program has one of each. */
__attribute__((weak)) uintptr_t hzc_heap_next;

/* The compiler may call these four by itself, to copy a struct for instance. */
__attribute__((weak)) void *memcpy(void *restrict to, const void *restrict from, size_t len) {
    for (size_t i = 0; i < len; i++) ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    return to;
}

__attribute__((weak)) void *memmove(void *to, const void *from, size_t len) {
    if ((uintptr_t)to <= (uintptr_t)from) return memcpy(to, from, len);
    while (len--) ((uint8_t *)to)[len] = ((const uint8_t *)from)[len];
    return to;
}

__attribute__((weak)) void *memset(void *to, int value, size_t len) {
    for (size_t i = 0; i < len; i++) ((uint8_t *)to)[i] = (uint8_t)value;
    return to;
}

__attribute__((weak)) int memcmp(const void *left, const void *right, size_t len) {
    const uint8_t *a = (const uint8_t *)left, *b = (const uint8_t *)right;
    for (size_t i = 0; i < len; i++)
        if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
    return 0;
}

/* `size` bytes from the end of the heap, or NULL. An instance serves one call, so nothing is given back. */
static inline void *hzc_alloc(size_t size) {
    uint64_t start = hzc_heap_next ? hzc_heap_next : (uintptr_t)&__heap_base;
    start = (start + 15) & ~(uint64_t)15;
    uint64_t end = start + (size ? size : 1);
    uint64_t have = (uint64_t)__builtin_wasm_memory_size(0) << 16;
    if (end > UINT32_MAX) return NULL;
    if (end > have && __builtin_wasm_memory_grow(0, (size_t)((end - have + 0xffff) >> 16)) == SIZE_MAX) return NULL;
    hzc_heap_next = (uintptr_t)end;
    return (void *)(uintptr_t)start;
}

/* Here a call without effect: the memory goes with the instance. */
static inline void hzc_free(const void *ptr) { (void)ptr; }

#endif

/* --- bytes ---------------------------------------------------------------------------------- */

static inline hzc_bytes hzc_make(const void *ptr, size_t len) {
    hzc_bytes bytes = {(const uint8_t *)ptr, len};
    return bytes;
}

/* The bytes of a C string, without its zero. */
static inline hzc_bytes hzc_text(const char *text) {
    size_t len = 0;
    while (text[len]) len++;
    return hzc_make(text, len);
}

static inline bool hzc_equal(hzc_bytes left, hzc_bytes right) {
    return left.len == right.len && (left.len == 0 || memcmp(left.ptr, right.ptr, left.len) == 0);
}

/* Ends the call at once; its outcome is the trap `unreachable`. */
static inline _Noreturn void hzc_fail(void) { __builtin_trap(); }

/* What an error means, in words. */
static inline const char *hzc_reason(int64_t error) {
    switch (error) {
    case HZC_NOT_FOUND: return "not found";
    case HZC_DENIED: return "denied";
    case HZC_INVALID: return "invalid";
    case HZC_CONFLICT: return "conflict";
    case HZC_OVER_LIMIT: return "over a limit";
    case HZC_UNAVAILABLE: return "unavailable";
    case HZC_TIMED_OUT: return "timed out";
    default: return error < 0 ? "unknown error" : "no error";
    }
}

static inline hzc_result hzc_error(int64_t error) {
    hzc_result result = {(int32_t)error, {NULL, 0}};
    return result;
}

/* --- host calls ----------------------------------------------------------------------------- */

/* Takes the `length` bytes that the call before has left with the host, into memory of their own. */
static inline hzc_result hzc_take(int64_t length) {
    if (length < 0) return hzc_error(length);
    if (length >= INT32_MAX) return hzc_error(HZC_OVER_LIMIT);
    size_t len = (size_t)length;
    uint8_t *ptr = (uint8_t *)hzc_alloc(len + 1);
    if (!ptr) return hzc_error(HZC_OVER_LIMIT);
    int32_t taken = len ? hzc_host_take(ptr, len) : 0;
    if (taken != (int32_t)len) {
        hzc_free(ptr);
        return hzc_error(taken < 0 ? taken : HZC_UNAVAILABLE);
    }
    ptr[len] = 0;
    hzc_result result = {0, {ptr, len}};
    return result;
}

/* Writes a line to the job's log. Capability: log. */
static inline int32_t hzc_log(int32_t level, hzc_bytes text) { return hzc_host_log(level, text.ptr, text.len); }

/* Nanoseconds since 1970, UTC. Capability: clock. */
static inline int64_t hzc_now(void) { return hzc_host_now(); }

/* Fills memory with random bytes; 0 or an error. Capability: random. */
static inline int32_t hzc_random(void *ptr, size_t len) { return hzc_host_random(ptr, len); }

/* The value under a key; `*version` becomes the version to expect when it is put, 0 if there is no
   entry. `version` may be NULL. Capability: kv. */
static inline hzc_result hzc_kv_get(hzc_bytes key, int64_t *version) {
    return hzc_take(hzc_host_kv_get(key.ptr, key.len, version));
}

/* Sets the value under a key if the entry is as expected: HZC_ANY, HZC_ABSENT or a version.
   0, HZC_CONFLICT if it is not, or another error. Capability: kv. */
static inline int32_t hzc_kv_put(hzc_bytes key, hzc_bytes value, int64_t expect) {
    return hzc_host_kv_put(key.ptr, key.len, value.ptr, value.len, expect);
}

/* Removes an entry if it is as expected. Capability: kv. */
static inline int32_t hzc_kv_delete(hzc_bytes key, int64_t expect) {
    return hzc_host_kv_delete(key.ptr, key.len, expect);
}

/* A secret by its name. Capability: secret, for this name. */
static inline hzc_result hzc_secret(hzc_bytes name) { return hzc_take(hzc_host_secret(name.ptr, name.len)); }

/* One HTTP request. The head is JSON, {"method", "url", "headers": {}}; so is the first line of the
   result, {"status", "headers": {}}, which the body follows. hzc_http.h writes and reads these.
   Capability: http, for the URL's origin. */
static inline hzc_result hzc_http(hzc_bytes head, hzc_bytes body) {
    return hzc_take(hzc_host_http(head.ptr, head.len, body.ptr, body.len));
}

/* The size of the job's input blob, or an error. Capability: input. */
static inline int64_t hzc_input_size(void) { return hzc_host_input_size(); }

/* Reads up to `len` bytes of the input blob from `offset` on; how many, 0 at its end. Capability: input. */
static inline int64_t hzc_input_read(int64_t offset, void *ptr, size_t len) {
    return hzc_host_input_read(offset, ptr, len);
}

/* Appends a chunk to a named output; its size now, or an error. Capability: output. */
static inline int64_t hzc_output(hzc_bytes name, hzc_bytes chunk) {
    return hzc_host_output(name.ptr, name.len, chunk.ptr, chunk.len);
}

/* --- the two kinds of guest ----------------------------------------------------------------- */

/* Makes a reactor of `hzc_bytes serve(hzc_bytes request)`. Once in a program, outside any function. */
#define HZC_REACTOR(serve)                                                                          \
    __attribute__((export_name("alloc"))) void *hzc_export_alloc(size_t size) { return hzc_alloc(size); } \
    __attribute__((export_name("handle"))) uint64_t hzc_export_handle(const uint8_t *ptr, size_t len) { \
        hzc_bytes response = serve(hzc_make(ptr, len));                                             \
        return (uint64_t)(uintptr_t)response.ptr << 32 | response.len;                              \
    }                                                                                               \
    _Static_assert(sizeof(void *) == 4, "the ABI is that of wasm32")

#if defined(__wasi__)

/* All of standard input. */
static inline hzc_result hzc_stdin(void) {
    size_t len = 0, cap = 65536;
    uint8_t *ptr = (uint8_t *)malloc(cap);
    for (;;) {
        if (!ptr) return hzc_error(HZC_OVER_LIMIT);
        ssize_t got = read(STDIN_FILENO, ptr + len, cap - len - 1);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            free(ptr);
            return hzc_error(HZC_UNAVAILABLE);
        }
        if (got == 0) break;
        len += (size_t)got;
        if (cap - len > 1) continue;
        uint8_t *more = cap < INT32_MAX / 2 ? (uint8_t *)realloc(ptr, cap * 2) : NULL;
        if (!more) free(ptr);
        ptr = more;
        cap *= 2;
    }
    ptr[len] = 0;
    hzc_result result = {0, {ptr, len}};
    return result;
}

/* Writes all of it to standard output; whether that succeeded. */
static inline bool hzc_stdout(hzc_bytes bytes) {
    while (bytes.len) {
        ssize_t put = write(STDOUT_FILENO, bytes.ptr, bytes.len);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return false;
        bytes = hzc_make(bytes.ptr + put, bytes.len - (size_t)put);
    }
    return true;
}

/* Makes a command of `hzc_bytes serve(hzc_bytes request)`. It exits 1 if stdin or stdout fail. */
#define HZC_COMMAND(serve)                                                    \
    int main(void) {                                                          \
        hzc_result request = hzc_stdin();                                     \
        return request.error || !hzc_stdout(serve(request.bytes)) ? 1 : 0;    \
    }                                                                         \
    _Static_assert(sizeof(void *) == 4, "the ABI is that of wasm32")

#endif

#endif
