/* Recursion as deep as its first argument says, with 0 for no end: half of the stack is wasm's, half the program's. */
#include "check.h"

static long deeper(long depth, long limit, volatile char *above) {
    volatile char here[16];
    here[0] = (char)(above[0] + 1);
    if (depth == limit) return depth;
    long found = deeper(depth + 1, limit, here);
    return found + (here[0] - above[0]) - 1; /* used after the call: no jump in place of it */
}

int main(int argc, char **argv) {
    long limit = argc > 1 ? strtol(argv[1], NULL, 10) : 1000;
    volatile char here[1] = {0};
    check(deeper(1, limit, here) != 0, "it came back");
    return done();
}
