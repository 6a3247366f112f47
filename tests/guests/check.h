/* What the conformance guests share: a line `ok WHAT` or `FAIL WHAT` for each check, exit code 1 after any FAIL. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_failures;

static inline void check(bool good, const char *what) {
    int was = errno;
    printf("%s %s\n", good ? "ok" : "FAIL", what);
    if (good) return;
    check_failures++;
    fprintf(stderr, "FAIL %s (errno %d, %s)\n", what, was, strerror(was));
}

/* A call that must be refused: its result says so, and errno is one of these. The list ends with 0. */
static inline void refused(bool failed, const int *reasons, const char *what) {
    bool known = false;
    for (int was = errno; *reasons; reasons++) known = known || was == *reasons;
    check(failed && known, what);
}

#define REASONS(...) ((const int[]){__VA_ARGS__, 0})

/* A sandbox says no in one of these ways. */
#define NO REASONS(EPERM, EACCES, EROFS, ENOTCAPABLE, EBADF)

static inline int done(void) { return fflush(stdout) == 0 && check_failures == 0 ? 0 : 1; }

#endif
