/* The byte automaton of a turn.
 *
 * Openers and closers are *marks*: literals that are watched together, a bit for each that still
 * agrees with the bytes read. None begins inside another, so a mark that dies is looked at once
 * more as the beginning of one, and nothing else need be remembered. A call without a tag begins at
 * a line's start as {"name": "...": only the closing quote after the name of an offered tool makes
 * it a call, up to there it may be anything, so nothing is constrained. */
#include "engine/turn.h"

#include <string.h>

enum {
    MARK_TAG = 1,
    MARK_TOOLS = 2,
    MARK_FENCE = 4,
    MARK_END_TAG = 8,
    MARK_END_TOOLS = 16,
    MARK_END_FENCE = 32,
    MARK_OPENERS = MARK_TAG | MARK_TOOLS | MARK_FENCE,
    N_MARKS = 6
};
static const char *const mark_text[N_MARKS] = {"<tool_call>",  "<tools>",  "```json",
                                               "</tool_call>", "</tools>", "```"};

enum { NEWLINES_MAX = 2 }; /* in a row, where a mask rules */

/* Where {"name": " stands: after '{'. */
enum { OBJECT_KEY = 1, OBJECT_WORD = 2, OBJECT_COLON = 7, OBJECT_QUOTE = 8, OBJECT_NAME = 9 };
static const char object_word[] = "name\"";

void weft_turn_state_begin(weft_turn_state *s)
{
    memset(s, 0, sizeof *s);
    s->line = 1;
}

static weft_form form_of(unsigned mark)
{
    return mark == MARK_TAG     ? WEFT_FORM_TAG
           : mark == MARK_TOOLS ? WEFT_FORM_TOOLS
                                : WEFT_FORM_FENCE;
}

static unsigned closers_of(uint8_t form)
{
    return form == WEFT_FORM_TAG     ? MARK_END_TAG
           : form == WEFT_FORM_TOOLS ? MARK_END_TOOLS
           : form == WEFT_FORM_FENCE ? MARK_END_FENCE
                                     : MARK_END_TAG | MARK_END_TOOLS | MARK_END_FENCE;
}

/* Reads a byte of the marks under way, or of those in `fresh` if none is. Returns the one
 * completed, 0 if none; marks that still agree stay set. */
static unsigned advance(weft_turn_state *s, unsigned fresh, uint8_t byte)
{
    unsigned watched = s->marks ? s->marks : fresh, alive = 0, complete = 0;
    size_t at = s->marks ? s->mark_at : 0;
    for (unsigned i = 0; i < N_MARKS; i++) {
        if (!(watched >> i & 1) || (uint8_t)mark_text[i][at] != byte) continue;
        if (mark_text[i][at + 1]) {
            alive |= 1u << i;
        } else {
            complete = 1u << i;
        }
    }
    s->marks = (uint8_t)alive;
    s->mark_at = alive ? (uint8_t)(at + 1) : 0;
    return complete;
}

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* ---- calls ---- */

static bool enter_body(const weft_plan *plan, weft_turn_state *s, weft_form form)
{
    s->phase = WEFT_PHASE_BODY;
    s->form = (uint8_t)form;
    s->line = s->opened = s->marks = s->mark_at = s->object = s->must = s->closed = 0;
    s->low = s->high = s->name_at = 0;
    s->quoted = s->escaped = 0;
    s->nesting = 0;
    return true;
}

/* After an opener that names no tool yet. */
static bool enter_lead(const weft_plan *plan, weft_turn_state *s, weft_form form)
{
    if (weft_choice_is_callless(plan->choice) && !plan->unmasked) return false;
    enter_body(plan, s, form);
    if (!plan->unmasked) s->phase = WEFT_PHASE_LEAD;
    return true;
}

static bool lead(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events)
{
    if (byte == '\n' || byte == ' ') return s->line++ < NEWLINES_MAX;
    s->line = 0;
    s->phase = WEFT_PHASE_BODY;
    *events |= WEFT_EVENT_OBJECT;
    weft_grammar_begin(plan->grammar, &s->grammar);
    return weft_grammar_step(plan->grammar, &s->grammar, byte);
}

static void end_call(weft_turn_state *s, unsigned *events)
{
    uint8_t form = s->form;
    memset(s, 0, sizeof *s);
    s->phase = WEFT_PHASE_BETWEEN;
    s->form = form;
    s->called = 1;
    *events |= WEFT_EVENT_END;
}

/* Unmasked, after <tool_call>: up to its closer, or the next call, outside strings. */
static void tagged_body(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events)
{
    if (s->marks) {
        unsigned complete = advance(s, 0, byte);
        if (complete == MARK_TAG) {
            *events |= WEFT_EVENT_CLOSE | WEFT_EVENT_CALL;
            enter_body(plan, s, WEFT_FORM_TAG);
            return;
        }
        if (complete) {
            *events |= WEFT_EVENT_CLOSE;
            end_call(s, events);
            s->closed = 1;
            return;
        }
        if (s->marks) return;
    }
    if (byte == '"') s->quoted = 1;
    if (byte == '<') {
        advance(s, MARK_TAG | MARK_END_TAG, byte);
        *events |= WEFT_EVENT_MARK;
    }
}

static bool body(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events)
{
    if (!plan->unmasked) {
        if (!weft_grammar_step(plan->grammar, &s->grammar, byte)) return false;
        if (s->grammar.depth == 0) end_call(s, events);
        return true;
    }
    if (s->escaped) {
        s->escaped = 0;
    } else if (s->quoted) {
        s->escaped = byte == '\\';
        s->quoted = byte != '"';
    } else if (s->form == WEFT_FORM_TAG) {
        tagged_body(plan, s, byte, events);
    } else if (byte == '"') {
        s->quoted = 1;
    } else if (byte == '{' || byte == '[') {
        if (s->nesting < UINT16_MAX) s->nesting++;
    } else if ((byte == '}' || byte == ']') && --s->nesting == 0) {
        end_call(s, events);
    }
    return true;
}

/* ---- prose ---- */

bool weft_plan_narrow(const weft_plan *plan, weft_turn_state *s, uint8_t byte)
{
    while (s->low < s->high && (uint8_t)plan->name[s->low][s->name_at] < byte) s->low++;
    uint16_t end = s->low;
    while (end < s->high && (uint8_t)plan->name[end][s->name_at] == byte) end++;
    s->high = end;
    s->name_at++;
    return s->low < s->high;
}

static bool name_complete(const weft_plan *plan, weft_turn_state *s, unsigned *events,
                          bool *refused)
{
    if (plan->name[s->low][s->name_at])
        return false; /* a name that ends here is the range's first */
    if (weft_choice_is_callless(plan->choice) && !plan->unmasked) {
        *refused = true;
        return false;
    }
    uint16_t tool = s->low;
    enter_body(plan, s, s->opened ? s->opened : WEFT_FORM_BARE);
    if (plan->unmasked) {
        s->nesting = 1;
    } else {
        s->grammar = plan->entry[tool];
    }
    *events |= WEFT_EVENT_CALL;
    return true;
}

/* One more byte of {"name": "...". False: it is no call. */
static bool object(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events,
                   bool *refused)
{
    bool waits = s->object == OBJECT_KEY || s->object == OBJECT_COLON || s->object == OBJECT_QUOTE;
    if (waits && is_blank(byte)) return !s->must || s->line++ < NEWLINES_MAX;
    if (s->object == OBJECT_NAME) {
        if (byte == '"') return name_complete(plan, s, events, refused);
        return byte >= ' ' && weft_plan_narrow(plan, s, byte);
    }
    uint8_t want = s->object == OBJECT_COLON ? ':'
                   : waits                   ? '"'
                                             : (uint8_t)object_word[s->object - OBJECT_WORD];
    if (byte != want) return false;
    if (++s->object == OBJECT_NAME) {
        s->low = s->name_at = 0;
        s->high = (uint16_t)plan->n;
    }
    return true;
}

static void leave_object(weft_turn_state *s)
{
    s->object = 0;
    s->low = s->high = s->name_at = 0;
    s->line = s->opened = 0;
}

/* A byte that continues nothing. */
static void fresh_prose(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events)
{
    if (byte == '\n') {
        s->line = 1;
        return;
    }
    if (is_blank(byte)) return;
    if (plan->n == 0) return;
    uint8_t line = s->line, opened = s->opened;
    s->line = s->opened = 0;
    if (line && byte == '{') {
        s->object = OBJECT_KEY;
        s->opened = opened;
        *events |= WEFT_EVENT_OBJECT | (opened ? 0 : WEFT_EVENT_MARK);
        return;
    }
    unsigned fresh = MARK_TAG | (line ? MARK_TOOLS | MARK_FENCE : 0);
    advance(s, fresh, byte);
    if (s->marks) *events |= WEFT_EVENT_MARK;
}

static bool prose(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events)
{
    bool refused = false;
    if (s->object) {
        if (object(plan, s, byte, events, &refused)) return true;
        if (refused || s->must) return false;
        leave_object(s);
    } else if (s->marks) {
        unsigned complete = advance(s, 0, byte);
        if (complete == MARK_TAG) {
            *events |= WEFT_EVENT_CALL;
            return enter_lead(plan, s, WEFT_FORM_TAG);
        }
        if (complete && s->must) {
            *events |= WEFT_EVENT_CALL;
            return enter_lead(plan, s, form_of(complete));
        }
        if (complete) {
            s->opened = (uint8_t)form_of(complete);
            s->line = 1;
            return true;
        }
        if (s->marks) return true;
        if (s->must) return false;
    }
    bool words = plan->choice == WEFT_CHOICE_WORDS && !plan->unmasked;
    if (words && s->line && (byte == '{' || byte == '[' || byte == '<' || byte == '`')) return false;
    fresh_prose(plan, s, byte, events);
    return true;
}

/* ---- between calls ---- */

static bool to_prose(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events)
{
    uint8_t line = s->line;
    if (!plan->unmasked) return false;
    weft_turn_state_begin(s);
    s->line = line > 0;
    *events |= WEFT_EVENT_PROSE;
    return prose(plan, s, byte, events);
}

static bool mark_complete(const weft_plan *plan, weft_turn_state *s, unsigned complete,
                          unsigned *events)
{
    if (complete & MARK_OPENERS) {
        *events |= WEFT_EVENT_CALL;
        return enter_lead(plan, s, form_of(complete));
    }
    s->closed = s->marks ? 2 : 1;
    s->line = 0;
    return true;
}

static bool between(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events)
{
    if (s->marks) {
        unsigned complete = advance(s, 0, byte);
        if (complete) return mark_complete(plan, s, complete, events);
        bool rests = s->closed == 2;
        if (s->closed) s->closed = 1;
        if (s->marks) return true;
        s->line = 0;
        if (!rests) return to_prose(plan, s, byte, events);
    }
    if (byte == '\n') {
        if (s->line < NEWLINES_MAX) {
            s->line++;
            return true;
        }
        return plan->unmasked;
    }
    if (plan->unmasked && is_blank(byte)) return true;
    if (!plan->unmasked && byte == '{' && s->line) {
        *events |= WEFT_EVENT_MARK | WEFT_EVENT_CALL;
        return enter_lead(plan, s, WEFT_FORM_BARE) && lead(plan, s, byte, events);
    }
    unsigned fresh = MARK_TAG | (s->line ? MARK_TOOLS | MARK_FENCE : 0);
    if (plan->unmasked) fresh = 0; /* prose knows the openers, and asks for more */
    if (s->called && !s->closed) fresh |= closers_of(s->form);
    advance(s, fresh, byte);
    if (!s->marks) return to_prose(plan, s, byte, events);
    *events |= WEFT_EVENT_MARK;
    return true;
}

/* ---- the machine ---- */

bool weft_turn_state_step(const weft_plan *plan, weft_turn_state *s, uint8_t byte, unsigned *events)
{
    if (plan->syntax != WEFT_SYNTAX_JSON) return weft_dsml_step(plan, s, byte, events);
    switch ((weft_phase)s->phase) {
    case WEFT_PHASE_PROSE: return prose(plan, s, byte, events);
    case WEFT_PHASE_THINK: return true;
    case WEFT_PHASE_BETWEEN: return between(plan, s, byte, events);
    case WEFT_PHASE_LEAD: return lead(plan, s, byte, events);
    case WEFT_PHASE_BODY: return body(plan, s, byte, events);
    }
    return false;
}

bool weft_turn_state_open(const weft_turn_state *s)
{
    return s->marks || s->object || s->opened || s->open;
}

bool weft_turn_state_may_end(const weft_plan *plan, const weft_turn_state *s)
{
    if (plan->unmasked) return true;
    if (plan->syntax != WEFT_SYNTAX_JSON) return weft_dsml_may_end(plan, s);
    switch ((weft_phase)s->phase) {
    case WEFT_PHASE_PROSE:
    case WEFT_PHASE_THINK: return plan->choice != WEFT_CHOICE_REQUIRED;
    case WEFT_PHASE_BETWEEN: return s->called && (!s->marks || s->closed == 2);
    default: return false;
    }
}

void weft_turn_state_demand(const weft_plan *plan, weft_turn_state *s)
{
    if (s->phase != WEFT_PHASE_PROSE) return;
    if (plan->syntax != WEFT_SYNTAX_JSON) {
        weft_dsml_demand(s);
    } else if (s->object || s->marks) {
        s->must = 1;
    } else if (s->opened) {
        /* the opener's line stands, so the opener is complete but for its object */
        uint8_t form = s->opened;
        memset(s, 0, sizeof *s);
        s->phase = WEFT_PHASE_LEAD;
        s->form = form;
    } else {
        uint8_t line = s->line;
        memset(s, 0, sizeof *s);
        s->phase = WEFT_PHASE_BETWEEN;
        s->line = line;
    }
}

bool weft_turn_state_think(const weft_plan *plan, weft_turn_state *s, bool open)
{
    if (plan->syntax != WEFT_SYNTAX_JSON) return weft_dsml_think(plan, s, open);
    if (s->phase != (open ? WEFT_PHASE_PROSE : WEFT_PHASE_THINK) || s->must) return false;
    weft_turn_state_begin(s);
    if (open) s->phase = WEFT_PHASE_THINK;
    return true;
}

/* ---- as the masks see it ---- */

static bool machine_step(const void *context, void *state, uint8_t byte)
{
    unsigned events = 0;
    return weft_turn_state_step(context, state, byte, &events);
}

static bool machine_may_stop(const void *context, const void *state)
{
    return weft_turn_state_may_end(context, state);
}

static uint64_t machine_hash(const void *state)
{
    const weft_turn_state *s = state;
    uint64_t h = 0xcbf29ce484222325;
    const uint8_t *bytes = state;
    for (size_t i = 0; i < offsetof(weft_turn_state, grammar); i++)
        h = (h ^ bytes[i]) * 0x100000001b3;
    if (s->phase == WEFT_PHASE_BODY) h ^= weft_grammar_state_hash(&s->grammar);
    if (s->before.depth) h = h * 31 ^ weft_grammar_state_hash(&s->before);
    return h ^ h >> 29;
}

static bool machine_equal(const void *a, const void *b)
{
    const weft_turn_state *x = a, *y = b;
    if (memcmp(x, y, offsetof(weft_turn_state, grammar)) != 0) return false;
    return x->phase != WEFT_PHASE_BODY || (weft_grammar_state_equal(&x->grammar, &y->grammar) &&
                                           weft_grammar_state_equal(&x->before, &y->before));
}

weft_machine weft_turn_machine(const weft_plan *plan)
{
    return (weft_machine){plan,         sizeof(weft_turn_state), machine_step, machine_may_stop,
                          machine_hash, machine_equal};
}
