/* A small web site, as an HTTP function: GET /, GET /hello/NAME, POST /echo. Uses the C library. */
#include "hzc.h"
#include "hzc_http.h"

#include <stdio.h>

static const char HOME[] = "<!doctype html>\n<title>Hanzo Compute</title>\n<h1>It works</h1>\n"
                           "<p>Try <a href=\"hello/world\">hello/world</a>.</p>\n";

static hzc_bytes plain(int status, const char *text) { return hzc_respond(status, "text/plain", hzc_text(text)); }

static hzc_bytes hello(const char *name) {
    size_t cap = strlen(name) + sizeof "Hello, !\n";
    char *text = malloc(cap);
    if (!text) hzc_fail();
    snprintf(text, cap, "Hello, %s!\n", name);
    return plain(200, text);
}

static hzc_bytes serve(hzc_bytes bytes) {
    hzc_message request = hzc_split(bytes);
    hzc_result method = hzc_member_text(request.head, "method");
    hzc_result path = hzc_member_text(request.head, "path");
    if (method.error || path.error) return plain(400, "This is an HTTP function: call it at /fn/NAME/.\n");
    const char *verb = (const char *)method.bytes.ptr, *where = (const char *)path.bytes.ptr;
    bool get = strcmp(verb, "GET") == 0 || strcmp(verb, "HEAD") == 0, post = strcmp(verb, "POST") == 0;
    where += *where == '/';
    if (strcmp(where, "") == 0) return get ? hzc_respond(200, "text/html", hzc_text(HOME)) : plain(405, "GET it.\n");
    if (strncmp(where, "hello/", 6) == 0) return get ? hello(where + 6) : plain(405, "GET it.\n");
    if (strcmp(where, "echo") == 0) {
        if (!post) return plain(405, "POST it.\n");
        hzc_result type = hzc_header_text(request.head, "content-type");
        return hzc_respond(200, type.error ? "application/octet-stream" : (const char *)type.bytes.ptr, request.body);
    }
    return plain(404, "There is nothing here.\n");
}

HZC_REACTOR(serve);
