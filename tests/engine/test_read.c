/* Weights are read from their file, while a model is opened and afterwards: what happens when the file is cut. */
#include "tests/engine/random_model.h"

#include "engine/model.h"

#include <fcntl.h>
#include <sys/wait.h>

static const spec dense = {.arch = "qwen3",
                           .head_dim = 64,
                           .rope_dim = 64,
                           .theta = 1e6f,
                           .head_norms = true,
                           .embd = 256,
                           .ff = 512,
                           .type = WEFT_Q8_0};

typedef struct scene {
    char *dir, *path, *kv;
    int32_t ids[3 * WEFT_PAGE];
    weft_buffer file;
} scene;

static scene scene_new(const spec *s) {
    scene t = {.dir = make_temp_dir(), .file = WEFT_BUFFER_INIT};
    t.path = weft_path_join(t.dir, "random.gguf");
    t.kv = weft_path_join(t.dir, "kv");
    for (int i = 0; i < 3 * WEFT_PAGE; i++) t.ids[i] = (i * 53 + 11) % VOCAB;
    writer_free(new_model(s, t.path));
    CHECK(weft_file_read(t.path, 64 << 20, &t.file, err));
    return t;
}

static void scene_free(scene *t) {
    weft_buffer_free(&t->file);
    free(t->path);
    free(t->kv);
    remove_temp_dir(t->dir);
}

static void cut(const scene *t, size_t bytes) {
    assert_int_equal(truncate(t->path, (off_t)bytes), 0);
}

/* The same inode, whole again. */
static void mend(const scene *t) {
    int fd = open(t->path, O_WRONLY);
    assert_int_equal(pwrite(fd, t->file.data, t->file.size, 0), t->file.size);
    close(fd);
}

static void expect_failure(weft_status status, const weft_error *said) {
    assert_int_equal(status, WEFT_E_STORAGE);
    if (!strstr(said->message, "random.gguf: ") || !strstr(said->message, "it was cut"))
        fail_msg("said: %s", said->message);
}

static void evaluate_fails(weft_timeline *timeline) {
    weft_error said = {0};
    expect_failure(weft_timeline_evaluate(timeline, NULL, NULL, &said), &said);
    assert_null(weft_timeline_logits(timeline));
}

/* Wherever the file ends, an evaluation ends with one line, and goes on from the same token when the file is
 * whole again: the same logits as without, and the same pages. */
static void check_cuts(const spec *s) {
    enum { FIRST = 70, MORE = 3 };
    scene t = scene_new(s);
    const weft_engine_options o = {.limit_memory = true, .threads = 2, .chunk = 16};
    weft_model *model = model_open(t.path, &o);
    digests want = digests_of(model, t.ids, 3 * WEFT_PAGE);
    for (size_t k = 0; k < 4; k++) {
        weft_timeline *timeline = NULL;
        char dir[4096];
        snprintf(dir, sizeof dir, "%s%zu", t.kv, k);
        CHECK(weft_timeline_open(&timeline, model, dir, t.ids, FIRST, err));
        CHECK(weft_timeline_evaluate(timeline, NULL, NULL, err));
        cut(&t, t.file.size * k / 4);
        CHECK(weft_timeline_append(timeline, t.ids + FIRST, MORE, err));
        evaluate_fails(timeline);
        assert_int_equal(weft_timeline_evaluated(timeline), FIRST);
        if (k % 2) { /* now, or in a later process, which evaluates the last position again first */
            weft_timeline_close(timeline);
            mend(&t);
            CHECK(weft_timeline_open(&timeline, model, dir, t.ids, FIRST, err));
            cut(&t, t.file.size * k / 4);
            evaluate_fails(timeline);
            weft_timeline_close(timeline);
            mend(&t);
            CHECK(weft_timeline_open(&timeline, model, dir, t.ids, FIRST + MORE, err));
        }
        mend(&t);
        CHECK(weft_timeline_append(timeline, t.ids + weft_timeline_length(timeline),
                                   (size_t)(3 * WEFT_PAGE - weft_timeline_length(timeline)), err));
        CHECK(weft_timeline_evaluate(timeline, NULL, NULL, err));
        digests last = digests_new(model, 3 * WEFT_PAGE);
        digests_visit(&last, 3 * WEFT_PAGE - 1, weft_timeline_logits(timeline));
        digests_compare(&want, &last, 3 * WEFT_PAGE - 1, 3 * WEFT_PAGE, "after the file was cut");
        free(last.at);
        weft_timeline_close(timeline);
    }
    free(want.at);
    weft_model_close(model);
    scene_free(&t);
}

static void test_cut_while_running(void **state) {
    spec s = dense;
    check_cuts(&s);
    s.tied = true;
    s.arch = "qwen3moe", s.ff = 256, s.experts = 6, s.used = 2;
    check_cuts(&s);
}

/* Several timelines in a step: each is told, none moves. */
static void test_cut_in_a_step(void **state) {
    scene t = scene_new(&dense);
    const weft_engine_options o = {.limit_memory = true, .threads = 1};
    weft_model *model = model_open(t.path, &o);
    weft_step_item item[2] = {{0}};
    for (int i = 0; i < 2; i++)
        CHECK(weft_timeline_open(&item[i].timeline, model, NULL, t.ids, 5 + (size_t)i, err));
    cut(&t, t.file.size / 2);
    weft_step(item, 2);
    for (int i = 0; i < 2; i++) {
        expect_failure(item[i].status, &item[i].err);
        assert_false(item[i].ready);
    }
    mend(&t);
    for (int i = 0; i < 2; i++) item[i].status = WEFT_OK;
    weft_step(item, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(item[i].status, WEFT_OK);
        assert_true(item[i].ready);
        weft_timeline_close(item[i].timeline);
    }
    weft_model_close(model);
    scene_free(&t);
}

/* Weights that are all in memory need no file any more, but for rows of the embedding. */
static void test_cut_with_weights_in_memory(void **state) {
    scene t = scene_new(&dense);
    weft_model *model = model_open(t.path, &(weft_engine_options){.threads = 1});
    digests want = digests_of(model, t.ids, TOKENS);
    const weft_tensor *embedding = model->embedding;
    cut(&t, embedding->offset + embedding->bytes);
    digests same = digests_of(model, t.ids, TOKENS);
    digests_compare(&want, &same, 0, TOKENS, "without the rest of the file");
    cut(&t, embedding->offset + 100);
    weft_timeline *timeline = NULL;
    CHECK(weft_timeline_open(&timeline, model, NULL, t.ids, 3, err));
    evaluate_fails(timeline);
    weft_timeline_close(timeline);
    free(want.at);
    free(same.at);
    weft_model_close(model);
    scene_free(&t);
}

#ifdef WEFT_FAULTS
/* A read that fails while a model is opened or evaluated, whichever it is. */
static void test_each_read_fails(void **state) {
    scene t = scene_new(&dense);
    const weft_engine_options o[] = {{.threads = 2}, {.limit_memory = true, .threads = 2}};
    bool whole = false;
    for (int at = 1; !whole; at += at < 20 ? 1 : at / 3) {
        char fault[32];
        snprintf(fault, sizeof fault, "engine.read:%d:fail", at);
        setenv("WEFT_FAULT", fault, 1);
        pid_t child = fork(); /* the passes of a point are counted by process */
        if (child == 0) {
            weft_model *model = NULL;
            weft_timeline *timeline = NULL;
            weft_error err = {0};
            weft_status status = weft_model_open(&model, t.path, &o[at % 2], &err);
            if (!status) status = weft_timeline_open(&timeline, model, NULL, t.ids, 3, &err);
            if (!status) status = weft_timeline_evaluate(timeline, NULL, NULL, &err);
            if (status && (status != WEFT_E_STORAGE || !strstr(err.message, "it was cut"))) _exit(3);
            weft_timeline_close(timeline);
            weft_model_close(model);
            _exit(status ? 1 : 0);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFEXITED(status) || WEXITSTATUS(status) > 1) fail_msg("read %d: status %#x", at, status);
        whole = status == 0;
        assert_true(!whole || at > 20);
    }
    unsetenv("WEFT_FAULT");
    scene_free(&t);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_while_running),
        cmocka_unit_test(test_cut_in_a_step),
        cmocka_unit_test(test_cut_with_weights_in_memory),
#ifdef WEFT_FAULTS
        cmocka_unit_test(test_each_read_fails),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
