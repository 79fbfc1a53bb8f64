/* The checker: does a value conform to a compiled schema?
 *
 * A recursive walk, value and schema side by side, that stops at the first violation. Alternatives
 * (anyOf, oneOf, not, if, contains) are tried quietly; when none fits, the one that got furthest is
 * walked once more aloud, so that the message speaks of the branch that was meant.
 * Bounds: STEPS_MAX visits (nested alternatives can take exponential time), FRAMES_MAX recursion,
 * each pattern match by itself (pattern.h); past them WEFT_E_LIMIT, never an answer.
 */
#include "schemas/check.h"

#include "schemas/decimal.h"

#include <stdlib.h>

enum { STEPS_MAX = 5000000, FRAMES_MAX = 3000 };

/* ---- one value against the keywords that look at it alone ---- */

static weft_status check_values(checker *c, const schema_node *node, const cJSON *value,
                                const json_path *path)
{
    if (node->constant && !value_equal(node->constant, value)) {
        weft_buffer wanted = WEFT_BUFFER_INIT;
        if (!c->quiet) value_show(node->constant, &wanted);
        report_value(c, path, RULE_VALUE, value, "must be %s", weft_buffer_str(&wanted));
        weft_buffer_free(&wanted);
        return WEFT_E_INVALID;
    }
    if (node->enumeration) {
        const cJSON *allowed = node->enumeration->child;
        while (allowed && !value_equal(allowed, value)) allowed = allowed->next;
        if (!allowed) return report_enum(c, path, node->enumeration, value);
    }
    return WEFT_OK;
}

/* Compares with one bound; `bad` says which outcome of the comparison breaks it. */
static weft_status check_bound(checker *c, const cJSON *value, const decimal *d, const cJSON *bound,
                               bool below, bool equal_too, const char *text, const json_path *path)
{
    decimal limit;
    if (!bound || !decimal_read(bound, &limit)) return WEFT_OK;
    int order = decimal_compare(d, &limit);
    bool bad = (below ? order < 0 : order > 0) || (equal_too && order == 0);
    if (!bad) return WEFT_OK;
    weft_buffer shown = WEFT_BUFFER_INIT;
    if (!c->quiet) value_show(bound, &shown);
    report_value(c, path, RULE_OTHER, value, "%s %s", text, weft_buffer_str(&shown));
    weft_buffer_free(&shown);
    return WEFT_E_INVALID;
}

static weft_status check_number(checker *c, const schema_node *node, const cJSON *value,
                                const json_path *path)
{
    decimal d, step;
    weft_status status;
    if (!decimal_read(value, &d)) return report_type(c, path, node->types, value);
    if ((status =
             check_bound(c, value, &d, node->minimum, true, false, "is below the minimum", path)) ||
        (status = check_bound(c, value, &d, node->maximum, false, false, "is above the maximum",
                              path)) ||
        (status = check_bound(c, value, &d, node->exclusive_minimum, true, true,
                              "must be greater than", path)) ||
        (status = check_bound(c, value, &d, node->exclusive_maximum, false, true,
                              "must be less than", path)))
        return status;
    if (node->multiple_of && decimal_read(node->multiple_of, &step)) {
        bool multiple = false;
        if ((status = decimal_is_multiple(&d, &step, &multiple, c->err))) return status;
        if (!multiple) {
            weft_buffer shown = WEFT_BUFFER_INIT;
            if (!c->quiet) value_show(node->multiple_of, &shown);
            report_value(c, path, RULE_OTHER, value, "is not a multiple of %s",
                         weft_buffer_str(&shown));
            weft_buffer_free(&shown);
            return WEFT_E_INVALID;
        }
    }
    return WEFT_OK;
}

static weft_status check_string(checker *c, const schema_node *node, const cJSON *value,
                                const json_path *path)
{
    if (node->min_length > 0 || node->max_length < SIZE_MAX) {
        size_t n = value_characters(value->valuestring);
        if (n < node->min_length)
            return report_value(c, path, RULE_OTHER, value,
                                "has %zu characters, fewer than the minimum of %zu", n,
                                node->min_length);
        if (n > node->max_length)
            return report_value(c, path, RULE_OTHER, value,
                                "has %zu characters, more than the maximum of %zu", n,
                                node->max_length);
    }
    if (node->pattern) {
        bool match = false;
        weft_status status = pattern_match(node->pattern, value->valuestring, &match, c->err);
        if (status) return status;
        if (!match)
            return report_value(c, path, RULE_OTHER, value, "does not match the pattern %.300s",
                                pattern_text(node->pattern));
    }
    return WEFT_OK;
}

/* ---- alternatives ---- */

static weft_status check_quietly(checker *c, uint32_t node, const cJSON *value,
                                 const json_path *path)
{
    c->quiet++;
    weft_status status = check_node(c, node, value, path);
    c->quiet--;
    return status;
}

typedef struct trial { /* of a list of alternatives */
    size_t fits;       /* how many conform */
    size_t first, second;
    size_t nearest, score; /* the failing one that got furthest */
    unsigned types;        /* wanted by the branches, if all failed on the type of this value */
    bool only_types;
} trial;

static weft_status try_all(checker *c, const node_list *list, size_t enough, const cJSON *value,
                           const json_path *path, trial *t)
{
    size_t base = c->base_depth;
    weft_status status = WEFT_OK;
    c->base_depth = path ? path->depth : 0;
    *t = (trial){.only_types = true};
    for (size_t i = 0; i < list->n && t->fits < enough; i++) {
        status = check_quietly(c, list->at[i], value, path);
        if (!status) {
            *(t->fits ? &t->second : &t->first) = i;
            t->fits++;
            continue;
        }
        if (status != WEFT_E_INVALID) break;
        status = WEFT_OK;
        if (i == 0 || c->score > t->score) {
            t->nearest = i;
            t->score = c->score;
        }
        if (c->score == 0 && c->expected)
            t->types |= c->expected;
        else
            t->only_types = false;
    }
    c->base_depth = base;
    return status;
}

/* No alternative fits: says why the nearest one does not. */
static weft_status explain(checker *c, const node_list *list, const trial *t, const char *keyword,
                           const cJSON *value, const json_path *path)
{
    if (t->only_types) return report_type(c, path, t->types, value);
    if (c->quiet) {
        report(c, path, RULE_OTHER, "%s", "");
        if (t->score > c->score) c->score = t->score;
        return WEFT_E_INVALID;
    }
    weft_status status = check_node(c, list->at[t->nearest], value, path);
    if (status != WEFT_E_INVALID || list->n == 1) return status;
    weft_fail_prefix(c->err, "none of the %zu %s alternatives fits; the nearest is number %zu",
                     list->n, keyword, t->nearest + 1);
    return status;
}

static weft_status check_alternatives(checker *c, const schema_node *node, const cJSON *value,
                                      const json_path *path)
{
    trial t;
    weft_status status;
    if (node->any_of.n) {
        if ((status = try_all(c, &node->any_of, 1, value, path, &t))) return status;
        if (!t.fits) return explain(c, &node->any_of, &t, "anyOf", value, path);
    }
    if (node->one_of.n) {
        if ((status = try_all(c, &node->one_of, 2, value, path, &t))) return status;
        if (!t.fits) return explain(c, &node->one_of, &t, "oneOf", value, path);
        if (t.fits > 1)
            return report_value(c, path, RULE_OTHER, value,
                                "fits both alternative %zu and %zu of oneOf; exactly one may fit",
                                t.first + 1, t.second + 1);
    }
    return WEFT_OK;
}

static weft_status check_conditions(checker *c, const schema_node *node, const cJSON *value,
                                    const json_path *path)
{
    if (node->not_ != NO_NODE) {
        weft_status status = check_quietly(c, node->not_, value, path);
        if (!status)
            return report_value(c, path, RULE_OTHER, value, "has the form that \"not\" forbids");
        if (status != WEFT_E_INVALID) return status;
    }
    if (node->if_ != NO_NODE && (node->then_ != NO_NODE || node->else_ != NO_NODE)) {
        weft_status status = check_quietly(c, node->if_, value, path);
        if (status && status != WEFT_E_INVALID) return status;
        uint32_t next = status ? node->else_ : node->then_;
        if (next != NO_NODE) return check_node(c, next, value, path);
    }
    return WEFT_OK;
}

/* ---- the walk ---- */

static weft_status check_keywords(checker *c, const schema_node *node, const cJSON *value,
                                  const json_path *path)
{
    weft_status status;
    unsigned types = value_types(value);
    if (node->never) return report_value(c, path, RULE_VALUE, value, "is not allowed here");
    if (!(types & node->types)) return report_type(c, path, node->types, value);
    if ((status = check_values(c, node, value, path))) return status;
    if (types & TYPE_NUMBER)
        status = check_number(c, node, value, path);
    else if (types & TYPE_STRING)
        status = check_string(c, node, value, path);
    else if (types & TYPE_ARRAY)
        status = check_array(c, node, value, path);
    else if (types & TYPE_OBJECT)
        status = check_object(c, node, value, path);
    if (status) return status;
    if (node->ref != NO_NODE && (status = check_node(c, node->ref, value, path))) return status;
    for (size_t i = 0; i < node->all_of.n; i++)
        if ((status = check_node(c, node->all_of.at[i], value, path))) return status;
    if ((status = check_alternatives(c, node, value, path))) return status;
    return check_conditions(c, node, value, path);
}

weft_status check_node(checker *c, uint32_t node, const cJSON *value, const json_path *path)
{
    if (!c->steps)
        return weft_fail(c->err, WEFT_E_LIMIT,
                         "the check takes more than %d steps; the schema's alternatives multiply",
                         STEPS_MAX);
    if (!c->frames)
        return weft_fail(c->err, WEFT_E_LIMIT, "the check recurses more than %d levels",
                         FRAMES_MAX);
    c->steps--;
    c->frames--;
    weft_status status = check_keywords(c, c->schema->nodes[node], value, path);
    c->frames++;
    return status;
}

weft_status schema_check_node(const weft_schema *schema, uint32_t node, const cJSON *value,
                              weft_error *err)
{
    if (!value_depth_within(value, JSON_DEPTH_MAX))
        return weft_fail(err, WEFT_E_INVALID, "the value is nested more than %d levels deep",
                         JSON_DEPTH_MAX);
    checker c = {.schema = schema, .err = err, .steps = STEPS_MAX, .frames = FRAMES_MAX};
    return check_node(&c, node, value, NULL);
}

weft_status weft_schema_check(const weft_schema *schema, const cJSON *value, weft_error *err)
{
    return schema_check_node(schema, 0, value, err);
}
