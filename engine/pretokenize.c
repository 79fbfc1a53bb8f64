/* Splits a text into the words that BPE merges within.
 *
 * A pre type is a list of regular expressions. Each one is applied to every piece that the one before
 * left: a match is a piece, and so is what lies between two matches. The expressions are facts of the
 * model families (their tokenizer.json); whitespace is written out, for PCRE2's \s has U+180E too.
 *
 * Bounds. Every repeat is of a single character class, so a match needs no stack, and a failed attempt
 * on a long run must not be tried again from each position in it: \s+\z alone is quadratic on a run of
 * spaces (PCRE2's JIT sees that, its interpreter does not), hence its look-behind. PCRE2 gets
 * well-formed UTF-8 only: a stretch of malformed bytes is a piece of its own.
 *
 * The compiled code is read-only and shared; match data belongs to the call.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/tokenizer_parts.h"

#include <assert.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STAGES = 6 };

/* White_Space of Unicode, inside a character class. */
#define WS                                                                                         \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
#define S "[" WS "]"
#define NOT_S "[^" WS "]"
#define LINES S "*[\\r\\n]+"
#define SPACES S "+(?!" NOT_S ")"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|" SPACES
/* Qwen 2 and Llama 3 differ in how many digits a word holds. */
#define WORDS(digits)                                                                              \
    "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits  \
    "| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|" LINES "|" SPACES "|" S "+"

#define CJK_KANA "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"

/* The cased letters that DeepSeek LLM lists one by one. */
#define CASED                                                                                      \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{"    \
    "293}"                                                                                         \
    "\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}"          \
    "\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{"    \
    "52f}"                                                                                         \
    "\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}"                   \
    "\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}"                 \
    "\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}"                 \
    "\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}"         \
    "\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}"        \
    "\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}"                 \
    "\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{"     \
    "2124}"                                                                                        \
    "\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}"         \
    "\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}"         \
    "\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}"                  \
    "\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}"                 \
    "\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}"                 \
    "\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}"         \
    "\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"

typedef struct pre_type {
    const char *names; /* separated and surrounded by spaces */
    bool whole_words, adds_bos;
    const char *stage[MAX_STAGES];
} pre_type;

static const pre_type pre_types[] = {
    {" gpt-2 ", false, false, {GPT2}},
    {" smollm starcoder refact ", false, false, {"\\p{N}", GPT2}},
    {" qwen2 deepseek-r1-qwen ", false, false, {WORDS("\\p{N}")}},
    {" llama-bpe llama3 llama-v3 ", true, true, {WORDS("\\p{N}{1,3}")}},
    {" default ", false, false, {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {" deepseek-llm ",
     false,
     false,
     {"[\\r\\n]", S "?[" CASED "]+",
      S "?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+",
      "(?<!" S ")" S "+\\z", "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+",
      "\\p{N}+"}},
    {" deepseek-v3 ",
     false,
     false,
     {"\\p{N}{1,3}", CJK_KANA,
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
      "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" LINES "|" SPACES
      "|" S "+"}},
};

struct pretokenizer {
    const pre_type *type;
    pcre2_code *code[MAX_STAGES];
    bool jit[MAX_STAGES];
    size_t n;
};

static const pre_type *find_type(const char *pre)
{
    size_t size = strlen(pre);
    if (!size || strchr(pre, ' ')) return NULL;
    for (size_t i = 0; i < sizeof pre_types / sizeof *pre_types; i++)
        for (const char *at = pre_types[i].names; (at = strstr(at, pre)); at++)
            if (at[-1] == ' ' && at[size] == ' ') return &pre_types[i];
    return NULL;
}

weft_status pretokenizer_new(pretokenizer **out, const char *pre, weft_error *err)
{
    weft_status s = WEFT_OK;
    pretokenizer *p = NULL;
    const pre_type *type = find_type(pre);
    if (!type) {
        s = weft_fail(
            err, WEFT_E_MODEL,
            "tokenizer.ggml.pre is \"%.64s\", which weft does not know; it splits text as "
            "gpt-2, smollm, starcoder, refact, qwen2, llama-bpe, default, deepseek-llm and "
            "deepseek-v3 do",
            pre);
        goto done;
    }
    p = calloc(1, sizeof *p);
    if (!p) {
        s = weft_fail(err, WEFT_E_MEMORY, "compile the pre-tokenizer");
        goto done;
    }
    p->type = type;
    for (; p->n < MAX_STAGES && type->stage[p->n]; p->n++) {
        int code;
        PCRE2_SIZE offset;
        p->code[p->n] = pcre2_compile((PCRE2_SPTR)type->stage[p->n], PCRE2_ZERO_TERMINATED,
                                      PCRE2_UTF | PCRE2_UCP, &code, &offset, NULL);
        if (!p->code[p->n]) {
            s = weft_fail(err, WEFT_E_MEMORY, "compile the pre-tokenizer %s: PCRE2 error %d at %zu",
                          pre, code, (size_t)offset);
            goto done;
        }
        /* Where pages cannot be made executable the interpreter gives the same matches. */
        p->jit[p->n] = pcre2_jit_compile(p->code[p->n], PCRE2_JIT_COMPLETE) == 0;
    }
    *out = p;
    p = NULL;
done:
    pretokenizer_free(p);
    return s;
}

void pretokenizer_free(pretokenizer *p)
{
    if (!p) return;
    for (size_t i = 0; i < MAX_STAGES; i++) pcre2_code_free(p->code[i]);
    free(p);
}

bool pretokenizer_whole_words(const pretokenizer *p)
{
    return p->type->whole_words;
}

bool pretokenizer_adds_bos(const pretokenizer *p)
{
    return p->type->adds_bos;
}

typedef struct split_call {
    const pretokenizer *p;
    pcre2_match_data *data;
    pcre2_match_context *limits;
    pretoken_visit visit;
    void *context;
    weft_error *err;
} split_call;

static int match(const split_call *c, size_t stage, const char *text, size_t size, size_t at)
{
    const pcre2_code *code = c->p->code[stage];
    if (c->p->jit[stage]) {
        int rc = pcre2_jit_match(code, (PCRE2_SPTR)text, size, at, 0, c->data, c->limits);
        if (rc != PCRE2_ERROR_JIT_STACKLIMIT) return rc;
    }
    return pcre2_match(code, (PCRE2_SPTR)text, size, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, c->data,
                       c->limits);
}

/* Splits one piece by the expressions from `stage` on. Recursion is as deep as there are stages. */
static weft_status split_stage(const split_call *c, size_t stage, const char *text, size_t size)
{
    weft_status s = WEFT_OK;
    if (!size) return WEFT_OK;
    if (stage == c->p->n) return c->visit(c->context, text, size);
    for (size_t at = 0; at < size && !s;) {
        int rc = match(c, stage, text, size, at);
        if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
            return weft_fail(c->err, WEFT_E_LIMIT,
                             "split a text of %zu bytes into words: PCRE2 error %d; give it in "
                             "smaller parts",
                             size, rc);
        /* The inner stages overwrite the match data. */
        const PCRE2_SIZE *found = pcre2_get_ovector_pointer(c->data);
        size_t from = rc < 0 ? size : found[0], to = rc < 0 ? size : found[1];
        assert(to > at); /* no expression matches the empty text */
        s = split_stage(c, stage + 1, text + at, from - at);
        if (!s) s = split_stage(c, stage + 1, text + from, to - from);
        at = to;
    }
    return s;
}

weft_status pretokenizer_split(const pretokenizer *p, const char *text, size_t size,
                               pretoken_visit visit, void *context, weft_error *err)
{
    weft_status s = WEFT_OK;
    split_call c = {p, NULL, NULL, visit, context, err};
    c.data = pcre2_match_data_create(1, NULL);
    c.limits = pcre2_match_context_create(NULL);
    if (!c.data || !c.limits) {
        s = weft_fail(err, WEFT_E_MEMORY, "split a text of %zu bytes into words", size);
        goto done;
    }
    /* A run of whitespace is walked back once: a few steps a byte, of which this allows sixteen. */
    size_t steps = 10000000 + 16 * size;
    pcre2_set_match_limit(c.limits, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
    for (size_t at = 0; at < size && !s;) {
        size_t good = weft_utf8_valid(text + at, size - at), bad = 0;
        s = split_stage(&c, 0, text + at, good);
        at += good;
        while (at + bad < size && !token_utf8_length(text + at + bad, size - at - bad)) bad++;
        if (bad && !s) s = visit(context, text + at, bad);
        at += bad;
    }
done:
    pcre2_match_data_free(c.data);
    pcre2_match_context_free(c.limits);
    return s;
}
