/* What a dialect is inside engine/: one family (a small table of functions), one file's variant of
 * it, and the machinery that the turns of that file share.
 *
 * The variant is read from the file's own chat template and vocabulary, never from its name: which
 * default system text it puts in, whether it writes tools, how it writes them, what it does with
 * earlier thoughts. A family is one file in this folder and one line in dialect.c.
 */
#ifndef WEFT_ENGINE_DIALECT_H
#define WEFT_ENGINE_DIALECT_H

#include "engine/engine.h"
#include "engine/tokenizer.h"

struct weft_trie;
struct weft_plan;

/* What a template does with the thoughts of earlier assistant messages. */
typedef enum weft_history {
    WEFT_HISTORY_PLAIN,  /* knows no reasoning_content */
    WEFT_HISTORY_ALWAYS, /* writes it for every message */
    WEFT_HISTORY_RECENT  /* only after the last real user message (Qwen3) */
} weft_history;

typedef struct weft_variant {
    char *default_system; /* put in where no system message is given; NULL: none */
    bool writes_tools;    /* the template writes tool definitions, calls and results */
    bool doubled_braces;  /* the tool text shows the call as {{"name": ...}} */
    bool closes_thought;  /* thinking off: an empty thought stands in the generation prompt */
    bool empty_thought;   /* dsv31: a closed thought is <think></think>, not </think> alone */
    bool opens_thought;   /* dsv3: the generation prompt opens a thought (R1) */
    bool cuts_thought;    /* dsv31, dsv3: what stands before </think> in a message is left out */
    weft_history history;
} weft_variant;

/* How a family's calls are written; the automata of turns know them by it. */
typedef enum weft_syntax {
    WEFT_SYNTAX_JSON, /* {"name": ..., "arguments": ...} behind an opener: turn_state.c */
    WEFT_SYNTAX_DSML, /* DeepSeek V3.2: turn_dsml.c, as are the next two */
    WEFT_SYNTAX_V31,
    WEFT_SYNTAX_V3
} weft_syntax;

typedef struct weft_family {
    const char *name;
    weft_syntax syntax;
    const char *const *needs; /* tokens it cannot do without; NULL ends them */
    bool (*fits)(const weft_tokenizer *tokenizer, const char *architecture,
                 const char *chat_template);
    weft_status (*render)(const weft_dialect *dialect, const cJSON *request, weft_script *out,
                          weft_error *err);
    weft_status (*begin)(const weft_dialect *dialect, const char *system, const cJSON *tools,
                         const char *user, weft_think think, weft_script *out, weft_error *err);
    weft_status (*results)(const weft_dialect *dialect, bool ended, const weft_result_text *results,
                           size_t n, const char *note, weft_think think, weft_script *out,
                           weft_error *err);
    weft_status (*user)(const weft_dialect *dialect, bool ended, const char *user, weft_think think,
                        weft_script *out, weft_error *err);
} weft_family;

extern const weft_family weft_family_qwen;   /* chatml.c */
extern const weft_family weft_family_chatml; /* chatml.c */
extern const weft_family weft_family_dsv32;  /* dsv32.c */
extern const weft_family weft_family_dsv31;  /* deepseek.c */
extern const weft_family weft_family_dsv3;   /* deepseek.c */

/* Ids of the delimiters that are tokens of their own; -1: the vocabulary writes them as text. */
enum { WEFT_SIGILS = 6 };
typedef struct weft_delimiters {
    int32_t think, end_think, call, end_call, response, end_response;
    int32_t sigil[WEFT_SIGILS]; /* DeepSeek's, in the order of their bytes: turn.h */
    int32_t user;               /* DeepSeek's, before a user's words */
} weft_delimiters;

struct weft_dialect {
    const weft_family *family;
    const weft_tokenizer *tokenizer;
    weft_variant variant;
    weft_delimiters delimiter;
    struct weft_trie *trie; /* made by the first turn, and so are the ends */
    int32_t *ends;          /* [n_ends] ids that end a turn */
    size_t n_ends;
    struct weft_plan *plans; /* most recently used first */
};

/* Without a model: tokenizer and chat_template (may be NULL) must outlive the dialect's opening,
 * the tokenizer the dialect. name as in weft_dialect_open. */
weft_status weft_dialect_new(weft_dialect **out, const weft_tokenizer *tokenizer,
                             const char *architecture, const char *chat_template, const char *name,
                             weft_error *err);

/* Appends text to the script; neighbours of equal trust and label become one span. */
void weft_script_put(weft_script *script, weft_trust trust, weft_segment segment, const char *text,
                     size_t n);
void weft_script_puts(weft_script *script, weft_trust trust, weft_segment segment,
                      const char *text);
/* WEFT_E_MEMORY if any _put failed. */
weft_status weft_script_ok(const weft_script *script, weft_error *err);
weft_status weft_script_encode_with(const weft_tokenizer *tokenizer, weft_script *script,
                                    int32_t **out_ids, weft_segment **out_segment, size_t *out_n,
                                    weft_error *err);

#endif
