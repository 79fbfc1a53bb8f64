/* The promise itself, on a trained model: a walk's number stands only in the thoughts, so it
 * survives exactly if they stay on the timeline. The same loop is run twice: as weft runs, and as
 * clients do that drop the thoughts between calls. The second one must go wrong, which shows that
 * the first can. */
#include "engine/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_IDS = 4096, CALLS = 8, WALKS = 8 };

static const char tools_text[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"calculator\", \"description\": "
    "\"Evaluates an arithmetic "
    "expression exactly.\", \"parameters\": {\"type\": \"object\", \"properties\": "
    "{\"expression\": {\"type\": "
    "\"string\"}}, \"required\": [\"expression\"]}}}, "
    "{\"type\": \"function\", \"function\": {\"name\": \"next_item\", \"description\": \"Moves to "
    "the next item of the "
    "list.\", \"parameters\": {\"type\": \"object\", \"properties\": {}}}}]";

typedef struct walk {
    weft_model *model;
    weft_dialect *dialect;
    weft_timeline *timeline;
    weft_sampler sampler;
    int32_t id[MAX_IDS]; /* what stands on the timeline */
    size_t n;
    char number[8];
    bool right;
} walk;

static void append(walk *w, const int32_t *ids, size_t n)
{
    weft_error err;
    assert_true(w->n + n <= MAX_IDS);
    if (n) memcpy(w->id + w->n, ids, n * sizeof *ids);
    w->n += n;
    assert_int_equal(weft_timeline_append(w->timeline, ids, n, &err), WEFT_OK);
}

static void append_script(walk *w, weft_script *script)
{
    weft_error err;
    int32_t *ids = NULL;
    size_t n = 0;
    assert_int_equal(weft_script_encode(w->model, script, &ids, NULL, &n, &err), WEFT_OK);
    append(w, ids, n);
    free(ids);
    weft_script_free(script);
}

static void check_thought(walk *w, const char *text)
{
    const char *at = strstr(text, "number ");
    if (!at || strlen(at) < 13)
        w->right = false;
    else if (!*w->number)
        snprintf(w->number, sizeof w->number, "%.6s", at + 7);
    else if (strncmp(at + 7, w->number, 6) != 0)
        w->right = false;
}

/* Samples one turn; with drop, the timeline goes on from a copy without the turn's thought. True
 * while it called. */
static bool turn(walk *w, bool drop)
{
    weft_error err;
    weft_turn *t = NULL;
    weft_turn_delta delta = {0};
    const weft_turn_result *result = NULL;
    weft_turn_tool tool[] = {{"calculator", NULL}, {"next_item", NULL}};
    weft_turn_options options = {.tools = tool, .n_tools = 2};
    size_t from = w->n;
    assert_int_equal(weft_turn_begin(&t, w->dialect, &options, &err), WEFT_OK);
    while (!delta.ended) {
        int32_t id;
        assert_int_equal(weft_timeline_evaluate(w->timeline, NULL, NULL, &err), WEFT_OK);
        assert_int_equal(
            weft_timeline_sample(w->timeline, &w->sampler, weft_turn_mask(t), &id, NULL, &err),
            WEFT_OK);
        append(w, &id, 1);
        assert_int_equal(weft_turn_accept(t, id, &delta, &err), WEFT_OK);
    }
    assert_int_equal(weft_turn_finish(t, &result, &err), WEFT_OK);
    int32_t kept[MAX_IDS];
    size_t n = from;
    memcpy(kept, w->id, from * sizeof *kept);
    for (size_t i = 0; i < result->n_segment; i++) {
        const weft_turn_segment *s = &result->segment[i];
        if (s->segment == WEFT_THOUGHT) check_thought(w, s->text);
        if (s->segment == WEFT_ANSWER && (!*w->number || !strstr(s->text, w->number)))
            w->right = false;
        if (s->segment == WEFT_THOUGHT) continue;
        memcpy(kept + n, w->id + from + s->from, s->n * sizeof *kept);
        n += s->n;
    }
    bool called = result->n_call > 0;
    weft_turn_free(t);
    if (drop && called) {
        weft_timeline_close(w->timeline);
        memcpy(w->id, kept, n * sizeof *kept);
        w->n = n;
        assert_int_equal(weft_timeline_open(&w->timeline, w->model, NULL, kept, n, &err), WEFT_OK);
    }
    return called;
}

static bool walk_is_right(weft_model *model, weft_dialect *dialect, uint64_t seed, bool drop)
{
    static walk w;
    weft_error err;
    weft_script script = {0};
    cJSON *tools = NULL;
    w = (walk){.model = model, .dialect = dialect, .right = true};
    w.sampler = (weft_sampler){
        .temperature = 1, .top_p = 1, .min_p = 0.05, .repeat_penalty = 1, .seed = seed};
    assert_int_equal(weft_json_parse(tools_text, strlen(tools_text), &tools, &err), WEFT_OK);
    assert_int_equal(weft_timeline_open(&w.timeline, model, NULL, NULL, 0, &err), WEFT_OK);
    assert_int_equal(weft_dialect_begin(dialect, NULL, tools,
                                        "Think of a number, then walk the list.", WEFT_THINK_AUTO,
                                        &script, &err),
                     WEFT_OK);
    append_script(&w, &script);
    for (int call = 1; call <= CALLS + 2; call++) {
        char text[32];
        if (!turn(&w, drop)) break;
        snprintf(text, sizeof text, "item %d: %s", call, call >= CALLS ? "last" : "more");
        weft_result_text result = {"next_item", text};
        script = (weft_script){0};
        assert_int_equal(
            weft_dialect_results(dialect, true, &result, 1, NULL, WEFT_THINK_AUTO, &script, &err),
            WEFT_OK);
        append_script(&w, &script);
    }
    weft_timeline_close(w.timeline);
    cJSON_Delete(tools);
    return w.right && *w.number;
}

static int open_model(void **state)
{
    weft_error err;
    char path[4096];
    weft_model *model = NULL;
    snprintf(path, sizeof path, "%s/agent/tiny-agent-f16.gguf", getenv("WEFT_TEST_DATA"));
    if (weft_model_open(&model, path, NULL, &err)) {
        print_error("%s\n", err.message);
        return -1;
    }
    *state = model;
    return 0;
}

static int close_model(void **state)
{
    weft_model_close(*state);
    return 0;
}

static int count_right(weft_model *model, bool drop)
{
    weft_dialect *dialect = NULL;
    weft_error err;
    int right = 0;
    assert_int_equal(weft_dialect_open(&dialect, model, NULL, &err), WEFT_OK);
    for (uint64_t seed = 0; seed < WALKS; seed++)
        right += walk_is_right(model, dialect, seed, drop);
    weft_dialect_close(dialect);
    return right;
}

static void a_kept_thought_is_remembered(void **state)
{
    assert_int_equal(count_right(*state, false), WALKS);
}

static void a_dropped_thought_is_lost(void **state)
{
    assert_true(count_right(*state, true) <= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kept_thought_is_remembered),
        cmocka_unit_test(a_dropped_thought_is_lost),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
