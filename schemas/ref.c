/* $id, $anchor and $ref.
 *
 * References stay inside the document: a URI is resolved against the $id scopes it lies in (RFC
 * 3986, 5.2) and must name one of the document's own resources; nothing is ever fetched. A JSON
 * pointer must end at a place that holds a schema, so "#/properties/a" works and "#/enum/0" does
 * not. Nodes are found by the address of their JSON, through one sorted table.
 */
#include "schemas/compile.h"

#include <stdlib.h>
#include <string.h>

/* ---- URIs ---- */

typedef struct span {
    const char *at;
    size_t n;
    bool given;
} span;

typedef struct uri_parts {
    span scheme, authority, path, query;
} uri_parts;

static uri_parts uri_split(const char *text)
{
    uri_parts u = {{0}, {0}, {0}, {0}};
    const char *at = text;
    size_t n = strcspn(at, ":/?#");
    if (at[n] == ':' && n) {
        u.scheme = (span){at, n, true};
        at += n + 1;
    }
    if (at[0] == '/' && at[1] == '/') {
        at += 2;
        n = strcspn(at, "/?#");
        u.authority = (span){at, n, true};
        at += n;
    }
    n = strcspn(at, "?#");
    u.path = (span){at, n, n > 0};
    at += n;
    if (*at == '?') {
        at++;
        u.query = (span){at, strcspn(at, "#"), true};
    }
    return u;
}

/* Appends path with "." and ".." segments removed (RFC 3986, 5.2.4). */
static void put_path(const char *path, size_t n, weft_buffer *out)
{
    const size_t start = out->size;
    size_t i = 0;
    while (i < n) {
        size_t slash = path[i] == '/', end = i + slash;
        while (end < n && path[end] != '/') end++;
        const char *name = path + i + slash;
        size_t length = end - i - slash;
        bool dot = length == 1 && name[0] == '.', dots = length == 2 && !memcmp(name, "..", 2);
        if (dots) {
            while (out->size > start && out->data[out->size - 1] != '/') out->size--;
            if (out->size > start) out->size--;
        }
        if (!dot && !dots)
            weft_buffer_append(out, path + i, end - i);
        else if (end == n && slash)
            weft_buffer_putc(out, '/');
        i = end;
    }
}

char *uri_resolve(const char *base_text, const char *reference)
{
    uri_parts base = uri_split(base_text), ref = uri_split(reference);
    weft_buffer out = WEFT_BUFFER_INIT, path = WEFT_BUFFER_INIT;
    span scheme = ref.scheme.given ? ref.scheme : base.scheme;
    bool own_authority = ref.scheme.given || ref.authority.given;
    span authority = own_authority ? ref.authority : base.authority, query = ref.query;
    if (own_authority || (ref.path.n && ref.path.at[0] == '/')) {
        weft_buffer_append(&path, ref.path.at, ref.path.n);
    } else if (!ref.path.n) {
        weft_buffer_append(&path, base.path.at, base.path.n);
        if (!ref.query.given) query = base.query;
    } else {
        size_t keep = base.path.n;
        while (keep && base.path.at[keep - 1] != '/') keep--;
        if (base.authority.given && !base.path.n) weft_buffer_putc(&path, '/');
        weft_buffer_append(&path, base.path.at, keep);
        weft_buffer_append(&path, ref.path.at, ref.path.n);
    }
    weft_buffer_puts(&out, "");
    if (scheme.given) weft_buffer_printf(&out, "%.*s:", (int)scheme.n, scheme.at);
    if (authority.given) weft_buffer_printf(&out, "//%.*s", (int)authority.n, authority.at);
    put_path(weft_buffer_str(&path), path.size, &out);
    if (query.given) weft_buffer_printf(&out, "?%.*s", (int)query.n, query.at);
    if (path.failed) out.failed = true;
    weft_buffer_free(&path);
    if (!out.data && !out.failed) return strdup("");
    return weft_buffer_take(&out);
}

/* ---- scopes ---- */

weft_status ref_open_resource(compiler *c, schema_node *node, uint32_t number, const char *id)
{
    char *uri = uri_resolve(c->resources[node->resource].uri, id);
    if (!uri) return weft_fail(c->err, WEFT_E_MEMORY, "out of memory");
    for (size_t i = 0; i < c->n_resources; i++) {
        if (!*uri || strcmp(c->resources[i].uri, uri) != 0) continue;
        free(uri);
        return compile_fail(c, node, "$id", "\"%s\" names two schemas", id);
    }
    if (number == 0) { /* the document's own */
        free(c->resources[0].uri);
        c->resources[0].uri = uri;
        return WEFT_OK;
    }
    if (!array_reserve((void **)&c->resources, c->n_resources, &c->resource_capacity,
                       sizeof *c->resources)) {
        free(uri);
        return weft_fail(c->err, WEFT_E_MEMORY, "out of memory");
    }
    node->resource = (uint32_t)c->n_resources;
    c->resources[c->n_resources++] = (resource){uri, number};
    return WEFT_OK;
}

static const anchor *find_anchor(const compiler *c, uint32_t scope, const char *name)
{
    for (size_t i = 0; i < c->n_anchors; i++)
        if (c->anchors[i].resource == scope && strcmp(c->anchors[i].name, name) == 0)
            return &c->anchors[i];
    return NULL;
}

weft_status ref_add_anchor(compiler *c, schema_node *node, uint32_t number, const char *name)
{
    if (find_anchor(c, node->resource, name))
        return compile_fail(c, node, "$anchor", "\"%s\" names two schemas", name);
    if (!array_reserve((void **)&c->anchors, c->n_anchors, &c->anchor_capacity, sizeof *c->anchors))
        return weft_fail(c->err, WEFT_E_MEMORY, "out of memory");
    c->anchors[c->n_anchors++] = (anchor){name, node->resource, number};
    return WEFT_OK;
}

/* ---- references ---- */

typedef struct json_node {
    const cJSON *json;
    uint32_t node;
} json_node;

static int by_json(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)((const json_node *)a)->json;
    uintptr_t y = (uintptr_t)((const json_node *)b)->json;
    return x < y ? -1 : x > y;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* In place: %41 becomes A. False on a broken escape or an encoded NUL. */
static bool percent_decode(char *text)
{
    char *to = text;
    for (const char *from = text; *from; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        int high = hex_value(from[1]), low = high < 0 ? -1 : hex_value(from[2]);
        if (low < 0 || high * 16 + low == 0) return false;
        *to++ = (char)(high * 16 + low);
        from += 2;
    }
    *to = '\0';
    return true;
}

/* In place: one reference token, ~1 becomes '/', ~0 '~'. */
static bool pointer_unescape(char *token)
{
    char *to = token;
    for (const char *from = token; *from; from++) {
        if (*from == '~') {
            from++;
            if (*from != '0' && *from != '1') return false;
            *to++ = *from == '0' ? '~' : '/';
        } else {
            *to++ = *from;
        }
    }
    *to = '\0';
    return true;
}

static const cJSON *array_at(const cJSON *array, const char *token)
{
    size_t n = strlen(token);
    if (!n || n > 6 || strspn(token, "0123456789") != n || (n > 1 && token[0] == '0')) return NULL;
    return cJSON_GetArrayItem(array, atoi(token));
}

/* Walks a decoded pointer ("/a/b"), which it takes apart. NULL: leads nowhere. */
static const cJSON *pointer_follow(const cJSON *at, char *pointer)
{
    while (at && *pointer) {
        char *token = pointer + 1, *end = token + strcspn(token, "/");
        bool last = !*end;
        *end = '\0';
        if (!pointer_unescape(token)) return NULL;
        at = cJSON_IsArray(at)    ? array_at(at, token)
             : cJSON_IsObject(at) ? cJSON_GetObjectItemCaseSensitive(at, token)
                                  : NULL;
        if (last) return at;
        pointer = end;
        *pointer = '/';
    }
    return at;
}

/* The number of the resource that the part of the reference before '#' names, or n_resources. */
static weft_status find_scope(compiler *c, const schema_node *node, const char *text, size_t *out)
{
    if (*text == '#') {
        *out = node->resource;
        return WEFT_OK;
    }
    char *uri = uri_resolve(c->resources[node->resource].uri, text);
    if (!uri) return weft_fail(c->err, WEFT_E_MEMORY, "out of memory");
    size_t i = 0;
    while (i < c->n_resources && strcmp(c->resources[i].uri, uri) != 0) i++;
    *out = i;
    free(uri);
    return WEFT_OK;
}

static weft_status find_target(compiler *c, schema_node *node, size_t scope, char *fragment,
                               const json_node *table)
{
    if (!percent_decode(fragment))
        return compile_fail(c, node, "$ref", "\"%.200s\" has a broken %%-escape", node->ref_text);
    if (*fragment && *fragment != '/') {
        const anchor *a = find_anchor(c, (uint32_t)scope, fragment);
        if (!a)
            return compile_fail(c, node, "$ref", "\"%.200s\" names no $anchor of this schema",
                                node->ref_text);
        node->ref = a->node;
        return WEFT_OK;
    }
    const schema_node *root = c->schema->nodes[c->resources[scope].root];
    json_node wanted = {pointer_follow(root->json, fragment), 0};
    const json_node *hit =
        wanted.json ? bsearch(&wanted, table, c->schema->n, sizeof *table, by_json) : NULL;
    if (!hit)
        return compile_fail(c, node, "$ref", "\"%.200s\" points at no schema in this document",
                            node->ref_text);
    node->ref = hit->node;
    return WEFT_OK;
}

static weft_status resolve(compiler *c, schema_node *node, const json_node *table)
{
    size_t scope = 0;
    weft_status status = find_scope(c, node, node->ref_text, &scope);
    if (status) return status;
    if (scope == c->n_resources)
        return compile_fail(c, node, "$ref",
                            "\"%.200s\" lies outside this document, and nothing is fetched; copy "
                            "the schema under $defs and refer to \"#/$defs/...\"",
                            node->ref_text);
    const char *hash = strchr(node->ref_text, '#');
    char *fragment = strdup(hash ? hash + 1 : "");
    if (!fragment) return weft_fail(c->err, WEFT_E_MEMORY, "out of memory");
    status = find_target(c, node, scope, fragment, table);
    free(fragment);
    return status;
}

weft_status ref_resolve_all(compiler *c)
{
    const size_t n = c->schema->n;
    json_node *table = calloc(n, sizeof *table);
    if (!table) return weft_fail(c->err, WEFT_E_MEMORY, "out of memory");
    for (uint32_t i = 0; i < n; i++) table[i] = (json_node){c->schema->nodes[i]->json, i};
    qsort(table, n, sizeof *table, by_json);
    weft_status status = WEFT_OK;
    for (size_t i = 0; i < n && !status; i++)
        if (c->schema->nodes[i]->ref_text) status = resolve(c, c->schema->nodes[i], table);
    free(table);
    return status;
}
