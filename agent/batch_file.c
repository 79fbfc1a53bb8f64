/* The file of a batch: a JSON object a line, each checked before anything runs. */
#include "agent/batch.h"

#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 256 << 20, ATTACH_MAX = 256 << 20 };

#define KNOWN "id, task, system, tools, attach, limits, seed"

static weft_status wrong(size_t line, weft_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static weft_status wrong(size_t line, weft_error *err, const char *format, ...)
{
    char text[WEFT_ERROR_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return weft_fail(err, WEFT_E_CONFIG, "line %zu: %s", line, text);
}

/* ---- one line ---- */

static weft_status set(batch_task *t, weft_option id, const char *text, weft_error *err)
{
    return weft_options_set(&t->options, id, text, "task", err);
}

static weft_status set_count(batch_task *t, weft_option id, const char *key, const cJSON *value,
                             weft_error *err)
{
    char text[32];
    double v = cJSON_IsNumber(value) ? value->valuedouble : -1;
    if (v < 0 || v >= 9007199254740992.0 || v != (double)(int64_t)v)
        return wrong(t->line, err, "\"%s\": a whole number from 0 is expected", key);
    snprintf(text, sizeof text, "%lld", (long long)v);
    return set(t, id, text, err);
}

static weft_status read_limits(batch_task *t, const cJSON *limits, weft_error *err)
{
    static const struct {
        const char *key;
        weft_option id;
    } known[] = {{"turns", OPT_MAX_TURNS},
                 {"tool_calls", OPT_MAX_TOOL_CALLS},
                 {"tokens", OPT_MAX_TOKENS},
                 {"seconds", OPT_MAX_SECONDS},
                 {"repeats", OPT_MAX_REPEATS}};
    const cJSON *item;
    weft_status status = WEFT_OK;
    if (!cJSON_IsObject(limits)) return wrong(t->line, err, "\"limits\": an object is expected");
    cJSON_ArrayForEach(item, limits)
    {
        size_t i = 0;
        while (i < sizeof known / sizeof *known && strcmp(item->string, known[i].key) != 0) i++;
        if (i == sizeof known / sizeof *known)
            return wrong(t->line, err,
                         "\"limits\": unknown limit \"%s\": turns, tool_calls, tokens, seconds and "
                         "repeats are known",
                         item->string);
        if (!status) status = set_count(t, known[i].id, known[i].key, item, err);
    }
    return status;
}

/* Text, or an array of texts: joined by commas for --tools, one by one for --attach. */
static weft_status read_names(batch_task *t, weft_option id, const cJSON *value, weft_error *err)
{
    weft_buffer joined = WEFT_BUFFER_INIT;
    weft_status status = WEFT_OK;
    const char *key = weft_option_table[id].name;
    const cJSON *item;
    if (cJSON_IsString(value)) return set(t, id, value->valuestring, err);
    if (!cJSON_IsArray(value))
        return wrong(t->line, err, "\"%s\": a text or an array of texts is expected", key);
    cJSON_ArrayForEach(item, value)
    {
        if (!cJSON_IsString(item) || !*item->valuestring) {
            weft_buffer_free(&joined);
            return wrong(t->line, err, "\"%s\": a text or an array of texts is expected", key);
        }
        if (id == OPT_ATTACH && !status) status = set(t, id, item->valuestring, err);
        weft_buffer_printf(&joined, "%s%s", joined.size ? "," : "", item->valuestring);
    }
    if (id == OPT_TOOLS) status = set(t, id, joined.size ? joined.data : "none", err);
    weft_buffer_free(&joined);
    return status;
}

static weft_status read_text(batch_task *t, const cJSON *item, char **slot, weft_error *err)
{
    if (!cJSON_IsString(item) || strspn(item->valuestring, " \t\r\n") == strlen(item->valuestring))
        return wrong(t->line, err, "\"%s\": a text is expected", item->string);
    *slot = strdup(item->valuestring);
    return *slot ? WEFT_OK : weft_fail(err, WEFT_E_MEMORY, "out of memory");
}

static weft_status read_member(batch_task *t, const cJSON *item, weft_error *err)
{
    const char *key = item->string;
    if (strcmp(key, "id") == 0) return read_text(t, item, &t->label, err);
    if (strcmp(key, "task") == 0) return read_text(t, item, &t->text, err);
    if (strcmp(key, "tools") == 0) return read_names(t, OPT_TOOLS, item, err);
    if (strcmp(key, "attach") == 0) return read_names(t, OPT_ATTACH, item, err);
    if (strcmp(key, "limits") == 0) return read_limits(t, item, err);
    if (strcmp(key, "seed") == 0) return set_count(t, OPT_SEED, key, item, err);
    if (strcmp(key, "system") == 0)
        return cJSON_IsString(item) ? set(t, OPT_SYSTEM, item->valuestring, err)
                                    : wrong(t->line, err, "\"system\": a text is expected");
    if (strcmp(key, "output_schema") == 0)
        return wrong(t->line, err, "\"output_schema\" is not supported yet: leave it out");
    return wrong(t->line, err, "unknown key \"%s\": known are " KNOWN, key);
}

/* What the line leaves open is as the command has it. */
static weft_status inherit(batch_task *t, const weft_options *o, weft_error *err)
{
    weft_status status = WEFT_OK;
    t->options.verb = o->verb;
    for (int i = 0; i < OPT_COUNT && !status; i++) {
        const weft_value *v = &o->value[i];
        if (v->text)
            status = weft_options_set(&t->options, (weft_option)i, v->text, v->origin, err);
        for (char **item = o->list[i]; item && *item && !status; item++)
            status = weft_options_set(&t->options, (weft_option)i, *item, "flag", err);
    }
    return status;
}

/* ---- the id of its run ---- */

/* Options that decide nothing of what a run comes to, or that a run may go on with changed. The model
 * counts by its content. */
static bool decides(weft_option id)
{
    switch (id) {
    case OPT_MODEL:
    case OPT_THREADS:
    case OPT_ISA:
    case OPT_MEMORY:
    case OPT_DRAFT:
    case OPT_AT_ONCE:
    case OPT_MAX_TURNS:
    case OPT_MAX_TOOL_CALLS:
    case OPT_MAX_TOKENS:
    case OPT_MAX_SECONDS:
    case OPT_MAX_REPEATS:
    case OPT_QUIET:
    case OPT_COLOR:
    case OPT_HELP: return false;
    default: return weft_option_table[id].verbs >> VERB_BATCH & 1;
    }
}

static void add_part(weft_sha256 *h, const char *name, const void *bytes, size_t n)
{
    char head[64]; /* with its size: no two lists of parts give the same bytes */
    int size = snprintf(head, sizeof head, "%s %zu\n", name, n);
    weft_sha256_update(h, head, (size_t)size);
    weft_sha256_update(h, bytes, n);
}

static weft_status add_file(weft_sha256 *h, const char *path, weft_error *err)
{
    weft_buffer content = WEFT_BUFFER_INIT;
    weft_status status = weft_file_read(path, ATTACH_MAX, &content, err);
    if (!status) add_part(h, "file", weft_buffer_str(&content), content.size);
    weft_buffer_free(&content);
    return status;
}

static weft_status add_settings(weft_sha256 *h, const batch_task *t, const weft_options *o,
                                weft_error *err)
{
    weft_status status = WEFT_OK;
    for (int i = 0; i < OPT_COUNT && !status; i++) {
        if (!decides((weft_option)i)) continue;
        const char *text = weft_option_text(o, (weft_option)i);
        add_part(h, weft_option_table[i].name, text, strlen(text));
        for (char **item = o->list[i]; item && *item && !status; item++) {
            char *whole = realpath(*item, NULL);
            const char *path = whole ? whole : *item;
            add_part(h, weft_option_table[i].name, path, strlen(path));
            free(whole);
        }
    }
    for (char **path = t->options.list[OPT_ATTACH]; path && *path && !status; path++)
        status = add_file(h, *path, err);
    weft_buffer system = WEFT_BUFFER_INIT;
    if (!status) status = run_read_system(weft_option_text(&t->options, OPT_SYSTEM), &system, err);
    if (!status) add_part(h, "text", weft_buffer_str(&system), system.size);
    weft_buffer_free(&system);
    return status;
}

static weft_status name_run(batch_task *t, const weft_options *o,
                            const uint8_t model[WEFT_DIGEST_BYTES], const char *line,
                            weft_error *err)
{
    uint8_t digest[WEFT_DIGEST_BYTES];
    char hex[17];
    weft_error why = {0};
    weft_sha256 h;
    weft_sha256_init(&h);
    add_part(&h, "weft batch 1", model, WEFT_DIGEST_BYTES);
    add_part(&h, "line", line, strlen(line));
    if (add_settings(&h, t, o, &why)) return wrong(t->line, err, "%s", why.message);
    weft_sha256_final(&h, digest);
    if (asprintf(&t->run, "batch-%s", weft_hex(digest, 8, hex)) < 0) t->run = NULL;
    return t->run ? WEFT_OK : weft_fail(err, WEFT_E_MEMORY, "out of memory");
}

static int by_run(const void *a, const void *b)
{
    const batch_task *x = *(batch_task *const *)a, *y = *(batch_task *const *)b;
    int order = strcmp(x->run, y->run);
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

static int by_label(const void *a, const void *b)
{
    const batch_task *x = *(batch_task *const *)a, *y = *(batch_task *const *)b;
    int order = strcmp(x->label ? x->label : "", y->label ? y->label : "");
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

static weft_status refuse_doubled_labels(batch_task *const *sorted, size_t n, weft_error *err)
{
    for (size_t i = 1; i < n; i++)
        if (sorted[i]->label && sorted[i - 1]->label &&
            strcmp(sorted[i]->label, sorted[i - 1]->label) == 0)
            return wrong(sorted[i]->line, err, "the id \"%s\" stands on line %zu already",
                         sorted[i]->label, sorted[i - 1]->line);
    return WEFT_OK;
}

/* Equal lines are told apart by how many of them stand before: the first is -2's elder. */
static weft_status number_equal_runs(batch_task *const *sorted, size_t n, weft_error *err)
{
    for (size_t from = 0, to; from < n; from = to) {
        for (to = from + 1; to < n && strcmp(sorted[to]->run, sorted[from]->run) == 0;) to++;
        for (size_t i = from + 1; i < to; i++) {
            char *name;
            if (asprintf(&name, "%s-%zu", sorted[from]->run, i - from + 1) < 0)
                return weft_fail(err, WEFT_E_MEMORY, "out of memory");
            free(sorted[i]->run);
            sorted[i]->run = name;
        }
    }
    return WEFT_OK;
}

static weft_status tell_apart(batch_task *task, size_t n, weft_error *err)
{
    batch_task **sorted = malloc(n * sizeof(batch_task *));
    if (!sorted) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    for (size_t i = 0; i < n; i++) sorted[i] = &task[i];
    qsort(sorted, n, sizeof(batch_task *), by_label);
    weft_status status = refuse_doubled_labels(sorted, n, err);
    if (!status) {
        qsort(sorted, n, sizeof(batch_task *), by_run);
        status = number_equal_runs(sorted, n, err);
    }
    free(sorted);
    return status;
}

/* ---- the file ---- */

static weft_status read_line(batch_task *t, const char *text, size_t size, const weft_options *o,
                             const uint8_t model[WEFT_DIGEST_BYTES], weft_error *err)
{
    weft_buffer canonical = WEFT_BUFFER_INIT;
    weft_error why = {0};
    cJSON *object = NULL;
    const cJSON *item;
    weft_status status = weft_json_parse(text, size, &object, &why);
    if (status) return wrong(t->line, err, "%s", why.message);
    if (!cJSON_IsObject(object)) status = wrong(t->line, err, "a JSON object is expected");
    cJSON_ArrayForEach(item, object)
    {
        if (!status) status = read_member(t, item, err);
    }
    if (!status && !t->text) status = wrong(t->line, err, "\"task\" is missing");
    if (!status) status = inherit(t, o, err);
    if (!status) status = weft_json_canonical(object, &canonical, err);
    if (!status) status = name_run(t, o, model, weft_buffer_str(&canonical), err);
    weft_buffer_free(&canonical);
    cJSON_Delete(object);
    return status;
}

static weft_status grow(batch_task **task, size_t n, weft_error *err)
{
    if (n & (n - 1)) return WEFT_OK; /* doubled at every power of two */
    batch_task *grown = realloc(*task, (n ? 2 * n : 1) * sizeof *grown);
    if (!grown) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    *task = grown;
    return WEFT_OK;
}

weft_status batch_read(const weft_options *o, const char *file,
                       const uint8_t model[WEFT_DIGEST_BYTES], batch_task **out, size_t *n,
                       weft_error *err)
{
    weft_buffer content = WEFT_BUFFER_INIT;
    batch_task *task = NULL;
    size_t count = 0, line = 0;
    weft_status status = weft_file_read(file, FILE_MAX, &content, err);
    const char *at = weft_buffer_str(&content), *end = at + content.size;
    while (!status && at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t size = (size_t)((newline ? newline : end) - at), blank = 0;
        line++;
        while (blank < size && at[blank] && strchr(" \t\r", at[blank])) blank++;
        if (blank < size) {
            status = grow(&task, count, err);
            if (status) break;
            task[count] = (batch_task){.line = line};
            status = read_line(&task[count++], at, size, o, model, err);
        }
        at += size + 1;
    }
    if (!status && count == 0)
        status =
            weft_fail(err, WEFT_E_CONFIG, "there is no task: a JSON object a line is expected");
    if (!status) status = tell_apart(task, count, err);
    weft_buffer_free(&content);
    if (status) {
        batch_free(task, count);
        return weft_fail_prefix(err, "batch %s", file);
    }
    *out = task;
    *n = count;
    return WEFT_OK;
}

void batch_free(batch_task *task, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(task[i].label);
        free(task[i].text);
        free(task[i].run);
        weft_options_free(&task[i].options);
        cJSON_Delete(task[i].result);
    }
    free(task);
}
