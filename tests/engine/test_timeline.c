/* The numeric contract and the pages of one timeline, on a tiny model: however the ids were cut, on however
 * many threads, by whatever instruction set, restored, killed or damaged: the same bits. */
#include "tests/engine/count_allocations.h"
#include "tests/engine/kv_test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { PAGE = 64, PAGE_HEAD = 4096 };

static const char tiny[] = "agent/tiny-agent-f16.gguf";

/* One model, 483 ids, and the digests that everything must reproduce. */
typedef struct rig {
    weft_model *model;
    fixture f;
    digests expected;
} rig;

static int setup(void **state)
{
    rig *r = calloc(1, sizeof *r);
    const weft_engine_options options = {.threads = 1, .chunk = 48};
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
    free(r);
    return 0;
}

static weft_timeline *open_at(const rig *r, const char *dir, size_t n)
{
    weft_timeline *t = NULL;
    CHECK(weft_timeline_open(&t, r->model, dir, r->f.ids, n, err));
    return t;
}

/* Opens the timeline over all ids, wants `restored` of them from the file (-1: any), evaluates the
 * rest and compares every position that was computed. */
static void finish_and_compare(const rig *r, const char *dir, int64_t restored, const char *what)
{
    weft_timeline *t = open_at(r, dir, r->f.n);
    if (restored >= 0) assert_int_equal(weft_timeline_restored(t), restored);
    int64_t from = weft_timeline_restored(t);
    assert_int_equal(weft_timeline_pending(t), (int64_t)r->f.n - from);
    digests d = digests_new(r->model, r->f.n);
    CHECK(weft_timeline_evaluate_each(t, digests_visit, &d, err));
    if (from == (int64_t)r->f.n) from--;
    assert_int_equal(d.visited, (int64_t)r->f.n - from);
    digests_compare(&r->expected, &d, (size_t)from, r->f.n, what);
    free(d.at);
    weft_timeline_close(t);
}

static void evaluate_in(const rig *r, const char *dir, size_t n)
{
    weft_timeline *t = open_at(r, dir, n);
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    weft_timeline_close(t);
}

static size_t stride(const rig *r)
{
    size_t page = weft_model_get_info(r->model)->kv_page_bytes;
    return PAGE_HEAD + (page + 4095) / 4096 * 4096;
}

/* File of page p for the rig's ids, as docs/engine.md has it. */
static char *page_path(const rig *r, const char *dir, size_t p)
{
    return kv_test_page_path(r->model, dir, r->f.ids, r->f.n, p);
}

static void change_page(const rig *r, const char *dir, size_t page, size_t offset,
                        const void *bytes, size_t n)
{
    char *path = page_path(r, dir, page);
    assert_int_equal(chmod(path, 0600), 0);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0 && pwrite(fd, bytes, n, (off_t)offset) == (ssize_t)n);
    close(fd);
    free(path);
}

static int stop_after_two(void *context, const char *what, int64_t done, int64_t total)
{
    int *calls = context;
    assert_string_equal(what, "prefill");
    assert_true(done <= total);
    return ++*calls == 2;
}

/* ---- the contract ---- */

static void test_contract(void **state)
{
    const rig *r = *state;
    const char *const isa[] = {"scalar", "avx2", "avx512", "amx"};
    const int chunk[] = {1, 7, 64, 512};
    for (size_t i = 0; i < sizeof isa / sizeof *isa; i++) {
        if (!isa_usable(isa[i])) continue;
        for (size_t c = 0; c < 4; c++) {
            for (int threads = 1; threads <= 2; threads++) {
                const weft_engine_options o = {
                    .isa = isa[i], .threads = threads, .chunk = chunk[c]};
                weft_model *model = model_open(data_path(tiny), &o);
                size_t n = strcmp(isa[i], "scalar") == 0 ? 200 : r->f.n;
                digests d = digests_of(model, r->f.ids, n);
                char what[80];
                snprintf(what, sizeof what, "%s, chunk %d, %d threads", isa[i], chunk[c], threads);
                digests_compare(&r->expected, &d, 0, n, what);
                free(d.at);
                weft_model_close(model);
            }
        }
    }
}

/* The other KV types: cut, split over threads and restored, they give the same bits too. */
static void test_kv_types(void **state)
{
    const rig *r = *state;
    const weft_kv_type types[] = {WEFT_KV_F32, WEFT_KV_Q8_0};
    for (size_t i = 0; i < 2; i++) {
        char *dir = make_temp_dir();
        rig other = {.f = r->f};
        for (int chunk = 1; chunk <= 512; chunk *= 8) {
            const weft_engine_options o = {
                .kv_type = types[i], .threads = chunk % 3, .chunk = chunk};
            other.model = model_open(data_path(tiny), &o);
            if (chunk == 1) {
                assert_int_equal(weft_model_get_info(other.model)->kv_type, types[i]);
                other.expected = digests_of(other.model, r->f.ids, r->f.n);
                assert_memory_not_equal(other.expected.at, r->expected.at,
                                        r->f.n * sizeof *r->expected.at);
                evaluate_in(&other, dir, 200);
                finish_and_compare(&other, dir, 200, "restored");
            } else {
                finish_and_compare(&other, NULL, 0, weft_kv_type_name(types[i]));
            }
            weft_model_close(other.model);
        }
        free(other.expected.at);
        remove_temp_dir(dir);
    }
}

static void test_evaluate_gives_the_last_logits(void **state)
{
    const rig *r = *state;
    size_t bytes = (size_t)weft_model_get_info(r->model)->n_vocab * sizeof(float);
    weft_timeline *t = open_at(r, NULL, 0);
    for (size_t n = 0; n < 150;) { /* uneven appends, some across a page */
        size_t more = n % 17 + 1;
        CHECK(weft_timeline_append(t, r->f.ids + n, more, err));
        assert_int_equal(weft_timeline_pending(t), more);
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        n += more;
        assert_int_equal(weft_timeline_length(t), n);
        assert_int_equal(weft_timeline_evaluated(t), n);
        uint8_t digest[WEFT_DIGEST_BYTES];
        weft_blake2b_of(NULL, 0, weft_timeline_logits(t), bytes, digest);
        assert_memory_equal(digest, r->expected.at[n - 1], sizeof digest);
    }
    weft_timeline_close(t);
}

/* ---- restore ---- */

static void test_restore_at_many_lengths(void **state)
{
    const rig *r = *state;
    const size_t lengths[] = {1, 2, 63, 64, 65, 127, 128, 200, 482, 483};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char *dir = make_temp_dir();
        evaluate_in(r, dir, lengths[i]);
        finish_and_compare(r, dir, (int64_t)lengths[i], "restored");
        finish_and_compare(r, dir, (int64_t)r->f.n, "restored twice");
        remove_temp_dir(dir);
    }
}

static void test_restore_all_computes_the_last_again(void **state)
{
    const rig *r = *state;
    const size_t lengths[] = {64, 100};
    for (size_t i = 0; i < 2; i++) {
        char *dir = make_temp_dir();
        evaluate_in(r, dir, lengths[i]);
        weft_timeline *t = open_at(r, dir, lengths[i]);
        assert_int_equal(weft_timeline_pending(t), 0);
        assert_null(weft_timeline_logits(t));
        assert_int_equal(weft_timeline_evaluated(t), lengths[i]);
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        assert_int_equal(weft_timeline_evaluated(t), lengths[i] + 1);
        assert_non_null(weft_timeline_logits(t));
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err)); /* nothing left to do */
        assert_int_equal(weft_timeline_evaluated(t), lengths[i] + 1);
        weft_timeline_close(t);
        finish_and_compare(r, dir, (int64_t)lengths[i], "after the last was computed again");
        remove_temp_dir(dir);
    }
}

/* A process that only looks, with fewer ids, must not throw pages away. */
static void test_looking_keeps_the_file(void **state)
{
    const rig *r = *state;
    char *dir = make_temp_dir();
    evaluate_in(r, dir, 300);
    weft_timeline *t = open_at(r, dir, 70);
    assert_int_equal(weft_timeline_restored(t), 64);
    weft_timeline_close(t);
    finish_and_compare(r, dir, 300, "after a look");
    remove_temp_dir(dir);
}

/* After close the directory holds the pages in use and nothing more. */
static void test_files(void **state)
{
    const rig *r = *state;
    char *dir = make_temp_dir();
    evaluate_in(r, dir, 130);
    kv_usage use = kv_usage_of(dir);
    assert_int_equal(use.sealed, 2);
    assert_int_equal(use.open, 1);
    assert_int_equal(use.bytes, 3 * stride(r) + 4096);
    weft_timeline *t = open_at(r, dir, 140); /* a chunk begins pages that an error leaves unused */
    int calls = 1;
    weft_error error;
    CHECK(weft_timeline_append(t, r->f.ids + 140, r->f.n - 140, err));
    assert_int_equal(weft_timeline_evaluate(t, stop_after_two, &calls, &error), WEFT_E_INTERRUPTED);
    weft_timeline_close(t);
    assert_int_equal(kv_usage_of(dir).open, 1);
    remove_temp_dir(dir);
}

/* ---- damage ---- */

/* Offsets of kv_page.h: a byte of the header that is checked, or one of the page. */
static void test_flipped_bytes(void **state)
{
    const rig *r = *state;
    const size_t page_bytes = weft_model_get_info(r->model)->kv_page_bytes;
    const struct {
        size_t page, offset;
    } flips[] = {{0, PAGE_HEAD}, {1, 0},  {2, PAGE_HEAD + 5}, {3, PAGE_HEAD + page_bytes - 1},
                 {4, 8},         {5, 16}, {5, 48},            {6, 12},
                 {6, 64},        {7, 72}, {7, PAGE_HEAD + 4000}};
    for (size_t i = 0; i < sizeof flips / sizeof *flips; i++) {
        char *dir = make_temp_dir();
        evaluate_in(r, dir, r->f.n);
        change_page(r, dir, flips[i].page, flips[i].offset, "\xa7", 1);
        finish_and_compare(r, dir, (int64_t)flips[i].page * PAGE, "flipped byte");
        finish_and_compare(r, dir, (int64_t)r->f.n, "flipped byte, again");
        remove_temp_dir(dir);
    }
}

/* A page that is cut, empty, longer, noise under a right header, or a link. */
static void test_files_that_are_no_pages(void **state)
{
    const rig *r = *state;
    const size_t cuts[] = {0, 1, PAGE_HEAD - 1, PAGE_HEAD, PAGE_HEAD + 77, stride(r) - 1,
                           stride(r) + 1};
    uint8_t *noise = malloc(stride(r));
    weft_random(noise, stride(r));
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts + 2; i++) {
        char *dir = make_temp_dir();
        evaluate_in(r, dir, r->f.n);
        size_t p = i % 8, n_cuts = sizeof cuts / sizeof *cuts;
        char *path = page_path(r, dir, p);
        if (i < n_cuts) {
            assert_int_equal(chmod(path, 0600) | truncate(path, (off_t)cuts[i]), 0);
        } else if (i == n_cuts) {
            change_page(r, dir, p, PAGE_HEAD, noise, stride(r) - PAGE_HEAD);
        } else {
            assert_int_equal(unlink(path) | symlink("/etc/passwd", path), 0);
        }
        finish_and_compare(r, dir, (int64_t)p * PAGE, "no page");
        finish_and_compare(r, dir, (int64_t)r->f.n, "no page, again");
        free(path);
        remove_temp_dir(dir);
    }
    free(noise);
}

static void test_other_ids(void **state)
{
    const rig *r = *state;
    char *dir = make_temp_dir();
    int32_t *ids = malloc(r->f.n * sizeof *ids);
    memcpy(ids, r->f.ids, r->f.n * sizeof *ids);
    ids[100] = (ids[100] + 1) % 1024;
    weft_timeline *t = NULL;
    CHECK(weft_timeline_open(&t, r->model, dir, ids, r->f.n, err));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    weft_timeline_close(t);
    /* pages 2 and on hold the same ids as ours, but after another past */
    finish_and_compare(r, dir, 64, "other ids");
    free(ids);
    remove_temp_dir(dir);
}

static void test_other_model(void **state)
{
    const rig *r = *state;
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "other.gguf");
    char *kv = weft_path_join(dir, "kv");
    weft_buffer file = WEFT_BUFFER_INIT;
    CHECK(weft_file_read(data_path(tiny), 8 << 20, &file, err));
    char *eps = memmem(file.data, file.size, "layer_norm_rms_epsilon", 22);
    memcpy(eps + 26, &(float){1e-3f}, 4);
    CHECK(weft_file_write(path, file.data, file.size, 0600, err));
    weft_model *other = model_open(path, NULL);
    weft_timeline *t = NULL;
    CHECK(weft_timeline_open(&t, other, kv, r->f.ids, r->f.n, err));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    weft_timeline_close(t);
    char *theirs = kv_test_page_path(other, kv, r->f.ids, r->f.n, 0), *ours = page_path(r, kv, 0);
    weft_model_close(other);
    assert_string_not_equal(theirs, ours);
    assert_int_equal(rename(theirs, ours), 0); /* under our name: its header still names it */
    free(theirs);
    free(ours);
    finish_and_compare(r, kv, 0, "another model's pages");

    const weft_engine_options wide = {.kv_type = WEFT_KV_F32, .threads = 1};
    other = model_open(data_path(tiny), &wide);
    CHECK(weft_timeline_open(&t, other, kv, r->f.ids, r->f.n, err));
    assert_int_equal(weft_timeline_restored(t), 0);
    weft_timeline_close(t);
    weft_model_close(other);
    finish_and_compare(r, kv, (int64_t)r->f.n, "beside another KV type's pages");
    weft_buffer_free(&file);
    free(path);
    free(kv);
    remove_temp_dir(dir);
}

/* ---- crashes ---- */

typedef struct killer {
    int64_t at_page, at_chunk, chunks; /* -1: never */
} killer;

static weft_status kill_at_page(void *context, int64_t page,
                                const uint8_t digest[WEFT_DIGEST_BYTES], weft_error *err)
{
    const killer *k = context;
    if (page == k->at_page) raise(SIGKILL);
    return WEFT_OK;
}

static int kill_at_chunk(void *context, const char *what, int64_t done, int64_t total)
{
    killer *k = context;
    if (k->chunks++ == k->at_chunk) raise(SIGKILL);
    return 0;
}

/* In a child: evaluates everything a few tokens at a time. */
static pid_t start_child(const rig *r, const char *dir, killer k, int chunk)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) return pid;
    const weft_engine_options o = {.threads = 1, .chunk = chunk};
    weft_model *model = NULL;
    weft_timeline *t = NULL;
    if (weft_model_open(&model, data_path(tiny), &o, NULL)) _exit(2);
    if (weft_timeline_open(&t, model, dir, r->f.ids, r->f.n, NULL)) _exit(3);
    weft_timeline_on_page(t, kill_at_page, &k);
    if (weft_timeline_evaluate(t, kill_at_chunk, &k, NULL)) _exit(4);
    weft_timeline_close(t);
    _exit(0);
}

static void expect_killed(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_killed_at_known_points(void **state)
{
    const rig *r = *state;
    for (int64_t i = 0; i < 7; i++) {
        char *dir = make_temp_dir();
        expect_killed(start_child(r, dir, (killer){i, -1, 0}, 16));
        weft_timeline *t = open_at(r, dir, r->f.n);
        assert_int_equal(weft_timeline_restored(t), (i + 1) * PAGE);
        assert_int_equal(weft_timeline_evaluated(t), (i + 1) * PAGE); /* survives the kill */
        weft_timeline_close(t);
        finish_and_compare(r, dir, (i + 1) * PAGE, "killed after a page");
        remove_temp_dir(dir);
    }
    for (int64_t i = 0; i < 30; i += 5) {
        char *dir = make_temp_dir();
        expect_killed(start_child(r, dir, (killer){-1, i, 0}, 13));
        finish_and_compare(r, dir, (i + 1) * 13 / PAGE * PAGE, "killed after a chunk");
        remove_temp_dir(dir);
    }
}

/* Pages of an older past lie behind those of a newer one, their own ids unchanged: the chain
 * refuses them. */
static void test_pages_of_another_past(void **state)
{
    const rig *r = *state;
    rig changed = *r;
    char *dir = make_temp_dir();
    evaluate_in(r, dir, r->f.n);
    changed.f.ids = malloc(r->f.n * sizeof *changed.f.ids);
    memcpy(changed.f.ids, r->f.ids, r->f.n * sizeof *changed.f.ids);
    changed.f.ids[100] = (changed.f.ids[100] + 1) % 1024;
    changed.expected = digests_of(r->model, changed.f.ids, r->f.n);
    expect_killed(start_child(&changed, dir, (killer){1, -1, 0}, 16));
    finish_and_compare(&changed, dir, 128, "pages of another past");
    free(changed.f.ids);
    free(changed.expected.at);
    remove_temp_dir(dir);
}

/* At any moment: the outcome may not depend on when the signal came. */
static void test_killed_at_any_moment(void **state)
{
    const rig *r = *state;
    for (useconds_t i = 0; i < 24; i++) {
        char *dir = make_temp_dir();
        evaluate_in(r, dir, 100); /* so that a sealed partial page is being written again */
        pid_t pid = start_child(r, dir, (killer){-1, -1, 0}, 1);
        usleep(1000 + i * 1500);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        finish_and_compare(r, dir, -1, "killed at any moment");
        remove_temp_dir(dir);
    }
}

/* ---- storage ---- */

static weft_status disk_is_full_after(void *context, int64_t page,
                                      const uint8_t digest[WEFT_DIGEST_BYTES], weft_error *err)
{
    const struct rlimit *limit = context;
    if (page == 2 && setrlimit(RLIMIT_FSIZE, limit)) _exit(10);
    return WEFT_OK;
}

static void child_on_full_disk(const rig *r, const char *dir)
{
    struct rlimit limit = {stride(r) - 1, RLIM_INFINITY};
    weft_timeline *t = NULL;
    weft_error err = {0};
    if (weft_timeline_open(&t, r->model, dir, r->f.ids, r->f.n, &err)) _exit(11);
    weft_timeline_on_page(t, disk_is_full_after, &limit);
    if (weft_timeline_evaluate(t, NULL, NULL, &err) != WEFT_E_STORAGE) _exit(12);
    if (!strstr(err.message, "no space")) _exit(13);
    if (weft_timeline_evaluated(t) != 3 * PAGE) _exit(14); /* what fits is used */
    if (weft_timeline_evaluate(t, NULL, NULL, &err) != WEFT_E_STORAGE) _exit(15);
    weft_timeline_close(t);
    _exit(0);
}

static void test_full_disk(void **state)
{
    const rig *r = *state;
    char *dir = make_temp_dir();
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) child_on_full_disk(r, dir);
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    finish_and_compare(r, dir, 3 * PAGE, "after a full disk");
    remove_temp_dir(dir);
}

static void test_lock(void **state)
{
    const rig *r = *state;
    char *dir = make_temp_dir();
    weft_timeline *t = open_at(r, dir, 10), *second = NULL;
    weft_error err;
    assert_int_equal(weft_timeline_open(&second, r->model, dir, r->f.ids, 10, &err),
                     WEFT_E_STORAGE);
    assert_non_null(strstr(err.message, "another process"));
    pid_t pid = fork();
    if (pid == 0)
        _exit(weft_timeline_open(&second, r->model, dir, r->f.ids, 10, &err) != WEFT_E_STORAGE);
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    weft_timeline_close(t);
    weft_timeline_close(open_at(r, dir, 10));
    remove_temp_dir(dir);
}

static void test_directory_that_cannot_be(void **state)
{
    const rig *r = *state;
    weft_timeline *t = NULL;
    weft_error err;
    assert_int_equal(weft_timeline_open(&t, r->model, "/proc/self/kv", NULL, 0, &err),
                     WEFT_E_STORAGE);
    assert_null(t);
}

#ifdef WEFT_FAULTS
static void test_sealing_fails(void **state)
{
    const rig *r = *state;
    char *dir = make_temp_dir();
    weft_timeline *t = open_at(r, dir, r->f.n);
    setenv("WEFT_FAULT", "kv.page:2:fail", 1);
    weft_error error;
    assert_int_equal(weft_timeline_evaluate(t, NULL, NULL, &error), WEFT_E_STORAGE);
    unsetenv("WEFT_FAULT");
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err)); /* the page is sealed after all */
    weft_timeline_close(t);
    finish_and_compare(r, dir, (int64_t)r->f.n, "after a failed seal");
    remove_temp_dir(dir);
}

static void test_killed_around_sealing(void **state)
{
    const rig *r = *state;
    const struct {
        const char *fault;
        int64_t restored;
    } cases[] = {{"kv.page:3", 128}, {"kv.sealed:3", 192}, {"engine.chunk:4", 64}};
    for (size_t i = 0; i < 3; i++) {
        char *dir = make_temp_dir();
        setenv("WEFT_FAULT", cases[i].fault, 1);
        expect_killed(start_child(r, dir, (killer){-1, -1, 0}, 24));
        unsetenv("WEFT_FAULT");
        finish_and_compare(r, dir, cases[i].restored, cases[i].fault);
        remove_temp_dir(dir);
    }
}
#endif

/* ---- limits, interruption, pages ---- */

static void test_context_overflow(void **state)
{
    const rig *r = *state;
    const weft_engine_options o = {.context = 100, .threads = 1};
    weft_model *model = model_open(data_path(tiny), &o);
    weft_timeline *t = NULL;
    weft_error error;
    assert_int_equal(weft_timeline_open(&t, model, NULL, r->f.ids, 101, &error), WEFT_E_LIMIT);
    CHECK(weft_timeline_open(&t, model, NULL, r->f.ids, 60, err));
    assert_int_equal(weft_timeline_append(t, r->f.ids, 41, &error), WEFT_E_LIMIT);
    assert_int_equal(weft_timeline_append(t, r->f.ids, SIZE_MAX, &error), WEFT_E_LIMIT);
    assert_int_equal(weft_timeline_length(t), 60);
    CHECK(weft_timeline_append(t, r->f.ids + 60, 40, err));
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    assert_int_equal(weft_timeline_append(t, r->f.ids, 1, &error), WEFT_E_LIMIT);
    const int32_t bad[] = {-1, 1024};
    weft_timeline_close(t);
    CHECK(weft_timeline_open(&t, model, NULL, NULL, 0, err));
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(weft_timeline_append(t, &bad[i], 1, &error), WEFT_E_INVALID);
    weft_timeline_close(t);
    weft_model_close(model);
}

static void test_interrupted(void **state)
{
    const rig *r = *state;
    char *dir = make_temp_dir();
    weft_timeline *t = open_at(r, dir, r->f.n);
    int calls = 0;
    weft_error err;
    assert_int_equal(weft_timeline_evaluate(t, stop_after_two, &calls, &err), WEFT_E_INTERRUPTED);
    assert_int_equal(weft_timeline_evaluated(t), 96);
    assert_null(weft_timeline_logits(t));
    int32_t id;
    const weft_sampler sampler = {.top_p = 1, .repeat_penalty = 1};
    assert_int_equal(weft_timeline_sample(t, &sampler, NULL, &id, NULL, &err), WEFT_E_INVALID);
    weft_timeline_close(t);
    finish_and_compare(r, dir, 96, "after an interruption");
    remove_temp_dir(dir);
}

typedef struct seen_pages {
    uint8_t digest[8][WEFT_DIGEST_BYTES];
    int64_t n;
} seen_pages;

static weft_status note_page(void *context, int64_t page, const uint8_t digest[WEFT_DIGEST_BYTES],
                             weft_error *err)
{
    seen_pages *s = context;
    assert_int_equal(page, s->n);
    memcpy(s->digest[s->n++], digest, WEFT_DIGEST_BYTES);
    return WEFT_OK;
}

/* Page digests too are a function of model and ids. */
static void test_page_digests(void **state)
{
    const rig *r = *state;
    seen_pages seen[2] = {0};
    const int chunk[] = {5, 512};
    for (size_t i = 0; i < 2; i++) {
        const weft_engine_options o = {.chunk = chunk[i], .threads = (int)i + 1};
        weft_model *model = model_open(data_path(tiny), &o);
        char *dir = make_temp_dir();
        weft_timeline *t = NULL;
        CHECK(weft_timeline_open(&t, model, dir, r->f.ids, r->f.n, err));
        weft_timeline_on_page(t, note_page, &seen[i]);
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        weft_timeline_close(t);
        weft_model_close(model);
        remove_temp_dir(dir);
        assert_int_equal(seen[i].n, r->f.n / PAGE);
    }
    assert_memory_equal(&seen[0], &seen[1], sizeof seen[0]);
}

/* ---- no allocation in the token loop ---- */

static void test_token_loop_allocates_nothing(void **state)
{
    const rig *r = *state;
    char *dir = make_temp_dir();
    weft_timeline *t = open_at(r, dir, 100);
    const weft_sampler sampler = {.temperature = 0.8,
                                  .top_k = 40,
                                  .top_p = 0.95,
                                  .min_p = 0.01,
                                  .repeat_penalty = 1.1,
                                  .seed = 3};
    size_t before = allocations;
    assert_true(before > 0);
    CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    for (int i = 0; i < 100; i++) { /* seals a page on the way */
        int32_t id;
        float logprob;
        CHECK(weft_timeline_sample(t, &sampler, NULL, &id, &logprob, err));
        CHECK(weft_timeline_append(t, &id, 1, err));
        CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
    }
    assert_int_equal(allocations, before);
    weft_timeline_close(t);
    remove_temp_dir(dir);
}

/* A run cut anywhere draws what it would have drawn. */
static void test_sampling_survives_a_restart(void **state)
{
    const rig *r = *state;
    const weft_sampler sampler = {
        .temperature = 1.5, .top_p = 0.99, .repeat_penalty = 1, .seed = 11};
    char *dir = make_temp_dir();
    int32_t drawn[2][40];
    for (int pass = 0; pass < 2; pass++) {
        weft_timeline *t = open_at(r, pass ? dir : NULL, 200);
        for (int i = 0; i < 40; i++) {
            CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
            CHECK(weft_timeline_sample(t, &sampler, NULL, &drawn[pass][i], NULL, err));
            CHECK(weft_timeline_append(t, &drawn[pass][i], 1, err));
            if (pass == 0 || i % 7 != 6) continue;
            int32_t ids[300];
            size_t n = (size_t)weft_timeline_length(t);
            memcpy(ids, weft_timeline_ids(t), n * sizeof *ids);
            weft_timeline_close(t);
            CHECK(weft_timeline_open(&t, r->model, dir, ids, n, err));
            assert_int_equal(weft_timeline_restored(t), n - 1);
        }
        weft_timeline_close(t);
    }
    assert_memory_equal(drawn[0], drawn[1], sizeof drawn[0]);
    remove_temp_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contract),
        cmocka_unit_test(test_kv_types),
        cmocka_unit_test(test_evaluate_gives_the_last_logits),
        cmocka_unit_test(test_restore_at_many_lengths),
        cmocka_unit_test(test_restore_all_computes_the_last_again),
        cmocka_unit_test(test_looking_keeps_the_file),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_flipped_bytes),
        cmocka_unit_test(test_files_that_are_no_pages),
        cmocka_unit_test(test_other_ids),
        cmocka_unit_test(test_other_model),
        cmocka_unit_test(test_killed_at_known_points),
        cmocka_unit_test(test_pages_of_another_past),
        cmocka_unit_test(test_killed_at_any_moment),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_directory_that_cannot_be),
#ifdef WEFT_FAULTS
        cmocka_unit_test(test_killed_around_sealing), /* first: children inherit the pass count */
        cmocka_unit_test(test_sealing_fails),
#endif
        cmocka_unit_test(test_context_overflow),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_page_digests),
        cmocka_unit_test(test_token_loop_allocates_nothing),
        cmocka_unit_test(test_sampling_survives_a_restart),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
