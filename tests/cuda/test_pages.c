/* KV pages on the device and in files: what was evaluated is found again, by the same engine, with the same bits;
 * another engine's pages are others; a GPU too small for all timelines keeps those that are evaluated. */
#include "tests/cuda/host_test.h"

enum { IDS = 150 };

static int start(void **state)
{
    mock_cuda_reset();
    mock_cuda_config_now.gpus = 2;
    mock_cuda_run = weft_shim_launch;
    return 0;
}

static void last_logits(weft_timeline *t, uint8_t out[WEFT_DIGEST_BYTES])
{
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    weft_blake2b_of(NULL, 0, weft_timeline_logits(t), 1024 * sizeof(float), out);
}

/* Evaluates what is pending of ids on a directory and closes; *restored: positions found there. */
static void run(const char *engine, const char *dir, const int32_t *ids, size_t n, int64_t *restored,
                uint8_t out[WEFT_DIGEST_BYTES])
{
    weft_model *model = gpu_open(agent_path(), engine, 64);
    weft_timeline *t = NULL;
    CHECK(weft_timeline_open(&t, model, dir, ids, n, err));
    *restored = weft_timeline_restored(t);
    last_logits(t, out);
    weft_timeline_close(t);
    weft_model_close(model);
    assert_nothing_left();
}

static void test_restored(void **state)
{
    char *dir = make_temp_dir();
    int32_t *ids = some_ids(IDS, 1024);
    int64_t restored;
    uint8_t whole[WEFT_DIGEST_BYTES], again[WEFT_DIGEST_BYTES], parts[WEFT_DIGEST_BYTES];
    run("cuda", NULL, ids, IDS, &restored, whole);
    run("cuda", dir, ids, IDS - 40, &restored, parts); /* ends in the middle of a page */
    assert_int_equal(restored, 0);
    run("cuda:0,1", dir, ids, IDS, &restored, again); /* the page's bytes do not know of GPUs */
    assert_int_equal(restored, IDS - 40);
    assert_memory_equal(whole, again, sizeof whole);
    run("cuda", dir, ids, IDS, &restored, again); /* all of it: the last position is computed again */
    assert_int_equal(restored, IDS);
    assert_memory_equal(whole, again, sizeof whole);
    free(ids);
    remove_temp_dir(dir);
}

/* A run may go on on another engine: then from its token ids, under other names. */
static void test_from_cpu_to_gpu(void **state)
{
    char *dir = make_temp_dir();
    int32_t *ids = some_ids(IDS, 1024);
    int64_t restored;
    uint8_t want[WEFT_DIGEST_BYTES], got[WEFT_DIGEST_BYTES];
    run("cuda", NULL, ids, IDS, &restored, want);
    run("cpu", dir, ids, IDS - 20, &restored, got);
    run("cuda", dir, ids, IDS, &restored, got);
    assert_int_equal(restored, 0);
    assert_memory_equal(want, got, sizeof want);
    run("cpu", dir, ids, IDS - 20, &restored, got); /* complete pages of both lie beside each other */
    assert_int_equal(restored, (IDS - 20) / 64 * 64);
    run("cuda", dir, ids, IDS, &restored, got);
    assert_int_equal(restored, IDS / 64 * 64);
    assert_memory_equal(want, got, sizeof want);
    free(ids);
    remove_temp_dir(dir);
}

static void test_fork(void **state)
{
    weft_model *model = gpu_open(agent_path(), "cuda", 64);
    weft_timeline *t = NULL, *fork = NULL, *alone = NULL;
    int32_t *ids = some_ids(IDS, 1024);
    uint8_t a[WEFT_DIGEST_BYTES], b[WEFT_DIGEST_BYTES];
    CHECK(weft_timeline_open(&t, model, NULL, ids, IDS, err));
    last_logits(t, a);
    CHECK(weft_timeline_fork(&fork, t, 100, NULL, err)); /* in the middle of a page that only the GPU has whole */
    CHECK(weft_timeline_append(fork, (const int32_t[]){5, 6}, 2, err));
    last_logits(fork, a);
    ids[100] = 5;
    ids[101] = 6;
    CHECK(weft_timeline_open(&alone, model, NULL, ids, 102, err));
    last_logits(alone, b);
    assert_memory_equal(a, b, sizeof a);
    free(ids);
    weft_timeline_close(t);
    weft_timeline_close(fork);
    weft_timeline_close(alone);
    weft_model_close(model);
    assert_nothing_left();
}

/* Room for 8 pages, and two timelines of 6, turn by turn: each time the other's pages make way, complete ones and
 * the last. */
static void test_too_small_for_two(void **state)
{
    enum { LONG = 5 * 64 + 20, PART = 100 };
    int32_t *ids = some_ids(LONG, 1024);
    int64_t restored;
    uint8_t want[WEFT_DIGEST_BYTES], got[WEFT_DIGEST_BYTES];
    run("cuda:0", NULL, ids, LONG, &restored, want);
    mock_cuda_config_now.free_bytes = 32 << 20;
    weft_model *model = gpu_open(agent_path(), "cuda:0", 64);
    weft_timeline *t[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) CHECK(weft_timeline_open(&t[i], model, NULL, ids, 1, err));
    CHECK(weft_timeline_evaluate(t[0], NULL, NULL, err)); /* makes the first slab */
    mock_cuda_config_now.free_bytes = mock_cuda_used(0);
    for (size_t at = 1; at < LONG; at += PART)
        for (int i = 0; i < 2; i++) {
            const size_t n = LONG - at < PART ? LONG - at : PART;
            CHECK(weft_timeline_append(t[i], ids + at, n, err));
            last_logits(t[i], got);
        }
    assert_memory_equal(want, got, sizeof want);
    last_logits(t[0], got);
    assert_memory_equal(want, got, sizeof want);
    free(ids);
    weft_timeline_close(t[0]);
    weft_timeline_close(t[1]);
    weft_model_close(model);
    assert_nothing_left();
}

/* One timeline that outgrows the GPU: an error that says what does not fit, and the run can go on elsewhere. */
static void test_too_small_for_one(void **state)
{
    int32_t *ids = some_ids(640, 1024);
    weft_error err;
    weft_timeline *t = NULL;
    mock_cuda_run = NULL;
    mock_cuda_config_now.free_bytes = 32 << 20;
    weft_model *model = gpu_open(agent_path(), "cuda:0", 64);
    assert_int_equal(weft_timeline_open(&t, model, NULL, ids, 640, &err), WEFT_OK);
    mock_cuda_config_now.free_bytes = mock_cuda_used(0) + (1 << 20) / 2; /* one slab */
    assert_int_equal(weft_timeline_evaluate(t, NULL, NULL, &err), WEFT_E_MEMORY);
    assert_non_null(strstr(err.message, "cuda:0 Mock 0: 0 MiB for KV pages do not fit, 0 MiB are free; use a smaller"));
    assert_int_equal(weft_timeline_pending(t), 640 - 8 * 64);
    mock_cuda_config_now.free_bytes = 64 << 20;
    assert_int_equal(weft_timeline_evaluate(t, NULL, NULL, &err), WEFT_OK);
    free(ids);
    weft_timeline_close(t);
    weft_model_close(model);
    assert_nothing_left();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_restored, start),
        cmocka_unit_test_setup(test_from_cpu_to_gpu, start),
        cmocka_unit_test_setup(test_fork, start),
        cmocka_unit_test_setup(test_too_small_for_two, start),
        cmocka_unit_test_setup(test_too_small_for_one, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
