/* Writes as many single bytes as its first argument says. */
#include "check.h"

#include <unistd.h>

int main(int argc, char **argv) {
    long count = argc > 1 ? strtol(argv[1], NULL, 10) : 100000;
    for (long i = 0; i < count; i++)
        if (write(1, i % 64 == 63 ? "\n" : "x", 1) != 1) return 1;
    return 0;
}
