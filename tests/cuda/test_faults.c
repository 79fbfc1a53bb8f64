/* Each call of the driver fails in turn, while a model is opened, evaluates and closes: one line says what, the
 * status is right, nothing is left open; and where the model lives on, the next try gives the right bits. */
#include "tests/cuda/host_test.h"
#include "tests/cuda/sanitized.h"

/* Under sanitizers each third call. */
enum { IDS = 70, STEPS = 3, ANY_ERROR = 719, STRIDE = SANITIZED ? 3 : 1 };

static int start(void **state)
{
    mock_cuda_reset();
    mock_cuda_config_now.gpus = 2;
    mock_cuda_run = NULL; /* calls matter here, not results */
    return 0;
}

static const weft_sampler sampler = {.temperature = 1, .top_k = 40, .top_p = 0.9, .repeat_penalty = 1};

/* Steps draw on the device. */
static weft_status evaluate(weft_timeline *t, const int32_t *ids, weft_error *err)
{
    weft_status e = weft_timeline_evaluate(t, NULL, NULL, err);
    for (int i = 0; i < STEPS && !e; i++) {
        e = weft_timeline_append(t, &ids[i], 1, err);
        weft_timeline_will_draw(t, &sampler, NULL);
        if (!e) e = weft_timeline_evaluate(t, NULL, NULL, err);
    }
    return e;
}

/* A run from the model's opening to the close of its page files. *in_time: the fault came before the close. */
static weft_status whole_run(const char *engine, const char *dir, bool *in_time, weft_error *err)
{
    weft_model *model = NULL;
    weft_timeline *t = NULL;
    int32_t *ids = some_ids(IDS, 1024);
    weft_status e = weft_model_open(&model, agent_path(), &(weft_engine_options){.engine = engine}, err);
    if (!e) e = weft_timeline_open(&t, model, dir, ids, IDS, err);
    if (!e) e = evaluate(t, ids, err);
    *in_time = mock_cuda_counted.failed > 0;
    weft_timeline_close(t);
    weft_model_close(model);
    free(ids);
    return e;
}

static void check_error(weft_status e, const weft_error *err, long at, int result)
{
    const char *last = mock_cuda_counted.last;
    if (e != (result == 2 ? WEFT_E_MEMORY : WEFT_E_MODEL))
        fail_msg("call %ld, %s: status %d: %s", at, last, e, err->message);
    if (!err->message[0] || strchr(err->message, '\n')) fail_msg("call %ld, %s: no line", at, last);
}

/* Closing cannot report; a page that it cannot fetch is evaluated again by who opens the run next. */
static void fail_each(const char *engine, int result)
{
    long at = 1;
    for (bool failed = true; failed; at += STRIDE) {
        char *dir = make_temp_dir();
        weft_error err = {0};
        mock_cuda_counted = (mock_cuda_counts){0};
        mock_cuda_config_now.fail_at = at;
        mock_cuda_config_now.fail_result = result;
        bool in_time;
        const weft_status e = whole_run(engine, dir, &in_time, &err);
        failed = mock_cuda_counted.failed > 0;
        mock_cuda_config_now.fail_at = 0;
        if (e || in_time) check_error(e, &err, at, result);
        assert_nothing_left();
        remove_temp_dir(dir);
    }
    assert_true(at > 200); /* all was gone through */
}

static void test_each_call_fails(void **state)
{
    fail_each("cuda:0", ANY_ERROR);
}

static void test_each_call_fails_on_two_gpus(void **state)
{
    fail_each("cuda:0,1", ANY_ERROR);
}

static void test_no_memory(void **state)
{
    fail_each("cuda:0,1", 2);
}

/* A step that fails counts for nothing: made again it gives what it would have. */
static void test_again(void **state)
{
    enum { FIRST = 2, N = 5 };
    int32_t *ids = some_ids(N + STEPS, 1024);
    uint8_t want[WEFT_DIGEST_BYTES], got[WEFT_DIGEST_BYTES];
    int32_t drawn = -1;
    mock_cuda_run = weft_shim_launch;
    weft_model *model = gpu_open(agent_path(), "cuda:0,1", 64);
    for (long at = 0, failed = 1; failed; at += STRIDE) {
        weft_timeline *t = NULL;
        CHECK(weft_timeline_open(&t, model, NULL, ids, FIRST, err));
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        mock_cuda_counted.failed = 0;
        mock_cuda_config_now.fail_at = at;
        mock_cuda_config_now.fail_result = ANY_ERROR;
        for (size_t i = FIRST; i < N; i++) {
            CHECK(weft_timeline_append(t, &ids[i], 1, err));
            weft_timeline_will_draw(t, &sampler, NULL);
            if (weft_timeline_evaluate(t, NULL, NULL, NULL)) CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        }
        weft_blake2b_of(NULL, 0, weft_timeline_logits(t), 1024 * sizeof(float), got);
        if (at == 0) { /* undisturbed */
            memcpy(want, got, sizeof want);
            drawn = t->announced.id;
        }
        assert_true(drawn >= 0 && t->announced.id == drawn);
        assert_memory_equal(want, got, sizeof want);
        failed = at == 0 || mock_cuda_counted.failed;
        mock_cuda_config_now.fail_at = 0;
        weft_timeline_close(t);
    }
    free(ids);
    weft_model_close(model);
    assert_nothing_left();
}

static void ignore(void *context, bool usable, const char *finding)
{
}

int main(void)
{
    mock_cuda_reset();
    weft_gpu_look(ignore, NULL); /* the driver is loaded once a process, not by what is tested */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_each_call_fails, start),
        cmocka_unit_test_setup(test_each_call_fails_on_two_gpus, start),
        cmocka_unit_test_setup(test_no_memory, start),
        cmocka_unit_test_setup(test_again, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
