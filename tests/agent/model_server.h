/* Shared by the tests of downloads and of the model store: the loopback server (http_server.py), a fresh
 * store for each test, and pulls from that server whose outcome is checked to the last byte. */
#ifndef WEFT_TESTS_AGENT_MODEL_SERVER_H
#define WEFT_TESTS_AGENT_MODEL_SERVER_H

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

static inline void make_file(char *out, int version)
{
    memcpy(out, "GGUF\3\0\0\0", 8);
    for (int64_t i = 8; i < SIZE; i++) out[i] = (char)((i * i >> 7) + version);
}

static inline int start_server(void **state)
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

static inline int stop_server(void **state)
{
    close(server.input);
    waitpid(server.pid, NULL, 0);
    free(file_one);
    return 0;
}

/* A fresh, empty WEFT_HOME, and an empty log of requests. */
static inline cJSON *requests(void);

static inline int fresh_home(void **state)
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

static inline int remove_home(void **state)
{
    unsetenv("HF_TOKEN");
    return weft_remove_tree(home, NULL);
}

static inline const char *url_of(const char *path)
{
    static char url[512];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/%s", server.port, path);
    return url;
}

static inline cJSON *requests(void)
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
static inline const char *request(const cJSON *log, int i, const char *key)
{
    if (i < 0) i += cJSON_GetArraySize(log);
    const char *text = weft_json_string(cJSON_GetArrayItem(log, i), key);
    assert_non_null(text);
    return text;
}

static inline char *in_store(const char *name)
{
    static char path[700];
    snprintf(path, sizeof path, "%s/models/%s", home, name);
    return path;
}

static inline bool store_has(const char *name)
{
    return weft_file_exists(in_store(name));
}

static inline void assert_content(const char *path)
{
    weft_buffer b = WEFT_BUFFER_INIT;
    assert_int_equal(weft_file_read(path, 2 * SIZE, &b, NULL), WEFT_OK);
    assert_int_equal(b.size, SIZE);
    assert_memory_equal(b.data, file_one, SIZE);
    weft_buffer_free(&b);
}

/* Pulls `path` of the server (with "#sha256=..." in it if wanted); the name is "m". */
static inline weft_status pull(const char *path, models_pulled *out, weft_error *err)
{
    static const models_pull_options quick = {.stall_seconds = 1};
    *out = (models_pulled){0};
    return models_pull(url_of(path), &quick, out, err);
}

static inline void pull_ok(const char *path)
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

static inline void pull_fails(const char *path, weft_status status, const char *words)
{
    models_pulled m;
    weft_error err = {0};
    weft_status got = pull(path, &m, &err);
    if (got != status || !strstr(err.message, words))
        fail_msg("%s: wanted %d '%s', got %d '%s'", path, status, words, got, err.message);
    assert_null(m.path);
    assert_false(store_has("m.gguf"));
}

#endif
