/* poll_oneoff: sleeping, and waiting for standard input, which holds a line. */
#include "check.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>
#include <wasi/api.h>

static const __wasi_timestamp_t MS = 1000000;

static __wasi_timestamp_t at(__wasi_clockid_t clock) {
    __wasi_timestamp_t now = 0;
    if (__wasi_clock_time_get(clock, 1, &now) != 0) check(false, "clock_time_get");
    return now;
}

static __wasi_subscription_t timer(__wasi_userdata_t userdata, __wasi_clockid_t clock, __wasi_timestamp_t timeout,
                                   __wasi_subclockflags_t flags) {
    __wasi_subscription_t wanted = {.userdata = userdata};
    wanted.u.tag = __WASI_EVENTTYPE_CLOCK;
    wanted.u.u.clock.id = clock;
    wanted.u.u.clock.timeout = timeout;
    wanted.u.u.clock.precision = 1;
    wanted.u.u.clock.flags = flags;
    return wanted;
}

static __wasi_subscription_t ready(__wasi_userdata_t userdata, __wasi_eventtype_t type, __wasi_fd_t fd) {
    __wasi_subscription_t wanted = {.userdata = userdata};
    wanted.u.tag = type;
    wanted.u.u.fd_read.file_descriptor = fd;
    return wanted;
}

static void sleeping(void) {
    __wasi_timestamp_t start = at(__WASI_CLOCKID_MONOTONIC);
    struct timespec time = {.tv_nsec = (long)(30 * MS)};
    check(nanosleep(&time, NULL) == 0, "nanosleep");
    check(at(__WASI_CLOCKID_MONOTONIC) - start >= 30 * MS, "30 ms have passed");
    start = at(__WASI_CLOCKID_MONOTONIC);
    check(usleep(5000) == 0 && at(__WASI_CLOCKID_MONOTONIC) - start >= 5 * MS, "usleep");
    check(poll(NULL, 0, 5) == 0 || errno == ENOTSUP || errno == EINVAL, "poll of nothing ends");
}

static void timers(void) {
    __wasi_event_t events[3];
    __wasi_size_t count = 0;
    __wasi_timestamp_t start = at(__WASI_CLOCKID_MONOTONIC);
    __wasi_subscription_t two[] = {timer(7, __WASI_CLOCKID_MONOTONIC, 60000 * MS, 0),
                                   timer(0xfedcba9876543210, __WASI_CLOCKID_MONOTONIC, 10 * MS, 0)};
    check(__wasi_poll_oneoff(two, events, 2, &count) == 0 && count == 1, "of two timers one fires");
    check(events[0].userdata == 0xfedcba9876543210 && events[0].type == __WASI_EVENTTYPE_CLOCK && events[0].error == 0,
          "it is the earlier one");
    check(at(__WASI_CLOCKID_MONOTONIC) - start >= 10 * MS, "and not too soon");
    __wasi_subscription_t at_once = timer(1, __WASI_CLOCKID_MONOTONIC, 0, 0);
    check(__wasi_poll_oneoff(&at_once, events, 1, &count) == 0 && count == 1 && events[0].userdata == 1, "no time at all");
    __wasi_subscription_t past = timer(2, __WASI_CLOCKID_MONOTONIC, at(__WASI_CLOCKID_MONOTONIC),
                                       __WASI_SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME);
    check(__wasi_poll_oneoff(&past, events, 1, &count) == 0 && count == 1 && events[0].userdata == 2, "a time in the past");
    start = at(__WASI_CLOCKID_MONOTONIC);
    __wasi_subscription_t then = timer(3, __WASI_CLOCKID_MONOTONIC, start + 10 * MS,
                                       __WASI_SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME);
    check(__wasi_poll_oneoff(&then, events, 1, &count) == 0 && at(__WASI_CLOCKID_MONOTONIC) >= start + 10 * MS,
          "a time to come");
    __wasi_subscription_t wall = timer(4, __WASI_CLOCKID_REALTIME, 5 * MS, 0);
    check(__wasi_poll_oneoff(&wall, events, 1, &count) == 0 && count == 1 && events[0].userdata == 4, "realtime");
    check(__wasi_poll_oneoff(two, events, 0, &count) == __WASI_ERRNO_INVAL, "no subscriptions are invalid");
}

static void streams(void) {
    __wasi_event_t events[3];
    __wasi_size_t count = 0;
    __wasi_subscription_t wanted[] = {timer(1, __WASI_CLOCKID_MONOTONIC, 60000 * MS, 0),
                                      ready(2, __WASI_EVENTTYPE_FD_READ, 0)};
    check(__wasi_poll_oneoff(wanted, events, 2, &count) == 0 && count == 1 && events[0].userdata == 2 &&
              events[0].error == 0 && events[0].type == __WASI_EVENTTYPE_FD_READ,
          "stdin is ready before a minute has passed");
    struct pollfd in = {.fd = 0, .events = POLLIN};
    check(poll(&in, 1, 60000) == 1 && (in.revents & POLLIN), "poll says so too");
    char line[8] = {0};
    check(read(0, line, sizeof line) == 5 && strcmp(line, "ping\n") == 0, "and holds what was sent");
    check(read(0, line, sizeof line) == 0, "and nothing else");
    __wasi_subscription_t out = ready(3, __WASI_EVENTTYPE_FD_WRITE, 1);
    check(__wasi_poll_oneoff(&out, events, 1, &count) == 0 && count == 1 && events[0].userdata == 3 && events[0].error == 0,
          "stdout is ready");
    __wasi_subscription_t none = ready(4, __WASI_EVENTTYPE_FD_READ, 99);
    __wasi_errno_t error = __wasi_poll_oneoff(&none, events, 1, &count);
    check(error == __WASI_ERRNO_BADF || (error == 0 && count == 1 && events[0].error == __WASI_ERRNO_BADF), "no fd 99");
}

int main(void) {
    sleeping();
    timers();
    streams();
    return done();
}
