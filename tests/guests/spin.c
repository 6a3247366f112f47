/* Never ends. */
#include "check.h"

int main(void) {
    printf("ok about to spin\n");
    fflush(stdout);
    for (volatile unsigned turns = 0;; turns++) {}
}
