/* Reads a tool's manifest (docs/tools.md). Nothing is ignored: an unknown key, a wrong type or a
 * path that does not exist is an error that names the key and the rule.
 *
 * Paths: the manifest's folder is mounted read-only at /tool. A word of `command` that names a file
 * of that folder becomes its path below /tool; other words stay as they are. `read` adds absolute
 * paths, which are mounted where they are on the host.
 */
#include "tools/set.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    NAME_BYTES = 64,
    DESCRIPTION_BYTES = 8192,
    COMMAND_WORDS = 64,
    READ_PATHS = 16,
    PATH_BYTES = 4096
};

typedef struct reader {
    const char *origin;
    weft_error *err;
    tool *out;
} reader;

static weft_status wrong(const reader *r, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static weft_status wrong(const reader *r, const char *key, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return weft_fail(r->err, WEFT_E_CONFIG, "%s: at %s: %s", r->origin, key, text);
}

static bool listed(const char *key, const char *const *known)
{
    for (; *known; known++)
        if (strcmp(*known, key) == 0) return true;
    return false;
}

static weft_status check_keys(const reader *r, const cJSON *object, const char *where,
                              const char *const *known)
{
    const cJSON *member;
    cJSON_ArrayForEach(member, object)
    {
        if (listed(member->string, known)) continue;
        weft_buffer all = WEFT_BUFFER_INIT;
        for (const char *const *k = known; *k; k++)
            weft_buffer_printf(&all, "%s%s", k == known ? "" : ", ", *k);
        char key[256];
        snprintf(key, sizeof key, "%s/%.200s", where, member->string);
        weft_status status = wrong(r, key, "unknown key: known are %s", weft_buffer_str(&all));
        weft_buffer_free(&all);
        return status;
    }
    return WEFT_OK;
}

static weft_status read_bool(const reader *r, const cJSON *object, const char *key,
                             const char *where, bool *out)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(object, key);
    if (v && !cJSON_IsBool(v)) return wrong(r, where, "true or false is expected");
    if (v) *out = cJSON_IsTrue(v);
    return WEFT_OK;
}

static weft_status read_count(const reader *r, const cJSON *object, const char *key,
                              const char *where, int64_t least, int64_t most, int64_t *out)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!v) return WEFT_OK;
    int64_t n = weft_json_int(object, key, -1);
    if (!cJSON_IsNumber(v) || n < least || n > most)
        return wrong(r, where, "a whole number from %lld to %lld is expected", (long long)least,
                     (long long)most);
    *out = n;
    return WEFT_OK;
}

/* Index of the member's text in words (NULL-terminated); fallback if there is none. */
static weft_status read_word(const reader *r, const cJSON *object, const char *key,
                             const char *const *words, const char *rule, int fallback, int *out)
{
    char where[64];
    snprintf(where, sizeof where, "/%s", key);
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(object, key);
    *out = fallback;
    if (!v) return WEFT_OK;
    for (int i = 0; cJSON_IsString(v) && words[i]; i++) {
        if (strcmp(words[i], v->valuestring) == 0) {
            *out = i;
            return WEFT_OK;
        }
    }
    return wrong(r, where, "%s is expected", rule);
}

static bool is_name(const char *text)
{
    size_t n = strlen(text);
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    return n > 0 && n <= NAME_BYTES && strspn(text, letters) == n && text[0] != '-';
}

static weft_status read_identity(reader *r)
{
    const cJSON *m = r->out->manifest;
    const char *name = weft_json_string(m, "name"),
               *description = weft_json_string(m, "description");
    if (!name || !is_name(name))
        return wrong(r, "/name", "a name is expected: 1 to %d letters, digits, _ or -", NAME_BYTES);
    if (!description || !*description || strlen(description) > DESCRIPTION_BYTES)
        return wrong(r, "/description", "a text of 1 to %d bytes is expected", DESCRIPTION_BYTES);
    r->out->info.name = name;
    r->out->info.description = description;
    return WEFT_OK;
}

static weft_status read_parameters(reader *r)
{
    const cJSON *parameters = cJSON_GetObjectItemCaseSensitive(r->out->manifest, "parameters");
    const char *type = weft_json_string(parameters, "type");
    if (!cJSON_IsObject(parameters) || !type || strcmp(type, "object") != 0)
        return wrong(r, "/parameters", "a JSON Schema with \"type\": \"object\" is expected");
    weft_error why;
    weft_status status = weft_schema_compile(parameters, &r->out->schema, &why);
    if (status == WEFT_E_MEMORY) return weft_fail(r->err, status, "out of memory");
    if (status) return wrong(r, "/parameters", "%s", why.message);
    r->out->info.parameters = parameters;
    r->out->info.schema = r->out->schema;
    return WEFT_OK;
}

static weft_status read_behaviour(reader *r, bool built_in)
{
    static const char *const approvals[] = {"never", "ask", "deny", NULL},
                             *const outputs[] = {"text", "json", NULL},
                             *const workspaces[] = {"write", "read", "none", NULL};
    const cJSON *m = r->out->manifest;
    int approval, output = 0, workspace = 0;
    weft_status status =
        read_word(r, m, "approval", approvals, "\"never\", \"ask\" or \"deny\"", 0, &approval);
    if (!status) status = read_bool(r, m, "idempotent", "/idempotent", &r->out->info.idempotent);
    if (!status && !built_in)
        status = read_word(r, m, "output", outputs, "\"text\" or \"json\"", 0, &output);
    if (!status && !built_in)
        status = read_word(r, m, "workspace", workspaces, "\"write\", \"read\" or \"none\"", 0,
                           &workspace);
    if (status) return status;
    r->out->info.approval = approvals[approval];
    r->out->json_output = output == 1;
    r->out->workspace = (tool_workspace)workspace;
    return WEFT_OK;
}

/* The manifest's folder as an absolute path without links. */
static weft_status find_folder(reader *r)
{
    char *file = realpath(r->origin, NULL), *slash = file ? strrchr(file, '/') : NULL;
    if (!slash) {
        free(file);
        return weft_fail_errno(r->err, WEFT_E_CONFIG, "%s: find its folder", r->origin);
    }
    slash[slash == file] = '\0';
    r->out->folder = file;
    return WEFT_OK;
}

/* True if the word names a regular file below the folder, spelled without "..". */
static bool names_file(const char *folder, const char *word)
{
    struct stat st;
    if (*word == '/' || *word == '-' || strstr(word, "..")) return false;
    char *path = weft_path_join(folder, word);
    bool found = path && stat(path, &st) == 0 && S_ISREG(st.st_mode);
    free(path);
    return found;
}

static weft_status read_command(reader *r)
{
    const cJSON *command = cJSON_GetObjectItemCaseSensitive(r->out->manifest, "command"), *word;
    int n = cJSON_GetArraySize(command), i = 0;
    if (!cJSON_IsArray(command) || n < 1 || n > COMMAND_WORDS)
        return wrong(r, "/command",
                     "an array of 1 to %d texts is expected: the program and its arguments",
                     COMMAND_WORDS);
    r->out->argv = calloc((size_t)n + 1, sizeof *r->out->argv);
    if (!r->out->argv) return weft_fail(r->err, WEFT_E_MEMORY, "out of memory");
    cJSON_ArrayForEach(word, command)
    {
        char key[32];
        snprintf(key, sizeof key, "/command/%d", i);
        if (!cJSON_IsString(word) || (i == 0 && !*word->valuestring) ||
            strlen(word->valuestring) > PATH_BYTES)
            return wrong(r, key, "a text of at most %d bytes is expected", PATH_BYTES);
        const char *text = word->valuestring;
        bool own = names_file(r->out->folder, text);
        bool marked = strncmp(text, "./", 2) == 0 || (i == 0 && strchr(text, '/') && *text != '/');
        if (marked && !own) return wrong(r, key, "no file %.200s stands beside the manifest", text);
        while (own && strncmp(text, "./", 2) == 0) text += 2;
        r->out->argv[i] = own ? weft_path_join("/tool", text) : strdup(text);
        if (!r->out->argv[i++]) return weft_fail(r->err, WEFT_E_MEMORY, "out of memory");
    }
    return WEFT_OK;
}

/* A path of the host that may appear at the same place inside. */
static bool may_be_mounted(const char *path)
{
    static const char *const own[] = {"/work", "/tool",  "/proc",  "/dev",   "/sys",
                                      "/tmp",  "/etc",   "/run",   "/bin",   "/sbin",
                                      "/lib",  "/lib32", "/lib64", "/libx32"};
    if (strcmp(path, "/") == 0) return false;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        size_t n = strlen(own[i]);
        if (strncmp(path, own[i], n) == 0 && (path[n] == '\0' || path[n] == '/')) return false;
    }
    return true;
}

static weft_status read_one_path(reader *r, const char *key, const char *text)
{
    struct stat st;
    if (*text != '/') {
        char *path = strstr(text, "..") ? NULL : weft_path_join(r->out->folder, text);
        bool found = path && stat(path, &st) == 0;
        free(path);
        if (!found)
            return wrong(
                r, key,
                "no %.200s stands beside the manifest; write places elsewhere as absolute paths",
                text);
        return WEFT_OK; /* mounted already, with the folder */
    }
    char *real = realpath(text, NULL);
    if (!real) return wrong(r, key, "%.200s does not exist", text);
    if (strncmp(real, "/usr/", 5) == 0) { /* every program sees it */
        free(real);
        return WEFT_OK;
    }
    if (!may_be_mounted(real)) {
        free(real);
        return wrong(r, key, "%.200s cannot be shown to a tool: the sandbox has its own there",
                     text);
    }
    r->out->read[r->out->n_read++] = real;
    return WEFT_OK;
}

static weft_status read_paths(reader *r, const cJSON *sandbox)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(sandbox, "read"), *path;
    int i = 0;
    if (!list) return WEFT_OK;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > READ_PATHS)
        return wrong(r, "/sandbox/read", "an array of at most %d paths is expected", READ_PATHS);
    r->out->read = calloc(READ_PATHS, sizeof *r->out->read);
    if (!r->out->read) return weft_fail(r->err, WEFT_E_MEMORY, "out of memory");
    cJSON_ArrayForEach(path, list)
    {
        char key[32];
        snprintf(key, sizeof key, "/sandbox/read/%d", i++);
        if (!cJSON_IsString(path) || !*path->valuestring)
            return wrong(r, key, "a path is expected");
        weft_status status = read_one_path(r, key, path->valuestring);
        if (status) return status;
    }
    return WEFT_OK;
}

static weft_status read_sandbox(reader *r)
{
    static const char *const known[] = {"network",   "read",      "seconds", "memory_mb",
                                        "processes", "output_kb", NULL};
    const cJSON *s = cJSON_GetObjectItemCaseSensitive(r->out->manifest, "sandbox");
    tool *t = r->out;
    if (!s) return WEFT_OK;
    if (!cJSON_IsObject(s)) return wrong(r, "/sandbox", "an object is expected");
    weft_status status = check_keys(r, s, "/sandbox", known);
    if (!status) status = read_bool(r, s, "network", "/sandbox/network", &t->network);
    if (!status) status = read_count(r, s, "seconds", "/sandbox/seconds", 1, 86400, &t->seconds);
    if (!status)
        status = read_count(r, s, "memory_mb", "/sandbox/memory_mb", 16, 1 << 20, &t->memory_mb);
    if (!status)
        status = read_count(r, s, "processes", "/sandbox/processes", 1, 4096, &t->processes);
    if (!status)
        status = read_count(r, s, "output_kb", "/sandbox/output_kb", 1, 65536, &t->output_kb);
    return status ? status : read_paths(r, s);
}

/* Canonical JSON knows integers only; a schema may hold 0.5: it is digested as the text "number
 * 0.5". */
static weft_status name_fractions(cJSON *v)
{
    for (cJSON *child = v->child; child; child = child->next) {
        if (cJSON_IsNumber(child) && (child->valuedouble != floor(child->valuedouble) ||
                                      fabs(child->valuedouble) >= 9007199254740992.0)) {
            char text[48] = "number ";
            weft_json_repr(child->valuedouble, text + 7);
            char *copy = strdup(text);
            if (!copy) return WEFT_E_MEMORY;
            free(child->valuestring);
            child->valuestring = copy;
            child->type = cJSON_String;
        } else if (child->child && name_fractions(child)) {
            return WEFT_E_MEMORY;
        }
    }
    return WEFT_OK;
}

static weft_status digest(reader *r)
{
    cJSON *copy = cJSON_Duplicate(r->out->manifest, true);
    weft_buffer text = WEFT_BUFFER_INIT;
    weft_status status = copy ? name_fractions(copy) : WEFT_E_MEMORY;
    if (status) weft_fail(r->err, status, "out of memory");
    if (!status) status = weft_json_canonical(copy, &text, r->err);
    if (!status) weft_sha256_of(weft_buffer_str(&text), text.size, r->out->info.digest);
    weft_buffer_free(&text);
    cJSON_Delete(copy);
    return status;
}

weft_status tool_read_manifest(cJSON *manifest_take, const char *origin, bool built_in, tool *out,
                               weft_error *err)
{
    static const char *const known[] = {"name",    "description", "parameters", "command",
                                        "sandbox", "workspace",   "idempotent", "approval",
                                        "output",  NULL};
    static const char *const known_built_in[] = {"name",       "description", "parameters",
                                                 "idempotent", "approval",    NULL};
    tool t = {.manifest = manifest_take, .run = out->run, .origin = strdup(origin)};
    reader r = {origin, err, &t};
    weft_status status = WEFT_OK;
    t.info.origin = t.origin;
    if (!t.origin) status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (!status && !cJSON_IsObject(manifest_take)) status = wrong(&r, "/", "an object is expected");
    if (!status) status = check_keys(&r, manifest_take, "", built_in ? known_built_in : known);
    if (!status) status = read_identity(&r);
    if (!status) status = read_parameters(&r);
    if (!status) status = read_behaviour(&r, built_in);
    if (!status && !built_in) status = find_folder(&r);
    if (!status && !built_in) status = read_command(&r);
    if (!status && !built_in) status = read_sandbox(&r);
    if (!status) status = digest(&r);
    if (status)
        tool_clear(&t);
    else
        *out = t;
    return status;
}

void tool_clear(tool *t)
{
    cJSON_Delete(t->manifest);
    weft_schema_free(t->schema);
    for (char **word = t->argv; word && *word; word++) free(*word);
    for (size_t i = 0; i < t->n_read; i++) free(t->read[i]);
    free(t->argv);
    free(t->read);
    free(t->folder);
    free(t->origin);
    *t = (tool){0};
}
