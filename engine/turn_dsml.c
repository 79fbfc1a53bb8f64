/* The byte automaton of a turn in DeepSeek's dialects, whose calls are written with control tokens.
 *
 * In a turn's text such a token is one byte that UTF-8 never has, its *sigil*, so that the same text
 * spelt out by a page or a model stays text: only the token opens a call or ends a parameter.
 *
 *   dsv32  <D function_calls>\n                    D: the sigil of ｜DSML｜
 *          <D invoke name="NAME">\n
 *          <D parameter name="KEY" string="true">raw text</D parameter>\n
 *          </D invoke>\n</D function_calls>
 *   dsv31  BEGIN CALL NAME SEP {...} END ... ENDS
 *   dsv3   BEGIN CALL function SEP NAME \n```json\n{...}\n``` END \n CALL ... ENDS
 *
 * Masked, a call is read by the grammar of JSON calls that the other dialects use: the fixed text is a
 * list of literals, and what varies is translated and fed to it. <D parameter name="k" string="true">
 * a"b</D is "k":"a\"b" there. So members come in the schema's order, enums and lengths hold, and the
 * type decides which of string="true|false" may stand. The closer of a raw text begins with '<' as
 * the text may; the state before it is kept until the sigil, or another byte, tells which it was.
 *
 * Unmasked, everything from the first sigil on is the calls' region, to be read by
 * turn_dsml_read.c. An opener that is spelt out as text, or with other bars, begins one too: it is
 * no call, and no answer either. */
#include "engine/turn.h"

#include <string.h>

enum { NEWLINES_MAX = 2 };

/* Where a masked call stands: in a literal, or at a place where something varies. */
enum place {
    AT_NONE,
    AT_NAME,
    AT_FIRST, /* a line begins behind the invoke's own: a parameter, or the empty line */
    AT_LINE,  /* a line begins behind a parameter */
    AT_OPEN,  /* behind that line's '<' */
    AT_KEY,
    AT_TYPE,
    AT_TEXT, /* a parameter's value */
    AT_JSON,
    AT_NEXT,      /* behind the '<' of the line after an invoke */
    AT_ARGUMENTS, /* dsv31, dsv3 */
    AT_AGAIN,     /* behind a call of theirs */
    AT_CLOSED,
    IN_LITERAL,
    IN_BLOCK = IN_LITERAL,
    IN_HEAD,
    IN_EMPTY,
    IN_PARAMETER,
    IN_STRING,
    IN_TRUE,
    IN_FALSE,
    IN_END_PARAMETER,
    IN_END_JSON,
    IN_END_INVOKE,
    IN_NEXT,
    IN_INVOKE,
    IN_END_BLOCK,
    IN_V31_CALL,
    IN_V31_END,
    IN_V3_CALL,
    IN_V3_BODY,
    IN_V3_END,
    IN_V3_AGAIN,
    N_PLACES
};

static const struct {
    const char *text;
    uint8_t next;
} literal[N_PLACES] = {
    [IN_BLOCK] = {"function_calls>\n<" S_DSML "invoke name=\"", AT_NAME},
    [IN_HEAD] = {">\n", AT_FIRST},
    [IN_EMPTY] = {"</" S_DSML "invoke>", IN_NEXT},
    [IN_PARAMETER] = {"parameter name=\"", AT_KEY},
    [IN_STRING] = {" string=\"", AT_TYPE},
    [IN_TRUE] = {"rue\">", AT_TEXT},
    [IN_FALSE] = {"alse\">", AT_JSON},
    [IN_END_PARAMETER] = {"parameter>\n", AT_LINE},
    [IN_END_JSON] = {"/" S_DSML "parameter>\n", AT_LINE},
    [IN_END_INVOKE] = {S_DSML "invoke>", IN_NEXT},
    [IN_NEXT] = {"\n<", AT_NEXT},
    [IN_INVOKE] = {"invoke name=\"", AT_NAME},
    [IN_END_BLOCK] = {S_DSML "function_calls>", AT_CLOSED},
    [IN_V31_CALL] = {S_CALL, AT_NAME},
    [IN_V31_END] = {S_CALL_END, AT_AGAIN},
    [IN_V3_CALL] = {S_CALL "function" S_SEP, AT_NAME},
    [IN_V3_BODY] = {"```json\n", AT_ARGUMENTS},
    [IN_V3_END] = {"\n```" S_CALL_END, AT_AGAIN},
    [IN_V3_AGAIN] = {S_CALL "function" S_SEP, AT_NAME},
};

/* Openers that are no token's: spelt out, with plain bars, in a fashion of earlier models. */
enum { N_SPELT = 3 };
static const char *const spelt[N_SPELT] = {"<｜DSML｜", "<|DSML|", "<dsml:"};

static bool is_sigil(uint8_t byte)
{
    return byte >= WEFT_SIGIL_FIRST;
}

/* ---- the grammar behind ---- */

static bool feed(const weft_plan *plan, weft_grammar_state *g, const char *text)
{
    for (; *text; text++)
        if (!weft_grammar_step(plan->grammar, g, (uint8_t)*text)) return false;
    return true;
}

static bool accepts(const weft_plan *plan, const weft_grammar_state *g, const char *text)
{
    weft_grammar_state copy = *g;
    return feed(plan, &copy, text);
}

/* A byte of raw text, as it stands in a JSON string. */
static bool feed_text(const weft_plan *plan, weft_grammar_state *g, uint8_t byte)
{
    char escape[8] = {'\\', (char)byte, 0};
    if (byte == '"' || byte == '\\') return feed(plan, g, escape);
    if (byte >= 0x20) return weft_grammar_step(plan->grammar, g, byte);
    static const char *const digits = "0123456789abcdef";
    escape[1] = 'u', escape[2] = escape[3] = '0';
    escape[4] = digits[byte >> 4], escape[5] = digits[byte & 15], escape[6] = 0;
    return feed(plan, g, escape);
}

/* Whether a parameter may begin, and whether the invoke may end. */
static bool may_begin(const weft_plan *plan, const weft_turn_state *s)
{
    return accepts(plan, &s->grammar, s->called ? ",\"" : "\"");
}

static bool may_end(const weft_plan *plan, const weft_turn_state *s)
{
    return accepts(plan, &s->grammar, "}}");
}

static void go(weft_turn_state *s, uint8_t place)
{
    s->place = place;
    s->mark_at = 0;
}

/* Behind a call no grammar is under way: states that differ in nothing else are one. */
static void rest(weft_turn_state *s)
{
    memset(&s->grammar, 0, sizeof s->grammar);
    memset(&s->before, 0, sizeof s->before);
    s->called = 0;
}

/* ---- masked calls ---- */

static bool at_name(const weft_plan *plan, weft_turn_state *s, uint8_t byte)
{
    uint8_t end = plan->syntax == WEFT_SYNTAX_DSML  ? '"'
                  : plan->syntax == WEFT_SYNTAX_V31 ? S_SEP[0]
                                                    : '\n';
    if (byte != end) return byte >= ' ' && weft_plan_narrow(plan, s, byte);
    if (plan->name[s->low][s->name_at]) return false; /* one that ends here is the range's first */
    s->grammar = plan->entry[s->low];
    s->low = s->high = s->name_at = 0;
    bool dsml = plan->syntax == WEFT_SYNTAX_DSML;
    if (!feed(plan, &s->grammar, dsml ? ",\"arguments\":{" : ",\"arguments\":")) return false;
    s->nesting = s->quoted = s->escaped = 0;
    go(s, dsml ? IN_HEAD : plan->syntax == WEFT_SYNTAX_V31 ? AT_ARGUMENTS : IN_V3_BODY);
    return true;
}

static void enter_name(const weft_plan *plan, weft_turn_state *s)
{
    s->low = s->name_at = 0;
    s->high = (uint16_t)plan->n;
}

static bool at_line(const weft_plan *plan, weft_turn_state *s, uint8_t byte)
{
    bool first = s->place == AT_FIRST;
    if (byte == '<' && (may_begin(plan, s) || (!first && may_end(plan, s)))) {
        go(s, AT_OPEN);
        s->line = first;
        return true;
    }
    if (byte != '\n' || !first || !may_end(plan, s)) return false;
    rest(s);
    go(s, IN_EMPTY);
    return true;
}

static bool at_open(const weft_plan *plan, weft_turn_state *s, uint8_t byte)
{
    bool first = s->line;
    s->line = 0;
    if (byte == (uint8_t)S_DSML[0]) {
        if (!feed(plan, &s->grammar, s->called ? ",\"" : "\"")) return false;
        s->called = 1;
        go(s, IN_PARAMETER);
        return true;
    }
    if (byte != '/' || first || !may_end(plan, s)) return false;
    rest(s);
    go(s, IN_END_INVOKE);
    return true;
}

/* closable: the key is not empty. */
static bool at_key(const weft_plan *plan, weft_turn_state *s, uint8_t byte)
{
    if (byte == '"') {
        bool named = s->closable;
        s->closable = 0;
        go(s, IN_STRING);
        return named && feed(plan, &s->grammar, "\":");
    }
    s->closable = 1;
    return byte >= ' ' && byte != '<' && byte != '>' && feed_text(plan, &s->grammar, byte);
}

/* Values that are no string, by their first bytes. */
static bool takes_json(const weft_plan *plan, const weft_grammar_state *g)
{
    static const char *const first[] = {"{", "[", "t", "f", "n", "-", "0", "1",
                                        "2", "3", "4", "5", "6", "7", "8", "9"};
    for (size_t i = 0; i < sizeof first / sizeof *first; i++)
        if (accepts(plan, g, first[i])) return true;
    return false;
}

static bool at_type(const weft_plan *plan, weft_turn_state *s, uint8_t byte)
{
    if (byte == 't') {
        go(s, IN_TRUE);
        return feed(plan, &s->grammar, "\"");
    }
    go(s, IN_FALSE);
    s->nesting = s->quoted = s->escaped = s->closable = 0;
    return byte == 'f' && takes_json(plan, &s->grammar);
}

/* closable counts what stands of "</"; dead: no text goes on with it, so it must be the closer. */
static bool at_text(const weft_plan *plan, weft_turn_state *s, uint8_t byte)
{
    if (byte == (uint8_t)S_DSML[0]) {
        if (s->closable != 2) return false;
        s->grammar = s->before;
        memset(&s->before, 0, sizeof s->before);
        s->closable = s->dead = 0;
        go(s, IN_END_PARAMETER);
        return feed(plan, &s->grammar, "\"");
    }
    if (is_sigil(byte)) return false;
    weft_grammar_state g = s->grammar;
    bool text = !s->dead && feed_text(plan, &g, byte);
    if (byte == '<' && accepts(plan, &s->grammar, "\"") && !s->dead) {
        s->before = s->grammar;
        s->closable = 1;
    } else if (byte == '/' && s->closable == 1) {
        s->closable = 2;
    } else {
        if (!text) return false;
        s->closable = 0;
        memset(&s->before, 0, sizeof s->before);
    }
    s->dead = !text;
    if (text) s->grammar = g;
    return true;
}

/* Follows a JSON value's nesting; true where it is whole if the grammar agrees. */
static void nest(weft_turn_state *s, uint8_t byte)
{
    if (s->escaped) {
        s->escaped = 0;
    } else if (s->quoted) {
        s->escaped = byte == '\\';
        s->quoted = byte != '"';
    } else if (byte == '"') {
        s->quoted = 1;
    } else if (byte == '{' || byte == '[') {
        s->nesting++;
    } else if (byte == '}' || byte == ']') {
        s->nesting--;
    }
}

static bool at_json(const weft_plan *plan, weft_turn_state *s, uint8_t byte)
{
    bool inside = s->nesting || s->quoted;
    if (byte == '<' && !inside) {
        bool whole = s->closable && (accepts(plan, &s->grammar, ",") || may_end(plan, s));
        s->closable = 0;
        go(s, IN_END_JSON);
        return whole;
    }
    bool begins = !s->closable;
    if (begins && (byte == '"' || byte == ' ')) return false;
    /* what stands behind a whole value belongs to the members around it */
    if (!inside && !begins && (byte == ',' || byte == '}' || byte == '\n')) return false;
    if (is_sigil(byte) || !weft_grammar_step(plan->grammar, &s->grammar, byte)) return false;
    s->closable = 1;
    nest(s, byte);
    return true;
}

static bool at_arguments(const weft_plan *plan, weft_turn_state *s, uint8_t byte)
{
    if (is_sigil(byte) || (!s->nesting && byte != '{')) return false;
    if (!weft_grammar_step(plan->grammar, &s->grammar, byte)) return false;
    nest(s, byte);
    if (s->nesting) return true;
    rest(s);
    go(s, plan->syntax == WEFT_SYNTAX_V31 ? IN_V31_END : IN_V3_END);
    return true;
}

static bool at_again(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events)
{
    if (byte == (uint8_t)S_CALLS_END[0]) {
        go(s, AT_CLOSED);
        *events |= WEFT_EVENT_END;
        return true;
    }
    if (plan->syntax == WEFT_SYNTAX_V3) {
        go(s, IN_V3_AGAIN);
        return byte == '\n';
    }
    go(s, AT_NAME);
    enter_name(plan, s);
    return byte == (uint8_t)S_CALL[0];
}

static bool in_literal(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events)
{
    const char *text = literal[s->place].text;
    if ((uint8_t)text[s->mark_at] != byte) return false;
    if (text[++s->mark_at]) return true;
    go(s, literal[s->place].next);
    if (s->place == AT_NAME) enter_name(plan, s);
    if (s->place == AT_CLOSED) *events |= WEFT_EVENT_END;
    return true;
}

static bool call(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events)
{
    switch (s->place) {
    case AT_NAME: return at_name(plan, s, byte);
    case AT_FIRST:
    case AT_LINE: return at_line(plan, s, byte);
    case AT_OPEN: return at_open(plan, s, byte);
    case AT_KEY: return at_key(plan, s, byte);
    case AT_TYPE: return at_type(plan, s, byte);
    case AT_TEXT: return at_text(plan, s, byte);
    case AT_JSON: return at_json(plan, s, byte);
    case AT_NEXT:
        go(s, byte == '/' ? IN_END_BLOCK : IN_INVOKE);
        return byte == '/' || byte == (uint8_t)S_DSML[0];
    case AT_ARGUMENTS: return at_arguments(plan, s, byte);
    case AT_AGAIN: return at_again(plan, s, byte, events);
    case AT_CLOSED: return false;
    default: return in_literal(plan, s, byte, events);
    }
}

/* ---- prose, thoughts, and what opens a call ---- */

/* Reads a byte of the openers spelt out; true if one is complete. */
static bool advance_spelt(weft_turn_state *s, uint8_t byte)
{
    unsigned watched = s->marks, alive = 0;
    if (byte == '<') {
        s->marks = (1u << N_SPELT) - 1;
        s->mark_at = 1;
        return false;
    }
    for (unsigned i = 0; i < N_SPELT; i++) {
        if (!(watched >> i & 1) || (uint8_t)spelt[i][s->mark_at] != byte) continue;
        if (!spelt[i][s->mark_at + 1]) return true;
        alive |= 1u << i;
    }
    s->marks = (uint8_t)alive;
    s->mark_at = alive ? s->mark_at + 1 : 0;
    return false;
}

static bool open_call(const weft_plan *plan, weft_turn_state *s, unsigned *events)
{
    bool thought = s->phase == WEFT_PHASE_THINK;
    memset(s, 0, sizeof *s);
    s->phase = WEFT_PHASE_BODY;
    s->thought = thought;
    s->place = plan->syntax == WEFT_SYNTAX_DSML  ? IN_BLOCK
               : plan->syntax == WEFT_SYNTAX_V31 ? IN_V31_CALL
                                                 : IN_V3_CALL;
    *events |= WEFT_EVENT_CALL;
    return true;
}

static bool sigil(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events)
{
    bool behind = s->open == '<' || s->open == '/'; /* the MARK stands at that '<' */
    if (!behind) *events |= WEFT_EVENT_MARK;
    if (plan->unmasked) return open_call(plan, s, events);
    bool opens = plan->syntax == WEFT_SYNTAX_DSML ? byte == (uint8_t)S_DSML[0] && s->open == '<'
                                                  : byte == (uint8_t)S_CALLS[0];
    if (!opens || s->phase == WEFT_PHASE_THINK || plan->n == 0 ||
        weft_choice_is_callless(plan->choice))
        return false;
    return open_call(plan, s, events);
}

/* Demanded: two newlines as the format has them, then the opener. */
static bool demanded(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events)
{
    bool dsml = plan->syntax == WEFT_SYNTAX_DSML;
    if (dsml && s->open == '<') return byte == (uint8_t)S_DSML[0] && sigil(plan, s, byte, events);
    if (!dsml) return byte == (uint8_t)S_CALLS[0] && sigil(plan, s, byte, events);
    if (s->nesting < NEWLINES_MAX) {
        s->nesting++;
        return byte == '\n';
    }
    s->open = '<';
    *events |= WEFT_EVENT_MARK;
    return byte == '<';
}

/* nesting counts the newlines that stand last, line says that only blanks stand since one. */
static bool prose(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events)
{
    if (s->must) return demanded(plan, s, byte, events);
    if (is_sigil(byte)) return sigil(plan, s, byte, events);
    bool words = plan->choice == WEFT_CHOICE_WORDS && !plan->unmasked;
    if (words && s->line && (byte == '{' || byte == '[' || byte == '<' || byte == '`'))
        return false;
    if (byte == '<') *events |= WEFT_EVENT_MARK;
    if (advance_spelt(s, byte)) return plan->unmasked && open_call(plan, s, events);
    s->open = byte == '<' || (byte == '/' && s->open == '<') ? byte : 0;
    if (byte == '\n') {
        s->line = 1;
        if (s->nesting < NEWLINES_MAX) s->nesting++;
    } else {
        s->line &= byte == ' ' || byte == '\t' || byte == '\r';
        s->nesting = 0;
    }
    return true;
}

/* Inside a thought a call is none: masked, it cannot be begun; unmasked, what follows the thought
 * tells what it was (turn_result.c). */
static bool think(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events)
{
    if (is_sigil(byte)) return sigil(plan, s, byte, events);
    if (!plan->unmasked) return true;
    if (byte == '<') *events |= WEFT_EVENT_MARK;
    s->open = byte == '<' || (byte == '/' && s->open == '<') ? byte : 0;
    return true;
}

bool weft_dsml_step(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events)
{
    switch ((weft_phase)s->phase) {
    case WEFT_PHASE_PROSE: return prose(plan, s, byte, events);
    case WEFT_PHASE_THINK: return think(plan, s, byte, events);
    case WEFT_PHASE_BODY: return plan->unmasked || call(plan, s, byte, events);
    default: return false;
    }
}

bool weft_dsml_may_end(const weft_plan *plan, const weft_turn_state *s)
{
    if (s->phase == WEFT_PHASE_PROSE) return plan->choice != WEFT_CHOICE_REQUIRED;
    return s->phase == WEFT_PHASE_BODY && s->place == AT_CLOSED;
}

void weft_dsml_demand(weft_turn_state *s)
{
    s->must = 1;
    s->line = s->marks = s->mark_at = 0;
    if (s->open == '/') s->open = 0;
}

bool weft_dsml_think(const weft_plan *plan, weft_turn_state *s, bool open)
{
    bool ends_rehearsal = !open && s->phase == WEFT_PHASE_BODY && s->thought && plan->unmasked;
    if (open ? s->phase != WEFT_PHASE_PROSE || !plan->unmasked
             : s->phase != WEFT_PHASE_THINK && !ends_rehearsal)
        return false;
    weft_turn_state_begin(s);
    if (open) s->phase = WEFT_PHASE_THINK;
    return true;
}
