/* The inside of a turn: a byte automaton that knows prose, thoughts, openers and calls; the plan
 * that fixes what may be called; the turn that feeds the one with tokens and keeps what came out.
 * Private to engine/.
 *
 *            .-- <think> --> THINK --- </think> --.
 *            |                                    v
 *   begin -> PROSE <------------------------------'
 *            | <tool_call>, ```json, <tools>         one token, or text
 *            | {"name": "an offered tool"            at the start of a line
 *            v
 *            LEAD -> '{' -> BODY -> '}' -> BETWEEN -> closer, newlines, the next opener, or the end
 *
 * From the moment that an opener is complete the grammar rules: what follows is a valid call. In an
 * unmasked turn nothing is refused, BODY ends where brackets balance or the closer stands, and
 * prose may follow. A state holds no offsets and no history, so that few different ones exist and a
 * mask is computed once for each; where things began is reported as events and kept by the turn.
 */
#ifndef WEFT_ENGINE_TURN_H
#define WEFT_ENGINE_TURN_H

#include "engine/dialect/dialect.h"
#include "engine/mask.h"

typedef enum weft_phase {
    WEFT_PHASE_PROSE,
    WEFT_PHASE_THINK,
    WEFT_PHASE_BETWEEN, /* only an opener, a closer or the end may come */
    WEFT_PHASE_LEAD,    /* after an opener, before the call's '{' */
    WEFT_PHASE_BODY
} weft_phase;

typedef enum weft_form {
    WEFT_FORM_NONE,
    WEFT_FORM_TAG,   /* <tool_call> */
    WEFT_FORM_FENCE, /* ```json */
    WEFT_FORM_TOOLS, /* <tools> */
    WEFT_FORM_BARE
} weft_form;

typedef struct weft_turn_state {
    uint8_t phase, form;
    uint8_t line;   /* PROSE: only blanks since the last newline. Elsewhere: blanks in a row */
    uint8_t opened; /* PROSE: the form that the line before opened */
    uint8_t marks;  /* literals that the last bytes may be the beginning of, a bit each */
    uint8_t mark_at;
    uint8_t object; /* PROSE: how far {"name": " is; 0: not in it */
    uint8_t must;   /* PROSE: what is begun must become a call */
    uint8_t called; /* BETWEEN: after a call */
    uint8_t closed; /* BETWEEN: its closer stands; 2: and may yet be an opener's beginning */
    uint8_t quoted, escaped;     /* BODY, unmasked */
    uint16_t low, high, name_at; /* PROSE, object: names [low, high) agree in name_at bytes */
    uint16_t nesting;            /* BODY, unmasked */
    /* DeepSeek's dialects, turn_dsml.c: */
    uint8_t place;    /* BODY: where the call stands */
    uint8_t open;     /* PROSE: '<', or '/' behind one, if that stands last */
    uint8_t closable; /* BODY: a value that may be whole, or what stands of its closer */
    uint8_t dead;     /* BODY: only that closer can go on */
    uint8_t thought;  /* BODY: the calls began inside a thought */
    uint8_t unused[3];
    weft_grammar_state grammar; /* BODY, masked */
    weft_grammar_state before;  /* turn_dsml.c: before what may be the closer */
} weft_turn_state;
_Static_assert(offsetof(weft_turn_state, grammar) == 28,
               "hashed and compared as bytes: no padding");

/* What a byte brought about. */
enum {
    WEFT_EVENT_MARK = 1,   /* an opener or closer may begin with this byte */
    WEFT_EVENT_OBJECT = 2, /* a call's JSON may begin with this byte */
    WEFT_EVENT_CALL = 4,   /* the opener is complete: a call from the last MARK on */
    WEFT_EVENT_END = 8,    /* the call's JSON ends with this byte */
    WEFT_EVENT_CLOSE = 16, /* unmasked: the closer that began at the last MARK ends the call */
    WEFT_EVENT_PROSE = 32  /* unmasked: prose again from this byte on */
};

static inline bool weft_choice_is_callless(weft_choice choice)
{
    return choice == WEFT_CHOICE_NONE || choice == WEFT_CHOICE_WORDS;
}

typedef struct weft_plan {
    struct weft_plan *next;
    size_t users;   /* turns under way */
    bool forgotten; /* no longer in the dialect's list */
    /* the key: callable tools sorted by name, and what the options say of calls */
    char **name;
    const weft_schema **schema;
    size_t n;
    weft_choice choice;
    bool unmasked;
    weft_syntax syntax; /* the dialect's */

    weft_grammar *grammar;     /* masked, with tools */
    weft_grammar_state *entry; /* [n] after {"name": "NAME" */
    weft_masker *masker;       /* masked */
} weft_plan;

/* From the dialect's cache, or made; released with _release. */
weft_status weft_plan_get(weft_plan **out, weft_dialect *dialect, const weft_turn_options *options,
                          weft_error *err);
void weft_plan_release(weft_plan *plan);

/* Narrows the state's range of names to those with this byte next; false if none is left. */
bool weft_plan_narrow(const weft_plan *plan, weft_turn_state *state, uint8_t byte);

/* ---- DeepSeek's dialects ---- */

/* In a turn's text a control token that writes calls is one byte that UTF-8 never has. Where an
 * ordinary token has such a byte, WEFT_NO_SIGIL stands for it. */
#define S_DSML "\xff"
#define S_CALLS "\xfe"
#define S_CALL "\xfd"
#define S_SEP "\xfc"
#define S_CALL_END "\xfb"
#define S_CALLS_END "\xfa"
enum { WEFT_SIGIL_FIRST = 0xfa, WEFT_NO_SIGIL = 0xf9 };

bool weft_dsml_step(const weft_plan *plan, weft_turn_state *state, uint8_t byte, unsigned *events);
bool weft_dsml_may_end(const weft_plan *plan, const weft_turn_state *state);
void weft_dsml_demand(weft_turn_state *state);
bool weft_dsml_think(const weft_plan *plan, weft_turn_state *state, bool open);

/* ---- the automaton ---- */

void weft_turn_state_begin(weft_turn_state *state);
/* False: the byte cannot follow; the state is then garbage. */
bool weft_turn_state_step(const weft_plan *plan, weft_turn_state *state, uint8_t byte,
                          unsigned *events);
/* Whether an opener, a closer or a call's head is begun at the last MARK. */
bool weft_turn_state_open(const weft_turn_state *state);
/* Whether the turn may end here. */
bool weft_turn_state_may_end(const weft_plan *plan, const weft_turn_state *state);
/* From here on only an opener may come. */
void weft_turn_state_demand(const weft_plan *plan, weft_turn_state *state);
/* The delimiter tokens <think> and </think>. */
bool weft_turn_state_think(const weft_plan *plan, weft_turn_state *state, bool open);
weft_machine weft_turn_machine(const weft_plan *plan);

/* ---- the turn ---- */

typedef struct weft_stretch {
    weft_segment
        segment; /* THOUGHT: of <think>; ANSWER: prose, whatever it turns out to be; CALL */
    size_t from; /* byte of the turn's text; it reaches to the next stretch */
    size_t body_from, body_to; /* without delimiters; body_to SIZE_MAX: still open */
} weft_stretch;

struct weft_turn {
    weft_dialect *dialect;
    weft_plan *plan;
    weft_turn_options options;
    weft_turn_state state;
    bool ended, failed;

    int32_t *ids;      /* [n] */
    size_t *token_end; /* [n] bytes of the text after it */
    size_t n, capacity;
    weft_buffer text; /* bytes of the ids, delimiters too, control tokens not */
    weft_stretch *stretch;
    size_t n_stretch, stretch_capacity;
    size_t mark, object; /* offsets of the last events */
    size_t rehearsed;    /* the stretch of a thought that holds calls; SIZE_MAX: none */

    int64_t n_thought, n_prose; /* tokens */
    int32_t forced;             /* the only id that may come; -1 */
    uint32_t *bits;             /* the current mask */
    weft_mask mask;
    bool mask_known;

    size_t shown_stretch, shown; /* what deltas have brought out so far */
    weft_buffer delta;

    weft_turn_result result;
    weft_turn_segment *segment;
    weft_turn_call *call;
    size_t call_capacity;
};

/* Appends the bytes as a C string's text: UTF-8, sigils as their tokens' texts, each invalid byte and
 * NUL as U+FFFD. */
void weft_turn_clean(const weft_dialect *dialect, const char *bytes, size_t n, weft_buffer *out);
/* Fills turn->result from the stretches: segments and parsed calls (turn_result.c). */
weft_status weft_turn_conclude(weft_turn *turn, weft_error *err);
void weft_turn_result_free(weft_turn *turn);
/* Reads one call's JSON (turn_call.c). cut: the turn broke off inside it. */
weft_status weft_turn_read_call(const weft_plan *plan, const char *body, size_t n, bool cut,
                                weft_turn_call *out, weft_error *err);
/* "The tools are: ..." (turn_call.c). */
void weft_turn_say_tools(const weft_plan *plan, weft_buffer *words);
bool weft_turn_is_offered(const weft_plan *plan, const char *name);
/* Appends a call to the turn's, to be filled in; NULL: out of memory. */
weft_turn_call *weft_turn_add_call(weft_turn *turn);
/* Reads a region of calls in DeepSeek's formats: appends them to the turn's (turn_dsml_read.c). */
weft_status weft_dsml_read(weft_turn *turn, const char *text, size_t n, bool cut, weft_error *err);
/* One call with these words, for a region that is not to be read. */
weft_status weft_dsml_refuse(weft_turn *turn, const char *text, size_t n, const char *words,
                             weft_error *err);

#endif
