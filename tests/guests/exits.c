/* Ends with the exit code that it is told: by returning, or with "now" by _Exit, which flushes nothing. */
#include "check.h"

int main(int argc, char **argv) {
    int code = argc > 1 ? atoi(argv[1]) : 0;
    printf("ok about to end with %d\n", code);
    if (argc > 2 && strcmp(argv[2], "now") == 0) _Exit(code);
    return code;
}
