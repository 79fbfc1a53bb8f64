/* Arrays and objects against their keywords: each item and member first, then the container itself.
 * Members come first because a wrong discriminator ({"kind": "b"} against kind: a) tells more about
 * which alternative was meant than a missing name does (check.c, anyOf). */
#include "schemas/check.h"

#include <string.h>

static json_path below(const json_path *up, const char *key, size_t index)
{
    return (json_path){up, key, index, up ? up->depth + 1 : 1};
}

/* ---- arrays ---- */

static weft_status check_contains(checker *c, const schema_node *node, const cJSON *value,
                                  const json_path *path)
{
    size_t n = 0, index = 0;
    const cJSON *item;
    if (node->contains == NO_NODE) return WEFT_OK;
    cJSON_ArrayForEach(item, value)
    {
        json_path at = below(path, NULL, index++);
        c->quiet++;
        weft_status status = check_node(c, node->contains, item, &at);
        c->quiet--;
        if (status && status != WEFT_E_INVALID) return status;
        n += !status;
    }
    if (n < node->min_contains)
        return report(c, path, RULE_OTHER,
                      "%zu items are as \"contains\" asks, fewer than the minimum of %zu", n,
                      node->min_contains);
    if (n > node->max_contains)
        return report(c, path, RULE_OTHER,
                      "%zu items are as \"contains\" asks, more than the maximum of %zu", n,
                      node->max_contains);
    return WEFT_OK;
}

weft_status check_array(checker *c, const schema_node *node, const cJSON *value,
                        const json_path *path)
{
    weft_status status;
    size_t n = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, value)
    {
        json_path at = below(path, NULL, n);
        uint32_t schema = n < node->prefix_items.n ? node->prefix_items.at[n] : node->items;
        if (schema != NO_NODE && (status = check_node(c, schema, item, &at))) return status;
        n++;
    }
    if (n < node->min_items)
        return report(c, path, RULE_OTHER, "has %zu items, fewer than the minimum of %zu", n,
                      node->min_items);
    if (n > node->max_items)
        return report(c, path, RULE_OTHER, "has %zu items, more than the maximum of %zu", n,
                      node->max_items);
    if (node->unique_items) {
        bool twins = false;
        size_t first, second;
        if ((status = value_find_twins(value, &twins, &first, &second, c->err))) return status;
        if (twins)
            return report(c, path, RULE_OTHER, "items %zu and %zu are equal, all must differ",
                          first, second);
    }
    return check_contains(c, node, value, path);
}

/* ---- objects ---- */

weft_status is_named(const schema_node *node, const char *name, bool *out, weft_error *err)
{
    bool named = named_find(&node->properties, name) < node->properties.n;
    for (size_t i = 0; i < node->n_patterns && !named; i++) {
        weft_status status = pattern_match(node->patterns[i].pattern, name, &named, err);
        if (status) return status;
    }
    *out = named;
    return WEFT_OK;
}

static weft_status check_name(checker *c, const schema_node *node, const char *name,
                              const json_path *path)
{
    const cJSON text = {.type = cJSON_String, .valuestring = (char *)name};
    if (node->property_names == NO_NODE) return WEFT_OK;
    weft_status status = check_node(c, node->property_names, &text, path);
    if (status == WEFT_E_INVALID && !c->quiet)
        weft_fail_prefix(c->err, "the name of a property is wrong");
    return status;
}

/* One member against everything that names it; *unknown if nothing does and nothing may. */
static weft_status check_member(checker *c, const schema_node *node, const cJSON *member,
                                const json_path *path, bool *unknown)
{
    bool named = false;
    weft_status status = check_name(c, node, member->string, path);
    if (status) return status;
    size_t i = named_find(&node->properties, member->string);
    if (i < node->properties.n) {
        named = true;
        if ((status = check_node(c, node->properties.at[i].node, member, path))) return status;
    }
    for (i = 0; i < node->n_patterns; i++) {
        bool match = false;
        status = pattern_match(node->patterns[i].pattern, member->string, &match, c->err);
        if (!status && match) status = check_node(c, node->patterns[i].node, member, path);
        if (status) return status;
        named |= match;
    }
    if (named || node->additional == NO_NODE) return WEFT_OK;
    if (c->schema->nodes[node->additional]->never) {
        *unknown = true;
        return WEFT_OK;
    }
    return check_node(c, node->additional, member, path);
}

static weft_status check_dependents(checker *c, const schema_node *node, const cJSON *value,
                                    const json_path *path)
{
    for (size_t i = 0; i < node->dependents.n; i++) {
        const named_node *d = &node->dependents.at[i];
        weft_status status;
        if (!cJSON_GetObjectItemCaseSensitive(value, d->name)) continue;
        if (d->node != NO_NODE && (status = check_node(c, d->node, value, path))) return status;
        const cJSON *name;
        cJSON_ArrayForEach(name, d->required)
        {
            if (!cJSON_GetObjectItemCaseSensitive(value, name->valuestring))
                return report_missing(c, path, d->required, value, d->name);
        }
    }
    return WEFT_OK;
}

weft_status check_object(checker *c, const schema_node *node, const cJSON *value,
                         const json_path *path)
{
    weft_status status;
    bool unknown = false;
    size_t n = 0;
    const cJSON *member, *name;
    cJSON_ArrayForEach(member, value)
    {
        json_path at = below(path, member->string, 0);
        if ((status = check_member(c, node, member, &at, &unknown))) return status;
        n++;
    }
    if (unknown) return report_unknown(c, path, node, value);
    cJSON_ArrayForEach(name, node->required)
    {
        if (!cJSON_GetObjectItemCaseSensitive(value, name->valuestring))
            return report_missing(c, path, node->required, value, NULL);
    }
    if (n < node->min_properties)
        return report(c, path, RULE_OTHER, "has %zu properties, fewer than the minimum of %zu", n,
                      node->min_properties);
    if (n > node->max_properties)
        return report(c, path, RULE_OTHER, "has %zu properties, more than the maximum of %zu", n,
                      node->max_properties);
    return check_dependents(c, node, value, path);
}
