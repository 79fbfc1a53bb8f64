/* Reads one GGUF part.
 *
 *     "GGUF" | u32 version | u64 tensors | u64 values
 *     values  x { string key | u32 type | value }           array: u32 type | u64 count | elements
 *     tensors x { string name | u32 dims | u64 dim[dims] | u32 type | u64 offset }
 *     padding to `general.alignment` (32) | tensor data, offsets counted from here
 *
 * One cursor walks the bytes once and can only fail, never leave them; a table is allocated only
 * after its count was bounded by the bytes that must follow it, so memory stays within a few times
 * the file's size. After the walk: no key and no tensor twice, every tensor aligned, inside the
 * file and clear of the others.
 *
 * Version 1 (32-bit lengths) is refused; nested arrays, which no model file uses, are refused too.
 */
#include "engine/gguf_read.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF fields are read in place");

enum {
    GGUF_DEFAULT_ALIGNMENT = 32,
    GGUF_MAX_ALIGNMENT = 1 << 20,
    GGUF_MAX_NAME_BYTES = 65535,
    GGUF_MIN_VALUE_BYTES = 8 + 4 + 1,         /* empty key, type, one byte */
    GGUF_MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8 /* empty name, one dim, type, offset */
};

typedef struct gguf_cursor {
    const uint8_t *at, *end;
    const char *label;
    weft_error *err;
} gguf_cursor;

static size_t rest(const gguf_cursor *c)
{
    return (size_t)(c->end - c->at);
}

static weft_status cut_short(const gguf_cursor *c, const char *what)
{
    return weft_fail(
        c->err, WEFT_E_MODEL,
        "open %s: the file ends inside %s; it is damaged or incomplete, fetch it again", c->label,
        what);
}

static weft_status take(gguf_cursor *c, void *out, size_t n, const char *what)
{
    if (rest(c) < n) return cut_short(c, what);
    memcpy(out, c->at, n);
    c->at += n;
    return WEFT_OK;
}

static weft_status take_text(gguf_cursor *c, weft_text *out, const char *what)
{
    uint64_t size = 0;
    weft_status s = take(c, &size, sizeof size, what);
    if (s) return s;
    if (size > rest(c)) return cut_short(c, what);
    *out = (weft_text){(const char *)c->at, (size_t)size};
    c->at += size;
    return WEFT_OK;
}

static weft_status take_name(gguf_cursor *c, weft_text *out, const char *what)
{
    weft_status s = take_text(c, out, what);
    if (s) return s;
    if (!out->size || out->size > GGUF_MAX_NAME_BYTES || memchr(out->data, 0, out->size))
        return weft_fail(c->err, WEFT_E_MODEL,
                         "open %s: %s is empty, too long or holds a zero byte; the file is damaged",
                         c->label, what);
    return WEFT_OK;
}

static size_t type_bytes(uint32_t type)
{
    switch (type) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL: return 1;
    case GGUF_U16:
    case GGUF_I16: return 2;
    case GGUF_U32:
    case GGUF_I32:
    case GGUF_F32: return 4;
    case GGUF_U64:
    case GGUF_I64:
    case GGUF_F64: return 8;
    default: return 0;
    }
}

/* ---- metadata ---- */

static weft_status take_strings(gguf_cursor *c, gguf_value *v)
{
    v->string = malloc((size_t)v->count * sizeof *v->string);
    if (v->count && !v->string) return weft_fail(c->err, WEFT_E_MEMORY, "open %s", c->label);
    for (uint64_t i = 0; i < v->count; i++) {
        weft_text text;
        v->string[i] = c->at;
        weft_status s = take_text(c, &text, "an array of strings");
        if (s) return s;
    }
    return WEFT_OK;
}

/* The elements of a value whose type and count are known. */
static weft_status take_elements(gguf_cursor *c, gguf_value *v)
{
    size_t bytes;
    v->data = c->at;
    if (v->type == GGUF_STRING) {
        weft_text text;
        if (!v->is_array) return take_text(c, &text, "a metadata string");
        if (v->count > rest(c) / sizeof(uint64_t)) return cut_short(c, "an array of strings");
        return take_strings(c, v);
    }
    if (weft_size_mul((size_t)v->count, type_bytes(v->type), &bytes) || bytes > rest(c))
        return cut_short(c, "a metadata value");
    if (v->type == GGUF_BOOL)
        for (size_t i = 0; i < bytes; i++)
            if (v->data[i] > 1)
                return weft_fail(c->err, WEFT_E_MODEL,
                                 "open %s: metadata key %.*s holds a truth value that is neither 0 "
                                 "nor 1; the file is damaged",
                                 c->label, (int)v->key.size, v->key.data);
    c->at += bytes;
    return WEFT_OK;
}

static weft_status take_value(gguf_cursor *c, gguf_value *v)
{
    uint32_t type = 0;
    weft_status s = take_name(c, &v->key, "a metadata key");
    if (s || (s = take(c, &type, sizeof type, "a metadata value"))) return s;
    v->count = 1;
    if (type == GGUF_ARRAY) {
        v->is_array = true;
        if ((s = take(c, &type, sizeof type, "a metadata array")) ||
            (s = take(c, &v->count, sizeof v->count, "a metadata array")))
            return s;
        if (type == GGUF_ARRAY)
            return weft_fail(
                c->err, WEFT_E_MODEL,
                "open %s: metadata key %.*s is an array of arrays, which weft does not "
                "read",
                c->label, (int)v->key.size, v->key.data);
    }
    if (type != GGUF_STRING && !type_bytes(type))
        return weft_fail(c->err, WEFT_E_MODEL,
                         "open %s: metadata key %.*s has the unknown value type %u", c->label,
                         (int)v->key.size, v->key.data, type);
    v->type = (gguf_type)type;
    return take_elements(c, v);
}

static int compare_text(weft_text a, weft_text b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    int order = n ? memcmp(a.data, b.data, n) : 0;
    return order ? order : (a.size > b.size) - (a.size < b.size);
}

static int compare_keys(const void *a, const void *b, void *context)
{
    const gguf_value *value = context;
    return compare_text(value[*(const uint32_t *)a].key, value[*(const uint32_t *)b].key);
}

static weft_status read_values(gguf_cursor *c, gguf_part *part, uint64_t n)
{
    if (n > rest(c) / GGUF_MIN_VALUE_BYTES || n > UINT32_MAX) return cut_short(c, "the metadata");
    part->value = calloc(n ? (size_t)n : 1, sizeof *part->value);
    part->by_key = calloc(n ? (size_t)n : 1, sizeof *part->by_key);
    if (!part->value || !part->by_key) return weft_fail(c->err, WEFT_E_MEMORY, "open %s", c->label);
    for (size_t i = 0; i < n; i++) {
        part->by_key[i] = (uint32_t)i;
        part->n_values = i + 1; /* so that a half-read value is freed */
        weft_status s = take_value(c, &part->value[i]);
        if (s) return s;
    }
    qsort_r(part->by_key, part->n_values, sizeof *part->by_key, compare_keys, part->value);
    for (size_t i = 1; i < part->n_values; i++) {
        weft_text key = part->value[part->by_key[i]].key;
        if (!compare_text(key, part->value[part->by_key[i - 1]].key))
            return weft_fail(c->err, WEFT_E_MODEL,
                             "open %s: metadata key %.*s stands twice; the file is damaged",
                             c->label, (int)key.size, key.data);
    }
    return WEFT_OK;
}

const gguf_value *gguf_value_find(const gguf_part *part, const char *key)
{
    weft_text wanted = {key, strlen(key)};
    size_t low = 0, high = part->n_values;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const gguf_value *v = &part->value[part->by_key[middle]];
        int order = compare_text(wanted, v->key);
        if (!order) return v;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* ---- elements ---- */

#define READ_AS(type, at, i)                                                                       \
    __extension__({                                                                                \
        type value_;                                                                               \
        memcpy(&value_, (at) + (size_t)(i) * sizeof value_, sizeof value_);                        \
        value_;                                                                                    \
    })

bool gguf_value_int(const gguf_value *v, uint64_t i, int64_t *out)
{
    switch (v->type) {
    case GGUF_U8: *out = READ_AS(uint8_t, v->data, i); return true;
    case GGUF_I8: *out = READ_AS(int8_t, v->data, i); return true;
    case GGUF_U16: *out = READ_AS(uint16_t, v->data, i); return true;
    case GGUF_I16: *out = READ_AS(int16_t, v->data, i); return true;
    case GGUF_U32: *out = READ_AS(uint32_t, v->data, i); return true;
    case GGUF_I32: *out = READ_AS(int32_t, v->data, i); return true;
    case GGUF_I64: *out = READ_AS(int64_t, v->data, i); return true;
    case GGUF_U64: {
        uint64_t wide = READ_AS(uint64_t, v->data, i);
        if (wide > INT64_MAX) return false;
        *out = (int64_t)wide;
        return true;
    }
    default: return false;
    }
}

bool gguf_value_float(const gguf_value *v, uint64_t i, double *out)
{
    if (v->type == GGUF_F32)
        *out = (double)READ_AS(float, v->data, i);
    else if (v->type == GGUF_F64)
        *out = READ_AS(double, v->data, i);
    else
        return false;
    return true;
}

weft_text gguf_value_text(const gguf_value *v, uint64_t i)
{
    const uint8_t *at = v->is_array ? v->string[i] : v->data;
    return (weft_text){(const char *)at + sizeof(uint64_t), (size_t)READ_AS(uint64_t, at, 0)};
}

/* ---- tensors ---- */

/* Types of other programs, so that the refusal can name them. */
static const char *foreign_type_name(uint32_t type)
{
    static const char *const name[] = {[9] = "Q8_1", [15] = "Q8_K", [24] = "I8", [25] = "I16",
                                       [26] = "I32", [27] = "I64",  [28] = "F64"};
    return type < sizeof name / sizeof *name && name[type] ? name[type] : "unknown";
}

/* Bytes that the names of the next n tensors take with their NULs. Takes the cursor by value: it
 * only looks ahead, for the tensor table's length is known nowhere. */
static weft_status measure_names(gguf_cursor c, uint64_t n, size_t *out)
{
    size_t bytes = 0;
    for (uint64_t i = 0; i < n; i++) {
        weft_text name;
        uint32_t n_dims = 0;
        weft_status s = take_name(&c, &name, "a tensor name");
        if (s || (s = take(&c, &n_dims, sizeof n_dims, "the tensor table"))) return s;
        if (n_dims < 1 || n_dims > 4)
            return weft_fail(c.err, WEFT_E_MODEL,
                             "open %s: tensor %.*s has %u dimensions, not 1 to 4", c.label,
                             (int)name.size, name.data, n_dims);
        uint8_t skipped[4 * sizeof(uint64_t) + 4 + 8];
        s = take(&c, skipped, n_dims * sizeof(uint64_t) + 4 + 8, "the tensor table");
        if (s) return s;
        bytes += name.size + 1;
    }
    *out = bytes;
    return WEFT_OK;
}

/* Shape and type of one tensor whose entry measure_names has seen; its offset goes to *offset. */
static weft_status take_tensor(gguf_cursor *c, weft_tensor *t, char **names, uint64_t *offset)
{
    weft_text name;
    uint32_t type = 0;
    weft_status s = take_name(c, &name, "a tensor name");
    if (s || (s = take(c, &t->n_dims, sizeof t->n_dims, "the tensor table"))) return s;
    memcpy(*names, name.data, name.size);
    t->name = *names;
    *names += name.size + 1; /* the pool is zeroed: the NUL is there */
    for (uint32_t d = 0; d < 4; d++) t->dim[d] = 1;
    if ((s = take(c, t->dim, t->n_dims * sizeof *t->dim, "the tensor table")) ||
        (s = take(c, &type, sizeof type, "the tensor table")) ||
        (s = take(c, offset, sizeof *offset, "the tensor table")))
        return s;

    size_t weights, block, n = 1;
    t->type = (weft_tensor_type)type;
    if (!weft_tensor_block(t->type, &weights, &block))
        return weft_fail(c->err, WEFT_E_MODEL,
                         "open %s: tensor %s has type %u (%s), which weft cannot compute; take a "
                         "file with weights of a quantised type, F16, BF16 or F32",
                         c->label, t->name, type, foreign_type_name(type));
    bool bad = t->dim[0] % weights != 0;
    for (uint32_t d = 0; d < 4; d++) bad |= !t->dim[d] || weft_size_mul(n, (size_t)t->dim[d], &n);
    if (bad || weft_size_mul(n / weights, block, &t->bytes))
        return weft_fail(c->err, WEFT_E_MODEL,
                         "open %s: tensor %s has impossible dimensions; the file is damaged",
                         c->label, t->name);
    return WEFT_OK;
}

static int compare_data(const void *a, const void *b, void *context)
{
    const weft_tensor *t = context;
    const uint8_t *x = t[*(const uint32_t *)a].data, *y = t[*(const uint32_t *)b].data;
    return (x > y) - (x < y);
}

static weft_status check_overlap(const gguf_part *part, const gguf_cursor *c)
{
    weft_status s = WEFT_OK;
    uint32_t *order = malloc(part->n_tensors * sizeof *order);
    if (!order) return weft_fail(c->err, WEFT_E_MEMORY, "open %s", c->label);
    for (size_t i = 0; i < part->n_tensors; i++) order[i] = (uint32_t)i;
    qsort_r(order, part->n_tensors, sizeof *order, compare_data, part->tensor);
    for (size_t i = 1; i < part->n_tensors && !s; i++) {
        const weft_tensor *before = &part->tensor[order[i - 1]], *t = &part->tensor[order[i]];
        if ((const uint8_t *)before->data + before->bytes > (const uint8_t *)t->data)
            s = weft_fail(c->err, WEFT_E_MODEL,
                          "open %s: the data of tensors %s and %s overlap; the file is damaged",
                          c->label, before->name, t->name);
    }
    free(order);
    return s;
}

/* Places the tensors at data_start + offset[i]. */
static weft_status place_tensors(gguf_part *part, const gguf_cursor *c, const uint64_t *offset,
                                 size_t alignment)
{
    size_t data_bytes = part->size - part->data_start;
    for (size_t i = 0; i < part->n_tensors; i++) {
        weft_tensor *t = &part->tensor[i];
        if (offset[i] % alignment)
            return weft_fail(c->err, WEFT_E_MODEL,
                             "open %s: the data of tensor %s is not aligned to %zu bytes; the file "
                             "is damaged",
                             c->label, t->name, alignment);
        if (offset[i] > data_bytes || t->bytes > data_bytes - offset[i])
            return weft_fail(c->err, WEFT_E_MODEL,
                             "open %s: the data of tensor %s lies past the end of the file; it is "
                             "damaged or incomplete, fetch it again",
                             c->label, t->name);
        t->data = part->base + part->data_start + offset[i];
    }
    return check_overlap(part, c);
}

static weft_status find_alignment(const gguf_part *part, const gguf_cursor *c, size_t *out)
{
    const gguf_value *v = gguf_value_find(part, "general.alignment");
    int64_t alignment = GGUF_DEFAULT_ALIGNMENT;
    if (v && (v->is_array || !gguf_value_int(v, 0, &alignment) || alignment < 8 ||
              alignment > GGUF_MAX_ALIGNMENT || (alignment & (alignment - 1))))
        return weft_fail(c->err, WEFT_E_MODEL,
                         "open %s: general.alignment is not a power of two from 8 to %d; the file "
                         "is damaged",
                         c->label, GGUF_MAX_ALIGNMENT);
    *out = (size_t)alignment;
    return WEFT_OK;
}

static weft_status read_tensors(gguf_cursor *c, gguf_part *part, uint64_t n)
{
    weft_status s = WEFT_OK;
    uint64_t *offset = NULL;
    size_t alignment = GGUF_DEFAULT_ALIGNMENT, names_bytes = 0;
    if (n > rest(c) / GGUF_MIN_TENSOR_BYTES || n > UINT32_MAX) {
        s = cut_short(c, "the tensor table");
        goto done;
    }
    if (!n) { /* a vocabulary: nothing follows */
        part->data_start = part->size - rest(c);
        goto done;
    }
    if ((s = measure_names(*c, n, &names_bytes))) goto done;
    part->tensor = calloc((size_t)n, sizeof *part->tensor);
    offset = calloc((size_t)n, sizeof *offset);
    part->names = calloc(names_bytes, 1);
    if (!part->tensor || !offset || !part->names) {
        s = weft_fail(c->err, WEFT_E_MEMORY, "open %s", c->label);
        goto done;
    }
    char *names = part->names;
    for (; part->n_tensors < n; part->n_tensors++) {
        size_t i = part->n_tensors;
        if ((s = take_tensor(c, &part->tensor[i], &names, &offset[i]))) goto done;
    }
    if ((s = find_alignment(part, c, &alignment))) goto done;
    part->data_start = part->size - rest(c);
    part->data_start += (alignment - part->data_start % alignment) % alignment;
    s = part->data_start > part->size ? cut_short(c, "the tensor table")
                                      : place_tensors(part, c, offset, alignment);
done:
    free(offset);
    return s;
}

/* ---- the part ---- */

static weft_status read_header(gguf_cursor *c, uint64_t *n_tensors, uint64_t *n_values)
{
    struct {
        char magic[4];
        uint32_t version;
        uint64_t n_tensors, n_values;
    } header;
    _Static_assert(sizeof header == 24, "as in the file");
    if (rest(c) < 4 || memcmp(c->at, "GGUF", 4) != 0)
        return weft_fail(c->err, WEFT_E_MODEL, "open %s: not a GGUF file", c->label);
    weft_status s = take(c, &header, sizeof header, "the header");
    if (s) return s;
    if (header.version && !(header.version & 0xffff))
        return weft_fail(c->err, WEFT_E_MODEL,
                         "open %s: the file is big-endian; take the little-endian one", c->label);
    if (header.version != 2 && header.version != 3)
        return weft_fail(c->err, WEFT_E_MODEL, "open %s: GGUF version %u, weft reads 2 and 3",
                         c->label, header.version);
    *n_tensors = header.n_tensors;
    *n_values = header.n_values;
    return WEFT_OK;
}

weft_status gguf_part_read(gguf_part *part, const char *label, weft_error *err)
{
    gguf_cursor c = {part->base, part->base + part->size, label, err};
    uint64_t n_tensors = 0, n_values = 0;
    weft_status s = read_header(&c, &n_tensors, &n_values);
    if (!s) s = read_values(&c, part, n_values);
    if (!s) s = read_tensors(&c, part, n_tensors);
    return s;
}

void gguf_part_free(gguf_part *part)
{
    for (size_t i = 0; i < part->n_values; i++) free(part->value[i].string);
    free(part->value);
    free(part->by_key);
    free(part->tensor);
    free(part->names);
}
