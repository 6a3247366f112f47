/* Takes memory, and writes to it, until there is no more. */
#include "check.h"

/* Seen from outside, so that the compiler does not do without the memory. */
static char *volatile last;

int main(void) {
    size_t size = 1 << 20, taken = 0;
    for (; size >= 1024; size /= 2)
        for (; (last = malloc(size)); taken += size) memset(last, 1, size);
    check(taken > 0, "there was some");
    check(taken < (size_t)4 << 28, "and an end to it");
    return done();
}
