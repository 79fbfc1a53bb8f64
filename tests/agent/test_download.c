/* Transfers from a real server on the loopback interface: what a network, a server, a full disk and a
 * killed process can do to one, and that none of it ever leaves a file that is not the one asked for. */
#include "tests/agent/model_server.h"

static int stop_at(void *context, const char *what, int64_t done, int64_t total)
{
    return done >= *(int64_t *)context && strcmp(what, "download") == 0;
}

/* ---- transfers ---- */

static void a_plain_url_is_pulled(void **state)
{
    models_pulled m;
    weft_error err;
    char path[160];
    snprintf(path, sizeof path, "ok/m.gguf?token=secret#sha256=%s", hex_one);
    pull_ok(path);
    assert_int_equal(pull(path, &m, &err), WEFT_OK); /* again: it is there, and says so */
    assert_true(m.present);
    models_pulled_free(&m);
    cJSON *log = requests();
    assert_int_equal(cJSON_GetArraySize(log), 1);
    cJSON_Delete(log);
    assert_int_equal(pull("ok/m.gguf", &m, &err), WEFT_E_CONFIG); /* no digest: cannot tell */
    assert_non_null(strstr(err.message, "weft model rm m"));
    snprintf(path, sizeof path, "ok/m.gguf#sha256=%s", hex_two);
    assert_int_equal(pull(path, &m, &err), WEFT_E_VERIFY);
    assert_content(in_store("m.gguf")); /* what is there is never replaced */
}

static void broken_transfers_are_taken_up(void **state)
{
    static const char *const path[] = {"drop/m.gguf",       "norange/m.gguf", "noetag/m.gguf",
                                       "wrongstart/m.gguf", "flaky/m.gguf",   "stall/m.gguf",
                                       "redirect/m.gguf",   "toolong/m.gguf"};
    for (size_t i = 0; i < sizeof path / sizeof *path; i++) {
        pull_ok(path[i]);
        cJSON *log = requests();
        if (i == 0) {
            assert_true(cJSON_GetArraySize(log) > 3);
            assert_string_equal(request(log, 1, "range"), "bytes=200000-");
            assert_string_equal(request(log, 1, "if_range"), "\"v1\"");
        }
        if (i == 2)
            assert_string_equal(request(log, 1, "range"), ""); /* nothing to tie bytes together */
        cJSON_Delete(log);
        assert_int_equal(models_remove("m", NULL), WEFT_OK);
    }
}

static void hopeless_transfers_end(void **state)
{
    char path[160];
    pull_fails("neverwhole/m.gguf", WEFT_E_NETWORK, "4 fruitless attempts");
    cJSON *log = requests();
    assert_int_equal(cJSON_GetArraySize(log), 5); /* the first brought something */
    cJSON_Delete(log);
    pull_fails("modified/m.gguf", WEFT_E_NETWORK, "fruitless");
    log = requests();
    assert_string_equal(request(log, -1, "if_range"), "Mon, 01 Jan 2024 00:00:00 GMT");
    cJSON_Delete(log);
    pull_fails("status/404/m.gguf", WEFT_E_NOT_FOUND, "404");
    pull_fails("status/403/m.gguf", WEFT_E_DENIED, "HF_TOKEN");
    pull_fails("status/500/m.gguf", WEFT_E_NETWORK, "HTTP 500");
    pull_fails("unsatisfied/m.gguf", WEFT_E_NETWORK, "HTTP 416");
    pull_fails("loop/m.gguf", WEFT_E_NETWORK, "redirect");
    pull_fails("text/m.gguf", WEFT_E_INVALID, "no GGUF");
    pull_fails("empty/m.gguf", WEFT_E_INVALID, "no GGUF");
    assert_false(store_has("m.gguf.part"));
    snprintf(path, sizeof path, "ok/m.gguf#sha256=%s", hex_two);
    pull_fails(path, WEFT_E_VERIFY, "removed");
    assert_false(store_has("m.gguf.part"));
    pull_fails("ok/m.gguf#sha256=12", WEFT_E_USAGE, "sha256=HEX");
    pull_fails("ok/..", WEFT_E_USAGE, "model name");
    pull_fails("ok/", WEFT_E_USAGE, "model name");

    models_pulled m; /* nobody listens there: said at once, and without what follows '?' */
    weft_error err;
    assert_int_equal(models_pull("http://user:pass@127.0.0.1:1/m.gguf?sig=secret", NULL, &m, &err),
                     WEFT_E_NETWORK);
    assert_null(strstr(err.message, "fruitless"));
    assert_null(strstr(err.message, "secret"));
    assert_null(strstr(err.message, "pass"));
    assert_non_null(strstr(err.message, "http://127.0.0.1:1/m.gguf: "));
}

static void versions_are_never_mixed(void **state)
{
    static const char *const how[] = {"change", "changelie"};
    for (int i = 0; i < 2; i++) { /* the second version has to come whole */
        char path[160];
        models_pulled m;
        weft_error err;
        snprintf(path, sizeof path, "%s/m.gguf#sha256=%s", how[i], hex_two);
        if (pull(path, &m, &err)) fail_msg("%s: %s", how[i], err.message);
        models_pulled_free(&m);
        assert_int_equal(models_remove("m", NULL), WEFT_OK);
        cJSON_Delete(requests());
    }
}

/* The most bytes that a transfer ever had. */
static int note_bytes(void *context, const char *what, int64_t done, int64_t total)
{
    if (done > *(int64_t *)context) *(int64_t *)context = done;
    return 0;
}

static void sizes_are_checked_early(void **state)
{
    weft_error err;
    int64_t most = 0;
    char path[600];
    snprintf(path, sizeof path, "%s/part", home);
    char url[512];
    snprintf(url, sizeof url, "%s", url_of("ok/x"));
    download d = {.url = url, .path = path, .bytes = SIZE - 1};
    assert_int_equal(download_file(&d, &err), WEFT_E_VERIFY);
    assert_false(weft_file_exists(path));
    d.bytes = SIZE + 1;
    d.progress = note_bytes;
    d.context = &most;
    assert_int_equal(download_file(&d, &err), WEFT_E_VERIFY);
    assert_int_equal(most, 0); /* its header was enough */
    d.progress = NULL;
    d.bytes = SIZE;
    assert_int_equal(download_file(&d, &err), WEFT_OK);
    cJSON_Delete(requests());
    assert_int_equal(download_file(&d, &err), WEFT_OK); /* whole already: no request */
    d.bytes = -1;
    assert_int_equal(download_file(&d, &err), WEFT_OK); /* of unknown size: the server says 416 */
    cJSON *log = requests();
    assert_int_equal(cJSON_GetArraySize(log), 1);
    assert_string_equal(request(log, 0, "range"), "bytes=600000-");
    cJSON_Delete(log);
    assert_content(path);
    assert_int_equal(truncate(path, 2 * SIZE), 0); /* longer than what the server has: anew */
    assert_int_equal(download_file(&d, &err), WEFT_OK);
    assert_content(path);
    download_discard(path);

    assert_int_equal(download_room(home, INT64_MAX, &err), WEFT_E_STORAGE);
    assert_non_null(strstr(err.message, "free some space"));
    assert_int_equal(download_room(home, 1, &err), WEFT_OK);
}

static void a_full_disk_is_reported(void **state)
{
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    struct rlimit small = {300000, old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    pull_fails("ok/m.gguf", WEFT_E_STORAGE, "write");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_DFL);
    cJSON_Delete(requests());
    pull_ok("ok/m.gguf"); /* and goes on from there */
    cJSON *log = requests();
    assert_string_equal(request(log, 0, "range"), "bytes=300000-");
    cJSON_Delete(log);
}

static int die_at(void *context, const char *what, int64_t done, int64_t total)
{
    if (done >= *(int64_t *)context) raise(SIGKILL);
    return 0;
}

static void a_killed_pull_goes_on(void **state)
{
    int64_t limit = 150000;
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        models_pull_options o = {.progress = die_at, .context = &limit};
        models_pulled m;
        models_pull(url_of("drop/m.gguf"), &o, &m, NULL);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status));
    assert_true(store_has("m.gguf.part"));
    assert_false(store_has("m.gguf"));
    cJSON_Delete(requests());
    pull_ok("drop/m.gguf");
    cJSON *log = requests();
    assert_true(strncmp(request(log, 0, "range"), "bytes=", 6) == 0);
    cJSON_Delete(log);
}

static void an_interrupt_keeps_the_part(void **state)
{
    int64_t limit = 1;
    models_pull_options o = {.progress = stop_at, .context = &limit};
    models_pulled m;
    weft_error err;
    assert_int_equal(models_pull(url_of("drop/m.gguf"), &o, &m, &err), WEFT_E_INTERRUPTED);
    assert_true(store_has("m.gguf.part"));
    cJSON_Delete(requests());
    assert_int_equal(models_pull(url_of("ok/m.gguf"), NULL, &m, &err), WEFT_OK);
    cJSON *log = requests();
    assert_string_equal(request(log, 0, "range"), ""); /* another URL: anew */
    cJSON_Delete(log);
    assert_content(m.path);
    models_pulled_free(&m);
}

static void two_pulls_share_one_download(void **state)
{
    char path[160];
    int status[2];
    pid_t pid[2];
    snprintf(path, sizeof path, "drop/m.gguf#sha256=%s", hex_one);
    for (int i = 0; i < 2; i++) {
        pid[i] = fork();
        assert_true(pid[i] >= 0);
        if (pid[i] == 0) {
            models_pulled m;
            _exit(pull(path, &m, NULL) ? 9 : m.present ? 1 : 0);
        }
    }
    for (int i = 0; i < 2; i++) waitpid(pid[i], &status[i], 0);
    assert_int_equal(WEXITSTATUS(status[0]) + WEXITSTATUS(status[1]), 1); /* one found it present */
    assert_content(in_store("m.gguf"));
    cJSON *log = requests();
    int whole = 0;
    for (int i = 0; i < cJSON_GetArraySize(log); i++) whole += !*request(log, i, "range");
    assert_int_equal(whole, 1);
    cJSON_Delete(log);

    int fd; /* and a model that is being pulled is not removed */
    store_paths p;
    assert_int_equal(store_paths_of("m", &p, NULL), WEFT_OK);
    assert_int_equal(store_lock(&p, NULL, &fd, NULL), WEFT_OK);
    assert_int_equal(models_remove("m", NULL), WEFT_E_STORAGE);
    close(fd);
    store_paths_free(&p);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, fresh_home, remove_home)
    const struct CMUnitTest tests[] = {
        T(a_plain_url_is_pulled),        T(broken_transfers_are_taken_up),
        T(hopeless_transfers_end),       T(versions_are_never_mixed),
        T(sizes_are_checked_early),      T(a_full_disk_is_reported),
        T(a_killed_pull_goes_on),        T(an_interrupt_keeps_the_part),
        T(two_pulls_share_one_download),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
