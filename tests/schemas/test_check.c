/* The checker's messages and bounds, and the compiler's refusals. */
#include "tests/schemas/support.h"

#include <stdio.h>

/* ---- messages ---- */

static void says(const char *schema_text, const char *value_text, const char *expected)
{
    weft_schema *schema = schema_of(schema_text);
    cJSON *value = json(value_text);
    weft_error err = {0};
    weft_status status = weft_schema_check(schema, value, &err);
    if (!expected && status) fail_msg("%s: %s", value_text, err.message);
    if (expected && status != WEFT_E_INVALID) fail_msg("%s: accepted", value_text);
    if (expected && strcmp(err.message, expected) != 0)
        fail_msg("%s:\n  says    %s\n  and not %s", value_text, err.message, expected);
    cJSON_Delete(value);
    weft_schema_free(schema);
}

static void messages_name_the_place_and_the_cure(void **state)
{
    says("{\"properties\":{\"items\":{\"items\":{\"properties\":{\"price\":{\"maximum\":10}}}}}}",
         "{\"items\":[{\"price\":12.5}]}", "at /items/0/price: 12.5 is above the maximum 10");
    says("{\"minimum\":0}", "-1e2", "at the top level: -1e2 is below the minimum 0");
    says("{\"exclusiveMinimum\":0}", "0", "at the top level: 0 must be greater than 0");
    says("{\"exclusiveMaximum\":0}", "7", "at the top level: 7 must be less than 0");
    says("{\"multipleOf\":5}", "7", "at the top level: 7 is not a multiple of 5");
    says("{\"type\":\"integer\"}", "\"5\"",
         "at the top level: expected integer, found the string \"5\"");
    says("{\"type\":[\"integer\",\"null\"]}", "1.5",
         "at the top level: expected null or integer, found the number 1.5");
    says("{\"properties\":{\"unit\":{\"enum\":[\"celsius\",\"fahrenheit\"]}}}",
         "{\"unit\":\"kelvin\"}",
         "at /unit: \"kelvin\" is not one of the allowed values: \"celsius\", \"fahrenheit\"");
    says("{\"properties\":{\"v\":{\"const\":2}}}", "{\"v\":3}", "at /v: 3 must be 2");
    says("{\"required\":[\"path\"]}", "{}", "at the top level: missing required property \"path\"");
    says("{\"required\":[\"a\",\"b\",\"c\"]}", "{\"b\":1}",
         "at the top level: missing required properties \"a\", \"c\"");
    says("{\"properties\":{\"path\":true,\"mode\":true},\"additionalProperties\":false}",
         "{\"file\":1,\"path\":2,\"m~/\":3}",
         "at the top level: unknown properties \"file\", \"m~/\"; allowed: \"path\", \"mode\"");
    says("{\"properties\":{\"a/b~c\":{\"additionalProperties\":false}}}", "{\"a/b~c\":{\"x\":1}}",
         "at /a~1b~0c: unknown property \"x\"; allowed: (none)");
    says("{\"minLength\":3}", "\"\xc3\xa9\"",
         "at the top level: \"\xc3\xa9\" has 1 characters, fewer than the minimum of 3");
    says("{\"maxLength\":1}", "\"ab\"",
         "at the top level: \"ab\" has 2 characters, more than the maximum of 1");
    says("{\"pattern\":\"^a+$\"}", "\"b\"",
         "at the top level: \"b\" does not match the pattern ^a+$");
    says("{\"minItems\":1}", "[]", "at the top level: has 0 items, fewer than the minimum of 1");
    says("{\"uniqueItems\":true}", "[3,{\"a\":1,\"b\":2},1,{\"b\":2.0,\"a\":1}]",
         "at the top level: items 1 and 3 are equal, all must differ");
    says("{\"contains\":{\"const\":1},\"minContains\":2}", "[1,2]",
         "at the top level: 1 items are as \"contains\" asks, fewer than the minimum of 2");
    says("{\"maxProperties\":1}", "{\"a\":1,\"b\":2}",
         "at the top level: has 2 properties, more than the maximum of 1");
    says("{\"dependentRequired\":{\"a\":[\"b\"]}}", "{\"a\":1}",
         "at the top level: the presence of \"a\" requires \"b\" as well");
    says(
        "{\"propertyNames\":{\"maxLength\":2}}", "{\"abc\":1}",
        "the name of a property is wrong: at /abc: \"abc\" has 3 characters, more than the maximum "
        "of 2");
    says("{\"not\":{\"type\":\"null\"}}", "null",
         "at the top level: null has the form that \"not\" forbids");
    says("false", "1", "at the top level: 1 is not allowed here");
}

static void alternatives_are_explained_by_the_nearest(void **state)
{
    says("{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "5",
         "at the top level: expected null or string, found the integer 5");
    says("{\"oneOf\":[{\"type\":\"integer\"},{\"minimum\":2}]}", "3",
         "at the top level: 3 fits both alternative 1 and 2 of oneOf; exactly one may fit");
    static const char shapes[] =
        "{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"circle\"},\"r\":{"
        "\"type\":"
        "\"number\"}},\"required\":[\"kind\",\"r\"]},{\"type\":\"object\",\"properties\":{\"kind\":"
        "{\"const\":\"box\"},\"w\":{\"type\":\"number\"}},\"required\":[\"kind\",\"w\"]}]}";
    says(
        shapes, "{\"kind\":\"box\"}",
        "none of the 2 oneOf alternatives fits; the nearest is number 2: at the top level: missing "
        "required property \"w\"");
    says(shapes, "{\"kind\":\"circle\",\"r\":\"1\"}",
         "none of the 2 oneOf alternatives fits; the nearest is number 1: at /r: expected number, "
         "found the string \"1\"");
    says(
        "{\"anyOf\":[{\"type\":\"string\"},{\"items\":{\"type\":\"integer\"},\"type\":\"array\"}]}",
        "[1,\"x\"]",
        "none of the 2 anyOf alternatives fits; the nearest is number 2: at /1: expected integer, "
        "found the string \"x\"");
}

static void long_values_and_lists_are_cut(void **state)
{
    weft_buffer schema = WEFT_BUFFER_INIT, value = WEFT_BUFFER_INIT;
    weft_buffer_puts(&schema, "{\"enum\":[0");
    for (int i = 0; i < 500; i++) weft_buffer_printf(&schema, ",\"value number %d\"", i);
    weft_buffer_puts(&schema, "]}");
    weft_buffer_putc(&value, '"');
    for (int i = 0; i < 500; i++) weft_buffer_puts(&value, "\xc3\xa9");
    weft_buffer_putc(&value, '"');
    weft_schema *s = schema_of(weft_buffer_str(&schema));
    cJSON *v = json(weft_buffer_str(&value));
    weft_error err;
    assert_int_equal(weft_schema_check(s, v, &err), WEFT_E_INVALID);
    assert_true(strlen(err.message) < 800);
    assert_non_null(strstr(err.message, "..."));
    assert_non_null(strstr(err.message, "more"));
    assert_int_equal(weft_utf8_valid(err.message, strlen(err.message)), strlen(err.message));
    cJSON_Delete(v);
    weft_schema_free(s);
    weft_buffer_free(&schema);
    weft_buffer_free(&value);
}

/* ---- numbers ---- */

static void numbers_are_exact(void **state)
{
    static const struct {
        const char *schema, *value;
        bool valid;
    } rows[] = {
        {"{\"type\":\"integer\"}", "1.0", true},
        {"{\"type\":\"integer\"}", "1e300", true},
        {"{\"type\":\"integer\"}", "1.5e1", true},
        {"{\"type\":\"integer\"}", "1.05e1", false},
        {"{\"type\":\"integer\"}", "100000000000000000000000000000000.5", false},
        {"{\"const\":9007199254740993}", "9007199254740992", false},
        {"{\"const\":9007199254740993}", "9007199254740993.0", true},
        {"{\"maximum\":9007199254740992}", "9007199254740993", false},
        {"{\"maximum\":0.1}", "0.1000000000000000000000000000001", false},
        {"{\"minimum\":-1e400}", "-1e401", false},
        {"{\"minimum\":-1e400}", "-1e399", true},
        {"{\"exclusiveMinimum\":0}", "1e-999", true},
        {"{\"const\":0}", "-0.0", true},
        {"{\"const\":100}", "1E+2", true},
        {"{\"const\":1}", "true", false},
        {"{\"multipleOf\":0.01}", "4.02", true},
        {"{\"multipleOf\":0.01}", "4.025", false},
        {"{\"multipleOf\":0.0001}", "0.0075", true},
        {"{\"multipleOf\":0.123456789}", "1e308", false},
        {"{\"multipleOf\":1e-8}", "12391239123", true},
        {"{\"multipleOf\":3}", "1e1000000000000", false},
        {"{\"multipleOf\":4}", "1e1000000000000", true},
        {"{\"multipleOf\":1e400}", "3e400", true},
        {"{\"multipleOf\":7}", "123456789012345678901234567890123456789", false},
        {"{\"multipleOf\":3}", "123456789012345678901234567890123456789", true},
        {"{\"minLength\":2.0}", "\"a\"", false},
        {"{\"maxItems\":1e99}", "[1]", true},
        {"{\"enum\":[[1.0,{\"a\":2}]]}", "[1,{\"a\":2.00}]", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        weft_schema *s = schema_of(rows[i].schema);
        cJSON *v = json(rows[i].value);
        weft_error err;
        if ((weft_schema_check(s, v, &err) == WEFT_OK) != rows[i].valid)
            fail_msg("%s %s", rows[i].schema, rows[i].value);
        cJSON_Delete(v);
        weft_schema_free(s);
    }
}

/* Trees that weft_json_parse did not make have no source texts, and may hold what is no JSON. */
static void trees_built_by_hand(void **state)
{
    weft_schema *s = schema_of("{\"type\":\"integer\",\"multipleOf\":10}");
    weft_error err;
    cJSON *v = cJSON_CreateNumber(30);
    assert_int_equal(weft_schema_check(s, v, &err), WEFT_OK);
    cJSON_Delete(v);
    v = cJSON_CreateNumber(30.5);
    assert_int_equal(weft_schema_check(s, v, &err), WEFT_E_INVALID);
    cJSON_Delete(v);
    weft_schema *any = schema_of("true");
    v = cJSON_CreateNumber(1e308 * 10);
    assert_int_equal(weft_schema_check(any, v, &err), WEFT_E_INVALID);
    cJSON_Delete(v);
    v = cJSON_CreateRaw("1");
    assert_int_equal(weft_schema_check(any, v, &err), WEFT_E_INVALID);
    cJSON_Delete(v);
    v = cJSON_CreateArray();
    for (int i = 0; i < 500; i++) {
        cJSON *outer = cJSON_CreateArray();
        cJSON_AddItemToArray(outer, v);
        v = outer;
    }
    assert_int_equal(weft_schema_check(any, v, &err), WEFT_E_INVALID);
    weft_schema *none = NULL;
    assert_int_equal(weft_schema_compile(v, &none, &err), WEFT_E_INVALID);
    assert_null(none);
    cJSON_Delete(v);
    weft_schema_free(any);
    weft_schema_free(s);
}

/* ---- bounds ---- */

static void work_is_bounded(void **state)
{
    weft_error err;
    weft_schema *s = schema_of("{\"pattern\":\"^(a+)+$\"}");
    cJSON *v = json("\"aaaaaaaaaaaaaaaaaaab\"");
    assert_int_equal(weft_schema_check(s, v, &err), WEFT_E_LIMIT);
    assert_non_null(strstr(err.message, "(a+)+"));
    cJSON_Delete(v);
    weft_schema_free(s);

    weft_buffer text = WEFT_BUFFER_INIT; /* 2^40 paths */
    weft_buffer_puts(&text, "{\"$ref\":\"#/$defs/a0\",\"$defs\":{");
    for (int i = 0; i < 40; i++)
        weft_buffer_printf(&text,
                           "\"a%d\":{\"allOf\":[{\"$ref\":\"#/$defs/a%d\"},"
                           "{\"$ref\":\"#/$defs/a%d\"}]},",
                           i, i + 1, i + 1);
    weft_buffer_puts(&text, "\"a40\":{\"type\":\"integer\"}}}");
    s = schema_of(weft_buffer_str(&text));
    v = json("1");
    assert_int_equal(weft_schema_check(s, v, &err), WEFT_E_LIMIT);
    weft_grammar *g = NULL; /* conjunctions hold each node once */
    assert_int_equal(weft_grammar_of_schema(s, &g, &err), WEFT_OK);
    assert_true(grammar_accepts(g, "12"));
    weft_grammar_free(g);
    cJSON_Delete(v);
    weft_schema_free(s);

    weft_buffer_clear(&text); /* 190 levels of value times 30 of schema */
    weft_buffer_puts(&text, "{\"$ref\":\"#/$defs/a0\",\"$defs\":{");
    for (int i = 0; i < 30; i++)
        weft_buffer_printf(&text, "\"a%d\":{\"$ref\":\"#/$defs/a%d\"},", i, i + 1);
    weft_buffer_puts(&text, "\"a30\":{\"items\":{\"$ref\":\"#/$defs/a0\"}}}}");
    s = schema_of(weft_buffer_str(&text));
    weft_buffer_clear(&text);
    for (int i = 0; i < 190; i++) weft_buffer_putc(&text, '[');
    for (int i = 0; i < 190; i++) weft_buffer_putc(&text, ']');
    v = json(weft_buffer_str(&text));
    assert_int_equal(weft_schema_check(s, v, &err), WEFT_E_LIMIT);
    cJSON_Delete(v);
    weft_schema_free(s);
    weft_buffer_free(&text);
}

static void refuses(const char *text, const char *part)
{
    cJSON *source = json(text);
    weft_schema *schema = NULL;
    weft_error err = {0};
    weft_status status = weft_schema_compile(source, &schema, &err);
    if (status != WEFT_E_INVALID) fail_msg("compiled: %.200s", text);
    if (!strstr(err.message, part))
        fail_msg("%.200s\n  says %s\n  without %s", text, err.message, part);
    if (strncmp(err.message, "schema", 6) != 0) fail_msg("%s", err.message);
    assert_null(schema);
    cJSON_Delete(source);
}

static void too_many_and_too_deep(void **state)
{
    weft_buffer text = WEFT_BUFFER_INIT;
    weft_buffer_puts(&text, "{\"prefixItems\":[true");
    for (int i = 0; i < 10000; i++) weft_buffer_puts(&text, ",true");
    weft_buffer_puts(&text, "]}");
    refuses(weft_buffer_str(&text), "more than 10000 subschemas");
    weft_buffer_clear(&text);
    weft_buffer_puts(&text, "{\"$defs\":{");
    for (int i = 0; i < 300; i++)
        weft_buffer_printf(&text, "\"a%d\":{\"$ref\":\"#/$defs/a%d\"},", i, i + 1);
    weft_buffer_puts(&text, "\"a300\":true}}");
    refuses(weft_buffer_str(&text), "more than 200 $ref");
    weft_buffer_clear(&text); /* the same, met from its far end */
    weft_buffer_puts(&text, "{\"$defs\":{\"a300\":true");
    for (int i = 299; i >= 0; i--)
        weft_buffer_printf(&text, ",\"a%d\":{\"$ref\":\"#/$defs/a%d\"}", i, i + 1);
    weft_buffer_puts(&text, "}}");
    refuses(weft_buffer_str(&text), "more than 200 $ref");
    weft_buffer_free(&text);
}

/* ---- malformed schemas: text, and what the message must hold ---- */

static const char *const MALFORMED[][2] = {
    {"1", "the top level: a schema must be an object or a boolean"},
    {"\"string\"", "a schema must be an object or a boolean"},
    {"null", "a schema must be an object or a boolean"},
    {"[]", "a schema must be an object or a boolean"},
    {"{\"type\":\"text\"}", "/type: must be one of null"},
    {"{\"type\":\"Integer\"}", "/type"},
    {"{\"type\":1}", "/type"},
    {"{\"type\":null}", "/type"},
    {"{\"type\":{}}", "/type"},
    {"{\"type\":[]}", "/type"},
    {"{\"type\":[\"string\",\"text\"]}", "/type"},
    {"{\"type\":[\"string\",1]}", "/type"},
    {"{\"type\":[\"null\",\"null\"]}", "lists \"null\" twice"},
    {"{\"enum\":1}", "/enum: must be an array"},
    {"{\"enum\":{\"a\":1}}", "/enum"},
    {"{\"minimum\":\"1\"}", "/minimum: must be a number, is \"1\""},
    {"{\"maximum\":null}", "/maximum"},
    {"{\"minimum\":[]}", "/minimum"},
    {"{\"exclusiveMinimum\":true}", "draft-04"},
    {"{\"exclusiveMaximum\":false}", "draft-04"},
    {"{\"exclusiveMaximum\":\"x\"}", "/exclusiveMaximum"},
    {"{\"multipleOf\":0}", "/multipleOf: must be a number above 0, is 0"},
    {"{\"multipleOf\":-0.0}", "/multipleOf"},
    {"{\"multipleOf\":-2}", "/multipleOf"},
    {"{\"multipleOf\":\"2\"}", "/multipleOf"},
    {"{\"minLength\":-1}", "/minLength: must be a non-negative integer, is -1"},
    {"{\"minLength\":1.5}", "/minLength"},
    {"{\"maxLength\":\"5\"}", "/maxLength"},
    {"{\"maxLength\":null}", "/maxLength"},
    {"{\"minItems\":-1}", "/minItems"},
    {"{\"maxItems\":[]}", "/maxItems"},
    {"{\"minItems\":true}", "/minItems"},
    {"{\"minContains\":0.5}", "/minContains"},
    {"{\"maxContains\":{}}", "/maxContains"},
    {"{\"minProperties\":\"0\"}", "/minProperties"},
    {"{\"maxProperties\":-5}", "/maxProperties"},
    {"{\"uniqueItems\":1}", "/uniqueItems: must be true or false"},
    {"{\"uniqueItems\":\"true\"}", "/uniqueItems"},
    {"{\"pattern\":1}", "/pattern: must be a regular expression"},
    {"{\"pattern\":\"(\"}", "/pattern: \"(\" is no regular expression"},
    {"{\"pattern\":\"[a\"}", "is no regular expression"},
    {"{\"pattern\":\"*a\"}", "is no regular expression"},
    {"{\"pattern\":\"a{2,1}\"}", "is no regular expression"},
    {"{\"pattern\":\"\\\\p{Nonsense}\"}", "is no regular expression"},
    {"{\"pattern\":\"(?<n>a)(?<n>b)\"}", "is no regular expression"},
    {"{\"pattern\":\"\\\\C\"}", "is no regular expression"},
    {"{\"patternProperties\":{\"(\":true}}", "/patternProperties: \"(\" is no regular expression"},
    {"{\"patternProperties\":{\"a\":1}}", "/patternProperties/a: a schema must be"},
    {"{\"patternProperties\":[]}", "/patternProperties"},
    {"{\"properties\":[]}", "/properties: must be an object of schemas"},
    {"{\"properties\":{\"a\":1}}", "/properties/a: a schema must be"},
    {"{\"properties\":{\"a/b\":{\"type\":7}}}", "/properties/a~1b/type"},
    {"{\"properties\":{\"a\":{\"required\":true}}}", "/properties/a/required: must be an array"},
    {"{\"properties\":null}", "/properties"},
    {"{\"required\":\"a\"}", "/required"},
    {"{\"required\":[1]}", "/required"},
    {"{\"required\":[\"a\",\"b\",\"a\"]}", "lists \"a\" twice"},
    {"{\"required\":{}}", "/required"},
    {"{\"additionalProperties\":\"no\"}", "/additionalProperties: a schema must be"},
    {"{\"additionalProperties\":null}", "/additionalProperties"},
    {"{\"propertyNames\":3}", "/propertyNames"},
    {"{\"dependentRequired\":[]}", "/dependentRequired"},
    {"{\"dependentRequired\":{\"a\":\"b\"}}", "/dependentRequired"},
    {"{\"dependentRequired\":{\"a\":[\"b\",\"b\"]}}", "lists \"b\" twice"},
    {"{\"dependentRequired\":{\"a\":{}}}", "/dependentRequired"},
    {"{\"dependentSchemas\":{\"a\":[\"b\"]}}", "/dependentSchemas/a: a schema must be"},
    {"{\"dependencies\":{\"a\":[1]}}", "/dependencies"},
    {"{\"dependencies\":{\"a\":1}}", "/dependencies/a"},
    {"{\"items\":1}", "/items: a schema must be"},
    {"{\"items\":[]}", "/items"},
    {"{\"items\":[1]}", "/items/0"},
    {"{\"items\":[true],\"prefixItems\":[true]}", "/items: must be a schema beside prefixItems"},
    {"{\"additionalItems\":false}",
     "/additionalItems: has a meaning only beside items as an array"},
    {"{\"items\":{},\"additionalItems\":false}", "/additionalItems"},
    {"{\"prefixItems\":{}}", "/prefixItems"},
    {"{\"prefixItems\":[]}", "/prefixItems"},
    {"{\"prefixItems\":[true,2]}", "/prefixItems/1"},
    {"{\"contains\":\"x\"}", "/contains"},
    {"{\"anyOf\":[]}", "/anyOf: must be a non-empty array of schemas"},
    {"{\"anyOf\":{}}", "/anyOf"},
    {"{\"oneOf\":[1]}", "/oneOf/0"},
    {"{\"oneOf\":\"a\"}", "/oneOf"},
    {"{\"allOf\":[]}", "/allOf"},
    {"{\"allOf\":[{\"allOf\":[{\"minLength\":\"\"}]}]}", "/allOf/0/allOf/0/minLength"},
    {"{\"not\":[]}", "/not"},
    {"{\"if\":1}", "/if"},
    {"{\"then\":1}", "/then"},
    {"{\"else\":[]}", "/else"},
    {"{\"$ref\":1}", "/$ref: must be a string"},
    {"{\"$ref\":\"#/$defs/a\"}", "/$ref: \"#/$defs/a\" points at no schema"},
    {"{\"$ref\":\"#a\"}", "names no $anchor"},
    {"{\"$ref\":\"#/enum/0\",\"enum\":[{}]}", "points at no schema"},
    {"{\"$ref\":\"#/$defs\",\"$defs\":{}}", "points at no schema"},
    {"{\"$ref\":\"#/prefixItems/01\",\"prefixItems\":[true,true]}", "points at no schema"},
    {"{\"$ref\":\"#/prefixItems/9999999\",\"prefixItems\":[true]}", "points at no schema"},
    {"{\"$ref\":\"#/$defs/%4\",\"$defs\":{\"%4\":true}}", "broken %-escape"},
    {"{\"$ref\":\"#/$defs/%00\",\"$defs\":{\"\":true}}", "broken %-escape"},
    {"{\"$ref\":\"#/$defs/~2\",\"$defs\":{\"~2\":true}}", "points at no schema"},
    {"{\"$ref\":\"other.json\"}", "lies outside this document"},
    {"{\"$ref\":\"https://example.com/s.json#/a\"}", "nothing is fetched"},
    {"{\"$ref\":\"file:///etc/passwd\"}", "lies outside this document"},
    {"{\"$ref\":\"#\"}", "a loop of references"},
    {"{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},\"b\":{\"$ref\":\"#/$defs/"
     "a\"}}}",
     "a loop of references"},
    {"{\"anyOf\":[{\"type\":\"null\"},{\"allOf\":[{\"$ref\":\"#\"}]}]}", "a loop of references"},
    {"{\"not\":{\"$ref\":\"#\"}}", "a loop of references"},
    {"{\"if\":true,\"then\":{\"$ref\":\"#\"}}", "a loop of references"},
    {"{\"dependentSchemas\":{\"a\":{\"$ref\":\"#\"}}}", "a loop of references"},
    {"{\"$anchor\":\"1a\"}", "/$anchor: must be a plain name"},
    {"{\"$anchor\":\"\"}", "/$anchor"},
    {"{\"$anchor\":3}", "/$anchor"},
    {"{\"$anchor\":\"a\",\"not\":{\"$anchor\":\"a\"}}", "names two schemas"},
    {"{\"$id\":1}", "/$id"},
    {"{\"$id\":\"#a\"}", "/$id: must be a URI reference without a fragment"},
    {"{\"$defs\":{\"a\":{\"$id\":\"x:y\"},\"b\":{\"$id\":\"x:y\"}}}", "names two schemas"},
    {"{\"$defs\":[]}", "/$defs"},
    {"{\"$defs\":{\"a\":1}}", "/$defs/a"},
    {"{\"definitions\":1}", "/definitions"},
    {"{\"$schema\":1}", "/$schema"},
    {"{\"$schema\":\"http://json-schema.org/draft-04/schema#\"}", "known draft"},
    {"{\"title\":1}", "/title: must be string, is 1"},
    {"{\"description\":[]}", "/description"},
    {"{\"$comment\":{}}", "/$comment"},
    {"{\"format\":1}", "/format"},
    {"{\"examples\":\"a\"}", "/examples: must be array"},
    {"{\"deprecated\":1}", "/deprecated: must be boolean"},
    {"{\"readOnly\":\"yes\"}", "/readOnly"},
    {"{\"writeOnly\":null}", "/writeOnly"},
    {"{\"contentEncoding\":64}", "/contentEncoding"},
    {"{\"contentSchema\":1}", "/contentSchema"},
    {"{\"unevaluatedProperties\":false}", "/unevaluatedProperties: this keyword is not supported"},
    {"{\"unevaluatedItems\":true}", "not supported"},
    {"{\"$dynamicRef\":\"#a\"}", "not supported"},
    {"{\"$dynamicAnchor\":\"a\"}", "not supported"},
    {"{\"$vocabulary\":{}}", "not supported"},
    {"{\"nullable\":true}", "/nullable: this keyword is not supported"},
    {"{\"properties\":{\"a\":{\"optional\":true}}}", "/properties/a/optional"},
    {"{\"Type\":\"string\"}", "/Type"},
    {"{\"\":1}", "not supported"},
};
enum { N_MALFORMED = sizeof MALFORMED / sizeof *MALFORMED };

static void malformed_schemas_are_refused_with_their_place(void **state)
{
    assert_true(N_MALFORMED >= 100);
    for (size_t i = 0; i < N_MALFORMED; i++) refuses(MALFORMED[i][0], MALFORMED[i][1]);
}

static void references_inside_the_document(void **state)
{
    says("{\"$defs\":{\"n\":{\"$anchor\":\"num\",\"type\":\"number\"}},\"items\":{\"$ref\":\"#"
         "num\"}}",
         "[1]", NULL);
    says("{\"$id\":\"http://x/a/b.json\",\"$defs\":{\"n\":{\"$id\":\"../"
         "c.json\",\"type\":\"null\"}},"
         "\"items\":{\"$ref\":\"/c.json\"}}",
         "[1]", "at /0: expected null, found the integer 1");
    says("{\"definitions\":{\"a "
         "b%\":{\"type\":\"null\"}},\"items\":{\"$ref\":\"#/definitions/a%20b%25\"}}",
         "[1]", "at /0: expected null, found the integer 1");
    says("{\"items\":[{\"type\":\"null\"}],\"additionalItems\":false}", "[null,1]",
         "at /1: 1 is not allowed here");
    /* inside a resource of its own, '#' is that resource */
    says("{\"$defs\":{\"r\":{\"$id\":\"r.json\",\"$defs\":{\"x\":{\"type\":\"null\"}},\"items\":{"
         "\"$ref\":"
         "\"#/$defs/x\"}},\"x\":{\"type\":\"string\"}},\"$ref\":\"r.json\"}",
         "[1]", "at /0: expected null, found the integer 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_name_the_place_and_the_cure),
        cmocka_unit_test(alternatives_are_explained_by_the_nearest),
        cmocka_unit_test(long_values_and_lists_are_cut),
        cmocka_unit_test(numbers_are_exact),
        cmocka_unit_test(trees_built_by_hand),
        cmocka_unit_test(work_is_bounded),
        cmocka_unit_test(too_many_and_too_deep),
        cmocka_unit_test(malformed_schemas_are_refused_with_their_place),
        cmocka_unit_test(references_inside_the_document),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
