/* Clocks. With the argument "wall" also that the time of day is one of this age. */
#include "check.h"

#include <time.h>
#include <wasi/api.h>

static __wasi_timestamp_t at(__wasi_clockid_t clock) {
    __wasi_timestamp_t now = 0;
    if (__wasi_clock_time_get(clock, 1, &now) != 0) check(false, "clock_time_get");
    return now;
}

int main(int argc, char **argv) {
    __wasi_timestamp_t start = at(__WASI_CLOCKID_MONOTONIC), last = start;
    bool steady = true;
    for (int i = 0; i < 2000; i++) {
        __wasi_timestamp_t now = at(__WASI_CLOCKID_MONOTONIC);
        steady = steady && now >= last;
        last = now;
    }
    check(steady, "monotonic never goes back");
    /* A coarse clock may stand still for some milliseconds. */
    for (long i = 0; i < 100000000 && last == start; i++) last = at(__WASI_CLOCKID_MONOTONIC);
    check(last > start, "monotonic goes on");
    __wasi_timestamp_t res = 0;
    check(__wasi_clock_res_get(__WASI_CLOCKID_MONOTONIC, &res) == 0 && res > 0 && res <= 1000000000, "resolution of monotonic");
    check(__wasi_clock_res_get(__WASI_CLOCKID_REALTIME, &res) == 0 && res > 0 && res <= 1000000000, "resolution of realtime");
    __wasi_timestamp_t now = at(__WASI_CLOCKID_REALTIME);
    check(at(__WASI_CLOCKID_REALTIME) - now < 60000000000ull, "realtime does not jump");
    struct timespec spec;
    check(clock_gettime(CLOCK_MONOTONIC, &spec) == 0 && spec.tv_nsec >= 0 && spec.tv_nsec < 1000000000, "clock_gettime");
    if (argc > 1 && strcmp(argv[1], "wall") == 0) {
        const time_t year_2025 = 1735689600, year_2100 = 4102444800;
        check(time(NULL) > year_2025 && time(NULL) < year_2100, "the time of day");
    }
    return done();
}
