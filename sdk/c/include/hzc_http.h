/*
 * hzc_http.h: heads of HTTP requests and responses for guests, and as much JSON as they take.
 *
 * A head is one JSON object on one line; the body follows as it is. An HTTP function gets
 * {"method", "path", "query", "headers": {}, "body_size"} and answers {"status", "headers": {}}.
 *
 *   hzc_message request = hzc_split(bytes);
 *   hzc_result path = hzc_member_text(request.head, "path");
 *   return hzc_respond(200, "text/plain", body);
 *
 * Everything that is read is checked against its bounds: broken JSON gives HZC_INVALID, never a
 * read beyond its end. Names of members are compared as they are written, escapes and all.
 */
#ifndef HZC_HTTP_H
#define HZC_HTTP_H

#include "hzc.h"

/* A head line and the body behind it. */
typedef struct {
    hzc_bytes head;
    hzc_bytes body;
} hzc_message;

/* A header of a request to be sent. */
typedef struct {
    hzc_bytes name;
    hzc_bytes value;
} hzc_header;

/* --- a buffer that grows ------------------------------------------------------------------- */

/* Start with `hzc_buf out = {0};`. After a failed allocation `failed` is set and nothing is added. */
typedef struct {
    uint8_t *ptr;
    size_t len, cap;
    bool failed;
} hzc_buf;

static inline void hzc_put(hzc_buf *buf, hzc_bytes bytes) {
    if (buf->failed || bytes.len == 0) return;
    if (bytes.len > buf->cap - buf->len) {
        if (bytes.len > INT32_MAX - buf->len) {
            buf->failed = true;
            return;
        }
        size_t cap = buf->len + bytes.len;
        if (cap < 2 * buf->cap) cap = 2 * buf->cap;
        if (cap < 256) cap = 256;
        uint8_t *more = (uint8_t *)hzc_alloc(cap);
        if (!more) {
            buf->failed = true;
            return;
        }
        if (buf->len) memcpy(more, buf->ptr, buf->len);
        hzc_free(buf->ptr);
        buf->ptr = more;
        buf->cap = cap;
    }
    memcpy(buf->ptr + buf->len, bytes.ptr, bytes.len);
    buf->len += bytes.len;
}

static inline void hzc_puts(hzc_buf *buf, const char *text) { hzc_put(buf, hzc_text(text)); }

/* A number in decimal. */
static inline void hzc_put_number(hzc_buf *buf, int64_t number) {
    char digits[20];
    size_t at = sizeof digits;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do digits[--at] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (number < 0) digits[--at] = '-';
    hzc_put(buf, hzc_make(digits + at, sizeof digits - at));
}

/* UTF-8 as a JSON string, with its quotes. */
static inline void hzc_put_string(hzc_buf *buf, hzc_bytes text) {
    static const char hex[] = "0123456789abcdef";
    hzc_puts(buf, "\"");
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];
        char escape[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
        if (c == '"' || c == '\\') {
            escape[1] = (char)c;
            hzc_put(buf, hzc_make(escape, 2));
        } else if (c < 0x20) {
            hzc_put(buf, hzc_make(escape, 6));
        } else {
            hzc_put(buf, hzc_make(&c, 1));
        }
    }
    hzc_puts(buf, "\"");
}

/* What was put so far; an allocation that failed ends the call. */
static inline hzc_bytes hzc_done(const hzc_buf *buf) {
    if (buf->failed) hzc_fail();
    return hzc_make(buf->ptr, buf->len);
}

/* --- reading JSON -------------------------------------------------------------------------- */

static inline size_t hzc_json_space(hzc_bytes json, size_t at) {
    while (at < json.len && (json.ptr[at] == ' ' || (json.ptr[at] >= '\t' && json.ptr[at] <= '\r'))) at++;
    return at;
}

/* Where the string that starts at `at` ends, behind its quote; 0 if it does not. */
static inline size_t hzc_json_string_end(hzc_bytes json, size_t at) {
    for (at++; at < json.len; at++) {
        if (json.ptr[at] == '\\') at++;
        else if (json.ptr[at] == '"') return at + 1;
    }
    return 0;
}

/* Where the value that starts at `at` ends; 0 if it does not. */
static inline size_t hzc_json_end(hzc_bytes json, size_t at) {
    size_t depth = 0, start = at;
    while (at < json.len) {
        uint8_t c = json.ptr[at];
        if (c == '"') {
            at = hzc_json_string_end(json, at);
            if (!at || !depth) return at;
            continue;
        }
        if (c == '{' || c == '[') depth++;
        else if (depth && (c == '}' || c == ']')) {
            if (!--depth) return at + 1;
        } else if (!depth && (c == ',' || c == '}' || c == ']' || c <= ' ')) break;
        at++;
    }
    return depth || at == start ? 0 : at;
}

/* A member of a JSON object, as it is written there. */
static inline hzc_result hzc_member(hzc_bytes json, const char *name) {
    hzc_bytes wanted = hzc_text(name);
    size_t at = hzc_json_space(json, 0);
    if (at >= json.len || json.ptr[at] != '{') return hzc_error(HZC_INVALID);
    at = hzc_json_space(json, at + 1);
    if (at < json.len && json.ptr[at] == '}') return hzc_error(HZC_NOT_FOUND);
    while (at < json.len && json.ptr[at] == '"') {
        size_t key = at + 1, end = hzc_json_string_end(json, at);
        if (!end) break;
        bool found = hzc_equal(hzc_make(json.ptr + key, end - 1 - key), wanted);
        at = hzc_json_space(json, end);
        if (at >= json.len || json.ptr[at] != ':') break;
        at = hzc_json_space(json, at + 1);
        end = hzc_json_end(json, at);
        if (!end) break;
        hzc_result value = {0, hzc_make(json.ptr + at, end - at)};
        if (found) return value;
        at = hzc_json_space(json, end);
        if (at < json.len && json.ptr[at] == '}') return hzc_error(HZC_NOT_FOUND);
        if (at >= json.len || json.ptr[at] != ',') break;
        at = hzc_json_space(json, at + 1);
    }
    return hzc_error(HZC_INVALID);
}

/* Four hexadecimal digits, or -1. */
static inline int32_t hzc_json_hex(const uint8_t *digits) {
    int32_t code = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = digits[i], letter = c | 0x20;
        if (c >= '0' && c <= '9') code = code << 4 | (c - '0');
        else if (letter >= 'a' && letter <= 'f') code = code << 4 | (letter - 'a' + 10);
        else return -1;
    }
    return code;
}

static inline uint8_t *hzc_utf8(uint8_t *to, int32_t code) {
    if (code < 0x80) {
        *to++ = (uint8_t)code;
        return to;
    }
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    *to++ = (uint8_t)((more == 1 ? 0xc0 : more == 2 ? 0xe0 : 0xf0) | code >> (6 * more));
    while (more--) *to++ = (uint8_t)(0x80 | (code >> (6 * more) & 0x3f));
    return to;
}

/* The text of a JSON string such as hzc_member gives, in UTF-8 and memory of its own. */
static inline hzc_result hzc_string(hzc_bytes json) {
    if (json.len < 2 || json.ptr[0] != '"' || hzc_json_string_end(json, 0) != json.len) return hzc_error(HZC_INVALID);
    uint8_t *start = (uint8_t *)hzc_alloc(json.len), *to = start; /* it can only get shorter */
    if (!start) return hzc_error(HZC_OVER_LIMIT);
    const uint8_t *at = json.ptr + 1, *end = json.ptr + json.len - 1;
    while (at < end) {
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        uint8_t c = at[1];
        at += 2;
        if (c == 'u') {
            int32_t code = end - at >= 4 ? hzc_json_hex(at) : -1;
            if (code < 0) break;
            at += 4;
            if (code >= 0xd800 && code < 0xdc00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u') {
                int32_t low = hzc_json_hex(at + 2);
                if (low >= 0xdc00 && low < 0xe000) {
                    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                    at += 6;
                }
            }
            to = hzc_utf8(to, code >= 0xd800 && code < 0xe000 ? 0xfffd : code);
            continue;
        }
        *to++ = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c == 'b' ? '\b' : c == 'f' ? '\f' : c;
    }
    if (at < end) {
        hzc_free(start);
        return hzc_error(HZC_INVALID);
    }
    *to = 0;
    hzc_result result = {0, hzc_make(start, (size_t)(to - start))};
    return result;
}

/* A member that is a string. */
static inline hzc_result hzc_member_text(hzc_bytes json, const char *name) {
    hzc_result member = hzc_member(json, name);
    return member.error ? member : hzc_string(member.bytes);
}

/* A member that is a whole number not below zero (and of at most 18 digits), or an error. */
static inline int64_t hzc_member_number(hzc_bytes json, const char *name) {
    hzc_result member = hzc_member(json, name);
    if (member.error) return member.error;
    int64_t number = 0;
    for (size_t i = 0; i < member.bytes.len; i++) {
        uint8_t c = member.bytes.ptr[i];
        if (c < '0' || c > '9' || i >= 18) return HZC_INVALID;
        number = number * 10 + (c - '0');
    }
    return number;
}

/* --- heads --------------------------------------------------------------------------------- */

/* A head line and what follows it. */
static inline hzc_message hzc_split(hzc_bytes bytes) {
    size_t at = 0;
    while (at < bytes.len && bytes.ptr[at] != '\n') at++;
    size_t body = at < bytes.len ? at + 1 : at;
    hzc_message message = {hzc_make(bytes.ptr, at), hzc_make(bytes.ptr + body, bytes.len - body)};
    return message;
}

/* A header of a head, by its name in lower case. */
static inline hzc_result hzc_header_text(hzc_bytes head, const char *name) {
    hzc_result headers = hzc_member(head, "headers");
    return headers.error ? headers : hzc_member_text(headers.bytes, name);
}

/* The response of an HTTP function. */
static inline hzc_bytes hzc_respond(int status, const char *content_type, hzc_bytes body) {
    hzc_buf out = {0};
    hzc_puts(&out, "{\"status\":");
    hzc_put_number(&out, status);
    hzc_puts(&out, ",\"headers\":{\"content-type\":");
    hzc_put_string(&out, hzc_text(content_type));
    hzc_puts(&out, "}}\n");
    hzc_put(&out, body);
    return hzc_done(&out);
}

/* Sends a request; hzc_split the result into head and body. Capability: http, for the URL's origin. */
static inline hzc_result hzc_request(const char *method, hzc_bytes url, const hzc_header *headers, size_t count,
                                     hzc_bytes body) {
    hzc_buf head = {0};
    hzc_puts(&head, "{\"method\":");
    hzc_put_string(&head, hzc_text(method));
    hzc_puts(&head, ",\"url\":");
    hzc_put_string(&head, url);
    hzc_puts(&head, ",\"headers\":{");
    for (size_t i = 0; i < count; i++) {
        if (i) hzc_puts(&head, ",");
        hzc_put_string(&head, headers[i].name);
        hzc_puts(&head, ":");
        hzc_put_string(&head, headers[i].value);
    }
    hzc_puts(&head, "}}");
    return head.failed ? hzc_error(HZC_OVER_LIMIT) : hzc_http(hzc_done(&head), body);
}

#endif
