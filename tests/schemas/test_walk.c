/* Grammars, by property: random walks end in texts that parse and conform; printing what a walk
 * made, compact, Python-style or indented, leads back into the grammar; and in every state that can
 * be reached some byte leads on, until the end.
 */
#include "tests/schemas/support.h"

#include <stdio.h>

/* Schemas that the grammar expresses fully: whatever it lets through must conform. Objects that
 * allow unknown names are the one exception: the walk may write a name twice, which the parser
 * refuses. */
static const char *const EXACT[] = {
    "true",
    "{\"type\":\"string\"}",
    "{\"type\":\"string\",\"minLength\":3,\"maxLength\":9}",
    "{\"type\":\"integer\"}",
    "{\"type\":\"number\"}",
    "{\"type\":\"integer\",\"minimum\":-3,\"maximum\":120}",
    "{\"enum\":[\"celsius\",\"cel\",\"fahrenheit\",\"f\",\"\\u00e9\\n\",7,77,null,[1,{\"a\":[]}]]}",
    "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":2,\"maxItems\":5}",
    "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"string\"},{\"type\":\"boolean\"}],\"items\":"
    "false}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"ab\":{\"type\":\"string\"}"
    ","
    "\"abc\":{\"type\":\"null\"},\"b\":{\"type\":\"boolean\"}},\"required\":[\"ab\"],"
    "\"additionalProperties\":false}",
    "{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\"},\"lines\":{\"type\":"
    "\"array\","
    "\"items\":{\"type\":\"integer\"}}},\"required\":[\"path\"]}",
    "{\"type\":\"object\",\"additionalProperties\":{\"anyOf\":[{\"type\":\"integer\"},{\"type\":"
    "\"null\"}]}}",
    "{\"anyOf\":[{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"x\"},\"v\":{\"type\":"
    "\"integer\"}},"
    "\"required\":[\"k\",\"v\"],\"additionalProperties\":false},{\"type\":\"object\","
    "\"properties\":{\"k\":"
    "{\"const\":\"xy\"},\"w\":{\"type\":\"string\"}},\"required\":[\"k\"],\"additionalProperties\":"
    "false},"
    "{\"type\":\"array\",\"items\":{\"enum\":[1,12]}}]}",
    "{\"$ref\":\"#/$defs/t\",\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":"
    "\"integer\"},\"kids\":{\"type\":\"array\",\"maxItems\":2,\"items\":{\"$ref\":\"#/$defs/t\"}}},"
    "\"required\":[\"v\"],\"additionalProperties\":false}}}",
    "{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":[\"integer\",\"string\"]}},"
    "\"required\":[\"a\"]},{\"properties\":{\"a\":{\"type\":[\"integer\",\"null\"]},\"b\":{"
    "\"maxLength\":4,"
    "\"type\":\"string\"}}}]}",
    "{\"type\":\"object\",\"properties\":{\"q\":{\"type\":\"array\",\"minItems\":1,\"items\":{"
    "\"type\":"
    "\"object\",\"properties\":{\"n\":{\"type\":\"number\"},\"s\":{\"type\":\"string\","
    "\"maxLength\":2}},"
    "\"required\":[\"n\",\"s\"],\"additionalProperties\":false}},\"r\":{\"type\":\"boolean\"}},"
    "\"required\":[\"q\",\"r\"],\"additionalProperties\":false}",
    "{\"type\":\"object\",\"properties\":{\"x\":{\"anyOf\":[{\"type\":\"integer\"},{\"const\":"
    "\"auto\"},"
    "{\"type\":\"array\",\"items\":{\"type\":\"null\"},\"maxItems\":1}]}},\"required\":[\"x\","
    "\"zz\"]}",
};
enum { N_EXACT = sizeof EXACT / sizeof *EXACT, WALKS = 400 };

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* A byte that may follow, or -1. Texts past `hurry` bytes are closed as fast as they can be. */
static int pick(const weft_grammar *g, const weft_grammar_state *s, bool hurry, uint64_t *seed)
{
    static const char closers[] = "\"}],n0tf";
    weft_grammar_state probe;
    for (const char *c = closers; hurry && *c; c++) {
        probe = *s;
        if (weft_grammar_step(g, &probe, (uint8_t)*c)) return *c;
    }
    unsigned first = (unsigned)next_random(seed) & 255;
    /* half of the time a byte of structure or text, so that walks are not all of \xNN */
    if (next_random(seed) & 1) first = (unsigned)"\"{}[]:,0 \naetn-."[next_random(seed) & 15];
    for (unsigned i = 0; i < 256; i++) {
        probe = *s;
        if (weft_grammar_step(g, &probe, (uint8_t)(first + i))) return (int)((first + i) & 255);
    }
    return -1;
}

static void walk(const weft_grammar *g, weft_buffer *out, uint64_t *seed)
{
    weft_grammar_state s;
    size_t hurry = 5 + next_random(seed) % 200;
    weft_buffer_clear(out);
    weft_grammar_begin(g, &s);
    for (;;) {
        int byte = pick(g, &s, out->size > hurry, seed);
        bool done = weft_grammar_done(g, &s);
        if (done && (byte < 0 || (next_random(seed) & 3) == 0)) return;
        if (byte < 0) fail_msg("dead end after %s", weft_buffer_str(out));
        assert_true(weft_grammar_step(g, &s, (uint8_t)byte));
        weft_buffer_putc(out, (char)byte);
        if (out->size > 20000)
            fail_msg("does not end: %.60s ... %s", out->data, out->data + out->size - 60);
    }
}

/* As models print: two spaces a level, empty containers closed at once. */
static void print_indented(const cJSON *v, int level, weft_buffer *out)
{
    const cJSON *child;
    if (!v->child || !(cJSON_IsArray(v) || cJSON_IsObject(v))) {
        weft_json_compact(v, out);
        return;
    }
    weft_buffer_putc(out, cJSON_IsArray(v) ? '[' : '{');
    cJSON_ArrayForEach(child, v)
    {
        weft_buffer_printf(out, "%s\n%*s", child == v->child ? "" : ",", level * 2 + 2, "");
        if (child->string) {
            const cJSON name = {.type = cJSON_String, .valuestring = child->string};
            weft_json_compact(&name, out);
            weft_buffer_puts(out, ": ");
        }
        print_indented(child, level + 1, out);
    }
    weft_buffer_printf(out, "\n%*s%c", level * 2, "", cJSON_IsArray(v) ? ']' : '}');
}

static void reprints(const weft_grammar *g, const cJSON *value, const char *source)
{
    weft_error err;
    for (int style = 0; style < 3; style++) {
        weft_buffer text = WEFT_BUFFER_INIT;
        if (style == 0) weft_json_compact(value, &text);
        if (style == 1) assert_int_equal(weft_json_python(value, &text, &err), WEFT_OK);
        if (style == 2) print_indented(value, 0, &text);
        /* a number too large for a double has no finite Python form */
        if (!strstr(weft_buffer_str(&text), "Infinity") &&
            !grammar_accepts(g, weft_buffer_str(&text)))
            fail_msg("style %d of %s is stopped: %s", style, source, weft_buffer_str(&text));
        weft_buffer_free(&text);
    }
}

static void walks_conform(void **state)
{
    size_t twice = 0;
    for (size_t i = 0; i < N_EXACT; i++) {
        weft_schema *schema = schema_of(EXACT[i]);
        weft_grammar *g = grammar_of(EXACT[i]);
        weft_buffer text = WEFT_BUFFER_INIT;
        uint64_t seed = 0x9e3779b97f4a7c15 + i;
        for (int n = 0; n < WALKS; n++) {
            cJSON *value = NULL;
            weft_error err;
            walk(g, &text, &seed);
            if (weft_json_parse(text.data, text.size, &value, &err)) {
                if (!strstr(err.message, "twice")) fail_msg("%s: %s", text.data, err.message);
                twice++;
                continue;
            }
            if (weft_schema_check(schema, value, &err))
                fail_msg("%s: %s: %s", EXACT[i], text.data, err.message);
            reprints(g, value, text.data);
            cJSON_Delete(value);
        }
        weft_buffer_free(&text);
        weft_grammar_free(g);
        weft_schema_free(schema);
    }
    assert_true(twice < N_EXACT * WALKS / 20);
}

/* ---- all states ---- */

typedef struct reached {
    weft_grammar_state *at;
    bool *finishes; /* the end can be reached */
    size_t n;
    uint32_t slots[1 << 17];
} reached;

enum { REACHED_MAX = 40000 };

/* The number of a state, adding it; REACHED_MAX when there is no room. */
static size_t reach(reached *r, const weft_grammar_state *s)
{
    size_t slot = weft_grammar_state_hash(s) & ((1 << 17) - 1);
    for (; r->slots[slot]; slot = (slot + 1) & ((1 << 17) - 1))
        if (weft_grammar_state_equal(&r->at[r->slots[slot] - 1], s)) return r->slots[slot] - 1;
    if (r->n == REACHED_MAX) return REACHED_MAX;
    r->at[r->n] = *s;
    r->slots[slot] = (uint32_t)++r->n;
    return r->n - 1;
}

/* Passes over all states until no more of them is found to lead to the end. */
static void find_finishing(const weft_grammar *g, reached *r)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = r->n; i-- > 0;) {
            bool finishes = r->finishes[i] || weft_grammar_done(g, &r->at[i]);
            for (unsigned c = 0; c < 256 && !finishes; c++) {
                weft_grammar_state s = r->at[i];
                size_t to = weft_grammar_step(g, &s, (uint8_t)c) ? reach(r, &s) : REACHED_MAX;
                finishes = to < REACHED_MAX && r->finishes[to];
            }
            changed |= finishes != r->finishes[i];
            r->finishes[i] = finishes;
        }
    }
}

/* Finite schemas: the whole graph of states is walked, and from each the end can be reached. */
static void every_state_leads_to_the_end(void **state)
{
    static const char *const finite[] = {
        "{\"type\":\"string\",\"minLength\":3,\"maxLength\":9}",
        "{\"type\":\"number\"}",
        "{\"enum\":[\"celsius\",\"cel\",\"fahrenheit\",7,77,null,[1,{\"a\":[]}]]}",
        "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":2,\"maxItems\":5}",
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"ab\":{\"type\":"
        "\"null\"}},"
        "\"required\":[\"ab\"],\"additionalProperties\":{\"type\":\"boolean\"}}",
        "{\"anyOf\":[{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"x\"},\"v\":{\"type\":"
        "\"integer\"}},\"required\":[\"k\",\"v\"],\"additionalProperties\":false},{\"type\":"
        "\"object\","
        "\"properties\":{\"k\":{\"enum\":[\"xy\",1]},\"w\":{\"type\":\"string\",\"maxLength\":2}},"
        "\"required\":[\"k\"],\"additionalProperties\":false}]}",
        "{\"anyOf\":[{\"enum\":[\"abcdef\",\"xyz\"]},{\"type\":\"string\",\"maxLength\":2},{"
        "\"type\":"
        "\"string\",\"minLength\":4,\"maxLength\":5}]}",
    };
    for (size_t i = 0; i < sizeof finite / sizeof *finite; i++) {
        weft_grammar *g = grammar_of(finite[i]);
        reached *r = calloc(1, sizeof *r);
        weft_grammar_state s;
        assert_non_null(r);
        r->at = calloc(REACHED_MAX, sizeof *r->at);
        r->finishes = calloc(REACHED_MAX, sizeof *r->finishes);
        assert_non_null(r->at);
        assert_non_null(r->finishes);
        weft_grammar_begin(g, &s);
        reach(r, &s);
        for (size_t at = 0; at < r->n; at++) {
            for (unsigned c = 0; c < 256; c++) {
                s = r->at[at];
                if (weft_grammar_step(g, &s, (uint8_t)c)) assert_true(reach(r, &s) < REACHED_MAX);
            }
        }
        find_finishing(g, r);
        for (size_t at = 0; at < r->n; at++)
            if (!r->finishes[at]) fail_msg("%s: state %zu is stuck", finite[i], at);
        free(r->at);
        free(r->finishes);
        free(r);
        weft_grammar_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walks_conform),
        cmocka_unit_test(every_state_leads_to_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
