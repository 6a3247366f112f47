/* Answers with what it was asked. The response lies where the request lay: nothing is copied. */
#include "hzc.h"

static hzc_bytes serve(hzc_bytes request) { return request; }

HZC_REACTOR(serve);
