/* Counts the lines, words and bytes of its standard input, as wc does: a WASI command, and plain C. */
#include <stdbool.h>
#include <stdio.h>

int main(void) {
    static unsigned char chunk[65536];
    unsigned long long lines = 0, words = 0, bytes = 0;
    bool inside = false;
    for (size_t got; (got = fread(chunk, 1, sizeof chunk, stdin)) > 0; bytes += got) {
        for (size_t i = 0; i < got; i++) {
            bool space = chunk[i] == ' ' || (chunk[i] >= '\t' && chunk[i] <= '\r');
            lines += chunk[i] == '\n';
            words += inside && space;
            inside = !space;
        }
    }
    if (ferror(stdin)) {
        fprintf(stderr, "wordcount: standard input could not be read\n");
        return 1;
    }
    printf("%llu %llu %llu\n", lines, words + inside, bytes);
    return fflush(stdout) == 0 ? 0 : 1;
}
