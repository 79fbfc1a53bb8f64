/* The official JSON Schema test suite, draft 2020-12 (tests/data/schemas/draft2020-12, MIT).
 *
 * Every file is counted, every case is run. What weft refuses stands in REFUSED by file and group:
 * such a group must fail to compile with the reason given there. A group that is neither refused
 * nor right in all its cases fails the test, so nothing is skipped in silence. weft's JSON holds no
 * NUL in strings; the two groups about "\u0000" run with "\u0001" instead, which is counted as
 * well.
 */
#include "schemas/schema.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    const char *name;
    size_t groups, cases;
} FILES[] = {
    {"additionalProperties", 9, 21},
    {"allOf", 12, 30},
    {"anchor", 4, 8},
    {"anyOf", 8, 18},
    {"boolean_schema", 2, 18},
    {"const", 15, 50},
    {"contains", 7, 21},
    {"content", 4, 18},
    {"default", 3, 7},
    {"defs", 1, 2},
    {"dependentRequired", 4, 20},
    {"dependentSchemas", 4, 20},
    {"dynamicRef", 20, 42},
    {"enum", 14, 45},
    {"exclusiveMaximum", 1, 4},
    {"exclusiveMinimum", 1, 4},
    {"format", 19, 133},
    {"if-then-else", 10, 26},
    {"infinite-loop-detection", 1, 2},
    {"items", 10, 29},
    {"maxContains", 4, 12},
    {"maxItems", 2, 6},
    {"maxLength", 2, 7},
    {"maxProperties", 3, 10},
    {"maximum", 2, 8},
    {"minContains", 8, 28},
    {"minItems", 2, 6},
    {"minLength", 2, 7},
    {"minProperties", 2, 8},
    {"minimum", 2, 11},
    {"multipleOf", 5, 10},
    {"not", 9, 40},
    {"oneOf", 11, 27},
    {"pattern", 2, 9},
    {"patternProperties", 5, 23},
    {"prefixItems", 4, 11},
    {"properties", 6, 28},
    {"propertyNames", 6, 20},
    {"ref", 35, 77},
    {"refRemote", 15, 31},
    {"required", 5, 16},
    {"type", 11, 80},
    {"unevaluatedItems", 27, 66},
    {"unevaluatedProperties", 41, 124},
    {"uniqueItems", 6, 69},
    {"vocabulary", 2, 5},
    {"optional/anchor", 1, 4},
    {"optional/bignum", 7, 9},
    {"optional/dependencies-compatibility", 7, 36},
    {"optional/ecmascript-regex", 20, 74},
    {"optional/float-overflow", 1, 1},
    {"optional/id", 1, 3},
    {"optional/non-bmp-regex", 2, 12},
};
enum { N_FILES = sizeof FILES / sizeof *FILES };

static const struct {
    const char *file, *group; /* NULL: every group of the file */
    const char *reason;       /* part of the error */
} REFUSED[] = {
    {"defs", "validate definition against metaschema", "outside this document"},
    {"dynamicRef", "$ref to $dynamicRef finds detached $dynamicAnchor", "outside this document"},
    {"dynamicRef", NULL, "not supported"},
    {"not", "collect annotations inside a 'not', even if collection is disabled", "not supported"},
    {"ref", "remote ref, containing refs itself", "outside this document"},
    {"ref", "ref creates new scope when adjacent to keywords", "not supported"},
    {"refRemote", NULL, "outside this document"},
    {"unevaluatedItems", NULL, "not supported"},
    {"unevaluatedProperties", NULL, "not supported"},
    {"vocabulary", "schema that uses custom metaschema with with no validation vocabulary",
     "URI of a known draft"},
    {"vocabulary", "ignore unrecognized optional vocabulary", "URI of a known draft"},
};
enum { N_REFUSED = sizeof REFUSED / sizeof *REFUSED };

typedef struct tally {
    size_t groups, cases, refused, wrong, nul;
    bool used[N_REFUSED];
} tally;

static const char *refusal(tally *t, const char *file, const char *group)
{
    for (size_t i = 0; i < N_REFUSED; i++) {
        if (strcmp(REFUSED[i].file, file) != 0) continue;
        if (REFUSED[i].group && strcmp(REFUSED[i].group, group) != 0) continue;
        t->used[i] = true;
        return REFUSED[i].reason;
    }
    return NULL;
}

static void run_group(const char *file, const cJSON *group, tally *t)
{
    const char *name = weft_json_string(group, "description");
    const cJSON *tests = cJSON_GetObjectItemCaseSensitive(group, "tests"), *test;
    const char *reason = refusal(t, file, name);
    weft_schema *schema = NULL;
    weft_error err = {0};
    weft_status status =
        weft_schema_compile(cJSON_GetObjectItemCaseSensitive(group, "schema"), &schema, &err);
    t->groups++;
    t->cases += (size_t)cJSON_GetArraySize(tests);
    if (reason) {
        t->refused++;
        if (status != WEFT_E_INVALID || !strstr(err.message, reason)) {
            print_error("%s: %s: should be refused (%s): %s\n", file, name, reason, err.message);
            t->wrong++;
        }
    } else if (status) {
        print_error("%s: %s: refused: %s\n", file, name, err.message);
        t->wrong++;
    } else {
        cJSON_ArrayForEach(test, tests)
        {
            bool valid = weft_json_bool(test, "valid", false);
            status =
                weft_schema_check(schema, cJSON_GetObjectItemCaseSensitive(test, "data"), &err);
            if (status == (valid ? WEFT_OK : WEFT_E_INVALID)) continue;
            print_error("%s: %s: %s: %s\n", file, name, weft_json_string(test, "description"),
                        status ? err.message : "accepted");
            t->wrong++;
        }
    }
    weft_schema_free(schema);
}

static size_t replace_nul(char *text)
{
    size_t n = 0;
    for (char *at = text; (at = strstr(at, "\\u0000")); at += 6, n++) at[5] = '1';
    return n;
}

static void run_file(const char *name, tally *t)
{
    char path[1024];
    weft_buffer text = WEFT_BUFFER_INIT;
    weft_error err;
    cJSON *groups = NULL;
    const cJSON *group;
    snprintf(path, sizeof path, "%s/schemas/draft2020-12/%s.json", getenv("WEFT_TEST_DATA"), name);
    if (weft_file_read(path, 1 << 20, &text, &err)) fail_msg("%s", err.message);
    t->nul += replace_nul(text.data);
    if (weft_json_parse(text.data, text.size, &groups, &err)) fail_msg("%s: %s", path, err.message);
    cJSON_ArrayForEach(group, groups) run_group(name, group, t);
    cJSON_Delete(groups);
    weft_buffer_free(&text);
}

static void official_suite(void **state)
{
    tally all = {0};
    for (size_t i = 0; i < N_FILES; i++) {
        size_t groups = all.groups, cases = all.cases;
        run_file(FILES[i].name, &all);
        assert_int_equal(all.groups - groups, FILES[i].groups);
        assert_int_equal(all.cases - cases, FILES[i].cases);
    }
    for (size_t i = 0; i < N_REFUSED; i++)
        if (!all.used[i])
            fail_msg("%s: %s: no such group", REFUSED[i].file,
                     REFUSED[i].group ? REFUSED[i].group : "(any)");
    print_message("%zu groups, %zu cases, %zu groups refused\n", all.groups, all.cases,
                  all.refused);
    assert_int_equal(all.nul, 4);
    assert_int_equal(all.wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(official_suite)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
