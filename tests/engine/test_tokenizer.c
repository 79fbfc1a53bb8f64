/* Ids equal the references': the fixtures of tests/data/tok (README there), the model files' too when
 * called with "models". And what the references do not say: offsets, spans, long texts, bad files. */
#include "tests/engine/gguf_build.h"
#include "tests/engine/tok_data.h"

#ifdef WITHOUT_JIT
/* A machine where no page may be made executable: PCRE2's interpreter must split the same way. */
int __wrap_pcre2_jit_compile_8(void *code, uint32_t options);
int __wrap_pcre2_jit_compile_8(void *code, uint32_t options)
{
    return -45; /* PCRE2_ERROR_JIT_BADOPTION: there is no JIT */
}
#endif

/* ---- fixtures ---- */

static void append_ids(weft_buffer *out, const int32_t *id, size_t n)
{
    for (size_t i = 0; i < n; i++) weft_buffer_printf(out, "%d ", id[i]);
}

static size_t mismatches; /* of the running test */

static void expect_ids(const vocabulary *v, const char *where, const char *text, size_t size,
                       weft_trust trust, const int32_t *want, size_t n_want)
{
    tok_ids got = encode_text(v, text, size, trust);
    if (got.n != n_want || memcmp(got.id, want, n_want * sizeof *want) != 0) {
        weft_buffer message = WEFT_BUFFER_INIT;
        weft_buffer_printf(&message, "%s: \"%.*s\"\n  want ", where, (int)size, text);
        append_ids(&message, want, n_want);
        weft_buffer_puts(&message, "\n  got  ");
        append_ids(&message, got.id, got.n);
        print_error("%s\n", message.data);
        weft_buffer_free(&message);
        mismatches++;
    }
    free_ids(&got);
}

static size_t read_numbers(const cJSON *array, int32_t *out, size_t capacity)
{
    size_t n = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, array)
    {
        assert_true(n < capacity);
        out[n++] = (int32_t)item->valuedouble;
    }
    return n;
}

/* The answer that the judgement names (tests/data/tok/README.md). */
static const char *answer_key(const cJSON *line)
{
    const char *judgement = weft_json_string(line, "judgement");
    if (cJSON_HasObjectItem(line, "ids")) return "ids";
    if (cJSON_HasObjectItem(line, "hf")) return "hf";
    if (cJSON_HasObjectItem(line, "hf_real")) return "llama";
    return strstr(judgement, "llama.cpp is right") ? "llama" : "hf_gguf";
}

/* Every line of NAME, of `model` only if that is not NULL. Returns how many. */
static size_t check_lines(const vocabulary *v, const char *name, const char *model,
                          weft_trust trust)
{
    enum { MAX_IDS = 65536 };
    weft_buffer file = WEFT_BUFFER_INIT;
    int32_t *want = malloc(MAX_IDS * sizeof *want);
    size_t count = 0;
    assert_non_null(want);
    read_data(name, &file);
    for (char *line = file.data, *end; (end = strchr(line, '\n')); line = end + 1) {
        cJSON *json = NULL;
        weft_error err;
        if (weft_json_parse(line, (size_t)(end - line), &json, &err))
            fail_msg("%s: %s", name, err.message);
        if (!model || !strcmp(weft_json_string(json, "model"), model)) {
            const cJSON *answer = cJSON_GetObjectItem(json, answer_key(json));
            size_t n = read_numbers(answer, want, MAX_IDS);
            const char *text = weft_json_string(json, "text");
            expect_ids(v, name, text, strlen(text), trust, want, n);
            count++;
        }
        cJSON_Delete(json);
    }
    free(want);
    weft_buffer_free(&file);
    return count;
}

static void check_peer(const char *name)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    weft_buffer in = WEFT_BUFFER_INIT, out = WEFT_BUFFER_INIT;
    vocabulary v = open_vocabulary(name);
    char full[64];
    snprintf(full, sizeof full, "%s.out", name);
    read_data("peer.inp", &in);
    read_data(full, &out);
    size_t count = 0;
    char *ids = out.data;
    for (char *text = in.data, *end; (end = strstr(text, separator)); count++) {
        int32_t want[256];
        size_t n = 0;
        char *stop = strchr(ids, '\n');
        assert_non_null(stop);
        for (char *next; *stop = '\0', want[n] = (int32_t)strtol(ids, &next, 10), next != ids; n++)
            ids = next;
        ids = stop + 1;
        expect_ids(&v, name, text, (size_t)(end - text), WEFT_PLAIN, want, n);
        text = end + strlen(separator);
    }
    assert_int_equal(count, 46);
    weft_buffer_free(&in);
    weft_buffer_free(&out);
    close_vocabulary(&v);
}

static void peer_vocabularies(void **state)
{
    static const char *const names[] = {"qwen2", "llama-bpe",    "llama-spm", "gpt-2",
                                        "phi-3", "deepseek-llm", "starcoder"};
    mismatches = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) check_peer(names[i]);
    assert_int_equal(mismatches, 0);
}

static void deepseek_vocabulary(void **state)
{
    vocabulary v = open_vocabulary("deepseek-v3.2");
    mismatches = 0;
    assert_int_equal(check_lines(&v, "deepseek-v3.2.jsonl", NULL, WEFT_PLAIN), 514);
    /* From the model's README. */
    static const char chat[] =
        "<｜begin▁of▁sentence｜><｜User｜>hello<｜Assistant｜></think>Hello! I "
        "am DeepSeek.<｜end▁of▁sentence｜><｜User｜>1+1=?<｜Assistant｜><think>";
    static const int32_t want[] = {0,      128803, 33310, 128804, 128799, 19923,  3,
                                   342,    1030,   22651, 4374,   1465,   16,     1,
                                   128803, 19,     13,    19,     127252, 128804, 128798};
    expect_ids(&v, "README", chat, strlen(chat), WEFT_TRUSTED, want, sizeof want / sizeof *want);
    assert_int_equal(check_lines(&v, "special.jsonl", "deepseek-v3.2", WEFT_TRUSTED), 36);
    assert_int_equal(mismatches, 0);
    assert_int_equal(weft_tokenizer_find(v.t, "｜DSML｜"), 128793);
    close_vocabulary(&v);
}

/* ---- model files ---- */

static void check_ends(const vocabulary *v, const int32_t *want, size_t n_want)
{
    size_t n = 0;
    for (size_t i = 0; i < weft_tokenizer_size(v->t); i++) {
        if (!weft_tokenizer_is_end(v->t, (int32_t)i)) continue;
        if (n == n_want || want[n] != (int32_t)i) fail_msg("id %zu ends a generation", i);
        n++;
    }
    assert_int_equal(n, n_want);
}

static void check_model(const char *name, size_t lines, size_t disagreements, const int32_t *ends,
                        size_t n_ends)
{
    char file[64];
    vocabulary v = open_model(name);
    mismatches = 0;
    snprintf(file, sizeof file, "%s.jsonl", name);
    assert_int_equal(check_lines(&v, file, NULL, WEFT_PLAIN), lines);
    if (disagreements) {
        snprintf(file, sizeof file, "%s.disagree.jsonl", name);
        assert_int_equal(check_lines(&v, file, NULL, WEFT_PLAIN), disagreements);
    }
    size_t n = check_lines(&v, "special.jsonl", name, WEFT_TRUSTED);
    n += check_lines(&v, "special.disagree.jsonl", name, WEFT_TRUSTED);
    assert_int_equal(n, 36);
    assert_int_equal(mismatches, 0);
    check_ends(&v, ends, n_ends);
    close_vocabulary(&v);
}

static void model_qwen(void **state)
{
    static const int32_t ends[] = {128247, 151643, 151645, 151662, 151663, 151664};
    check_model("qwen2.5-coder-1.5b", 499, 15, ends, sizeof ends / sizeof *ends);
    check_model("qwen2.5-coder-0.5b", 499, 15, ends, sizeof ends / sizeof *ends);
}

static void model_smollm2(void **state)
{
    static const int32_t ends[] = {0, 2, 4};
    check_model("smollm2-135m", 514, 0, ends, sizeof ends / sizeof *ends);
}

static void model_gemma(void **state)
{
    static const int32_t ends[] = {1, 106, 212};
    check_model("gemma3-270m", 506, 8, ends, sizeof ends / sizeof *ends);
}

/* ---- what the references do not say ---- */

/* Every id's bytes stand at its offset, and together they are the text. */
static void expect_offsets(const vocabulary *v, const char *text, size_t size)
{
    tok_ids ids = encode_text(v, text, size, WEFT_FOREIGN);
    size_t at = 0;
    for (size_t i = 0; i < ids.n; i++) {
        weft_text bytes = weft_tokenizer_bytes(v->t, ids.id[i], false);
        assert_int_equal(ids.from[i], at);
        assert_true(at + bytes.size <= size);
        assert_memory_equal(text + at, bytes.data, bytes.size);
        at += bytes.size;
    }
    assert_int_equal(at, size);
    free_ids(&ids);
}

static void offsets(void **state)
{
    static const char text[] =
        "If x\xc3\xa9 \xff\xfe\xe4\xb8 1234  \r\n\t'll <think> \xf0\x9f\x98\x80\0.";
    static const char *const names[] = {"small-bpe", "small-spm", "qwen2", "deepseek-v3.2"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        vocabulary v = open_vocabulary(names[i]);
        for (size_t n = 0; n < sizeof text; n++) expect_offsets(&v, text, n);
        close_vocabulary(&v);
    }
}

/* U+2581 is a space to SentencePiece; offsets are those of the text that was given. */
static void offsets_around_marks(void **state)
{
    vocabulary v = open_vocabulary("small-spm");
    static const char text[] = "x\xe2\x96\x81\xe2\x96\x81y<think>\xe2\x96\x81z";
    weft_span spans[] = {{text, 8, WEFT_FOREIGN, WEFT_USER},
                         {text + 8, sizeof text - 9, WEFT_TRUSTED, WEFT_USER}};
    static const size_t want[] = {0, 1, 7, 8, 15};
    tok_ids ids = encode_spans(&v, spans, 2);
    assert_int_equal(ids.n, 5);
    assert_memory_equal(ids.from, want, sizeof want);
    assert_int_equal(ids.id[1], weft_tokenizer_find(v.t, "  "));
    assert_int_equal(ids.id[3], weft_tokenizer_find(v.t, "<think>"));
    free_ids(&ids);
    close_vocabulary(&v);
}

static void a_prefix_has_no_place(void **state)
{
    vocabulary v = open_vocabulary("llama-spm"); /* asks for a space before a text */
    tok_ids ids = encode_text(&v, "Hello Hello", 11, WEFT_PLAIN);
    assert_int_equal(ids.n, 2);
    assert_int_equal(ids.id[0], ids.id[1]);
    assert_int_equal(ids.from[0], 0);
    assert_int_equal(ids.from[1], 5);
    free_ids(&ids);
    ids = encode_text(&v, "</s>Hello", 9, WEFT_TRUSTED); /* and after a special token */
    assert_int_equal(ids.n, 2);
    assert_int_equal(ids.id[0], 2);
    assert_int_equal(ids.from[1], 4);
    free_ids(&ids);
    close_vocabulary(&v);
}

static void nothing_gives_nothing(void **state)
{
    vocabulary v = open_vocabulary("llama-spm");
    tok_ids ids = encode_spans(&v, NULL, 0);
    assert_int_equal(ids.n, 0);
    assert_non_null(ids.id);
    free_ids(&ids);
    ids = encode_text(&v, "", 0, WEFT_TRUSTED);
    assert_int_equal(ids.n, 0);
    free_ids(&ids);
    close_vocabulary(&v);
}

static void facts(void **state)
{
    vocabulary v = open_vocabulary("small-bpe");
    assert_string_equal(weft_tokenizer_model(v.t), "gpt2");
    assert_string_equal(weft_tokenizer_pre(v.t), "qwen2");
    assert_int_equal(weft_tokenizer_size(v.t), 1024);
    assert_int_equal(weft_tokenizer_bos(v.t), 1015);
    assert_int_equal(weft_tokenizer_eos(v.t), 1017);
    assert_false(weft_tokenizer_adds_bos(v.t));
    assert_int_equal(weft_tokenizer_missing_bytes(v.t), 0);
    assert_int_equal(weft_tokenizer_kind(v.t, 1017), WEFT_TOKEN_CONTROL);
    assert_int_equal(weft_tokenizer_kind(v.t, 1018), WEFT_TOKEN_USER);
    assert_int_equal(weft_tokenizer_find(v.t, "no such token"), -1);
    assert_int_equal(weft_tokenizer_bytes(v.t, 1017, false).size, 0);
    assert_int_equal(weft_tokenizer_bytes(v.t, 1017, true).size, 10);
    assert_int_equal(weft_tokenizer_bytes(v.t, 1024, true).size, 0);
    assert_int_equal(weft_tokenizer_bytes(v.t, -1, true).size, 0);
    assert_false(weft_tokenizer_is_end(v.t, -1));
    close_vocabulary(&v);
    v = open_vocabulary("llama-spm");
    assert_true(weft_tokenizer_adds_bos(v.t));
    close_vocabulary(&v);
    v = open_vocabulary("llama-bpe"); /* the pre type says so, the file does not */
    assert_true(weft_tokenizer_adds_bos(v.t));
    close_vocabulary(&v);
    v = open_vocabulary("deepseek-llm"); /* its last thirteen bytes are typed user-defined */
    assert_int_equal(weft_tokenizer_missing_bytes(v.t), 13);
    close_vocabulary(&v);
}

/* A text that is too long is refused before a byte of it is read. */
static void too_long_texts(void **state)
{
    vocabulary v = open_vocabulary("small-bpe");
    static const weft_span spans[] = {{"a", ((size_t)1 << 30) + 1, WEFT_FOREIGN, WEFT_USER},
                                      {"a", SIZE_MAX, WEFT_FOREIGN, WEFT_USER}};
    weft_error err;
    int32_t *ids;
    size_t n;
    for (size_t i = 1; i <= 2; i++)
        assert_int_equal(weft_tokenizer_encode(v.t, spans, i, &ids, NULL, &n, &err), WEFT_E_LIMIT);
    close_vocabulary(&v);
}

/* Shapes that make a naive splitter or merger quadratic: a quarter of a megabyte would take hours. */
static void long_texts(void **state)
{
    enum { SIZE = 1 << 18 };
    static const char *const units[] = {" ",   "a", "\n",           "<",   "ab",
                                        " \t", "7", "\xe4\xb8\xad", "\xff"};
    static const char *const names[] = {"qwen2", "deepseek-llm", "llama-spm"};
    char *text = malloc(SIZE + 1);
    assert_non_null(text);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        vocabulary v = open_vocabulary(names[i]);
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            size_t unit = strlen(units[u]), size = SIZE / unit * unit;
            for (size_t k = 0; k < size; k++) text[k] = units[u][k % unit];
            text[size++] = '7'; /* a run of spaces that is not at the end */
            weft_buffer out = WEFT_BUFFER_INIT;
            tok_ids ids = encode_text(&v, text, size, WEFT_FOREIGN);
            decode_ids(&v, &ids, &out);
            bool same = out.size >= size && !memcmp(out.data + out.size - size, text, size);
            assert_int_equal(same, *units[u] != '\xff' || !weft_tokenizer_missing_bytes(v.t));
            weft_buffer_free(&out);
            free_ids(&ids);
        }
        close_vocabulary(&v);
    }
    free(text);
}

/* ---- files that are refused ---- */

/* A SentencePiece vocabulary of n tokens with the defects that the caller adds. */
static void build_spm(gguf_build *g, const char *const *tokens, const uint32_t *kind,
                      const float *score, size_t n)
{
    build_text(g, "tokenizer.ggml.model", "llama");
    build_texts(g, "tokenizer.ggml.tokens", tokens, n);
    build_array(g, "tokenizer.ggml.token_type", G_U32, n);
    for (size_t i = 0; i < n; i++) put_u32(&g->values, kind[i]);
    build_array(g, "tokenizer.ggml.scores", G_F32, n);
    for (size_t i = 0; i < n; i++) weft_buffer_append(&g->values, &score[i], sizeof score[i]);
}

static vocabulary open_built(gguf_build *g)
{
    weft_error err;
    weft_gguf *file;
    weft_buffer bytes = WEFT_BUFFER_INIT;
    build_finish(g, &bytes);
    if (weft_gguf_open_memory(&file, bytes.data, bytes.size, &err)) fail_msg("%s", err.message);
    return tokenizer_of(file, bytes.data);
}

static void expect_encoding(const vocabulary *v, const char *text, const int32_t *want, size_t n)
{
    mismatches = 0;
    expect_ids(v, "built", text, strlen(text), WEFT_PLAIN, want, n);
    assert_int_equal(mismatches, 0);
}

/* Zero and minus zero are one score: then the leftmost pair joins. */
static void equal_scores(void **state)
{
    gguf_build g = {0};
    build_spm(&g, (const char *[]){"a", "b", "c", "ab", "bc"}, (uint32_t[]){1, 1, 1, 1, 1},
              (float[]){0, 0, 0, -0.0f, 0}, 5);
    build_value(&g, "tokenizer.ggml.add_space_prefix", G_BOOL, "", 1);
    vocabulary v = open_built(&g);
    expect_encoding(&v, "abc", (int32_t[]){3, 2}, 2);
    close_vocabulary(&v);
}

/* A vocabulary whose tokens go on behind a space is not cut there. */
static void tokens_over_spaces(void **state)
{
    gguf_build g = {0};
    build_spm(&g,
              (const char *[]){"a", "\xe2\x96\x81", "a\xe2\x96\x81",
                               "a\xe2\x96\x81"
                               "a"},
              (uint32_t[]){1, 1, 1, 1}, (float[]){0, 0, 1, 1}, 4);
    build_value(&g, "tokenizer.ggml.add_space_prefix", G_BOOL, "", 1);
    vocabulary v = open_built(&g);
    expect_encoding(&v, "a a a", (int32_t[]){3, 1, 0}, 3);
    close_vocabulary(&v);
}

static void expect_refused(gguf_build *g, const char *reason)
{
    weft_error err;
    weft_gguf *file;
    weft_tokenizer *t = NULL;
    weft_buffer bytes = WEFT_BUFFER_INIT;
    build_finish(g, &bytes);
    if (weft_gguf_open_memory(&file, bytes.data, bytes.size, &err)) fail_msg("%s", err.message);
    assert_int_equal(weft_tokenizer_new(&t, file, &err), WEFT_E_MODEL);
    assert_null(t);
    if (!strstr(err.message, reason)) fail_msg("\"%s\" lacks \"%s\"", err.message, reason);
    weft_gguf_close(file);
    weft_buffer_free(&bytes);
}

static void unknown_names(void **state)
{
    static const char *const tokens[] = {"a"}, *const models[] = {"t5", "", "LLAMA"};
    static const char *const pres[] = {"nonesuch", "", "gpt", "smollm starcoder", " "};
    for (size_t i = 0; i < 3; i++) {
        gguf_build g = {0};
        build_text(&g, "tokenizer.ggml.model", models[i]);
        build_texts(&g, "tokenizer.ggml.tokens", tokens, 1);
        expect_refused(&g, *models[i] ? models[i] : "tokenizer.ggml.model");
    }
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++) {
        gguf_build g = {0};
        build_text(&g, "tokenizer.ggml.model", "gpt2");
        build_text(&g, "tokenizer.ggml.pre", pres[i]);
        build_texts(&g, "tokenizer.ggml.tokens", tokens, 1);
        expect_refused(&g, *pres[i] ? pres[i] : "tokenizer.ggml.pre");
    }
}

static void bad_merges(void **state)
{
    static const char *const tokens[] = {"a", "b", "ab"};
    static const char *const bad[] = {"ab", "a c", "b a", " a", "a ", ""};
    for (size_t i = 0; i <= sizeof bad / sizeof *bad; i++) {
        gguf_build g = {0};
        build_text(&g, "tokenizer.ggml.model", "gpt2");
        build_text(&g, "tokenizer.ggml.pre", "gpt-2");
        build_texts(&g, "tokenizer.ggml.tokens", tokens, 3);
        if (i) build_texts(&g, "tokenizer.ggml.merges", &bad[i - 1], 1);
        expect_refused(&g, i ? "rule 0" : "no tokenizer.ggml.merges");
    }
}

static void bad_vocabularies(void **state)
{
    const float nan = __builtin_nanf("");
    gguf_build g = {0};
    build_spm(&g, (const char *[]){"a", "a"}, (uint32_t[]){1, 1}, (float[]){0, 0}, 2);
    expect_refused(&g, "the same text");
    build_spm(&g, (const char *[]){"a", "b"}, (uint32_t[]){1, 7}, (float[]){0, 0}, 2);
    expect_refused(&g, "token 1");
    build_spm(&g, (const char *[]){"a", "b"}, (uint32_t[]){1, 1}, (float[]){0, nan}, 2);
    expect_refused(&g, "score of token 1");
    build_spm(&g, (const char *[]){"a", "<0xG0>"}, (uint32_t[]){1, 6}, (float[]){0, 0}, 2);
    expect_refused(&g, "byte token 1");
    build_spm(&g, (const char *[]){"a", "b"}, (uint32_t[]){1, 1}, (float[]){0, 0}, 2);
    build_u32(&g, "tokenizer.ggml.eos_token_id", 2);
    expect_refused(&g, "tokenizer.ggml.eos_token_id is 2");
    build_text(&g, "tokenizer.ggml.model", "llama");
    build_texts(&g, "tokenizer.ggml.tokens", (const char *[]){"a"}, 1);
    expect_refused(&g, "1 tokens but 0 scores");
    build_text(&g, "tokenizer.ggml.model", "llama");
    expect_refused(&g, "0 entries");
    build_text(&g, "tokenizer.ggml.model", "llama");
    build_texts(&g, "tokenizer.ggml.tokens", (const char *[]){"a"}, 1);
    build_array(&g, "tokenizer.ggml.token_type", G_U32, 2);
    put_u64(&g.values, 1);
    expect_refused(&g, "1 tokens but 2 token types");
    char longest[8194];
    memset(longest, 'a', sizeof longest);
    longest[8193] = '\0';
    build_spm(&g, (const char *[]){longest}, (uint32_t[]){1}, (float[]){0}, 1);
    expect_refused(&g, "token 0");
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest plain[] = {
        cmocka_unit_test(peer_vocabularies),
        cmocka_unit_test(deepseek_vocabulary),
        cmocka_unit_test(offsets),
        cmocka_unit_test(offsets_around_marks),
        cmocka_unit_test(a_prefix_has_no_place),
        cmocka_unit_test(nothing_gives_nothing),
        cmocka_unit_test(facts),
        cmocka_unit_test(long_texts),
        cmocka_unit_test(too_long_texts),
        cmocka_unit_test(equal_scores),
        cmocka_unit_test(tokens_over_spaces),
        cmocka_unit_test(unknown_names),
        cmocka_unit_test(bad_merges),
        cmocka_unit_test(bad_vocabularies),
    };
    static const struct CMUnitTest models[] = {
        cmocka_unit_test(model_qwen),
        cmocka_unit_test(model_smollm2),
        cmocka_unit_test(model_gemma),
    };
    if (argc > 1 && !strcmp(argv[1], "models"))
        return cmocka_run_group_tests_name("tokenizer, models", models, NULL, NULL);
    return cmocka_run_group_tests_name("tokenizer", plain, NULL, NULL);
}
