/* GGUF files as the engine sees them: one or more parts behind one table of tensors.
 *
 * A model split into parts is PREFIX-00001-of-0000N.gguf and so on; the first part holds the
 * metadata, every part its own tensor table and data. Parts are mapped read-only. A look at the mapping of a file
 * that somebody has cut ends the process with SIGBUS; so it serves to check header and metadata when a file is
 * opened, which are then copied, and weights are read (gguf_data.c).
 *
 * The reader (gguf_read.c) checks each part; here remain the rules between parts: all there, none
 * twice, no tensor name twice.
 */
#include "engine/gguf_read.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SPLIT_SUFFIX_BYTES = sizeof "-00001-of-00002.gguf" - 1,
    SAMPLE_BYTES = 4096,
    SAMPLES = 64 /* of each part: a quarter of a megabyte read even from a cold disk */
};

struct weft_gguf {
    gguf_part *part; /* [n_parts]; the first one's metadata is the file's */
    size_t n_parts;
    const weft_tensor **tensor;  /* [n_tensors] in file order */
    const weft_tensor **by_name; /* [n_tensors] sorted */
    size_t n_tensors;
    size_t bytes;
};

/* ---- tensor types ---- */

const char *weft_tensor_type_name(weft_tensor_type type)
{
    switch (type) {
#define X(name, number, weights, bytes)                                                            \
    case WEFT_##name: return #name;
        WEFT_TENSOR_TYPES(X)
#undef X
    }
    return "unknown";
}

bool weft_tensor_block(weft_tensor_type type, size_t *weights, size_t *bytes)
{
    switch (type) {
#define X(name, number, w, b)                                                                      \
    case WEFT_##name:                                                                              \
        *weights = w;                                                                              \
        *bytes = b;                                                                                \
        return true;
        WEFT_TENSOR_TYPES(X)
#undef X
    }
    return false;
}

/* ---- opening ---- */

static weft_status map_part(gguf_part *part, const char *path, weft_error *err)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return weft_fail_errno(err, WEFT_E_MODEL, "open %s", path);
    part->file = (weft_tensor_file){fd, NULL};
    part->mapped = true; /* from here on unmap_part has something to do */
    if (fstat(fd, &info)) return weft_fail_errno(err, WEFT_E_MODEL, "stat %s", path);
    if (!S_ISREG(info.st_mode) || info.st_size == 0)
        return weft_fail(err, WEFT_E_MODEL, "open %s: %s", path,
                         S_ISREG(info.st_mode) ? "the file is empty" : "not a regular file");
    part->file.path = strdup(path);
    if (!part->file.path) return weft_fail(err, WEFT_E_MEMORY, "open %s", path);
    void *at = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED) return weft_fail_errno(err, WEFT_E_MODEL, "map %s", path);
    part->base = at;
    part->size = (size_t)info.st_size;
    return WEFT_OK;
}

/* Header and metadata become memory of our own, at the addresses where they were checked: their texts are looked
 * up for as long as the file is open, and it may be cut. */
static weft_status keep_metadata(gguf_part *part, const char *path, weft_error *err)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = (part->data_start + page - 1) / page * page;
    const size_t n = bytes < part->size ? bytes : part->size;
    void *own = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (own == MAP_FAILED) return weft_fail_errno(err, WEFT_E_MEMORY, "open %s: metadata", path);
    weft_status s = gguf_read(&part->file, "metadata", 0, n, own, err);
    if (!s && memcmp(own, part->base, part->data_start) != 0)
        s = weft_fail(err, WEFT_E_MODEL, "open %s: it is being written; try again when it is complete", path);
    if (!s && (mprotect(own, bytes, PROT_READ) ||
               mremap(own, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, part->base) == MAP_FAILED))
        s = weft_fail_errno(err, WEFT_E_MEMORY, "open %s: metadata", path);
    if (s) munmap(own, bytes);
    return s;
}

static void unmap_part(gguf_part *part)
{
    if (!part->mapped) return;
    if (part->base) munmap((void *)(uintptr_t)part->base, part->size);
    free((void *)(uintptr_t)part->file.path);
    close(part->file.fd);
}

static int64_t part_int(const gguf_part *part, const char *key, int64_t fallback)
{
    const gguf_value *v = gguf_value_find(part, key);
    if (v && !v->is_array) gguf_value_int(v, 0, &fallback);
    return fallback;
}

/* The path of part `number` (from 1) of n, made from the path of the first; NULL if that path is
 * not named as a first part, or on lack of memory (*memory). */
static char *part_path(const char *first, int64_t number, int64_t n, bool *memory)
{
    char suffix[64];
    size_t size = strlen(first);
    snprintf(suffix, sizeof suffix, "-00001-of-%05d.gguf", (int)n);
    *memory = false;
    if (size < SPLIT_SUFFIX_BYTES || strcmp(first + size - SPLIT_SUFFIX_BYTES, suffix) != 0)
        return NULL;
    char *path = malloc(size + sizeof suffix);
    if (!path) {
        *memory = true;
        return NULL;
    }
    memcpy(path, first, size + 1);
    snprintf(path + size - SPLIT_SUFFIX_BYTES, sizeof suffix, "-%05d-of-%05d.gguf", (int)number,
             (int)n);
    return path;
}

static weft_status open_part(weft_gguf *file, const char *path, int64_t number, int64_t n,
                             weft_error *err)
{
    gguf_part *part = &file->part[number - 1];
    weft_status s = map_part(part, path, err);
    if (!s) s = gguf_part_read(part, path, err);
    if (!s) s = keep_metadata(part, path, err);
    if (!s &&
        (part_int(part, "split.no", -1) != number - 1 || part_int(part, "split.count", -1) != n))
        s = weft_fail(err, WEFT_E_MODEL,
                      "open %s: it does not call itself part %d of %d; fetch the parts again", path,
                      (int)number, (int)n);
    return s;
}

/* Opens the other parts, if the first one says that there are any. path NULL: bytes in memory. */
static weft_status open_rest(weft_gguf *file, const char *path, const char *label, weft_error *err)
{
    int64_t n = part_int(&file->part[0], "split.count", 1);
    int64_t no = part_int(&file->part[0], "split.no", 0);
    if (n <= 1) return WEFT_OK;
    if (n > 99999 || no < 0 || no >= n)
        return weft_fail(err, WEFT_E_MODEL, "open %s: impossible split.no or split.count", label);
    if (no)
        return weft_fail(err, WEFT_E_MODEL, "open %s: this is part %d of %d; open the first part",
                         label, (int)no + 1, (int)n);
    if (!path)
        return weft_fail(err, WEFT_E_MODEL, "open %s: a split model opens by path only", label);
    gguf_part *part = realloc(file->part, (size_t)n * sizeof *part);
    if (!part) return weft_fail(err, WEFT_E_MEMORY, "open %s", label);
    memset(part + 1, 0, ((size_t)n - 1) * sizeof *part);
    file->part = part;
    file->n_parts = (size_t)n;
    for (int64_t number = 2; number <= n; number++) {
        bool memory;
        char *other = part_path(path, number, n, &memory);
        if (!other && memory) return weft_fail(err, WEFT_E_MEMORY, "open %s", label);
        if (!other)
            return weft_fail(err, WEFT_E_MODEL,
                             "open %s: part 1 of %d must be named PREFIX-00001-of-%05d.gguf, with "
                             "the other parts beside it",
                             label, (int)n, (int)n);
        weft_status s = open_part(file, other, number, n, err);
        free(other);
        if (s) return s;
    }
    return WEFT_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const weft_tensor *const *)a)->name, (*(const weft_tensor *const *)b)->name);
}

/* One table over the parts' tensors. */
static weft_status join(weft_gguf *file, const char *label, weft_error *err)
{
    size_t n = 0;
    for (size_t i = 0; i < file->n_parts; i++) {
        n += file->part[i].n_tensors;
        file->bytes += file->part[i].size;
    }
    int64_t expected = part_int(&file->part[0], "split.tensors.count", (int64_t)n);
    if (file->n_parts > 1 && expected != (int64_t)n)
        return weft_fail(
            err, WEFT_E_MODEL,
            "open %s: the parts hold %zu tensors, split.tensors.count says %lld; fetch "
            "the parts again",
            label, n, (long long)expected);
    file->tensor = calloc(n ? n : 1, sizeof(*file->tensor));
    file->by_name = calloc(n ? n : 1, sizeof(*file->by_name));
    if (!file->tensor || !file->by_name) return weft_fail(err, WEFT_E_MEMORY, "open %s", label);
    for (size_t i = 0; i < file->n_parts; i++)
        for (size_t k = 0; k < file->part[i].n_tensors; k++) {
            gguf_part *part = &file->part[i];
            weft_tensor *t = &part->tensor[k];
            t->file = part->mapped ? &part->file : NULL;
            t->offset = (size_t)((const uint8_t *)t->data - part->base);
            file->tensor[file->n_tensors++] = t;
        }
    memcpy(file->by_name, file->tensor, n * sizeof *file->by_name);
    qsort(file->by_name, n, sizeof *file->by_name, compare_names);
    for (size_t i = 1; i < n; i++)
        if (!compare_names(&file->by_name[i - 1], &file->by_name[i]))
            return weft_fail(err, WEFT_E_MODEL,
                             "open %s: tensor %s stands twice; the file is damaged", label,
                             file->by_name[i]->name);
    return WEFT_OK;
}

/* path NULL: `part` borrows its bytes. */
static weft_status open_file(weft_gguf **out, const char *path, const gguf_part *bytes,
                             weft_error *err)
{
    weft_status s = WEFT_OK;
    const char *label = path ? path : "bytes in memory";
    weft_gguf *file = calloc(1, sizeof *file);
    if (file) file->part = calloc(1, sizeof *file->part);
    if (!file || !file->part) {
        s = weft_fail(err, WEFT_E_MEMORY, "open %s", label);
        goto done;
    }
    file->n_parts = 1;
    if (bytes)
        file->part[0] = *bytes;
    else if ((s = map_part(&file->part[0], path, err)))
        goto done;
    if ((s = gguf_part_read(&file->part[0], label, err))) goto done;
    if (path && (s = keep_metadata(&file->part[0], path, err))) goto done;
    if ((s = open_rest(file, path, label, err))) goto done;
    if ((s = join(file, label, err))) goto done;
    *out = file;
    file = NULL;
done:
    weft_gguf_close(file);
    return s;
}

weft_status weft_gguf_open(weft_gguf **out, const char *path, weft_error *err)
{
    return open_file(out, path, NULL, err);
}

weft_status weft_gguf_open_memory(weft_gguf **out, const void *bytes, size_t n, weft_error *err)
{
    gguf_part part = {.base = bytes, .size = n};
    return open_file(out, NULL, &part, err);
}

void weft_gguf_close(weft_gguf *file)
{
    if (!file) return;
    for (size_t i = 0; i < file->n_parts; i++) {
        gguf_part *part = &file->part[i];
        gguf_part_free(part);
        unmap_part(part);
    }
    free(file->part);
    free(file->tensor);
    free(file->by_name);
    free(file);
}

/* ---- tensors ---- */

size_t weft_gguf_tensor_count(const weft_gguf *file)
{
    return file->n_tensors;
}

const weft_tensor *weft_gguf_tensor_at(const weft_gguf *file, size_t i)
{
    return file->tensor[i];
}

const weft_tensor *weft_gguf_tensor_find(const weft_gguf *file, const char *name)
{
    weft_tensor wanted = {.name = name};
    const weft_tensor *key = &wanted;
    const weft_tensor **found =
        bsearch(&key, file->by_name, file->n_tensors, sizeof *file->by_name, compare_names);
    return found ? *found : NULL;
}

/* ---- metadata ---- */

static const gguf_value *scalar(const weft_gguf *file, const char *key)
{
    const gguf_value *v = gguf_value_find(&file->part[0], key);
    return v && !v->is_array ? v : NULL;
}

static const gguf_value *element(const weft_gguf *file, const char *key, size_t i)
{
    const gguf_value *v = gguf_value_find(&file->part[0], key);
    return v && v->is_array && i < v->count ? v : NULL;
}

bool weft_gguf_text(const weft_gguf *file, const char *key, weft_text *out)
{
    const gguf_value *v = scalar(file, key);
    if (!v || v->type != GGUF_STRING) return false;
    *out = gguf_value_text(v, 0);
    return true;
}

bool weft_gguf_int(const weft_gguf *file, const char *key, int64_t *out)
{
    const gguf_value *v = scalar(file, key);
    return v && gguf_value_int(v, 0, out);
}

bool weft_gguf_float(const weft_gguf *file, const char *key, double *out)
{
    const gguf_value *v = scalar(file, key);
    return v && gguf_value_float(v, 0, out);
}

bool weft_gguf_bool(const weft_gguf *file, const char *key, bool *out)
{
    const gguf_value *v = scalar(file, key);
    if (!v || v->type != GGUF_BOOL) return false;
    *out = v->data[0] != 0;
    return true;
}

size_t weft_gguf_array(const weft_gguf *file, const char *key)
{
    const gguf_value *v = element(file, key, 0);
    return v ? (size_t)v->count : 0;
}

bool weft_gguf_array_text(const weft_gguf *file, const char *key, size_t i, weft_text *out)
{
    const gguf_value *v = element(file, key, i);
    if (!v || v->type != GGUF_STRING) return false;
    *out = gguf_value_text(v, i);
    return true;
}

bool weft_gguf_array_int(const weft_gguf *file, const char *key, size_t i, int64_t *out)
{
    const gguf_value *v = element(file, key, i);
    return v && gguf_value_int(v, i, out);
}

bool weft_gguf_array_float(const weft_gguf *file, const char *key, size_t i, double *out)
{
    const gguf_value *v = element(file, key, i);
    return v && gguf_value_float(v, i, out);
}

size_t weft_gguf_key_count(const weft_gguf *file)
{
    return file->part[0].n_values;
}

weft_text weft_gguf_key_at(const weft_gguf *file, size_t i)
{
    return file->part[0].value[i].key;
}

/* ---- identity ---- */

size_t weft_gguf_file_bytes(const weft_gguf *file)
{
    return file->bytes;
}

/* Up to SAMPLE_BYTES of a part's data, from byte `at` of them on. */
static weft_status sample(const gguf_part *part, size_t at, size_t n, uint8_t *out, weft_error *err)
{
    if (part->mapped)
        return gguf_read(&part->file, "samples", part->data_start + at, n, out, err);
    memcpy(out, part->base + part->data_start + at, n);
    return WEFT_OK;
}

weft_status weft_gguf_fingerprint(const weft_gguf *file, uint8_t out[WEFT_DIGEST_BYTES],
                                  weft_error *err)
{
    static const char domain[] = "weft gguf fingerprint 1";
    uint8_t digest[WEFT_DIGEST_BYTES], next[WEFT_DIGEST_BYTES], bytes[SAMPLE_BYTES];
    weft_blake2b_of(NULL, 0, domain, sizeof domain, digest);
    /* A chain: each digest is the prefix of the next. */
    for (size_t p = 0; p < file->n_parts; p++) {
        const gguf_part *part = &file->part[p];
        uint64_t size = part->size;
        size_t data_bytes = part->size - part->data_start;
        weft_blake2b_of(digest, sizeof digest, &size, sizeof size, next);
        weft_blake2b_of(next, sizeof next, part->base, part->data_start, digest);
        size_t step = data_bytes / SAMPLES;
        for (size_t i = 0; i < SAMPLES; i++) {
            size_t n = step < SAMPLE_BYTES ? step : SAMPLE_BYTES;
            weft_status status = sample(part, i * step, n, bytes, err);
            if (status) return status;
            weft_blake2b_of(digest, sizeof digest, bytes, n, next);
            memcpy(digest, next, sizeof digest);
        }
    }
    memcpy(out, digest, sizeof digest);
    return WEFT_OK;
}
