/* Gets the URL that it is asked for, with the secret "token" as bearer token. It answers with the other
 * side's status, headers and body, or with 502 and the reason: what it gives is a response of an HTTP function. */
#include "hzc.h"
#include "hzc_http.h"

static hzc_bytes refused(const char *what, int32_t error) {
    hzc_buf text = {0};
    hzc_puts(&text, "fetch: ");
    hzc_puts(&text, what);
    hzc_puts(&text, ": ");
    hzc_puts(&text, hzc_reason(error));
    hzc_puts(&text, "\n");
    return hzc_respond(502, "text/plain", hzc_done(&text));
}

static hzc_bytes serve(hzc_bytes url) {
    hzc_result token = hzc_secret(hzc_text("token"));
    if (token.error) return refused("the secret token", token.error);
    hzc_buf bearer = {0};
    hzc_puts(&bearer, "Bearer ");
    hzc_put(&bearer, token.bytes);
    hzc_header headers[] = {
        {hzc_text("accept"), hzc_text("*/*")},
        {hzc_text("authorization"), hzc_done(&bearer)},
    };
    hzc_result answer = hzc_request("GET", url, headers, sizeof headers / sizeof *headers, hzc_text(""));
    return answer.error ? refused("the request", answer.error) : answer.bytes;
}

HZC_REACTOR(serve);
