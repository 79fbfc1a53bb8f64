/* Pages as an asset: shared between runs through a store, inherited by forks, copied where links cannot
 * be, trimmed to a budget; and damage in what others left, which must never reach the logits. */
#include "tests/engine/kv_test.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

enum { PAGE = 64, COMPLETE = 7 }; /* complete pages of the 483 ids */

static const char tiny[] = "agent/tiny-agent-f16.gguf";

typedef struct rig {
    char *dir, *prefix;
    weft_model *model;
    fixture f;
    digests expected;
} rig;

static int setup(void **state)
{
    rig *r = calloc(1, sizeof *r);
    r->dir = make_temp_dir();
    r->prefix = weft_path_join(r->dir, "prefix");
    const weft_engine_options options = {.threads = 1, .chunk = 48, .prefix_dir = r->prefix};
    r->model = model_open(data_path(tiny), &options);
    r->f = fixture_open("tiny-agent-1");
    r->expected = digests_of(r->model, r->f.ids, r->f.n);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    rig *r = *state;
    weft_model_close(r->model);
    fixture_close(&r->f);
    free(r->expected.at);
    free(r->prefix);
    remove_temp_dir(r->dir);
    free(r);
    return 0;
}

static char *sub(const rig *r, const char *name)
{
    char *path = weft_path_join(r->dir, name);
    assert_non_null(path);
    return path;
}

static weft_timeline *open_at(const rig *r, const char *name, size_t n)
{
    weft_timeline *t = NULL;
    char *dir = sub(r, name);
    CHECK(weft_timeline_open(&t, r->model, dir, r->f.ids, n, err));
    free(dir);
    return t;
}

static void check_logits(const rig *r, const weft_timeline *t, const char *what)
{
    uint8_t digest[WEFT_DIGEST_BYTES];
    size_t bytes = (size_t)weft_model_get_info(r->model)->n_vocab * sizeof(float);
    assert_non_null(weft_timeline_logits(t));
    weft_blake2b_of(NULL, 0, weft_timeline_logits(t), bytes, digest);
    size_t last = (size_t)weft_timeline_length(t) - 1;
    if (memcmp(digest, r->expected.at[last], sizeof digest) != 0)
        fail_msg("%s: the logits after token %zu differ", what, last);
}

/* Evaluates all ids in a directory of their own, wants `shared` of them from elsewhere. */
static void run_in(const rig *r, const char *name, int64_t shared)
{
    weft_timeline *t = open_at(r, name, r->f.n);
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    check_logits(r, t, name);
    assert_int_equal(weft_timeline_shared(t), shared);
    assert_int_equal(weft_timeline_evaluated(t), (int64_t)r->f.n - shared);
    weft_timeline_close(t);
}

static kv_usage usage(const rig *r, const char *name)
{
    char *dir = sub(r, name);
    kv_usage use = kv_usage_of(dir);
    free(dir);
    return use;
}

static char *prefix_page(const rig *r, size_t p)
{
    char *plain = kv_test_page_path(r->model, "", r->f.ids, r->f.n, p), shard[4];
    snprintf(shard, sizeof shard, "%.2s/", plain);
    char *below = weft_path_join(shard, plain), *path = weft_path_join(r->prefix, below);
    free(plain);
    free(below);
    return path;
}

static void overwrite(char *path, size_t offset, const char *bytes, size_t n)
{
    assert_int_equal(chmod(path, 0600), 0);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0 && pwrite(fd, bytes, n, (off_t)offset) == (ssize_t)n);
    close(fd);
    free(path);
}

/* ---- sharing ---- */

static void test_a_second_run_evaluates_no_page(void **state)
{
    const rig *r = *state;
    run_in(r, "one", 0);
    run_in(r, "two", COMPLETE * PAGE);
    assert_int_equal(usage(r, "two").shared, COMPLETE);
    /* ids that are appended later find their pages too */
    weft_timeline *t = open_at(r, "three", 0);
    CHECK(weft_timeline_append(t, r->f.ids, r->f.n, err));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    check_logits(r, t, "appended");
    assert_int_equal(weft_timeline_restored(t), COMPLETE * PAGE);
    weft_timeline_close(t);
}

/* Every id comes from the store: the last position, in a page that others share, is computed again
 * without a byte of the file changing. */
static void test_last_position_of_a_shared_page(void **state)
{
    const rig *r = *state;
    run_in(r, "one", 0);
    for (int pass = 0; pass < 2; pass++) {
        weft_timeline *t = open_at(r, "two", 2 * PAGE);
        assert_int_equal(weft_timeline_pending(t), 0);
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        check_logits(r, t, "last position");
        assert_int_equal(weft_timeline_evaluated(t), 1 + pass);
        assert_int_equal(weft_timeline_shared(t), 2 * PAGE - 1);
        weft_timeline_close(t);
    }
    run_in(r, "three", COMPLETE * PAGE);
}

static void test_removed_runs_and_stores(void **state)
{
    const rig *r = *state;
    char *one = sub(r, "one");
    run_in(r, "one", 0);
    CHECK(weft_remove_tree(one, err));
    run_in(r, "two", COMPLETE * PAGE); /* the store holds them alone */
    CHECK(weft_remove_tree(r->prefix, err));
    weft_timeline *t = open_at(r, "two", r->f.n); /* and now the run */
    assert_int_equal(weft_timeline_restored(t), r->f.n);
    weft_timeline_close(t);
    free(one);
}

static void test_another_model_shares_nothing(void **state)
{
    const rig *r = *state;
    run_in(r, "one", 0);
    const uint8_t digest[WEFT_DIGEST_BYTES] = {1};
    const weft_engine_options other[] = {
        {.prefix_dir = r->prefix, .kv_type = WEFT_KV_F32},
        {.prefix_dir = r->prefix, .file_digest = digest},
    };
    for (size_t i = 0; i < 2; i++) {
        weft_model *model = model_open(data_path(tiny), &other[i]);
        weft_timeline *t = NULL;
        char *dir = sub(r, "other");
        CHECK(weft_timeline_open(&t, model, dir, r->f.ids, r->f.n, err));
        assert_int_equal(weft_timeline_restored(t), 0);
        weft_timeline_close(t);
        weft_model_close(model);
        free(dir);
    }
}

/* ---- damage in the store ---- */

static void test_damaged_pages_of_others(void **state)
{
    const rig *r = *state;
    for (size_t how = 0; how < 5; how++) {
        char *one = sub(r, "one"), *two = sub(r, "two"), *page = prefix_page(r, 3);
        run_in(r, "one", 0);
        if (how == 0) overwrite(prefix_page(r, 3), 5000, "\xa7", 1);
        if (how == 1) overwrite(prefix_page(r, 3), 16, "another name", 12);
        if (how == 2) assert_int_equal(chmod(page, 0600) | truncate(page, 5000), 0);
        if (how == 3) assert_int_equal(chmod(page, 0600) | truncate(page, 0), 0);
        if (how == 4) { /* a sound page under a name that is not its own */
            char *from = prefix_page(r, 4);
            assert_int_equal(unlink(page) | rename(from, page), 0);
            free(from);
        }
        /* pages 0 to 2, and 6: the next that a chunk of 48 begins with */
        run_in(r, "two", 4 * PAGE);
        run_in(r, "three", COMPLETE * PAGE); /* the store has a sound one again */
        CHECK(weft_remove_tree(one, err));
        CHECK(weft_remove_tree(two, err));
        free(one);
        free(two);
        one = sub(r, "three");
        CHECK(weft_remove_tree(one, err));
        CHECK(weft_remove_tree(r->prefix, err));
        free(one);
        free(page);
    }
}

/* A run whose own page is damaged takes the store's, if that is another file. */
static void test_damaged_page_is_replaced_from_the_store(void **state)
{
    const rig *r = *state;
    run_in(r, "one", 0);
    char *one = sub(r, "one"), *page = kv_test_page_path(r->model, one, r->f.ids, r->f.n, 2);
    weft_buffer bytes = WEFT_BUFFER_INIT;
    CHECK(weft_file_read(page, 1 << 20, &bytes, err));
    bytes.data[6000] ^= 1;
    assert_int_equal(unlink(page), 0);
    CHECK(weft_file_write(page, bytes.data, bytes.size, 0400, err));
    weft_timeline *t = open_at(r, "one", r->f.n);
    assert_int_equal(weft_timeline_restored(t), r->f.n);
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    check_logits(r, t, "replaced");
    weft_timeline_close(t);
    weft_buffer_free(&bytes);
    free(page);
    free(one);
}

/* ---- forks ---- */

static void fork_here(const rig *r, weft_timeline *from, size_t length, const char *name)
{
    weft_timeline *t = NULL;
    char *dir = name ? sub(r, name) : NULL;
    int64_t known = (int64_t)length - (length > (size_t)weft_timeline_length(from) -
                                                    (size_t)weft_timeline_pending(from));
    CHECK(weft_timeline_fork(&t, from, (int64_t)length, dir, err));
    assert_int_equal(weft_timeline_length(t), length);
    assert_int_equal(weft_timeline_pending(t), (int64_t)length - known);
    CHECK(weft_timeline_append(t, r->f.ids + length, r->f.n - length, err));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    check_logits(r, t, "fork");
    assert_int_equal(weft_timeline_evaluated(t) + weft_timeline_shared(t), r->f.n);
    weft_timeline_close(t);
    if (dir) CHECK(weft_remove_tree(dir, err));
    free(dir);
}

static void test_fork_of_a_live_timeline(void **state)
{
    const rig *r = *state;
    const size_t lengths[] = {0, 1, 63, 64, 65, 200, 256, 300};
    for (int in_memory = 0; in_memory < 2; in_memory++) {
        weft_timeline *from = NULL;
        if (in_memory)
            CHECK(weft_timeline_open(&from, r->model, NULL, r->f.ids, 300, err));
        else
            from = open_at(r, "parent", 300);
        CHECK(weft_timeline_evaluate(from, NULL, NULL, err));
        for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
            fork_here(r, from, lengths[i], "child");
            fork_here(r, from, lengths[i], NULL);
        }
        weft_timeline *t = NULL;
        CHECK(weft_timeline_fork(&t, from, 300, NULL, err));
        check_logits(r, t, "logits are inherited");
        weft_timeline_close(t);
        weft_error error;
        assert_int_equal(weft_timeline_fork(&t, from, 301, NULL, &error), WEFT_E_INVALID);
        CHECK(weft_timeline_append(from, r->f.ids + 300, 100, err)); /* the parent goes on */
        CHECK(weft_timeline_evaluate(from, NULL, NULL, err));
        check_logits(r, from, "parent");
        weft_timeline_close(from);
    }
}

/* From files alone; the last page is the parent's complete one, its partial one, or damaged. */
static void test_inherited_from_a_directory(void **state)
{
    const rig *r = *state;
    const size_t lengths[] = {1, 64, 100, 447, 448, 460, 483};
    run_in(r, "parent", 0);
    CHECK(weft_remove_tree(r->prefix, err));
    char *parent = sub(r, "parent"), *child = sub(r, "child");
    const weft_kv_source source = {parent, r->f.ids, r->f.n};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        weft_timeline *t = NULL;
        size_t n = lengths[i];
        CHECK(weft_timeline_open_from(&t, r->model, child, &source, r->f.ids, n, err));
        assert_int_equal(weft_timeline_restored(t), n);
        assert_int_equal(weft_timeline_shared(t), n);
        assert_int_equal(kv_usage_of(child).shared, n / PAGE);
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        check_logits(r, t, "inherited");
        weft_timeline_close(t);
        assert_true(kv_usage_of(child).open <= 1);
        CHECK(weft_remove_tree(child, err));
    }
    /* ids that differ at 100: nothing behind that is taken */
    int32_t *ids = malloc(r->f.n * sizeof *ids);
    memcpy(ids, r->f.ids, r->f.n * sizeof *ids);
    ids[100] = (ids[100] + 1) % 1024;
    weft_timeline *t = NULL;
    CHECK(weft_timeline_open_from(&t, r->model, child, &source, ids, r->f.n, err));
    assert_int_equal(weft_timeline_restored(t), 100);
    weft_timeline_close(t);
    CHECK(weft_remove_tree(child, err));
    overwrite(kv_test_page_path(r->model, parent, r->f.ids, r->f.n, 7), 6000, "\xa7", 1);
    CHECK(weft_timeline_open_from(&t, r->model, child, &source, r->f.ids, 470, err));
    assert_int_equal(weft_timeline_restored(t), 448);
    weft_timeline_close(t);
    free(ids);
    free(parent);
    free(child);
}

/* ---- where links cannot be ---- */

/* In a child with file systems of its own; skipped where that is not allowed. */
static void on_another_file_system(const rig *r, unsigned long flags)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
            mkdir(r->prefix, 0700) || mount("tmpfs", r->prefix, "tmpfs", 0, "size=16m"))
            _exit(77);
        run_in(r, "one", 0);
        run_in(r, "two", 0);
        if (kv_usage_of(r->prefix).bytes > 4096 * 4) _exit(1);
        /* pages that another directory of that file system put there are copied */
        char *inside = weft_path_join(r->prefix, "run");
        weft_timeline *t = NULL;
        if (weft_timeline_open(&t, r->model, inside, r->f.ids, r->f.n, NULL)) _exit(2);
        if (weft_timeline_evaluate(t, NULL, NULL, NULL)) _exit(3);
        weft_timeline_close(t);
        if (mount(NULL, r->prefix, NULL, MS_REMOUNT | flags, NULL)) _exit(77);
        t = open_at(r, "three", r->f.n);
        int64_t shared = weft_timeline_shared(t);
        if (weft_timeline_evaluate(t, NULL, NULL, NULL)) _exit(4);
        check_logits(r, t, "copied");
        weft_timeline_close(t);
        _exit(shared == 0 || shared == COMPLETE * PAGE ? 0 : 5);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        rmdir(r->prefix);
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_store_on_another_file_system(void **state)
{
    on_another_file_system(*state, 0);
}

static void test_store_that_is_read_only(void **state)
{
    on_another_file_system(*state, MS_RDONLY);
}

/* ---- the budget ---- */

static void test_budget(void **state)
{
    const rig *r = *state;
    run_in(r, "one", 0);
    assert_int_equal(weft_prefix_trim(r->prefix, 0), 0); /* a run holds every page */
    run_in(r, "two", COMPLETE * PAGE);
    char *one = sub(r, "one"), *two = sub(r, "two");
    CHECK(weft_remove_tree(one, err));
    assert_int_equal(weft_prefix_trim(r->prefix, 0), 0);
    CHECK(weft_remove_tree(two, err));
    struct stat st;
    for (size_t p = 0; p < COMPLETE; p++) { /* used in this order, page 2 longest ago */
        char *path = prefix_page(r, p);
        const struct timespec used[2] = {{0}, {.tv_sec = p == 2 ? 1 : 1000 + (long)p}};
        assert_int_equal(utimensat(AT_FDCWD, path, used, 0) | stat(path, &st), 0);
        free(path);
    }
    int64_t each = (int64_t)st.st_blocks * 512;
    assert_int_equal(weft_prefix_trim(r->prefix, COMPLETE * each), 0);
    assert_int_equal(weft_prefix_trim(r->prefix, COMPLETE * each - 1), each);
    char *oldest = prefix_page(r, 2), *next = prefix_page(r, 0);
    assert_false(weft_file_exists(oldest));
    assert_true(weft_file_exists(next));
    weft_timeline *t = open_at(r, "live", 2 * PAGE); /* a live run's pages do not count */
    assert_int_equal(weft_prefix_trim(r->prefix, 0), 4 * each);
    assert_true(weft_file_exists(next));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    check_logits(r, t, "live");
    weft_timeline_close(t);
    free(oldest);
    free(next);
    free(one);
    free(two);
    assert_int_equal(weft_prefix_trim("/nonexistent", 0), 0);
}

/* Two processes that evaluate, offer, take and trim the same pages at once. */
static void test_processes_side_by_side(void **state)
{
    const rig *r = *state;
    pid_t pid[3];
    fflush(NULL);
    for (int i = 0; i < 3; i++) {
        pid[i] = fork();
        if (pid[i] != 0) continue;
        for (int k = 0; k < 6; k++) {
            char name[16];
            snprintf(name, sizeof name, "%d-%d", i, k);
            weft_timeline *t = open_at(r, name, r->f.n);
            if (weft_timeline_evaluate(t, NULL, NULL, NULL)) _exit(1);
            check_logits(r, t, name);
            weft_timeline_close(t);
            char *dir = sub(r, name);
            weft_remove_tree(dir, NULL);
            free(dir);
            weft_prefix_trim(r->prefix, 1 << 17);
        }
        _exit(0);
    }
    for (int i = 0; i < 3; i++) {
        int status = -1;
        assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
        assert_int_equal(status, 0);
    }
}

#ifdef WEFT_FAULTS
static void test_killed_before_the_link(void **state)
{
    const rig *r = *state;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        setenv("WEFT_FAULT", "kv.link:3", 1);
        weft_timeline *t = open_at(r, "one", r->f.n);
        weft_timeline_evaluate(t, NULL, NULL, NULL);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    run_in(r, "two", 2 * PAGE); /* the third has its name, but is not shared */
    weft_timeline *t = open_at(r, "one", r->f.n);
    assert_int_equal(weft_timeline_restored(t), COMPLETE * PAGE); /* its own, then the store's */
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    check_logits(r, t, "after the kill");
    weft_timeline_close(t);
}
#endif

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_second_run_evaluates_no_page),
        TEST(test_last_position_of_a_shared_page),
        TEST(test_removed_runs_and_stores),
        TEST(test_another_model_shares_nothing),
        TEST(test_damaged_pages_of_others),
        TEST(test_damaged_page_is_replaced_from_the_store),
        TEST(test_fork_of_a_live_timeline),
        TEST(test_inherited_from_a_directory),
        TEST(test_store_on_another_file_system),
        TEST(test_store_that_is_read_only),
        TEST(test_budget),
        TEST(test_processes_side_by_side),
#ifdef WEFT_FAULTS
        TEST(test_killed_before_the_link),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
