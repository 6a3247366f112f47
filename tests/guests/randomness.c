/* Random bytes: never twice the same, and about as many ones as zeros. */
#include "check.h"

#include <unistd.h>
#include <wasi/api.h>

int main(void) {
    static uint8_t some[32], more[32], many[65536];
    check(getentropy(some, sizeof some) == 0 && getentropy(more, sizeof more) == 0, "getentropy");
    check(memcmp(some, more, sizeof some) != 0, "getentropy differs");
    refused(getentropy(many, 257) < 0, REASONS(EIO), "getentropy gives 256 bytes at most");
    check(__wasi_random_get(many, sizeof many) == 0, "random_get of 64 KiB");
    int ones = 0, kinds = 0;
    bool seen[256] = {false};
    for (size_t i = 0; i < sizeof many; i++) {
        ones += __builtin_popcount(many[i]);
        kinds += !seen[many[i]];
        seen[many[i]] = true;
    }
    /* Half of 524,288 bits; eight standard deviations are 2,896. */
    check(ones > 262144 - 2896 && ones < 262144 + 2896, "as many ones as zeros");
    check(kinds == 256, "every byte comes up");
    bool ends = false;
    for (size_t i = sizeof many - 64; i < sizeof many; i++) ends = ends || many[i];
    check(ends, "filled to the end");
    check(__wasi_random_get(many, 0) == 0, "random_get of nothing");
    return done();
}
