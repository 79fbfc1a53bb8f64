/* Messages of the checker: "at /items/0/price: 12.5 is above the maximum 10".
 * They are read by a language model that must mend its call, so each one names the place, the value
 * and what would be right: the allowed values, the missing names, the names that exist. */
#include "schemas/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_BYTES = 500 }; /* of the 1024 that a weft_error holds */

static weft_status put(checker *c, const json_path *path, rule_kind rule, const char *text)
{
    size_t depth = path ? path->depth : 0;
    /* A branch whose type, enum or const is wrong was not meant; else the deeper the nearer. */
    if (rule == RULE_TYPE && depth == c->base_depth)
        c->score = 0;
    else if (rule == RULE_VALUE)
        c->score = 1;
    else
        c->score = 2 + depth;
    c->expected = 0;
    if (c->quiet) return WEFT_E_INVALID;
    weft_buffer where = WEFT_BUFFER_INIT;
    path_print(path, &where);
    weft_fail(c->err, WEFT_E_INVALID, "at %s: %s", weft_buffer_str(&where), text);
    weft_buffer_free(&where);
    return WEFT_E_INVALID;
}

weft_status report(checker *c, const json_path *path, rule_kind rule, const char *format, ...)
{
    char text[WEFT_ERROR_BYTES] = "";
    if (!c->quiet) {
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
    }
    return put(c, path, rule, text);
}

weft_status report_type(checker *c, const json_path *path, unsigned expected, const cJSON *value)
{
    weft_buffer types = WEFT_BUFFER_INIT, shown = WEFT_BUFFER_INIT, found = WEFT_BUFFER_INIT;
    if (!c->quiet) {
        unsigned is = value_types(value);
        types_print(expected, &types);
        types_print(is == (TYPE_NUMBER | TYPE_INTEGER) ? TYPE_INTEGER
                    : is == TYPE_NUMBER                ? TYPE_NUMBER | TYPE_INTEGER
                                                       : is,
                    &found);
        value_show(value, &shown);
    }
    report(c, path, RULE_TYPE, "expected %s, found the %s %s", weft_buffer_str(&types),
           found.size ? weft_buffer_str(&found) : "non-JSON value", weft_buffer_str(&shown));
    weft_buffer_free(&types);
    weft_buffer_free(&found);
    weft_buffer_free(&shown);
    c->expected = expected;
    return WEFT_E_INVALID;
}

weft_status report_value(checker *c, const json_path *path, rule_kind rule, const cJSON *value,
                         const char *format, ...)
{
    char text[WEFT_ERROR_BYTES];
    weft_buffer shown = WEFT_BUFFER_INIT;
    if (c->quiet) return put(c, path, rule, "");
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    value_show(value, &shown);
    report(c, path, rule, "%s %s", weft_buffer_str(&shown), text);
    weft_buffer_free(&shown);
    return WEFT_E_INVALID;
}

/* Appends one more element of a list; past LIST_BYTES only counts. */
static void list_add(weft_buffer *list, const cJSON *value, size_t *left_out)
{
    if (list->size > LIST_BYTES) {
        ++*left_out;
        return;
    }
    if (list->size) weft_buffer_puts(list, ", ");
    value_show(value, list);
}

static void list_add_name(weft_buffer *list, const char *name, size_t *left_out)
{
    const cJSON text = {.type = cJSON_String, .valuestring = (char *)name};
    list_add(list, &text, left_out);
}

static void list_close(weft_buffer *list, size_t left_out)
{
    if (left_out) weft_buffer_printf(list, " and %zu more", left_out);
}

weft_status report_enum(checker *c, const json_path *path, const cJSON *allowed, const cJSON *value)
{
    weft_buffer list = WEFT_BUFFER_INIT;
    size_t left_out = 0;
    const cJSON *item;
    if (c->quiet) return put(c, path, RULE_VALUE, "");
    cJSON_ArrayForEach(item, allowed) list_add(&list, item, &left_out);
    list_close(&list, left_out);
    report_value(c, path, RULE_VALUE, value, "is not one of the allowed values: %s",
                 list.size ? weft_buffer_str(&list) : "(there are none)");
    weft_buffer_free(&list);
    return WEFT_E_INVALID;
}

weft_status report_missing(checker *c, const json_path *path, const cJSON *required,
                           const cJSON *value, const char *because)
{
    weft_buffer list = WEFT_BUFFER_INIT;
    size_t left_out = 0, n = 0;
    const cJSON *name;
    if (c->quiet) return put(c, path, RULE_OTHER, "");
    cJSON_ArrayForEach(name, required)
    {
        if (cJSON_GetObjectItemCaseSensitive(value, name->valuestring)) continue;
        list_add(&list, name, &left_out);
        n++;
    }
    list_close(&list, left_out);
    if (because)
        report(c, path, RULE_OTHER, "the presence of \"%.80s\" requires %s as well", because,
               weft_buffer_str(&list));
    else
        report(c, path, RULE_OTHER, "missing required %s %s", n == 1 ? "property" : "properties",
               weft_buffer_str(&list));
    weft_buffer_free(&list);
    return WEFT_E_INVALID;
}

weft_status report_unknown(checker *c, const json_path *path, const schema_node *node,
                           const cJSON *value)
{
    weft_buffer unknown = WEFT_BUFFER_INIT, known = WEFT_BUFFER_INIT;
    size_t left_out = 0, n = 0;
    const cJSON *member;
    weft_status status = WEFT_OK;
    if (c->quiet) return put(c, path, RULE_OTHER, "");
    cJSON_ArrayForEach(member, value)
    {
        bool named = false;
        if ((status = is_named(node, member->string, &named, c->err))) goto done;
        if (named) continue;
        list_add_name(&unknown, member->string, &left_out);
        n++;
    }
    list_close(&unknown, left_out);
    left_out = 0;
    for (size_t i = 0; i < node->properties.n; i++)
        list_add_name(&known, node->properties.at[i].name, &left_out);
    list_close(&known, left_out);
    for (size_t i = 0; i < node->n_patterns; i++)
        weft_buffer_printf(&known, "%sany name that matches %.80s", known.size ? ", " : "",
                           pattern_text(node->patterns[i].pattern));
    status = report(c, path, RULE_OTHER, "unknown %s %s; allowed: %s",
                    n == 1 ? "property" : "properties", weft_buffer_str(&unknown),
                    known.size ? weft_buffer_str(&known) : "(none)");
done:
    weft_buffer_free(&unknown);
    weft_buffer_free(&known);
    return status;
}
