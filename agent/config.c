/* Settings from environment and files. weft.toml is read as the part of TOML that settings need:
 * one `key = value` a line with a string, integer, float or boolean, and comments. Anything else is
 * an error that names the line, so that nothing a user writes is silently ignored. */
#include "agent/options.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int find_setting(const char *name, size_t n)
{
    for (int i = 0; i < OPT_COUNT; i++)
        if (weft_option_table[i].setting && strlen(weft_option_table[i].name) == n &&
            strncmp(weft_option_table[i].name, name, n) == 0)
            return i;
    return -1;
}

static void environment_name(const char *name, char *out, size_t size)
{
    size_t n = (size_t)snprintf(out, size, "WEFT_");
    for (; *name && n + 1 < size; name++)
        out[n++] = *name == '-' ? '_' : (char)toupper((unsigned char)*name);
    out[n] = '\0';
}

static weft_status load_environment(weft_options *o, weft_error *err)
{
    for (int i = 0; i < OPT_COUNT; i++) {
        char name[64];
        if (!weft_option_table[i].setting) continue;
        environment_name(weft_option_table[i].name, name, sizeof name);
        const char *value = getenv(name);
        if (!value || !*value) continue;
        weft_status status = weft_options_set(o, (weft_option)i, value, "environment", err);
        if (status) return weft_fail_prefix(err, "%s", name);
    }
    return WEFT_OK;
}

/* The value's text without quotes and escapes; *at ends behind it. */
static const char *parse_toml_value(const char **at, weft_buffer *out)
{
    const char *p = *at;
    if (*p == '"') {
        for (p++; *p && *p != '"'; p++) {
            if (*p != '\\') {
                weft_buffer_putc(out, *p);
                continue;
            }
            static const char from[] = "\"\\nt", to[] = "\"\\\n\t";
            const char *hit = *++p ? strchr(from, *p) : NULL;
            if (!hit) return "unknown escape in a string";
            weft_buffer_putc(out, to[hit - from]);
        }
        if (*p++ != '"') return "a string is not closed";
    } else if (*p == '\'') {
        size_t n = strcspn(p + 1, "'");
        if (p[n + 1] != '\'') return "a string is not closed";
        weft_buffer_append(out, p + 1, n);
        p += n + 2;
    } else {
        size_t n = strcspn(p, " \t#");
        if (!n) return "a value is missing";
        for (size_t i = 0; i < n; i++)
            if (!isalnum((unsigned char)p[i]) && !strchr("+-._", p[i]))
                return "a string needs quotes; tables and arrays are not used here";
        weft_buffer_append(out, p, n);
        p += n;
    }
    *at = p;
    return NULL;
}

static weft_status load_line(weft_options *o, const char *line, const char *path, size_t number,
                             weft_error *err)
{
    const char *p = line + strspn(line, " \t");
    if (!*p || *p == '#') return WEFT_OK;
    size_t n = strcspn(p, " \t=");
    int id = find_setting(p, n);
    if (*p == '[')
        return weft_fail(err, WEFT_E_CONFIG,
                         "%s line %zu: tables are not used here: write key = value", path, number);
    if (id < 0)
        return weft_fail(err, WEFT_E_CONFIG,
                         "%s line %zu: unknown setting \"%.*s\": see weft config", path, number,
                         (int)n, p);
    p += n;
    p += strspn(p, " \t");
    if (*p != '=')
        return weft_fail(err, WEFT_E_CONFIG, "%s line %zu: '=' is expected after the key", path,
                         number);
    p++;
    p += strspn(p, " \t");
    weft_buffer value = WEFT_BUFFER_INIT;
    const char *why = parse_toml_value(&p, &value);
    p += strspn(p, " \t");
    if (!why && *p && *p != '#') why = "text after the value";
    weft_status status = weft_buffer_ok(&value, err);
    if (!status && why)
        status = weft_fail(err, WEFT_E_CONFIG, "%s line %zu: %s", path, number, why);
    if (!status) {
        const char *origin = strcmp(path, "weft.toml") == 0 ? "./weft.toml" : "user weft.toml";
        status = weft_options_set(o, (weft_option)id, weft_buffer_str(&value), origin, err);
        if (status) {
            weft_fail_prefix(err, "%s line %zu", path, number);
            status = WEFT_E_CONFIG;
        }
    }
    weft_buffer_free(&value);
    return status;
}

static weft_status load_file(weft_options *o, const char *path, weft_error *err)
{
    if (!weft_file_exists(path)) return WEFT_OK;
    weft_buffer text = WEFT_BUFFER_INIT;
    weft_status status = weft_file_read(path, 1 << 20, &text, err);
    size_t number = 1;
    for (char *line = text.data; !status && line; number++) {
        char *end = strchr(line, '\n');
        if (end) *end = '\0';
        size_t n = strlen(line);
        if (n && line[n - 1] == '\r') line[n - 1] = '\0';
        status = load_line(o, line, path, number, err);
        line = end ? end + 1 : NULL;
    }
    weft_buffer_free(&text);
    return status;
}

weft_status weft_config_load(weft_options *o, weft_error *err)
{
    weft_status status = load_environment(o, err);
    if (!status) status = load_file(o, "weft.toml", err);
    char *home = weft_config_home();
    if (!status && home) {
        char *path = weft_path_join(home, "weft.toml");
        status = path ? load_file(o, path, err) : weft_fail(err, WEFT_E_MEMORY, "out of memory");
        free(path);
    }
    free(home);
    return status;
}

void weft_config_print(FILE *to, const weft_options *o, bool json)
{
    for (int i = 0; i < OPT_COUNT; i++) {
        const weft_option_spec *spec = &weft_option_table[i];
        if (!spec->setting) continue;
        const char *origin = o->value[i].text ? o->value[i].origin : "default";
        const char *value = weft_option_text(o, (weft_option)i);
        if (json) {
            cJSON *line = cJSON_CreateObject();
            weft_buffer b = WEFT_BUFFER_INIT;
            cJSON_AddStringToObject(line, "name", spec->name);
            cJSON_AddStringToObject(line, "value", value);
            cJSON_AddStringToObject(line, "origin", origin);
            weft_json_compact(line, &b);
            fprintf(to, "%s\n", weft_buffer_str(&b));
            weft_buffer_free(&b);
            cJSON_Delete(line);
        } else {
            fprintf(to, "%-16s %-24s %s\n", spec->name, *value ? value : "-", origin);
        }
    }
}
