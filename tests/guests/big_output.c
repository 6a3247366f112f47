/* Writes as many bytes as its first argument says, 64 KiB at a time: lines of 16 bytes. Exit code 2 if it cannot. */
#include "check.h"

int main(int argc, char **argv) {
    static char chunk[65536];
    for (size_t i = 0; i < sizeof chunk; i += 16) memcpy(chunk + i, "0123456789abcde\n", 16);
    unsigned long long rest = argc > 1 ? strtoull(argv[1], NULL, 10) : 1048576;
    while (rest) {
        size_t size = rest < sizeof chunk ? (size_t)rest : sizeof chunk;
        if (fwrite(chunk, 1, size, stdout) != size || fflush(stdout) != 0) {
            fprintf(stderr, "big_output: %s\n", strerror(errno));
            return 2;
        }
        rest -= size;
    }
    return 0;
}
