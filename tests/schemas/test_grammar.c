/* Grammars, text by text: what each kind of schema lets through and what it stops. */
#include "tests/schemas/support.h"

#include <stdio.h>

/* Each row: a schema, then texts; those after NULL must be refused. */
static void table(const char *schema, const char *const *texts)
{
    weft_grammar *g = grammar_of(schema);
    bool wanted = true;
    for (; *texts || wanted; texts++) {
        if (!*texts) {
            wanted = false;
            continue;
        }
        if (grammar_accepts(g, *texts) != wanted)
            fail_msg("%s %s %s", schema, wanted ? "stops" : "lets through", *texts);
    }
    weft_grammar_free(g);
}

#define TABLE(schema, ...) table(schema, (const char *const[]){__VA_ARGS__, NULL})

static void scalars(void **state)
{
    TABLE("{\"type\":\"integer\"}", "0", "-0", "7", "-12", "123456789012345678901234567890", NULL,
          "", "-", "01", "1.0", "1e3", "+1", "\"1\"", " 1", "1 ", "true");
    TABLE("{\"type\":\"number\"}", "0", "-1.5", "1e5", "2E-7", "0.10", "3e+9", NULL, "1.", ".5",
          "1e", "1e+", "--1", "0x1", "NaN", "00");
    TABLE("{\"type\":\"number\",\"minimum\":0}", "0", "1.5", NULL, "-1", "-0");
    TABLE("{\"type\":\"integer\",\"minimum\":-2,\"exclusiveMaximum\":11}", "-2", "-1", "0", "1",
          "10", NULL, "-3", "11", "100", "-", "-0", "00");
    TABLE("{\"type\":\"integer\",\"minimum\":0,\"maximum\":100,\"multipleOf\":25}", "0", "25",
          "100", NULL, "1", "10", "125");
    TABLE("{\"type\":\"boolean\"}", "true", "false", NULL, "tru", "truee", "True", "null");
    TABLE("{\"type\":\"null\"}", "null", NULL, "nul", "nulll", "0");
    TABLE("{\"type\":[\"integer\",\"null\"]}", "null", "5", NULL, "\"a\"", "5.5");
    TABLE("true", "1", "\"a\"", "[]", "{}", "[1, {\"a\":null}]", NULL, "[1,]", "{\"a\"}");
}

static void strings(void **state)
{
    TABLE("{\"type\":\"string\"}", "\"\"", "\"a b\"", "\"\\n\\u00e9\\\"\\/\"", "\"\xc3\xa9\"",
          "\"\xf0\x9f\x98\x80\"", "\"\\ud83d\\uDE00\"", "\"\x7f\"", NULL, "\"", "\"a", "\"\n\"",
          "\"\\x\"", "\"\\u12\"", "\"\\ud83d\"", "\"\\ude00\"", "\"\\u0000\"", "\"\xc0\x80\"",
          "\"\xed\xa0\x80\"", "\"\xff\"", "\"\xf4\x90\x80\x80\"", "\"a\"b", "'a'");
    TABLE("{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}", "\"ab\"", "\"abc\"",
          "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", "\"\\ud83d\\ude00\\n\"", "\"\\u0041bc\"",
          NULL, "\"\"", "\"a\"", "\"abcd\"", "\"\xf0\x9f\x98\x80\"", "\"\\n\\n\\n\\n\"");
    TABLE("{\"type\":\"string\",\"maxLength\":0}", "\"\"", NULL, "\"a\"");
    TABLE("{\"enum\":[\"a\",\"ab\",\"abc\",\"\xc3\xa9\",\"x\\ny\"]}", "\"a\"", "\"ab\"", "\"abc\"",
          "\"\xc3\xa9\"", "\"x\\ny\"", NULL, "\"\"", "\"abcd\"", "\"b\"", "\"\xc3\xa8\"",
          "\"\\u0061\"");
    TABLE("{\"enum\":[1,12,1.50,true,null,\"1\",[1,\"a\"],{\"k\":[]}]}", "1", "12", "1.50", "1.5",
          "1.0", "true", "null", "\"1\"", "[1, \"a\"]", "[1,\"a\"]", "{\"k\": []}", NULL, "2", "13",
          "1.500", "1.", "[1]", "[1,\"a\",1]", "{}", "{\"k\":[1]}", "false", "\"12\"");
    TABLE("{\"anyOf\":[{\"const\":\"auto\"},{\"type\":\"string\",\"minLength\":6}]}", "\"auto\"",
          "\"automatic\"", "\"abcdef\"", NULL, "\"autos\"", "\"abc\"");
    TABLE("{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"string\",\"maxLength\":2}]}", "\"\"",
          "\"abc\"", NULL, "1");
    TABLE("{\"anyOf\":[{\"enum\":[\"north\",\"no\"]},{\"enum\":[\"none\",\"yes\"]}]}", "\"north\"",
          "\"no\"", "\"none\"", "\"yes\"", NULL, "\"n\"", "\"nor\"", "\"nones\"");
}

static const char PERSON[] =
    "{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"integer\"},\"name\":{\"type\":"
    "\"string\"},"
    "\"nick\":{\"type\":\"string\"},\"tags\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}}},"
    "\"required\":[\"name\"],\"additionalProperties\":false}";

static void objects(void **state)
{
    TABLE(PERSON, "{\"name\":\"x\"}", "{\"id\": 1, \"name\": \"x\"}",
          "{\"id\":1,\"name\":\"x\",\"nick\":\"y\",\"tags\":[\"a\", \"b\"]}",
          "{\"name\":\"x\",\"tags\":[]}",
          "{\n  \"id\": 1,\n  \"name\": \"x\",\n  \"tags\": [\n    \"a\",\n    \"b\"\n  ]\n}",
          "{\n\"name\":\"x\"\n}", NULL, "{}", "{\"id\":1}", "{\"id\":1,}", "{\"name\":\"x\",}",
          "{\"name\":\"x\",\"id\":1}", "{\"name\":\"x\",\"other\":1}", "{ \"name\":\"x\"}",
          "{\"name\" :\"x\"}", "{\"name\":  \"x\"}", "{\"name\":\n\"x\"}", "{\"name\":\"x\" }",
          "{\"name\":\"x\"} ", "{\"name\":\"x\"}\n", "{\n\n\"name\":\"x\"}", "{\"name\":\"x\"\n,",
          "{\"nam\":\"x\"}", "{\"namee\":\"x\"}", "{\"name\":1}");
    TABLE("{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"ab\":{\"type\":"
          "\"null\"}}}",
          "{}", "{\"a\":1}", "{\"ab\":null}", "{\"a\":1,\"ab\":null}", "{\"a\":1,\"zz\":[1]}",
          "{\"abc\":true}", "{\"\":0}", "{\"b\":1, \"c\": \"d\"}", "{\"x\\n\\u0041\":1}",
          "{\"a\\\"\":1}", NULL, "{\"a\":\"s\"}", "{\"ab\":1}", "{\"ab\":null,\"a\":1}",
          "{\"zz\":1,\"a\":1}", "{\"zz\":1,\"ab\":1}", "{\"\\u0061\":\"s\"}", "{\"zz\"}");
    TABLE("{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}", "{}",
          "{\"a\":1,\"b\":2}", NULL, "{\"a\":\"b\"}");
    TABLE("{\"type\":\"object\",\"required\":[\"k\"],\"additionalProperties\":{\"type\":"
          "\"integer\"}}",
          "{\"k\":1}", "{\"k\":1,\"l\":2}", NULL, "{}", "{\"l\":2}", "{\"k\":null}");
    TABLE("{\"type\":\"object\",\"properties\":{\"no\":false,\"yes\":true},"
          "\"additionalProperties\":false}",
          "{}", "{\"yes\":1}", NULL, "{\"no\":1}", "{\"n");
    TABLE("{\"type\":\"object\",\"patternProperties\":{\"^s_\":{\"type\":\"string\"}},"
          "\"properties\":{\"s_a\":{\"minLength\":1}},\"additionalProperties\":false}",
          "{}", "{\"s_a\":\"x\"}", "{\"s_b\":\"\"}", NULL, "{\"s_a\":1}", "{\"s_a\":\"\"}",
          "{\"s_b\":1}");
}

static void arrays(void **state)
{
    TABLE("{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":3}",
          "[1]", "[1,2]", "[1, 2, 3]", "[\n  1,\n  2\n]", NULL, "[]", "[1,2,3,4]", "[\"a\"]",
          "[1,]", "[,1]", "[1 ]", "[1\n,2]");
    TABLE("{\"type\":\"array\",\"prefixItems\":[{\"type\":\"string\"},{\"type\":\"null\"}],"
          "\"items\":{\"type\":\"integer\"}}",
          "[]", "[\"a\"]", "[\"a\",null]", "[\"a\",null,1,2,3]", NULL, "[null]", "[\"a\",1]",
          "[\"a\",null,\"b\"]");
    TABLE("{\"type\":\"array\",\"prefixItems\":[{\"type\":\"string\"},true],\"items\":false,"
          "\"minItems\":1}",
          "[\"a\"]", "[\"a\",[[]]]", NULL, "[]", "[\"a\",1,2]");
    TABLE("{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},false,true]}", "[]", "[1]",
          NULL, "[1,2]", "[1,2,3]");
    TABLE("{\"type\":\"array\",\"items\":false}", "[]", "[\n]", NULL, "[1]", "[\"");
    TABLE("{\"type\":\"array\",\"minItems\":70,\"items\":{\"const\":0}}", NULL, "[]", "[0,0]");
}

static void unions(void **state)
{
    TABLE("{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"circle\"},"
          "\"r\":{\"type\":\"number\"}},\"required\":[\"kind\",\"r\"],\"additionalProperties\":"
          "false},"
          "{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"cube\"},"
          "\"side\":{\"type\":\"integer\"}},\"required\":[\"kind\",\"side\"],"
          "\"additionalProperties\":false}]}",
          "{\"kind\":\"circle\",\"r\":1.5}", "{\"kind\": \"cube\", \"side\": 2}", NULL,
          "{\"kind\":\"circle\",\"side\":2}", "{\"kind\":\"cube\",\"r\":2}", "{\"kind\":\"c\"}",
          "{\"kind\":\"cube\",\"side\":2.5}", "{\"r\":1}");
    TABLE("{\"anyOf\":[{\"type\":\"array\",\"items\":{\"type\":\"integer\"}},"
          "{\"type\":\"array\",\"items\":{\"type\":\"string\"}},{\"type\":\"integer\"}]}",
          "[]", "[1,2]", "[\"a\"]", "5", NULL, "[1,\"a\"]", "[\"a\",1]", "[null]", "5.5");
    TABLE("{\"anyOf\":[{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"array\",\"items\":"
          "{\"type\":\"object\",\"properties\":{\"t\":{\"const\":1}},\"required\":[\"t\"]}}},"
          "\"required\":[\"v\",\"x\"]},{\"type\":\"object\",\"properties\":{\"v\":{\"type\":"
          "\"array\","
          "\"items\":{\"type\":\"object\",\"properties\":{\"t\":{\"const\":2}},\"required\":[\"t\"]"
          "}}},"
          "\"required\":[\"v\",\"y\"]}]}",
          "{\"v\":[],\"x\":0}", "{\"v\":[],\"y\":0}", "{\"v\":[{\"t\":1},{\"t\":1}],\"x\":0}",
          "{\"v\":[{\"t\":2}],\"y\":0}", NULL, "{\"v\":[{\"t\":1}],\"y\":0}",
          "{\"v\":[{\"t\":1},{\"t\":2}]", "{\"v\":[{\"t\":2}],\"x\":0}");
    TABLE("{\"anyOf\":[{\"type\":\"number\"},{\"type\":\"integer\"}]}", "1", "1.5", NULL, "1.");
    TABLE(
        "{\"type\":\"object\",\"properties\":{\"a\":{\"anyOf\":[{\"type\":\"integer\"},{\"const\":"
        "\"none\"}]},\"b\":true},\"required\":[\"a\"],\"additionalProperties\":false}",
        "{\"a\":12,\"b\":null}", "{\"a\":\"none\"}", NULL, "{\"a\":\"nope\"}", "{\"a\":1.5}");
}

static void conjunctions(void **state)
{
    TABLE("{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},"
          "\"required\":[\"a\"]},{\"properties\":{\"a\":{\"minimum\":0},\"b\":{\"type\":\"null\"}},"
          "\"required\":[\"b\"]}]}",
          "{\"a\":1,\"b\":null}", "{\"a\":1,\"b\":null,\"c\":0}", NULL, "{\"a\":-1,\"b\":null}",
          "{\"a\":1}", "{\"b\":null}", "1");
    TABLE("{\"$ref\":\"#/$defs/"
          "base\",\"properties\":{\"x\":{\"enum\":[1,2,\"3\"]}},\"$defs\":{\"base\":"
          "{\"type\":\"object\",\"properties\":{\"x\":{\"type\":\"integer\"}}}}}",
          "{\"x\":1}", "{\"x\":2}", "{}", NULL, "{\"x\":\"3\"}", "{\"x\":3}", "[]");
    TABLE("{\"type\":\"integer\",\"anyOf\":[{\"minimum\":5,\"maximum\":7},{\"const\":-1}]}", "5",
          "7", "-1", NULL, "8", "1", "-2");
    TABLE("{\"enum\":[\"a\",\"bb\",\"ccc\"],\"not\":{\"const\":\"a\"},\"maxLength\":2}", "\"bb\"",
          NULL, "\"a\"", "\"ccc\"");
}

static const char TREE[] =
    "{\"$ref\":\"#/$defs/t\",\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":"
    "\"integer\"},\"kids\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
    "t\"}}},\"required\":[\"v\"],"
    "\"additionalProperties\":false}}}";

static void recursion(void **state)
{
    TABLE(TREE, "{\"v\":1}", "{\"v\":1,\"kids\":[{\"v\":2},{\"v\":3,\"kids\":[]}]}", NULL,
          "{\"v\":1,\"kids\":[1]}", "{\"v\":1,\"kids\":[{\"kids\":[]}]}");
    /* a list that must hold itself has no finite value; where it is optional, it is left out */
    TABLE(
        "{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#/$defs/l\"},\"b\":{\"type\":"
        "\"null\"}},\"additionalProperties\":false,\"$defs\":{\"l\":{\"type\":\"array\",\"items\":"
        "{\"$ref\":\"#/$defs/l\"},\"minItems\":1}}}",
        "{}", "{\"b\":null}", NULL, "{\"a", "{\"a\":[]}");
}

static void impossible_schemas_have_no_grammar(void **state)
{
    static const char *const none[] = {
        "false",
        "{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}",
        "{\"enum\":[1],\"type\":\"string\"}",
        "{\"type\":\"object\",\"properties\":{\"a\":false},\"required\":[\"a\"]}",
        "{\"type\":\"array\",\"items\":{\"$ref\":\"#\"},\"minItems\":1}",
        "{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}",
        "{\"type\":\"object\",\"required\":[\"a\"],\"additionalProperties\":false}",
        "{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        weft_schema *schema = schema_of(none[i]);
        weft_grammar *g = NULL;
        weft_error err;
        if (weft_grammar_of_schema(schema, &g, &err) != WEFT_E_INVALID) fail_msg("%s", none[i]);
        assert_null(g);
        weft_schema_free(schema);
    }
}

static void calls(void **state)
{
    const char *names[] = {"read", "read_all", "say \"hi\""};
    weft_schema *a =
        schema_of("{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\"}},"
                  "\"required\":[\"path\"],\"additionalProperties\":false}");
    weft_schema *b = schema_of("{\"properties\":{\"n\":{\"type\":\"integer\"}}}");
    const weft_schema *schemas[] = {a, b, NULL};
    static const char *const good[] = {
        "{\"name\": \"read\", \"arguments\": {\"path\": \"x\"}}",
        "{\"name\":\"read\",\"arguments\":{\"path\":\"x\"}}",
        "{\"name\": \"read_all\", \"arguments\": {}}",
        "{\"name\": \"read_all\", \"arguments\": {\"n\": 4}}",
        "{\"name\": \"say \\\"hi\\\"\", \"arguments\": {\"n\": \"any\"}}",
        "{\n  \"name\": \"read_all\",\n  \"arguments\": {\n    \"n\": 4\n  }\n}"};
    static const char *const bad[] = {"{\"name\": \"read\", \"arguments\": {}}",
                                      "{\"name\": \"read\", \"arguments\": {\"n\": 1}}",
                                      "{\"name\": \"read_all\", \"arguments\": {\"n\": \"x\"}}",
                                      "{\"name\": \"read_all\", \"arguments\": 1}",
                                      "{\"name\": \"say \\\"hi\\\"\", \"arguments\": []}",
                                      "{\"name\": \"rea\", \"arguments\": {}}",
                                      "{\"name\": \"write\"",
                                      "{\"arguments\": {}}",
                                      "{\"name\": \"read_all\"}",
                                      "{\"name\": \"read_all\", \"arguments\": {}, \"x\": 1}"};
    weft_grammar *g = NULL;
    weft_error err;
    assert_int_equal(weft_grammar_of_calls(names, schemas, 3, -1, &g, &err), WEFT_OK);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!grammar_accepts(g, good[i])) fail_msg("stops %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (grammar_accepts(g, bad[i])) fail_msg("lets through %s", bad[i]);
    weft_grammar_free(g);
    g = NULL;
    assert_int_equal(weft_grammar_of_calls(names, schemas, 3, 1, &g, &err), WEFT_OK);
    assert_true(grammar_accepts(g, good[3]));
    assert_false(grammar_accepts(g, good[0]));
    assert_false(grammar_accepts(g, good[4]));
    weft_grammar_free(g);
    g = NULL;
    assert_int_equal(weft_grammar_of_calls(names, schemas, 0, -1, &g, &err), WEFT_E_INVALID);
    assert_int_equal(weft_grammar_of_calls(names, schemas, 3, 3, &g, &err), WEFT_E_INVALID);
    weft_schema *text = schema_of("{\"type\":\"string\"}");
    schemas[1] = text;
    assert_int_equal(weft_grammar_of_calls(names, schemas, 3, -1, &g, &err), WEFT_E_INVALID);
    assert_non_null(strstr(err.message, "read_all"));
    assert_null(g);
    weft_schema_free(text);
    weft_schema_free(a);
    weft_schema_free(b);
}

static void depth_is_bounded_without_dead_ends(void **state)
{
    weft_grammar *g = grammar_of("true");
    weft_grammar_state s;
    weft_grammar_begin(g, &s);
    size_t opened = 0;
    while (weft_grammar_step(g, &s, '[')) opened++;
    assert_int_equal(opened, WEFT_GRAMMAR_DEPTH);
    assert_false(weft_grammar_step(g, &s, '1')); /* a frame too many, even for a number */
    for (size_t i = 0; i < opened; i++) assert_true(weft_grammar_step(g, &s, ']'));
    assert_true(weft_grammar_done(g, &s));
    weft_grammar_free(g);
    /* each level must be closed by two more: the machine stops in time */
    g = grammar_of(
        "{\"$ref\":\"#/$defs/n\",\"$defs\":{\"n\":{\"anyOf\":[{\"type\":\"array\",\"items\":"
        "{\"$ref\":\"#/$defs/n\"},\"minItems\":1},{\"const\":{\"end\":[[0]]}}]}}}");
    weft_grammar_begin(g, &s);
    opened = 0;
    while (weft_grammar_step(g, &s, '[')) opened++;
    assert_in_range(opened, 50, WEFT_GRAMMAR_DEPTH - 4);
    for (const char *c = "{\"end\":[[0]]}"; *c; c++)
        assert_true(weft_grammar_step(g, &s, (uint8_t)*c));
    for (size_t i = 0; i < opened; i++) assert_true(weft_grammar_step(g, &s, ']'));
    assert_true(weft_grammar_done(g, &s));
    weft_grammar_free(g);
    /* what must follow a member counts as well: 1 may not begin where [[[[0]]]] no longer fits */
    g = grammar_of(
        "{\"$ref\":\"#/$defs/l\",\"$defs\":{\"l\":{\"anyOf\":[{\"type\":\"array\",\"maxItems\":0},"
        "{\"type\":\"array\",\"prefixItems\":[{\"const\":1},{\"const\":[[[[0]]]]}],"
        "\"minItems\":2},{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/l\"},"
        "\"minItems\":1,\"maxItems\":1}]}}}");
    weft_grammar_begin(g, &s);
    for (int i = 0; i < 60; i++) {
        assert_true(weft_grammar_step(g, &s, '['));
        weft_grammar_state probe = s;
        assert_int_equal(weft_grammar_step(g, &probe, '1'), s.depth + 5 <= WEFT_GRAMMAR_DEPTH);
    }
    assert_true(weft_grammar_step(g, &s, ']'));
    weft_grammar_free(g);
}

static void blanks_are_bounded(void **state)
{
    weft_grammar *g =
        grammar_of("{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":3}}");
    weft_grammar_state s;
    weft_grammar_begin(g, &s);
    assert_true(weft_grammar_step(g, &s, '['));
    assert_true(weft_grammar_step(g, &s, '\n'));
    for (int i = 0; i < 64; i++) assert_true(weft_grammar_step(g, &s, ' '));
    assert_false(weft_grammar_step(g, &s, ' '));
    assert_false(weft_grammar_step(g, &s, '\n'));
    /* the indent must not count as characters of the string */
    for (const char *c = "\"abc\""; *c; c++) assert_true(weft_grammar_step(g, &s, (uint8_t)*c));
    assert_true(weft_grammar_step(g, &s, '\n'));
    assert_false(weft_grammar_step(g, &s, '\n'));
    assert_true(weft_grammar_step(g, &s, ']'));
    weft_grammar_free(g);
}

static void states_are_values(void **state)
{
    weft_grammar *g = grammar_of(PERSON);
    weft_grammar_state a, b, before;
    memset(&a, 0xaa, sizeof a);
    memset(&b, 0x55, sizeof b);
    weft_grammar_begin(g, &a);
    weft_grammar_begin(g, &b);
    for (const char *c = "{\"id\":1,\"name\":\"q"; *c; c++)
        assert_true(weft_grammar_step(g, &a, (uint8_t)*c));
    for (const char *c = "{\"name\":\"w"; *c; c++)
        assert_true(weft_grammar_step(g, &b, (uint8_t)*c));
    assert_true(weft_grammar_state_equal(&a, &b)); /* the same may follow */
    assert_true(weft_grammar_state_hash(&a) == weft_grammar_state_hash(&b));
    before = a;
    assert_false(weft_grammar_step(g, &a, '\n'));
    assert_memory_equal(&a, &before, sizeof a);
    assert_true(weft_grammar_step(g, &a, '\\'));
    assert_false(weft_grammar_state_equal(&a, &b));
    weft_grammar_free(g);
}

/* Too many states to tell the branches apart: the grammar gets looser, not wrong. */
static void a_large_union_is_loosened(void **state)
{
    weft_buffer text = WEFT_BUFFER_INIT;
    weft_buffer_puts(&text, "{\"type\":\"object\",\"properties\":{\"q\":{\"anyOf\":[");
    for (int i = 0; i < 24; i++) {
        weft_buffer_printf(&text, "%s{\"type\":\"object\",\"properties\":{", i ? "," : "");
        for (int j = 0; j < 24; j++)
            if (j != i)
                weft_buffer_printf(&text, "\"p%d\":{\"type\":\"%s\"},", j,
                                   (i ^ j) & 1 ? "integer" : "string");
        weft_buffer_printf(&text, "\"z\":{\"type\":\"null\"}},\"additionalProperties\":false}");
    }
    weft_buffer_puts(&text, "]}},\"required\":[\"q\"],\"additionalProperties\":false}");
    weft_grammar *g = grammar_of(weft_buffer_str(&text));
    assert_true(grammar_accepts(g, "{\"q\":{\"p1\":\"a\",\"p2\":3,\"z\":null}}"));
    assert_false(grammar_accepts(g, "{\"q\":1}"));
    assert_false(grammar_accepts(g, "{\"p\":{}}"));
    weft_grammar_free(g);
    weft_buffer_free(&text);
}

/* 2^30 branches would be needed to multiply this out. */
static void many_alternatives_are_loosened(void **state)
{
    weft_buffer text = WEFT_BUFFER_INIT;
    weft_buffer_puts(&text, "{\"type\":\"object\",\"required\":[\"k\"],\"allOf\":[");
    for (int i = 0; i < 30; i++)
        weft_buffer_printf(&text,
                           "%s{\"anyOf\":[{\"properties\":{\"p%d\":{\"type\":\"integer\"}}},"
                           "{\"required\":[\"q%d\"]}]}",
                           i ? "," : "", i, i);
    weft_buffer_puts(&text, "]}");
    weft_grammar *g = grammar_of(weft_buffer_str(&text));
    assert_true(grammar_accepts(g, "{\"k\":1}"));
    assert_false(grammar_accepts(g, "{}"));
    weft_grammar_free(g);
    weft_buffer_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars),
        cmocka_unit_test(strings),
        cmocka_unit_test(objects),
        cmocka_unit_test(arrays),
        cmocka_unit_test(unions),
        cmocka_unit_test(conjunctions),
        cmocka_unit_test(recursion),
        cmocka_unit_test(impossible_schemas_have_no_grammar),
        cmocka_unit_test(calls),
        cmocka_unit_test(depth_is_bounded_without_dead_ends),
        cmocka_unit_test(blanks_are_bounded),
        cmocka_unit_test(states_are_values),
        cmocka_unit_test(a_large_union_is_loosened),
        cmocka_unit_test(many_alternatives_are_loosened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
