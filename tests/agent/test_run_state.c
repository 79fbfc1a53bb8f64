/* The fold over events: which answers of tools make the next turn plain words, and which do not. */
#include "agent/run_state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void apply(run_state *s, const char *type, const char *text)
{
    cJSON *body = NULL;
    weft_error err;
    assert_int_equal(weft_json_parse(text, strlen(text), &body, &err), WEFT_OK);
    assert_int_equal(run_state_apply(s, type, body, &err), WEFT_OK);
    cJSON_Delete(body);
}

/* One turn with one call, its result, and the prompt of the next turn. */
static void call(run_state *s, const char *arguments, const char *result)
{
    char turn[256];
    snprintf(turn, sizeof turn,
             "{\"calls\":[{\"name\":\"t\",\"arguments\":\"%s\"}],\"sampled\":1,\"ended\":true}",
             arguments);
    apply(s, "turn", turn);
    assert_int_equal(s->phase, RUN_CALLS);
    apply(s, "tool.call", "{\"index\":0}");
    apply(s, "tool.result", result);
    assert_int_equal(s->phase, RUN_RESULTS);
}

static void prompt(run_state *s)
{
    apply(s, "segment", "{\"kind\":\"result\",\"ids\":[1],\"text\":\"\",\"open\":true}");
    assert_int_equal(s->phase, RUN_TURN);
}

static run_state begun(void)
{
    run_state s = {0};
    apply(&s, "run.begin", "{\"task\":\"q\"}");
    prompt(&s);
    return s;
}

static const char fails[] = "{\"index\":0,\"error\":true,\"executed\":true,\"text\":\"bad\"}";
static const char fails_with_words[] =
    "{\"index\":0,\"error\":true,\"executed\":true,\"text\":\"bad\\nagain\"}";

static void a_call_that_keeps_failing_ends_in_words(void **state)
{
    run_state s = begun();
    call(&s, "{}", fails);
    prompt(&s);
    call(&s, "{}", fails_with_words);
    assert_false(s.must_answer);
    prompt(&s);
    call(&s, "{}", fails_with_words);
    assert_true(s.must_answer);
    assert_int_equal(s.repeats, 2);
    run_state_free(&s);
}

static void another_call_or_a_success_is_no_repetition(void **state)
{
    run_state s = begun();
    call(&s, "{}", fails);
    prompt(&s);
    call(&s, "{\\\"x\\\":1}", fails);
    prompt(&s);
    call(&s, "{}", fails);
    assert_int_equal(s.repeats, 0);
    for (int i = 0; i < 60; i++) { /* a walk: the same call, the same result, by design */
        prompt(&s);
        call(&s, "{}", "{\"index\":0,\"executed\":true,\"text\":\"more\"}");
    }
    assert_int_equal(s.repeats, 0);
    assert_false(s.must_answer);
    run_state_free(&s);
}

static void only_idempotent_results_are_recalled_until_something_changes(void **state)
{
    run_state s = begun();
    char *key = run_call_key("t", "{ \"b\": 1, \"a\": 2 }");
    call(&s, "{\\\"a\\\":2,\\\"b\\\":1}",
         "{\"index\":0,\"executed\":true,\"idempotent\":true,\"text\":\"r\"}");
    assert_string_equal(run_state_recall(&s, key), "r");
    prompt(&s);
    call(&s, "{}", "{\"index\":0,\"executed\":true,\"text\":\"wrote\"}");
    assert_null(run_state_recall(&s, key));
    free(key);
    run_state_free(&s);
}

static weft_status refused(run_state *s, const char *text)
{
    cJSON *body = NULL;
    weft_error err;
    assert_int_equal(weft_json_parse(text, strlen(text), &body, &err), WEFT_OK);
    weft_status status = run_state_apply(s, "compact", body, &err);
    cJSON_Delete(body);
    return status;
}

static void compacting_replaces_the_end_before_a_new_question(void **state)
{
    run_state s = {0};
    apply(&s, "run.begin", "{\"task\":\"q\"}");
    apply(&s, "segment", "{\"kind\":\"user\",\"ids\":[1,2,3],\"text\":\"\",\"open\":true}");
    apply(&s, "segment", "{\"kind\":\"answer\",\"ids\":[4,5,6],\"text\":\"a\"}");
    assert_int_equal(refused(&s, "{\"policy\":\"drop-thoughts\",\"kept\":2,\"ids\":[]}"), WEFT_E_VERIFY);
    apply(&s, "turn", "{\"calls\":[],\"sampled\":3,\"ended\":true}");
    apply(&s, "resume", "{\"task\":\"and?\"}");
    assert_int_equal(s.phase, RUN_USER);
    assert_int_equal(refused(&s, "{\"policy\":\"drop-thoughts\",\"kept\":7,\"ids\":[]}"), WEFT_E_VERIFY);
    assert_int_equal(refused(&s, "{\"policy\":\"drop-thoughts\",\"ids\":[]}"), WEFT_E_VERIFY);
    apply(&s, "compact", "{\"policy\":\"drop-thoughts\",\"kept\":2,\"dropped\":2,\"ids\":[5,6]}");
    static const int32_t want[] = {1, 2, 5, 6};
    assert_int_equal(s.n_id, 4);
    assert_memory_equal(s.id, want, sizeof want);
    assert_string_equal(s.user, "and?");
    run_state_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_that_keeps_failing_ends_in_words),
        cmocka_unit_test(another_call_or_a_success_is_no_repetition),
        cmocka_unit_test(only_idempotent_results_are_recalled_until_something_changes),
        cmocka_unit_test(compacting_replaces_the_end_before_a_new_question),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
