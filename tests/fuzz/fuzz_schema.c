/* Fuzzes schemas: a schema, then a newline or NUL, then an instance.
 * The schema is compiled; the instance is checked, and read byte by byte by the schema's grammar. Held:
 * a refused byte leaves the state alone, no state is a dead end, and a text that the grammar takes whole is
 * JSON (save for names that stand twice, which no grammar can see, and nesting past the parser's). */
#include "schemas/schema.h"

#include <stdlib.h>
#include <string.h>

static bool leads_on(const weft_grammar *g, const weft_grammar_state *at)
{
    for (unsigned c = 0; c < 256; c++) {
        weft_grammar_state s = *at;
        if (weft_grammar_step(g, &s, (uint8_t)c)) return true;
        if (!weft_grammar_state_equal(&s, at)) abort();
    }
    return weft_grammar_done(g, at);
}

static void walk(const weft_grammar *g, const char *text, size_t n)
{
    weft_grammar_state s;
    cJSON *value = NULL;
    weft_error err;
    weft_grammar_begin(g, &s);
    if (!leads_on(g, &s)) abort();
    for (size_t i = 0; i < n; i++) {
        if (!weft_grammar_step(g, &s, (uint8_t)text[i])) return;
        if (!leads_on(g, &s)) abort();
    }
    if (weft_grammar_done(g, &s) && weft_json_parse(text, n, &value, &err) &&
        !strstr(err.message, "twice"))
        abort();
    cJSON_Delete(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    size_t cut = 0;
    cJSON *source = NULL, *value = NULL;
    weft_schema *schema = NULL;
    weft_grammar *g = NULL;
    weft_error err;
    while (cut < size && text[cut] != '\n' && text[cut] != '\0') cut++;
    if (weft_json_parse(text, cut, &source, &err)) return 0;
    const size_t rest = cut < size ? cut + 1 : size;
    if (!weft_schema_compile(source, &schema, &err)) {
        if (!weft_json_parse(text + rest, size - rest, &value, &err))
            (void)weft_schema_check(schema, value, &err);
        if (!weft_grammar_of_schema(schema, &g, &err)) walk(g, text + rest, size - rest);
    }
    weft_grammar_free(g);
    weft_schema_free(schema);
    cJSON_Delete(value);
    cJSON_Delete(source);
    return 0;
}
