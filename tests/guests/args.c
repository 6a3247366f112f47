/* Arguments and environment, as they arrive: one line for each; the environment in order. */
#include "check.h"

#include <unistd.h>

extern char **environ;

static int by_text(const void *left, const void *right) {
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

int main(int argc, char **argv) {
    check(argc > 0 && argv[0][0] != 0, "argv[0]");
    check(argv[argc] == NULL, "argv ends with NULL");
    for (int i = 1; i < argc; i++) printf("ok arg %d <%s>\n", i, argv[i]);
    size_t count = 0;
    while (environ && environ[count]) count++;
    if (count) qsort(environ, count, sizeof *environ, by_text);
    for (size_t i = 0; i < count; i++) printf("ok env <%s>\n", environ[i]);
    check(getenv("HZC_TEST_ABSENT") == NULL, "getenv of what is not set");
    return done();
}
