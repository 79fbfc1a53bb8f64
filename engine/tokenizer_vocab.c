/* The vocabulary: texts, kinds, the bytes behind each token, what may be merged and what ends a turn.
 *
 * Byte-level vocabularies write each byte as one printable character: 0x21-0x7e, 0xa1-0xac and
 * 0xae-0xff as themselves, the other 68 from U+0100 on in order. SentencePiece writes a space as
 * U+2581 and a lone byte as <0x0A>. Both are undone here, once, in 15 ms for 151,936 tokens.
 *
 * Which tokens are dangerous is decided by text, since files type them differently:
 *   delimiter   a user-defined token with one of < > [ ] { } | or U+FF5C in it: <tool_call>, <think>,
 *               </s>, [INST], <｜...｜> and also Gemma's HTML tags, which foreign text then spells with
 *               ordinary tokens. Runs of spaces, tabs and newlines are no delimiters.
 *   end         the file's eos, eot, eom and fill-in-the-middle separators, and known texts
 *   spelled     a normal token that looks like <name>: some files type <think> or </s> so
 * None of these is mergeable.
 */
#include "engine/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_TOKENS = 1 << 24,
    MAX_TOKEN_BYTES = 8192 /* the longest known has 512; the matcher's cost grows with it */
};

/* ---- text tables ---- */

static uint32_t hash_text(uint64_t seed, const char *text, size_t size)
{
    const uint64_t odd = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t h = seed ^ size * odd, word;
    for (; size >= 8; text += 8, size -= 8) {
        memcpy(&word, text, 8);
        h = (h ^ word) * odd;
        h ^= h >> 29;
    }
    word = 0;
    if (size) memcpy(&word, text, size);
    h = (h ^ word) * odd;
    h ^= h >> 32;
    h *= odd;
    return (uint32_t)(h >> 32);
}

weft_status token_table_build(token_table *table, const weft_text *text, const uint8_t *flags,
                              uint8_t flag, size_t n, weft_error *err)
{
    size_t slots = 16;
    while (slots < n + n / 2) slots *= 2;
    table->slot = calloc(slots, sizeof *table->slot);
    if (!table->slot) return weft_fail(err, WEFT_E_MEMORY, "index the vocabulary");
    table->text = text;
    table->mask = (uint32_t)(slots - 1);
    weft_random(&table->seed, sizeof table->seed);
    for (size_t id = 0; id < n; id++) {
        if (!text[id].size || (flag && !(flags[id] & flag))) continue;
        uint32_t hash = hash_text(table->seed, text[id].data, text[id].size), at = hash;
        for (;; at++) {
            struct token_slot *slot = &table->slot[at & table->mask];
            if (!slot->id_plus_1) {
                *slot = (struct token_slot){(uint32_t)id + 1, hash};
                break;
            }
            const weft_text *other = &text[slot->id_plus_1 - 1];
            if (slot->hash == hash && other->size == text[id].size &&
                !memcmp(other->data, text[id].data, other->size))
                return weft_fail(err, WEFT_E_MODEL,
                                 "read the vocabulary: tokens %u and %zu have the same text; the "
                                 "file is damaged",
                                 slot->id_plus_1 - 1, id);
        }
    }
    return WEFT_OK;
}

int32_t token_table_find(const token_table *table, const char *text, size_t size)
{
    uint32_t hash = hash_text(table->seed, text, size);
    for (uint32_t at = hash;; at++) {
        const struct token_slot *slot = &table->slot[at & table->mask];
        if (!slot->id_plus_1) return -1;
        const weft_text *found = &table->text[slot->id_plus_1 - 1];
        if (slot->hash == hash && found->size == size && !memcmp(found->data, text, size))
            return (int32_t)slot->id_plus_1 - 1;
    }
}

/* ---- characters ---- */

size_t token_utf8_length(const char *text, size_t size)
{
    if (!size) return 0;
    unsigned char c = (unsigned char)*text;
    size_t length = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    return length <= size && weft_utf8_valid(text, length) == length ? length : 0;
}

/* The code point of a well-formed character. */
static uint32_t code_point(const char *text, size_t length)
{
    const unsigned char *c = (const unsigned char *)text;
    switch (length) {
    case 1: return c[0];
    case 2: return (c[0] & 31u) << 6 | (c[1] & 63u);
    case 3: return (c[0] & 15u) << 12 | (c[1] & 63u) << 6 | (c[2] & 63u);
    default: return (c[0] & 7u) << 18 | (c[1] & 63u) << 12 | (c[2] & 63u) << 6 | (c[3] & 63u);
    }
}

static bool is_own_letter(uint32_t c)
{
    return (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff);
}

int token_alphabet_byte(const char *text, size_t size, size_t *length)
{
    *length = token_utf8_length(text, size);
    if (!*length) return -1;
    uint32_t c = code_point(text, *length);
    if (is_own_letter(c)) return (int)c;
    if (c < 0x100 || c >= 0x100 + 68) return -1;
    uint32_t n = c - 0x100; /* the n-th byte that is not its own letter: 0-20, 7f-a0, ad */
    return (int)(n < 33 ? n : n < 67 ? n - 33 + 0x7f : 0xad);
}

/* ---- plain forms ---- */

static size_t plain_byte_level(const weft_text *in, char *out)
{
    size_t n = 0, length;
    for (size_t at = 0; at < in->size; at += length) {
        int byte = token_alphabet_byte(in->data + at, in->size - at, &length);
        if (!length) length = 1;
        if (byte >= 0)
            out[n++] = (char)byte;
        else { /* no letter of the alphabet: an added token in plain text */
            memcpy(out + n, in->data + at, length);
            n += length;
        }
    }
    return n;
}

static size_t plain_spaces(const weft_text *in, char *out)
{
    size_t n = 0;
    for (size_t at = 0; at < in->size;) {
        if (in->size - at >= 3 && !memcmp(in->data + at, "\xe2\x96\x81", 3)) {
            out[n++] = ' ';
            at += 3;
        } else {
            out[n++] = in->data[at++];
        }
    }
    return n;
}

/* The byte of "<0x0A>", or -1. */
static int plain_byte(const weft_text *in)
{
    uint8_t byte;
    char digits[3] = {0};
    if (in->size != 6 || memcmp(in->data, "<0x", 3) != 0 || in->data[5] != '>') return -1;
    for (int i = 0; i < 2; i++) {
        char c = in->data[3 + i];
        digits[i] = c >= 'A' && c <= 'F' ? (char)(c - 'A' + 'a') : c;
    }
    return weft_unhex(digits, &byte, 1) ? byte : -1;
}

static weft_status load_bytes(weft_tokenizer *t, weft_error *err)
{
    size_t total = 0;
    for (size_t id = 0; id < t->n; id++) total += t->stored[id].size;
    t->pool = malloc(total ? total : 1);
    if (!t->pool) return weft_fail(err, WEFT_E_MEMORY, "read the vocabulary");
    char *at = t->pool;
    for (size_t id = 0; id < t->n; id++) {
        const weft_text *in = &t->stored[id];
        size_t n = in->size;
        if (t->kind[id] == WEFT_TOKEN_BYTE) {
            int byte = plain_byte(in);
            if (byte < 0)
                return weft_fail(err, WEFT_E_MODEL,
                                 "read the vocabulary: byte token %zu is not written <0xNN>; the "
                                 "file is damaged",
                                 id);
            *at = (char)byte;
            n = 1;
        } else if (t->is_spm) {
            n = plain_spaces(in, at);
        } else if (t->kind[id] == WEFT_TOKEN_NORMAL) {
            n = plain_byte_level(in, at);
        } else {
            memcpy(at, in->data, n);
        }
        t->bytes[id] = (weft_text){at, n};
        at += n;
    }
    return WEFT_OK;
}

/* ---- what each token is ---- */

static bool is_known_end(const weft_text *text)
{
    static const char *const ends[] = {
        "<|endoftext|>", "<|im_end|>",   "<|eot_id|>",           "<|eom_id|>", "<|end_of_text|>",
        "<end_of_turn>", "</s>",         "<|fim_pad|>",          "<fim_pad>",  "<|repo_name|>",
        "<reponame>",    "<|file_sep|>", "<｜end▁of▁sentence｜>"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (strlen(ends[i]) == text->size && !memcmp(ends[i], text->data, text->size)) return true;
    return false;
}

static bool has_bracket(const weft_text *text)
{
    for (size_t i = 0; i < text->size; i++) {
        if (memchr("<>[]{}|", text->data[i], 7)) return true;
        if (text->size - i >= 3 && !memcmp(text->data + i, "\xef\xbd\x9c", 3)) return true;
    }
    return false;
}

static bool looks_like_tag(const weft_text *text)
{
    if (text->size < 3 || text->data[0] != '<' || text->data[text->size - 1] != '>') return false;
    for (size_t i = 1; i + 1 < text->size; i++) {
        unsigned char c = (unsigned char)text->data[i];
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80) return true;
    }
    return false;
}

/* An id from the file; -1 if the key is not there. */
static weft_status read_id(const weft_tokenizer *t, const weft_gguf *file, const char *key,
                           int32_t *out, weft_error *err)
{
    int64_t id = -1;
    if (weft_gguf_int(file, key, &id) && (id < 0 || (uint64_t)id >= t->n))
        return weft_fail(
            err, WEFT_E_MODEL,
            "read the vocabulary: %s is %lld, past its %zu tokens; the file is damaged", key,
            (long long)id, t->n);
    *out = (int32_t)id;
    return WEFT_OK;
}

static weft_status load_ends(weft_tokenizer *t, const weft_gguf *file, weft_error *err)
{
    static const char *const keys[] = {
        "tokenizer.ggml.eos_token_id",     "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id",     "tokenizer.ggml.fim_pad_token_id",
        "tokenizer.ggml.fim_rep_token_id", "tokenizer.ggml.fim_sep_token_id"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int32_t id = -1;
        weft_status s = read_id(t, file, keys[i], &id, err);
        if (s) return s;
        if (i == 0) t->eos = id;
        if (id >= 0) t->flags[id] |= TOKEN_END;
    }
    for (size_t id = 0; id < t->n; id++)
        if (t->bytes[id].size > 3 && is_known_end(&t->bytes[id])) t->flags[id] |= TOKEN_END;
    return read_id(t, file, "tokenizer.ggml.bos_token_id", &t->bos, err);
}

static void load_flags(weft_tokenizer *t)
{
    for (size_t id = 0; id < t->n; id++) {
        const weft_text *bytes = &t->bytes[id];
        bool end = t->flags[id] & TOKEN_END;
        if (t->kind[id] == WEFT_TOKEN_USER && (end || has_bracket(bytes)))
            t->flags[id] |= TOKEN_DELIMITER;
        if (t->kind[id] == WEFT_TOKEN_NORMAL && !end && !looks_like_tag(bytes))
            t->flags[id] |= TOKEN_MERGEABLE;
    }
}

static weft_status load_texts(weft_tokenizer *t, const weft_gguf *file, weft_error *err)
{
    static const char tokens[] = "tokenizer.ggml.tokens", types[] = "tokenizer.ggml.token_type";
    t->n = weft_gguf_array(file, tokens);
    size_t n_types = weft_gguf_array(file, types);
    if (!t->n || t->n > MAX_TOKENS)
        return weft_fail(err, WEFT_E_MODEL, "read the vocabulary: %s has %zu entries", tokens,
                         t->n);
    if (n_types && n_types != t->n)
        return weft_fail(err, WEFT_E_MODEL,
                         "read the vocabulary: %zu tokens but %zu token types; the file is damaged",
                         t->n, n_types);
    t->stored = calloc(t->n, sizeof *t->stored);
    t->bytes = calloc(t->n, sizeof *t->bytes);
    t->kind = calloc(t->n, 1);
    t->flags = calloc(t->n, 1);
    if (!t->stored || !t->bytes || !t->kind || !t->flags)
        return weft_fail(err, WEFT_E_MEMORY, "read the vocabulary");
    for (size_t id = 0; id < t->n; id++) {
        int64_t kind = WEFT_TOKEN_NORMAL;
        if (!weft_gguf_array_text(file, tokens, id, &t->stored[id]) ||
            t->stored[id].size > MAX_TOKEN_BYTES ||
            (n_types && !weft_gguf_array_int(file, types, id, &kind)) || kind < 0 ||
            kind > WEFT_TOKEN_BYTE)
            return weft_fail(err, WEFT_E_MODEL,
                             "read the vocabulary: token %zu is no text of at most %d bytes or has "
                             "an unknown type; the file is damaged",
                             id, MAX_TOKEN_BYTES);
        t->kind[id] = (uint8_t)(kind ? kind : WEFT_TOKEN_UNUSED); /* 0: undefined */
    }
    return WEFT_OK;
}

weft_status token_vocab_load(weft_tokenizer *t, const weft_gguf *file, weft_error *err)
{
    weft_status s = load_texts(t, file, err);
    if (!s) s = token_table_build(&t->by_stored, t->stored, NULL, 0, t->n, err);
    if (!s) s = load_bytes(t, err);
    if (!s) s = load_ends(t, file, err);
    if (!s) load_flags(t);
    return s;
}
