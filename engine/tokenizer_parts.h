/* The tokenizer's inside: shared by engine/tokenizer*.c, bpe.c, spm.c and pretokenize.c only.
 *
 * The one idea: what a text may become is decided when the vocabulary is loaded. Merging works on two
 * tables (pairs of ids for BPE, texts for SentencePiece) that hold *mergeable* tokens only, and a
 * control token, an end of generation or anything spelled like a delimiter is never mergeable. So no
 * text can produce one by merging; the only way to such an id is the matcher (tokenizer_special.c),
 * which looks at trust.
 *
 * Texts inside are in their plain form: the bytes a token stands for. SentencePiece's U+2581 is a
 * space here.
 */
#ifndef WEFT_ENGINE_TOKENIZER_PARTS_H
#define WEFT_ENGINE_TOKENIZER_PARTS_H

#include "engine/tokenizer.h"

enum {
    TOKEN_END = 1,       /* ends a generation */
    TOKEN_MERGEABLE = 2, /* may come out of merging */
    TOKEN_DELIMITER = 4  /* user-defined and not to be matched in foreign text */
};

/* Text -> id; open addressing. The hash is seeded per process: a file cannot choose collisions. */
typedef struct token_table {
    const weft_text *text; /* [vocabulary]; borrowed */
    struct token_slot {
        uint32_t id_plus_1, hash;
    } * slot; /* [mask + 1] */
    uint32_t mask;
    uint64_t seed;
} token_table;

/* A merge rule: the neighbours (left, right) become `merged`; the lowest rank goes first. */
typedef struct bpe_pair {
    int32_t left, right; /* left -1: an empty slot */
    uint32_t rank;
    int32_t merged;
} bpe_pair;

typedef struct pretokenizer pretokenizer;

struct weft_tokenizer {
    char *model, *pre;
    bool is_spm;

    /* Vocabulary, tokenizer_vocab.c */
    size_t n;
    weft_text *stored; /* [n] as in the file, lies in the mapping */
    weft_text *bytes;  /* [n] what the token stands for, in pool */
    uint8_t *kind;     /* [n] weft_token_kind */
    uint8_t *flags;    /* [n] TOKEN_* */
    char *pool;
    token_table by_stored;
    token_table by_bytes; /* mergeable tokens only */
    int32_t byte_id[256]; /* the token of a single byte; -1: the byte cannot be written */
    size_t missing_bytes;
    int32_t bos, eos;
    bool adds_bos;

    /* Matched before anything is split: sorted by text, tokenizer_special.c */
    int32_t *special; /* [n_special] */
    size_t n_special;
    uint32_t first[257]; /* specials that begin with byte b: first[b] .. first[b + 1] */

    /* bpe.c */
    pretokenizer *split;
    bpe_pair *pair; /* [pair_mask + 1] */
    uint32_t pair_mask;
    uint64_t pair_seed;
    bool whole_words; /* a word that is a token is not merged ("ignore_merges") */

    /* spm.c */
    uint32_t *priority;     /* [n] the score, turned round: smaller merges first */
    bool space_prefix;      /* a space is put before a text and after a special token */
    bool before_space[256]; /* bytes that stand before a space in some mergeable token */
};

/* ---- one encoding ---- */

typedef struct token_symbol {
    uint32_t start, size; /* bytes of the text; size 0: merged into an earlier one */
    int32_t prev, next;   /* -1: none */
    int32_t id;           /* -1: no token */
} token_symbol;

typedef struct token_candidate {
    uint64_t key;   /* priority << 32 | left: the best first, then the leftmost */
    uint32_t right; /* symbol */
    uint32_t size;  /* bytes of both when it was found: else it is out of date */
    int32_t id;     /* what they become */
} token_candidate;

/* Buffers of one encode call, and its output. */
typedef struct token_work {
    token_symbol *symbol;
    size_t symbol_capacity;
    token_candidate *heap;
    size_t n_heap, heap_capacity;

    int32_t *id;
    size_t *from;
    size_t n, capacity;

    weft_error *err;
} token_work;

/* ---- tokenizer_vocab.c ---- */

weft_status token_vocab_load(weft_tokenizer *t, const weft_gguf *file, weft_error *err);
/* Refuses doubled texts. Entries without `flag` (0: any) are left out, and so are empty ones. */
weft_status token_table_build(token_table *table, const weft_text *text, const uint8_t *flags,
                              uint8_t flag, size_t n, weft_error *err);
int32_t token_table_find(const token_table *table, const char *text, size_t size); /* -1: none */
/* The byte that a character of the byte-level alphabet stands for, or -1; *size is its length. */
int token_alphabet_byte(const char *text, size_t size, size_t *length);
/* Length of the well-formed UTF-8 character at text, 0 if there is none. */
size_t token_utf8_length(const char *text, size_t size);

/* ---- tokenizer_special.c ---- */

weft_status token_special_build(weft_tokenizer *t, weft_error *err);
/* The longest token that matches at text[at] and whose bytes are trusted enough: those before
 * trusted_end are WEFT_TRUSTED, those before plain_end are not WEFT_FOREIGN. -1: none. */
int32_t token_special_match(const weft_tokenizer *t, const char *text, size_t size, size_t at,
                            size_t trusted_end, size_t plain_end);

/* ---- tokenizer_merge.c ---- */

weft_status token_emit(token_work *w, int32_t id, size_t from);
weft_status token_reserve_symbols(token_work *w, size_t n);
/* Links symbols [0, n), merges neighbours until none is left to merge; text is what symbols index. */
weft_status token_merge(token_work *w, const weft_tokenizer *t, const char *text, size_t n);

/* ---- bpe.c, spm.c ---- */

weft_status bpe_load(weft_tokenizer *t, const weft_gguf *file, weft_error *err);
weft_status spm_load(weft_tokenizer *t, const weft_gguf *file, weft_error *err);
/* Encode text without special tokens that stands at byte `base` of the whole. */
weft_status bpe_encode(token_work *w, const weft_tokenizer *t, const char *text, size_t size,
                       size_t base);
/* prefix: after a special token or at the start. */
weft_status spm_encode(token_work *w, const weft_tokenizer *t, const char *text, size_t size,
                       size_t base, bool prefix);

/* The rule for a pair of ids, or NULL. */
const bpe_pair *bpe_pair_find(const weft_tokenizer *t, int32_t left, int32_t right);

/* ---- pretokenize.c ---- */

typedef weft_status (*pretoken_visit)(void *context, const char *text, size_t size);

/* WEFT_E_MODEL names an unknown type. */
weft_status pretokenizer_new(pretokenizer **out, const char *pre, weft_error *err);
void pretokenizer_free(pretokenizer *p);
bool pretokenizer_whole_words(const pretokenizer *p);
bool pretokenizer_adds_bos(const pretokenizer *p); /* unless the file says otherwise */
/* Visits the pieces of text in order; together they are the text. */
weft_status pretokenizer_split(const pretokenizer *p, const char *text, size_t size,
                               pretoken_visit visit, void *context, weft_error *err);

#endif
