/* JSON helpers over cJSON.
 *
 * cJSON is the tree; reading and writing are ours, for two reasons. Its parser is lenient (trailing
 * text, duplicate keys, broken UTF-8) and keeps every number as a double, which loses integers past
 * 2^53 and the way a float was written. And weft must produce three texts byte for byte: canonical
 * (trace bodies: RFC 8785 restricted to integers), python (dialect templates: json.dumps with
 * ensure_ascii=False) and compact.
 * A number node that weft_json_parse made holds its source text in `valuestring` (cJSON frees and
 * duplicates it like a string's); the writers use it.
 */
#ifndef WEFT_BASE_JSON_H
#define WEFT_BASE_JSON_H

#include "base/buffer.h"

#include <cjson/cJSON.h>

/* Strict RFC 8259 parse of exactly n bytes: whole text one value, valid UTF-8, no NUL inside
 * strings (weft's strings are C strings), nesting at most 200, duplicate keys refused. *out is
 * freed with cJSON_Delete. Errors: WEFT_E_INVALID with the byte offset. */
weft_status weft_json_parse(const char *text, size_t n, cJSON **out, weft_error *err);
weft_status weft_json_parse_file(const char *path, cJSON **out, weft_error *err);

/* Keys in code-point order, no spaces, integers with |v| < 2^53 only, strings UTF-8 escaped as RFC
 * 8785. WEFT_E_INVALID on a non-integer number. Appends to out. */
weft_status weft_json_canonical(const cJSON *value, weft_buffer *out, weft_error *err);

/* As Python's json.dumps(value, ensure_ascii=False): ", " and ": ", floats by repr. Keeps key
 * order. Appends to out. */
weft_status weft_json_python(const cJSON *value, weft_buffer *out, weft_error *err);

/* Compact JSON, keys in their order. Appends to out. */
void weft_json_compact(const cJSON *value, weft_buffer *out);

/* Shortest decimal text that reads back as the same double, Python's repr ("1e+16", "0.1", "5.0").
 * out holds at least 32 bytes. */
void weft_json_repr(double value, char out[32]);

/* Member access; NULL or the fallback where the member is missing or of another type. */
const char *weft_json_string(const cJSON *object, const char *key);
int64_t weft_json_int(const cJSON *object, const char *key, int64_t fallback);
bool weft_json_bool(const cJSON *object, const char *key, bool fallback);
/* Adds an integer exactly (|v| < 2^53). */
void weft_json_add_int(cJSON *object, const char *key, int64_t value);

/* Index of the first byte of `text` that is not valid UTF-8 (RFC 3629), or n if all is valid. */
size_t weft_utf8_valid(const char *text, size_t n);
/* Appends text with every invalid byte replaced by U+FFFD. */
void weft_utf8_scrub(const char *text, size_t n, weft_buffer *out);

#endif
