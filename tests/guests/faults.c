/* Pointers that lead out of memory, and numbers that mean nothing: the host says so or stops the guest. The argument
 * names the call. It ends with `ok` or with a trap; a call that succeeds is a FAIL. */
#include "check.h"

#include <wasi/api.h>

static void *const OUTSIDE = (void *)0xfffffff0u;

static __wasi_errno_t call(const char *name) {
    __wasi_ciovec_t out = {OUTSIDE, 4096};
    __wasi_iovec_t in = {OUTSIDE, 4096};
    __wasi_size_t size;
    __wasi_timestamp_t time;
    if (strcmp(name, "fd_write") == 0) return __wasi_fd_write(1, &out, 1, &size);
    if (strcmp(name, "fd_write-iovec") == 0) return __wasi_fd_write(1, OUTSIDE, 1, &size);
    if (strcmp(name, "fd_write-count") == 0) return __wasi_fd_write(1, &out, 0xffffffff, &size);
    if (strcmp(name, "fd_read") == 0) return __wasi_fd_read(0, &in, 1, &size);
    if (strcmp(name, "random_get") == 0) return __wasi_random_get(OUTSIDE, 4096);
    if (strcmp(name, "clock_time_get") == 0) return __wasi_clock_time_get(__WASI_CLOCKID_MONOTONIC, 1, OUTSIDE);
    if (strcmp(name, "poll_oneoff") == 0) return __wasi_poll_oneoff(OUTSIDE, OUTSIDE, 1, &size);
    if (strcmp(name, "poll_oneoff-count") == 0) return __wasi_poll_oneoff((void *)1024, (void *)1024, 0xffffffff, &size);
    if (strcmp(name, "args_get") == 0) return __wasi_args_get(OUTSIDE, OUTSIDE);
    if (strcmp(name, "environ_get") == 0) return __wasi_environ_get(OUTSIDE, OUTSIDE);
    if (strcmp(name, "clock-99") == 0) return __wasi_clock_time_get((__wasi_clockid_t)99, 1, &time);
    if (strcmp(name, "resolution-99") == 0) return __wasi_clock_res_get((__wasi_clockid_t)99, &time);
    if (strcmp(name, "whence-99") == 0) return __wasi_fd_seek(0, 0, 99, &time);
    if (strcmp(name, "advice-99") == 0) return __wasi_fd_advise(3, 0, 0, 99);
    check(false, "a call of this name");
    return 0;
}

int main(int argc, char **argv) {
    check(argc == 2, "one argument");
    printf("calling %s\n", argv[1]);
    fflush(stdout);
    check(call(argv[1]) != 0, argv[1]);
    return done();
}
