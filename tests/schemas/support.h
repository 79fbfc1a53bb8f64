/* What the schema tests share: JSON and schemas from literals, failing the test where they are bad.
 */
#ifndef WEFT_TESTS_SCHEMAS_SUPPORT_H
#define WEFT_TESTS_SCHEMAS_SUPPORT_H

#include "schemas/schema.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static inline cJSON *json(const char *text)
{
    cJSON *value = NULL;
    weft_error err;
    if (weft_json_parse(text, strlen(text), &value, &err)) fail_msg("%s: %s", text, err.message);
    return value;
}

static inline weft_schema *schema_of(const char *text)
{
    cJSON *source = json(text);
    weft_schema *schema = NULL;
    weft_error err;
    if (weft_schema_compile(source, &schema, &err)) fail_msg("%s: %s", text, err.message);
    cJSON_Delete(source);
    return schema;
}

static inline weft_grammar *grammar_of(const char *text)
{
    weft_schema *schema = schema_of(text);
    weft_grammar *grammar = NULL;
    weft_error err;
    if (weft_grammar_of_schema(schema, &grammar, &err)) fail_msg("%s: %s", text, err.message);
    weft_schema_free(schema);
    return grammar;
}

/* Bytes of the text that the grammar takes; *done: it is whole then. */
static inline size_t grammar_eats(const weft_grammar *g, const char *text, size_t n, bool *done)
{
    weft_grammar_state state;
    size_t i = 0;
    weft_grammar_begin(g, &state);
    while (i < n && weft_grammar_step(g, &state, (uint8_t)text[i])) i++;
    *done = weft_grammar_done(g, &state);
    return i;
}

static inline bool grammar_accepts(const weft_grammar *g, const char *text)
{
    bool done;
    return grammar_eats(g, text, strlen(text), &done) == strlen(text) && done;
}

#endif
