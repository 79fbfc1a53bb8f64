/* Headers and hashes of events (format.h). */
#include "traces/format.h"

#include <stdio.h>
#include <string.h>

enum { BODY_DEPTH = 200 }; /* what weft_json_parse reads back */

/* 1 to max characters, each of them in `allowed` */
static bool made_of(const char *text, const char *allowed, size_t max)
{
    size_t n = strlen(text);
    return n >= 1 && n <= max && strspn(text, allowed) == n;
}

bool trace_run_ok(const char *run)
{
    return made_of(run, "abcdefghijklmnopqrstuvwxyz0123456789-", TRACE_RUN_BYTES);
}

bool trace_type_ok(const char *type)
{
    return made_of(type, "abcdefghijklmnopqrstuvwxyz0123456789._", TRACE_TYPE_BYTES) &&
           *type >= 'a' && *type <= 'z';
}

bool trace_span_ok(const char *span)
{
    size_t n = 0;
    for (; span[n]; n++)
        if (span[n] < 0x20 || span[n] > 0x7e || span[n] == '"' || span[n] == '\\') return false;
    return n <= TRACE_SPAN_BYTES;
}

static bool ascii(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text > 0x7f) return false;
    return true;
}

static weft_status check_value(const cJSON *value, int depth, weft_error *err)
{
    if (depth > BODY_DEPTH)
        return weft_fail(err, WEFT_E_INVALID, "event body: nested deeper than %d", BODY_DEPTH);
    if (cJSON_IsString(value) && weft_utf8_valid(value->valuestring, strlen(value->valuestring)) <
                                     strlen(value->valuestring))
        return weft_fail(err, WEFT_E_INVALID, "event body: a string is not UTF-8; scrub it first");
    if (!cJSON_IsObject(value) && !cJSON_IsArray(value)) return WEFT_OK;
    const cJSON *child;
    cJSON_ArrayForEach(child, value)
    {
        if (cJSON_IsObject(value)) {
            if (!child->string || !ascii(child->string))
                return weft_fail(err, WEFT_E_INVALID,
                                 "event body: a key is not ASCII; store foreign JSON as a string");
            /* finds the first of that name: any other node is a second one */
            if (cJSON_GetObjectItemCaseSensitive(value, child->string) != child)
                return weft_fail(err, WEFT_E_INVALID, "event body: key %s stands twice",
                                 child->string);
        }
        weft_status status = check_value(child, depth + 1, err);
        if (status) return status;
    }
    return WEFT_OK;
}

weft_status trace_body_check(const cJSON *body, weft_error *err)
{
    if (!cJSON_IsObject(body))
        return weft_fail(err, WEFT_E_INVALID, "event body: it is no JSON object");
    return check_value(body, 1, err);
}

void trace_ts(int64_t ns, char out[TRACE_TS_BYTES + 1])
{
    int64_t seconds = ns / 1000000000, rest = ns % 1000000000;
    if (rest < 0) {
        rest += 1000000000;
        seconds--;
    }
    snprintf(out, TRACE_TS_BYTES + 1, "%lld.%09lld", (long long)seconds, (long long)rest);
}

static bool ts_ok(const char *ts)
{
    const char *dot = strchr(ts, '.');
    return dot && strlen(ts) <= TRACE_TS_BYTES && strspn(ts, "-0123456789") == (size_t)(dot - ts) &&
           strlen(dot + 1) == 9 && strspn(dot + 1, "0123456789") == 9;
}

void trace_header_write(const trace_header *h, weft_buffer *out)
{
    char body[WEFT_DIGEST_HEX_BYTES], prev[WEFT_DIGEST_HEX_BYTES];
    weft_hex(h->body, WEFT_DIGEST_BYTES, body);
    weft_hex(h->prev, WEFT_DIGEST_BYTES, prev);
    weft_buffer_printf(out,
                       "{\"body\":\"%s\",\"len\":%lld,\"prev\":\"%s\",\"run\":\"%s\",\"seq\":%lld,"
                       "\"span\":\"%s\",\"ts\":\"%s\",\"type\":\"%s\",\"v\":1}",
                       body, (long long)h->len, prev, h->run, (long long)h->seq, h->span, h->ts,
                       h->type);
}

/* The string member as it is, NULL if it is missing or longer than max. */
static bool take_text(const cJSON *object, const char *key, char *out, size_t max)
{
    const char *text = weft_json_string(object, key);
    if (!text || strlen(text) > max) return false;
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static bool take_digest(const cJSON *object, const char *key, uint8_t out[WEFT_DIGEST_BYTES])
{
    const char *text = weft_json_string(object, key);
    return text && weft_unhex(text, out, WEFT_DIGEST_BYTES);
}

weft_status trace_header_read(const char *bytes, size_t n, trace_header *out, weft_error *err)
{
    trace_header h;
    weft_buffer again = WEFT_BUFFER_INIT;
    cJSON *json = NULL;
    weft_error why;
    if (weft_json_parse(bytes, n, &json, &why))
        return weft_fail(err, WEFT_E_VERIFY, "its header is damaged (%s)", why.message);
    weft_status status = WEFT_OK;
    int64_t version = weft_json_int(json, "v", -1);
    if (version != 1) {
        status = weft_fail(err, WEFT_E_VERIFY, "its header has format version %lld, known is 1",
                           (long long)version);
        goto done;
    }
    h.len = weft_json_int(json, "len", -1);
    h.seq = weft_json_int(json, "seq", -1);
    bool whole = h.len >= 0 && h.seq >= 0 && take_digest(json, "body", h.body) &&
                 take_digest(json, "prev", h.prev) &&
                 take_text(json, "run", h.run, TRACE_RUN_BYTES) && trace_run_ok(h.run) &&
                 take_text(json, "span", h.span, TRACE_SPAN_BYTES) && trace_span_ok(h.span) &&
                 take_text(json, "ts", h.ts, TRACE_TS_BYTES) && ts_ok(h.ts) &&
                 take_text(json, "type", h.type, TRACE_TYPE_BYTES) && trace_type_ok(h.type);
    if (whole) {
        trace_header_write(&h, &again);
        if ((status = weft_buffer_ok(&again, err))) goto done;
        whole = again.size == n && memcmp(again.data, bytes, n) == 0;
    }
    if (whole)
        *out = h;
    else
        status = weft_fail(err, WEFT_E_VERIFY, "its header is not in the canonical form");
done:
    cJSON_Delete(json);
    weft_buffer_free(&again);
    return status;
}

void trace_body_digest(const uint8_t *salt, size_t n_salt, const void *body, size_t n_body,
                       uint8_t out[WEFT_DIGEST_BYTES])
{
    static const uint8_t tag = 2;
    weft_sha256 h;
    weft_sha256_init(&h);
    weft_sha256_update(&h, &tag, 1);
    weft_sha256_update(&h, salt, n_salt);
    weft_sha256_update(&h, body, n_body);
    weft_sha256_final(&h, out);
}

void trace_leaf(const void *header, size_t n, uint8_t out[WEFT_DIGEST_BYTES])
{
    static const uint8_t tag = 0;
    weft_sha256 h;
    weft_sha256_init(&h);
    weft_sha256_update(&h, &tag, 1);
    weft_sha256_update(&h, header, n);
    weft_sha256_final(&h, out);
}
