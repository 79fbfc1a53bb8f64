/* The GGUF reader: values, tensors, split files, and every refusal by its reason. Damaged variants of
 * real files must give one clear error or a file that can be walked from end to end. */
#include "engine/tokenizer.h"
#include "tests/engine/gguf_build.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static const float zeros[64];

static weft_gguf *open_built(gguf_build *g, weft_buffer *bytes)
{
    weft_error err;
    weft_gguf *file;
    build_finish(g, bytes);
    if (weft_gguf_open_memory(&file, bytes->data, bytes->size, &err)) fail_msg("%s", err.message);
    return file;
}

static void expect_bytes_refused(const void *bytes, size_t n, const char *reason)
{
    weft_error err;
    weft_gguf *file = NULL;
    void *exact = malloc(n ? n : 1); /* no byte to spare: a read past the end is seen */
    assert_non_null(exact);
    if (n) memcpy(exact, bytes, n);
    assert_int_equal(weft_gguf_open_memory(&file, exact, n, &err), WEFT_E_MODEL);
    assert_null(file);
    if (!strstr(err.message, reason)) fail_msg("\"%s\" lacks \"%s\"", err.message, reason);
    free(exact);
}

static void expect_refused(gguf_build *g, const char *reason)
{
    weft_buffer bytes = WEFT_BUFFER_INIT;
    build_finish(g, &bytes);
    expect_bytes_refused(bytes.data, bytes.size, reason);
    weft_buffer_free(&bytes);
}

/* ---- what is read ---- */

static void build_integers(gguf_build *g)
{
    static const struct {
        const char *key;
        uint32_t type;
        size_t n;
        uint8_t bytes[8];
    } v[] = {{"u8", G_U8, 1, {200}},
             {"i8", G_I8, 1, {0xff}},
             {"u16", G_U16, 2, {0xff, 0xff}},
             {"i16", G_I16, 2, {0xfe, 0xff}},
             {"u32", G_U32, 4, {0xff, 0xff, 0xff, 0xff}},
             {"i32", G_I32, 4, {0xfd, 0xff, 0xff, 0xff}},
             {"u64", G_U64, 8, {1, 0, 0, 0, 0, 0, 0, 0x80}},
             {"i64", G_I64, 8, {0, 0, 0, 0, 0, 0, 0, 0x80}}};
    for (size_t i = 0; i < sizeof v / sizeof *v; i++)
        build_value(g, v[i].key, v[i].type, v[i].bytes, v[i].n);
}

static void reads_integers(void **state)
{
    static const struct {
        const char *key;
        int64_t value;
    } want[] = {{"u8", 200}, {"i8", -1},          {"u16", 65535},    {"i16", -2},
                {"i32", -3}, {"u32", 4294967295}, {"i64", INT64_MIN}};
    gguf_build g = {0};
    weft_buffer bytes = WEFT_BUFFER_INIT;
    build_integers(&g);
    weft_gguf *file = open_built(&g, &bytes);
    int64_t got = 42;
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        assert_true(weft_gguf_int(file, want[i].key, &got));
        assert_true(got == want[i].value);
    }
    got = 42;
    assert_false(weft_gguf_int(file, "u64", &got)); /* above INT64_MAX */
    assert_false(weft_gguf_int(file, "none", &got));
    assert_false(weft_gguf_int(file, "", &got));
    assert_int_equal(got, 42);
    weft_gguf_close(file);
    weft_buffer_free(&bytes);
}

static void reads_values(void **state)
{
    gguf_build g = {.version = 2};
    weft_buffer bytes = WEFT_BUFFER_INIT;
    const float f = 0.5f;
    const double d = -2.25;
    build_text(&g, "text", "caf\xc3\xa9");
    build_value(&g, "yes", G_BOOL, "\1", 1);
    build_value(&g, "f", G_F32, &f, sizeof f);
    build_value(&g, "d", G_F64, &d, sizeof d);
    build_texts(&g, "texts", (const char *[]){"a", "", "ccc"}, 3);
    build_array(&g, "empty", G_STRING, 0);
    build_array(&g, "ints", G_I16, 2);
    weft_buffer_append(&g.values, "\1\0\xff\xff", 4);
    weft_gguf *file = open_built(&g, &bytes);
    weft_text text = {NULL, 7};
    double number = 1;
    bool yes = false;
    int64_t n = 1;
    assert_true(weft_gguf_text(file, "text", &text));
    assert_int_equal(text.size, 5);
    assert_memory_equal(text.data, "caf\xc3\xa9", 5);
    assert_true(weft_gguf_bool(file, "yes", &yes) && yes);
    assert_true(weft_gguf_float(file, "f", &number) && number == 0.5);
    assert_true(weft_gguf_float(file, "d", &number) && number == -2.25);
    assert_int_equal(weft_gguf_array(file, "texts"), 3);
    assert_true(weft_gguf_array_text(file, "texts", 2, &text) && text.size == 3);
    assert_true(weft_gguf_array_text(file, "texts", 1, &text) && text.size == 0);
    assert_true(weft_gguf_array_int(file, "ints", 1, &n) && n == -1);
    assert_int_equal(weft_gguf_array(file, "empty"), 0);
    /* Another type, another shape, another place: nothing is touched. */
    n = 5;
    assert_false(weft_gguf_array_int(file, "ints", 2, &n));
    assert_false(weft_gguf_array_int(file, "texts", 0, &n));
    assert_false(weft_gguf_int(file, "ints", &n));
    assert_false(weft_gguf_int(file, "yes", &n));
    assert_false(weft_gguf_bool(file, "f", &yes));
    assert_false(weft_gguf_text(file, "texts", &text));
    assert_false(weft_gguf_array_text(file, "text", 0, &text));
    assert_false(weft_gguf_array_float(file, "ints", 0, &number));
    assert_int_equal(weft_gguf_array(file, "text"), 0);
    assert_int_equal(n, 5);
    assert_int_equal(weft_gguf_key_count(file), 7);
    assert_int_equal(weft_gguf_key_at(file, 6).size, 4);
    weft_gguf_close(file);
    weft_buffer_free(&bytes);
}

static void reads_tensors(void **state)
{
    gguf_build g = {.alignment = 64};
    weft_buffer bytes = WEFT_BUFFER_INIT;
    float row[6] = {1, 2, 3, 4, 5, 6};
    build_u32(&g, "general.alignment", 64);
    build_tensor(&g, "b", 3, 2, WEFT_F32, row, sizeof row);
    build_tensor(&g, "a", 32, 1, WEFT_Q8_0, zeros, 34);
    weft_gguf *file = open_built(&g, &bytes);
    assert_int_equal(weft_gguf_tensor_count(file), 2);
    const weft_tensor *t = weft_gguf_tensor_find(file, "b");
    assert_ptr_equal(t, weft_gguf_tensor_at(file, 0));
    assert_string_equal(t->name, "b");
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dim[0] * 100 + t->dim[1] * 10 + t->dim[2] + t->dim[3], 322);
    assert_int_equal(t->bytes, sizeof row);
    assert_memory_equal(t->data, row, sizeof row);
    t = weft_gguf_tensor_find(file, "a");
    assert_int_equal(t->type, WEFT_Q8_0);
    assert_int_equal(t->bytes, 34);
    assert_int_equal(((const char *)t->data - bytes.data) % 64, 0);
    assert_null(weft_gguf_tensor_find(file, "c"));
    assert_null(weft_gguf_tensor_find(file, ""));
    assert_string_equal(weft_tensor_type_name(t->type), "Q8_0");
    weft_gguf_close(file);
    weft_buffer_free(&bytes);
    weft_gguf_close(NULL);
}

/* Blocks of every type: exactly the bytes they take, and none fewer; no row of half a block. */
static void reads_types(void **state)
{
    static const struct {
        const char *name;
        uint32_t number;
        uint64_t weights;
        size_t bytes;
    } types[] = {
        {"F32", 0, 1, 4},        {"F16", 1, 1, 2},        {"Q4_0", 2, 32, 18},
        {"Q4_1", 3, 32, 20},     {"Q5_0", 6, 32, 22},     {"Q5_1", 7, 32, 24},
        {"Q8_0", 8, 32, 34},     {"Q2_K", 10, 256, 84},   {"Q3_K", 11, 256, 110},
        {"Q4_K", 12, 256, 144},  {"Q5_K", 13, 256, 176},  {"Q6_K", 14, 256, 210},
        {"IQ2_XXS", 16, 256, 66}, {"IQ2_XS", 17, 256, 74}, {"IQ3_XXS", 18, 256, 98},
        {"IQ1_S", 19, 256, 50},  {"IQ4_NL", 20, 32, 18},  {"IQ3_S", 21, 256, 110},
        {"IQ2_S", 22, 256, 82},  {"IQ4_XS", 23, 256, 136}, {"IQ1_M", 29, 256, 56},
        {"BF16", 30, 1, 2},      {"TQ1_0", 34, 256, 54},  {"TQ2_0", 35, 256, 66},
        {"MXFP4", 39, 32, 17},   {"NVFP4", 40, 64, 36},   {"Q1_0", 41, 128, 18},
        {"Q2_0", 42, 64, 18},
    };
    static const uint8_t data[6 * 210];
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const size_t bytes = 6 * types[i].bytes;
        gguf_build g = {0};
        weft_buffer file = WEFT_BUFFER_INIT;
        build_tensor(&g, "a", 2 * types[i].weights, 3, types[i].number, data, bytes);
        weft_gguf *opened = open_built(&g, &file);
        const weft_tensor *t = weft_gguf_tensor_at(opened, 0);
        assert_int_equal(t->bytes, bytes);
        assert_string_equal(weft_tensor_type_name(t->type), types[i].name);
        weft_gguf_close(opened);
        weft_buffer_free(&file);
        build_tensor(&g, "a", 2 * types[i].weights, 3, types[i].number, data, bytes - 1);
        expect_refused(&g, "tensor a");
        if (types[i].weights == 1) continue;
        build_tensor(&g, "a", types[i].weights * 3 / 2, 3, types[i].number, data, bytes);
        expect_refused(&g, "impossible dimensions");
    }
}

/* ---- what is refused ---- */

static void refuses_headers(void **state)
{
    gguf_build g = {0};
    expect_bytes_refused("", 0, "not a GGUF file");
    expect_bytes_refused("GGU", 3, "not a GGUF file");
    expect_bytes_refused("GGML\3\0\0\0", 8, "not a GGUF file");
    expect_bytes_refused("GGUF\3\0\0\0\0\0\0", 11, "ends inside the header");
    g.version = 1;
    expect_refused(&g, "GGUF version 1");
    g.version = 4;
    expect_refused(&g, "GGUF version 4");
    g.version = 0x03000000;
    expect_refused(&g, "big-endian");
    g.n_values = UINT64_MAX;
    expect_refused(&g, "inside the metadata");
    g.n_values = UINT32_MAX; /* tables of 300 GB for a file of 24 bytes */
    expect_refused(&g, "inside the metadata");
    g.n_tensors = UINT32_MAX;
    expect_refused(&g, "inside the tensor table");
    g.n_tensors = UINT64_MAX / 32;
    expect_refused(&g, "inside the tensor table");
}

static void refuses_values(void **state)
{
    gguf_build g = {0};
    build_u32(&g, "a", 1);
    build_u32(&g, "b", 1);
    build_text(&g, "a", "x");
    expect_refused(&g, "key a stands twice");
    build_u32(&g, "", 1);
    expect_refused(&g, "empty");
    build_value(&g, "x", G_BOOL, "\2", 1);
    expect_refused(&g, "neither 0 nor 1");
    build_value(&g, "x", 13, "\0\0\0\0\0\0\0\0", 8);
    expect_refused(&g, "unknown value type 13");
    build_array(&g, "x", G_ARRAY, 1);
    put_u64(&g.values, 0);
    expect_refused(&g, "array of arrays");
    build_array(&g, "x", 13, 0);
    expect_refused(&g, "unknown value type 13");
    build_array(&g, "x", G_U64, UINT64_MAX / 8 + 2); /* times 8 it is 8 */
    put_u64(&g.values, 0);
    expect_refused(&g, "inside a metadata value");
    build_array(&g, "x", G_STRING, UINT64_MAX / 8);
    expect_refused(&g, "inside an array of strings");
    build_array(&g, "x", G_STRING, 2);
    put_text(&g.values, "a");
    put_u64(&g.values, UINT64_MAX);
    expect_refused(&g, "inside an array of strings");
    build_value(&g, "x", G_STRING, NULL, 0);
    put_u64(&g.values, UINT64_MAX - 8);
    expect_refused(&g, "inside a metadata string");
    put_u64(&g.values, 3);
    weft_buffer_append(&g.values, "a\0b\4\0\0\0\0\0\0\0", 11);
    g.n_values = 1;
    expect_refused(&g, "zero byte");
}

static void refuses_tensors(void **state)
{
    gguf_build g = {0};
    build_tensor(&g, "w", 4, 4, WEFT_F32, zeros, 64);
    build_tensor(&g, "w", 4, 4, WEFT_F32, zeros, 64);
    expect_refused(&g, "tensor w stands twice");
    build_tensor(&g, "a", 4, 4, WEFT_F32, zeros, 64);
    build_tensor_at(&g, "b", 1, (uint64_t[]){8}, WEFT_F32, 32);
    expect_refused(&g, "a and b overlap");
    build_tensor(&g, "a", 4, 4, WEFT_F32, zeros, 64);
    build_tensor_at(&g, "b", 1, (uint64_t[]){1}, WEFT_F32, 4);
    expect_refused(&g, "not aligned");
    build_tensor(&g, "a", 4, 4, WEFT_F32, zeros, 60);
    expect_refused(&g, "past the end");
    build_tensor(&g, "a", 4, 4, WEFT_F32, zeros, 64);
    build_tensor_at(&g, "b", 1, (uint64_t[]){8}, WEFT_F32, UINT64_MAX - 31);
    expect_refused(&g, "past the end");
    build_tensor_at(&g, "a", 1, (uint64_t[]){8}, WEFT_F32, 0); /* the file ends before its data */
    expect_refused(&g, "inside the tensor table");
    build_tensor(&g, "a", 0, 4, WEFT_F32, zeros, 64);
    expect_refused(&g, "impossible dimensions");
    build_tensor(&g, "a", UINT64_MAX / 2, 4, WEFT_F16, zeros, 64);
    expect_refused(&g, "impossible dimensions");
    build_tensor(&g, "a", (uint64_t)1 << 62, 1, WEFT_F32, zeros, 64); /* times 4 it is 0 */
    expect_refused(&g, "impossible dimensions");
    build_tensor(&g, "a", 33, 1, WEFT_Q8_0, zeros, 64);
    expect_refused(&g, "impossible dimensions");
    build_tensor(&g, "a", 256, 1, 15, zeros, 64);
    expect_refused(&g, "type 15 (Q8_K)");
    build_tensor(&g, "a", 256, 1, 9999, zeros, 64);
    expect_refused(&g, "type 9999 (unknown)");
    build_tensor_at(&g, "a", 0, NULL, WEFT_F32, 0);
    weft_buffer_append(&g.data, zeros, 64);
    expect_refused(&g, "0 dimensions");
    build_tensor_at(&g, "a", 5, (uint64_t[]){1, 1, 1, 1, 1}, WEFT_F32, 0);
    weft_buffer_append(&g.data, zeros, 64);
    expect_refused(&g, "5 dimensions");
    static const uint32_t alignments[] = {0, 1, 4, 24, 0x80000000};
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        build_u32(&g, "general.alignment", alignments[i]);
        build_tensor(&g, "a", 4, 4, WEFT_F32, zeros, 64);
        expect_refused(&g, "general.alignment");
    }
}

/* ---- files on disk ---- */

static char *scratch;

static char *scratch_file(const char *name)
{
    char *path = weft_path_join(scratch, name);
    assert_non_null(path);
    return path;
}

static int make_scratch(void **state)
{
    scratch = strdup("/tmp/weft-gguf-XXXXXX");
    return scratch && mkdtemp(scratch) ? 0 : -1;
}

static int remove_scratch(void **state)
{
    weft_error err;
    int failed = weft_remove_tree(scratch, &err);
    free(scratch);
    return failed;
}

static void write_part(const char *name, uint32_t no, uint32_t count, const char *tensor)
{
    gguf_build g = {0};
    weft_buffer bytes = WEFT_BUFFER_INIT;
    weft_error err;
    char *path = scratch_file(name);
    float row[4] = {(float)no, 1, 2, 3};
    build_u32(&g, "split.no", no);
    build_u32(&g, "split.count", count);
    build_u32(&g, "split.tensors.count", 2);
    build_text(&g, "only.in", name);
    build_tensor(&g, tensor, 4, 1, WEFT_F32, row, sizeof row);
    build_finish(&g, &bytes);
    if (weft_file_write(path, bytes.data, bytes.size, 0600, &err)) fail_msg("%s", err.message);
    weft_buffer_free(&bytes);
    free(path);
}

static void expect_open(const char *name, const char *reason)
{
    weft_error err;
    weft_gguf *file = NULL;
    char *path = scratch_file(name);
    weft_status s = weft_gguf_open(&file, path, &err);
    if (!reason) {
        if (s) fail_msg("%s", err.message);
        assert_int_equal(weft_gguf_tensor_count(file), 2);
        const weft_tensor *t = weft_gguf_tensor_find(file, "second");
        assert_true(t && *(const float *)t->data == 1);
        weft_text text;
        assert_true(weft_gguf_text(file, "only.in", &text));
        assert_memory_equal(text.data + text.size - 19, "00001-of-00002.gguf", 19);
    } else {
        assert_int_equal(s, WEFT_E_MODEL);
        if (!strstr(err.message, reason)) fail_msg("\"%s\" lacks \"%s\"", err.message, reason);
    }
    weft_gguf_close(file);
    free(path);
}

static void split_files(void **state)
{
    write_part("m-00001-of-00002.gguf", 0, 2, "first");
    expect_open("m-00001-of-00002.gguf", "No such file");
    write_part("m-00002-of-00002.gguf", 1, 2, "second");
    expect_open("m-00001-of-00002.gguf", NULL);
    expect_open("m-00002-of-00002.gguf", "part 2 of 2; open the first");
    write_part("m-00002-of-00002.gguf", 1, 2, "first");
    expect_open("m-00001-of-00002.gguf", "first stands twice");
    write_part("k-00001-of-00003.gguf", 0, 3, "first"); /* says 2 tensors in all */
    write_part("k-00002-of-00003.gguf", 1, 3, "second");
    write_part("k-00003-of-00003.gguf", 2, 3, "third");
    expect_open("k-00001-of-00003.gguf", "split.tensors.count says 2");
    write_part("m-00002-of-00002.gguf", 1, 3, "second");
    expect_open("m-00001-of-00002.gguf", "part 2 of 2");
    write_part("renamed.gguf", 0, 2, "first");
    expect_open("renamed.gguf", "must be named");
    write_part("m-00001-of-00001.gguf", 0, 1, "first"); /* one part is no split */
    write_part("n-00001-of-00003.gguf", 5, 3, "first");
    expect_open("n-00001-of-00003.gguf", "impossible split");
    expect_open("none.gguf", "No such file");
    expect_open("", "not a regular file");
}

static void check_read(const weft_tensor *t, const void *want)
{
    static uint8_t got[1 << 20];
    weft_error err;
    assert_true(t->bytes <= sizeof got);
    assert_int_equal(weft_tensor_read(t, 0, t->bytes, got, &err), WEFT_OK);
    assert_memory_equal(got, want, t->bytes);
    assert_int_equal(weft_tensor_read(t, 1001, 3, got, &err), WEFT_OK);
    assert_memory_equal(got, (const uint8_t *)want + 1001, 3);
}

static void tensors_are_read(void **state)
{
    enum { ROWS = 4096 };
    gguf_build g = {0};
    weft_buffer bytes = WEFT_BUFFER_INIT;
    weft_error err;
    weft_gguf *mapped, *borrowed;
    char *path = scratch_file("big.gguf");
    uint32_t *rows = malloc(ROWS * sizeof *rows * 4);
    assert_non_null(rows);
    for (uint32_t i = 0; i < ROWS * 4; i++) rows[i] = i;
    build_tensor(&g, "w", 4, ROWS, WEFT_F32, rows, ROWS * 16);
    build_finish(&g, &bytes);
    assert_int_equal(weft_file_write(path, bytes.data, bytes.size, 0600, &err), WEFT_OK);
    assert_int_equal(weft_gguf_open(&mapped, path, &err), WEFT_OK);
    const weft_tensor *t = weft_gguf_tensor_at(mapped, 0);
    assert_memory_equal(t->data, rows, ROWS * 16);
    weft_tensor_ahead(t, 0, t->bytes);
    check_read(t, rows);
    assert_int_equal(weft_gguf_file_bytes(mapped), bytes.size);
    weft_gguf_close(mapped);
    if (weft_gguf_open_memory(&borrowed, bytes.data, bytes.size, &err)) fail_msg("%s", err.message);
    t = weft_gguf_tensor_at(borrowed, 0);
    weft_tensor_ahead(t, 0, t->bytes);
    check_read(t, rows);
    weft_gguf_close(borrowed);
    weft_buffer_free(&bytes);
    free(rows);
    free(path);
}

static void fingerprint_of(const weft_buffer *bytes, uint8_t out[WEFT_DIGEST_BYTES])
{
    weft_error err;
    weft_gguf *file;
    if (weft_gguf_open_memory(&file, bytes->data, bytes->size, &err)) fail_msg("%s", err.message);
    assert_int_equal(weft_gguf_fingerprint(file, out, NULL), WEFT_OK);
    weft_gguf_close(file);
}

static void fingerprints(void **state)
{
    gguf_build g = {0};
    weft_buffer bytes = WEFT_BUFFER_INIT;
    uint8_t a[WEFT_DIGEST_BYTES], b[WEFT_DIGEST_BYTES];
    build_text(&g, "general.name", "one");
    build_tensor(&g, "w", 16, 4, WEFT_F32, zeros, sizeof zeros);
    build_finish(&g, &bytes);
    fingerprint_of(&bytes, a);
    fingerprint_of(&bytes, b);
    assert_memory_equal(a, b, sizeof a);
    char *name = memmem(bytes.data, bytes.size, "one", 3);
    *name = 'O'; /* metadata */
    fingerprint_of(&bytes, b);
    assert_memory_not_equal(a, b, sizeof a);
    *name = 'o';
    bytes.data[bytes.size - 1] = 1; /* data */
    fingerprint_of(&bytes, b);
    assert_memory_not_equal(a, b, sizeof a);
    bytes.data[bytes.size - 1] = 0;
    weft_buffer_putc(&bytes, 0); /* size */
    fingerprint_of(&bytes, b);
    assert_memory_not_equal(a, b, sizeof a);
    weft_buffer_free(&bytes);
}

/* ---- damaged files ---- */

static void walk_key(const weft_gguf *file, weft_text name)
{
    char key[256];
    weft_text text = {"", 0};
    int64_t integer;
    double number;
    bool truth;
    if (name.size >= sizeof key) return;
    memcpy(key, name.data, name.size);
    key[name.size] = '\0';
    weft_gguf_text(file, key, &text);
    weft_gguf_int(file, key, &integer);
    weft_gguf_float(file, key, &number);
    weft_gguf_bool(file, key, &truth);
    for (size_t i = 0; i <= weft_gguf_array(file, key); i++) {
        weft_gguf_array_int(file, key, i, &integer);
        weft_gguf_array_float(file, key, i, &number);
        if (weft_gguf_array_text(file, key, i, &text) && text.size)
            assert_true(text.data[0] + text.data[text.size - 1] != 1 << 10);
    }
}

static size_t walk_tokenizer(const weft_gguf *file)
{
    static const char text[] = "<|im_start|>user\nHello w\xc3\xb6rld <think> 1+1=2\xff</s>";
    weft_error err;
    weft_tokenizer *t;
    if (weft_tokenizer_new(&t, file, &err)) {
        assert_int_equal(err.code, WEFT_E_MODEL);
        assert_true(strlen(err.message) > 10);
        return 0;
    }
    for (weft_trust trust = WEFT_TRUSTED; trust <= WEFT_FOREIGN; trust++) {
        weft_span span = {text, sizeof text - 1, trust, WEFT_USER};
        int32_t *ids;
        size_t n;
        assert_int_equal(weft_tokenizer_encode(t, &span, 1, &ids, NULL, &n, &err), WEFT_OK);
        for (size_t i = 0; i < n; i++) {
            assert_in_range(ids[i], 0, weft_tokenizer_size(t) - 1);
            assert_true(weft_tokenizer_bytes(t, ids[i], true).size > 0);
        }
        free(ids);
    }
    weft_tokenizer_free(t);
    return 1;
}

/* Returns whether a tokenizer came out. */
static size_t walk(const weft_gguf *file)
{
    uint8_t digest[WEFT_DIGEST_BYTES];
    for (size_t i = 0; i < weft_gguf_key_count(file); i++)
        walk_key(file, weft_gguf_key_at(file, i));
    for (size_t i = 0; i < weft_gguf_tensor_count(file); i++) {
        const weft_tensor *t = weft_gguf_tensor_at(file, i);
        const unsigned char *data = t->data;
        assert_ptr_equal(weft_gguf_tensor_find(file, t->name), t);
        assert_true(t->bytes > 0 && data[0] + data[t->bytes - 1] < 512);
        assert_int_equal(weft_tensor_read(t, t->bytes - 1, 1, digest, NULL), WEFT_OK);
        assert_int_equal(digest[0], data[t->bytes - 1]);
    }
    assert_int_equal(weft_gguf_fingerprint(file, digest, NULL), WEFT_OK);
    return walk_tokenizer(file);
}

typedef struct damage {
    size_t opened, refused, tokenizers;
} damage;

/* By path: the file is a memfd, so that 600 variants never touch a disk. By memory: the bytes end where
 * the heap block ends, so that a read past them is seen. */
static void try_variant(int fd, const char *bytes, size_t n, damage *d)
{
    char path[64];
    weft_error err;
    weft_gguf *file;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    weft_status s = weft_gguf_open(&file, path, &err);
    if (s) {
        assert_int_equal(s, WEFT_E_MODEL);
        assert_memory_equal(err.message, "open ", 5);
        d->refused++;
    } else {
        d->opened++;
        d->tokenizers += walk(file);
        weft_gguf_close(file);
    }
    char *exact = malloc(n ? n : 1);
    assert_non_null(exact);
    if (n) memcpy(exact, bytes, n);
    if (!weft_gguf_open_memory(&file, exact, n, &err)) {
        walk(file);
        weft_gguf_close(file);
    }
    free(exact);
}

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *seed >> 33;
}

static void flip(int fd, char *bytes, size_t at, int bit)
{
    bytes[at] ^= (char)bit;
    assert_int_equal(pwrite(fd, bytes + at, 1, (off_t)at), 1);
}

/* 300 cuts and 300 sets of flipped bits; most of them in the first `head` bytes, where the tables are. */
static damage try_variants(const char *name, size_t head)
{
    enum { VARIANTS = 300 };
    damage d = {0};
    weft_error err;
    weft_buffer file = WEFT_BUFFER_INIT;
    const char *dir = getenv("WEFT_TEST_DATA");
    if (!dir) fail_msg("WEFT_TEST_DATA is not set; run the tests with meson test");
    char *path = weft_path_join(dir, name);
    if (weft_file_read(path, (size_t)64 << 20, &file, &err)) fail_msg("%s", err.message);
    int fd = memfd_create("variant", MFD_CLOEXEC);
    assert_true(fd >= 0 && head <= file.size);
    uint64_t seed = file.size;
    for (size_t i = 0; i < VARIANTS; i++) {
        size_t n = next_random(&seed) % (i % 4 ? head : file.size);
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, file.data, n, 0), n);
        try_variant(fd, file.data, n, &d);
    }
    assert_int_equal(pwrite(fd, file.data, file.size, 0), file.size);
    for (size_t i = 0; i < VARIANTS; i++) {
        size_t at[4];
        int bit[4];
        for (size_t k = 0; k <= i % 4; k++) {
            at[k] = next_random(&seed) % (i % 8 ? head : file.size);
            bit[k] = 1 << next_random(&seed) % 8;
            flip(fd, file.data, at[k], bit[k]);
        }
        try_variant(fd, file.data, file.size, &d);
        for (size_t k = 0; k <= i % 4; k++) flip(fd, file.data, at[k], bit[k]);
    }
    close(fd);
    free(path);
    weft_buffer_free(&file);
    return d;
}

static void damaged_model(void **state)
{
    damage d = try_variants("agent/tiny-agent-f16.gguf", 40000);
    assert_int_equal(d.opened + d.refused, 600);
    assert_true(d.refused > 300 && d.opened > 20 && d.tokenizers > 0); /* both ways were walked */
}

static void damaged_vocabularies(void **state)
{
    damage d = try_variants("tok/small-bpe.gguf", 20000);
    assert_true(d.refused > 300 && d.opened > 20 && d.tokenizers > 0);
    d = try_variants("tok/small-spm.gguf", 20000);
    assert_true(d.refused > 300 && d.opened > 20 && d.tokenizers > 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_integers),       cmocka_unit_test(reads_values),
        cmocka_unit_test(reads_tensors),        cmocka_unit_test(reads_types),
        cmocka_unit_test(refuses_headers),
        cmocka_unit_test(refuses_values),       cmocka_unit_test(refuses_tensors),
        cmocka_unit_test(split_files),          cmocka_unit_test(tensors_are_read),
        cmocka_unit_test(fingerprints),         cmocka_unit_test(damaged_model),
        cmocka_unit_test(damaged_vocabularies),
    };
    return cmocka_run_group_tests_name("gguf", tests, make_scratch, remove_scratch);
}
