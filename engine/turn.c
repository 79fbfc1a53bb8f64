/* One sampled turn: feeds tokens to the automaton, remembers where things begin, computes the mask
 * and brings out text as it becomes visible.
 *
 * What the automaton says of bytes is the whole truth about a token; beside it stand rules that
 * count tokens or know ids: the thought's budget, the first <think> when thinking is on, the end
 * tokens. A mask and weft_turn_accept apply the same rules, so an accepted turn can be accepted
 * again id by id. Text is held back while it may yet be a call's opener or is half a character. */
#include "engine/turn.h"

#include <stdlib.h>
#include <string.h>

enum { NOWHERE = -1 };

/* ---- life ---- */

static weft_status begin_stretch(weft_turn *t, weft_segment segment, size_t from, size_t body_from,
                                 weft_error *err)
{
    weft_stretch *last = t->n_stretch ? &t->stretch[t->n_stretch - 1] : NULL;
    bool replaces = last && last->segment == WEFT_ANSWER && last->from == from;
    if (!replaces && t->n_stretch == t->stretch_capacity) {
        size_t more = t->stretch_capacity ? 2 * t->stretch_capacity : 8;
        weft_stretch *grown = realloc(t->stretch, more * sizeof *grown);
        if (!grown) return weft_fail(err, WEFT_E_MEMORY, "follow the turn: out of memory");
        t->stretch = grown;
        t->stretch_capacity = more;
    }
    if (!replaces) t->n_stretch++;
    t->stretch[t->n_stretch - 1] = (weft_stretch){segment, from, body_from, SIZE_MAX};
    return WEFT_OK;
}

weft_status weft_turn_begin(weft_turn **out, weft_dialect *dialect,
                            const weft_turn_options *options, weft_error *err)
{
    weft_turn *t = calloc(1, sizeof *t);
    if (!t) return weft_fail(err, WEFT_E_MEMORY, "begin a turn: out of memory");
    t->dialect = dialect;
    t->options = *options;
    t->forced = NOWHERE;
    t->mark = t->object = t->rehearsed = SIZE_MAX;
    weft_turn_state_begin(&t->state);
    if (options->in_thought) t->state.phase = WEFT_PHASE_THINK;
    weft_status status = weft_plan_get(&t->plan, dialect, options, err);
    weft_segment first = options->in_thought ? WEFT_THOUGHT : WEFT_ANSWER;
    if (!status) status = begin_stretch(t, first, 0, 0, err);
    if (!status) {
        t->bits = malloc(weft_trie_words(dialect->trie) * sizeof *t->bits + 1);
        if (!t->bits) status = weft_fail(err, WEFT_E_MEMORY, "begin a turn: out of memory");
    }
    if (status) {
        weft_turn_free(t);
        return status;
    }
    bool opens = options->think == WEFT_THINK_ON && t->plan->syntax == WEFT_SYNTAX_JSON;
    if (opens && !options->unmasked) t->forced = dialect->delimiter.think;
    *out = t;
    return WEFT_OK;
}

void weft_turn_free(weft_turn *t)
{
    if (!t) return;
    weft_turn_result_free(t);
    weft_plan_release(t->plan);
    free(t->ids);
    free(t->token_end);
    weft_buffer_free(&t->text);
    weft_buffer_free(&t->delta);
    free(t->stretch);
    free(t->bits);
    free(t);
}

/* ---- tokens ---- */

/* The byte that stands for the token in the turn's text, 0 for other tokens. */
static uint8_t sigil_of(const weft_dialect *dialect, int32_t id)
{
    for (size_t i = 0; i < WEFT_SIGILS; i++)
        if (id >= 0 && dialect->delimiter.sigil[i] == id) return (uint8_t)(WEFT_SIGIL_FIRST + i);
    return 0;
}

static bool is_delimiter(const weft_turn *t, int32_t id)
{
    const weft_delimiters *d = &t->dialect->delimiter;
    return id == d->think || id == d->end_think || id == d->call || id == d->end_call ||
           sigil_of(t->dialect, id);
}

static weft_text bytes_of(const weft_turn *t, int32_t id)
{
    static const char sigils[] = S_CALLS_END S_CALL_END S_SEP S_CALL S_CALLS S_DSML;
    uint8_t sigil = sigil_of(t->dialect, id);
    if (sigil) return (weft_text){&sigils[sigil - WEFT_SIGIL_FIRST], 1};
    return weft_tokenizer_bytes(t->dialect->tokenizer, id, is_delimiter(t, id));
}

static bool may_think(const weft_turn *t)
{
    int64_t budget = t->options.think_budget;
    return t->options.think != WEFT_THINK_OFF && (budget <= 0 || t->n_thought < budget);
}

/* Whether a delimiter token may stand where the state is; <think> and </think> count only as
 * tokens. */
static bool delimiter_fits(const weft_turn *t, int32_t id)
{
    const weft_delimiters *d = &t->dialect->delimiter;
    weft_turn_state state = t->state;
    if (id == d->think) return may_think(t) && weft_turn_state_think(t->plan, &state, true);
    if (id == d->end_think) return weft_turn_state_think(t->plan, &state, false);
    bool tag = id == d->call || id == d->end_call;
    if ((tag && state.phase == WEFT_PHASE_BODY) || (id == d->end_call && state.phase == WEFT_PHASE_PROSE))
        return false;
    weft_text bytes = bytes_of(t, id);
    unsigned events;
    for (size_t i = 0; i < bytes.size; i++)
        if (!weft_turn_state_step(t->plan, &state, (uint8_t)bytes.data[i], &events)) return false;
    return true;
}

static bool in_vocabulary(const weft_turn *t, int32_t id)
{
    return id >= 0 && (size_t)id < weft_tokenizer_size(t->dialect->tokenizer);
}

static void allow(weft_turn *t, int32_t id)
{
    if (in_vocabulary(t, id)) t->bits[id / 32] |= UINT32_C(1) << (id % 32);
}

static size_t count_bits(const uint32_t *bits, size_t words)
{
    size_t n = 0;
    for (size_t i = 0; i < words; i++) n += (size_t)__builtin_popcount(bits[i]);
    return n;
}

static void allow_ends(weft_turn *t)
{
    for (size_t i = 0; i < t->dialect->n_ends; i++) allow(t, t->dialect->ends[i]);
}

/* The only id that may come, -1 if there are several; false: out of memory. */
static bool find_only(weft_turn *t, int32_t *out)
{
    const weft_delimiters *d = &t->dialect->delimiter;
    const int32_t special[] = {d->think, d->end_think, d->call, d->end_call};
    weft_error ignored;
    *out = t->forced;
    if (t->forced >= 0) return true;
    bool sigils = t->plan->syntax != WEFT_SYNTAX_JSON;
    if (weft_masker_spelling(t->plan->masker, t->dialect->tokenizer, sigils ? d->sigil : NULL,
                             sigils ? WEFT_SIGILS : 0, &t->state, out, &ignored))
        return false;
    for (size_t i = 0; *out >= 0 && i < sizeof special / sizeof *special; i++)
        if (special[i] >= 0 && delimiter_fits(t, special[i])) *out = -1;
    if (*out >= 0 && !weft_trie_has(t->dialect->trie, *out) && !sigil_of(t->dialect, *out)) *out = -1;
    return true;
}

static bool compute_mask(weft_turn *t)
{
    size_t words = weft_trie_words(t->dialect->trie);
    const weft_delimiters *d = &t->dialect->delimiter;
    int32_t only;
    if (!find_only(t, &only)) return false;
    if (only >= 0) {
        memset(t->bits, 0, words * sizeof *t->bits);
        allow(t, only);
    } else {
        const uint32_t *follows = weft_masker_allowed(t->plan->masker, &t->state);
        if (!follows) return false;
        memcpy(t->bits, follows, words * sizeof *t->bits);
        const int32_t special[] = {d->think, d->end_think, d->call, d->end_call};
        for (size_t i = 0; i < sizeof special / sizeof *special; i++)
            if (special[i] >= 0 && delimiter_fits(t, special[i])) allow(t, special[i]);
        for (size_t i = 0; i < WEFT_SIGILS; i++)
            if (d->sigil[i] >= 0 && delimiter_fits(t, d->sigil[i])) allow(t, d->sigil[i]);
        if (weft_turn_state_may_end(t->plan, &t->state)) allow_ends(t);
    }
    t->mask = (weft_mask){t->bits, count_bits(t->bits, words)};
    if (t->mask.n_allowed == 0) {
        /* the vocabulary cannot write what the schema asks for: the call ends as an error */
        allow_ends(t);
        t->mask.n_allowed = count_bits(t->bits, words);
    }
    t->mask_known = true;
    return true;
}

const weft_mask *weft_turn_mask(weft_turn *t)
{
    if (t->options.unmasked || t->ended) return NULL;
    if (!t->mask_known && !compute_mask(t)) {
        t->failed = true;
        return NULL;
    }
    return &t->mask;
}

bool weft_turn_forced(weft_turn *t, int32_t *out_id)
{
    const weft_mask *mask = weft_turn_mask(t);
    if (!mask || mask->n_allowed != 1) return false;
    size_t word = 0;
    while (!mask->allowed[word]) word++;
    *out_id = (int32_t)(32 * word) + __builtin_ctz(mask->allowed[word]);
    return true;
}

/* Whether the turn can go on with the id. That is what the mask says, but for forced text: any
 * spelling of it is accepted, so that a turn recorded elsewhere reads as what it is. */
static bool allowed(weft_turn *t, int32_t id)
{
    if (t->options.unmasked) return true;
    if (weft_tokenizer_is_end(t->dialect->tokenizer, id)) {
        if (weft_turn_state_may_end(t->plan, &t->state) && t->forced < 0) return true;
        return weft_turn_mask(t) && (t->bits[id / 32] >> (id % 32) & 1);
    }
    if (t->mask_known && (t->bits[id / 32] >> (id % 32) & 1)) return true;
    if (t->forced >= 0) return id == t->forced;
    if (is_delimiter(t, id)) return delimiter_fits(t, id);
    weft_text bytes = bytes_of(t, id);
    weft_turn_state state = t->state;
    unsigned events;
    if (!weft_trie_has(t->dialect->trie, id)) return false;
    for (size_t i = 0; i < bytes.size; i++)
        if (!weft_turn_state_step(t->plan, &state, (uint8_t)bytes.data[i], &events)) return false;
    return true;
}

/* ---- feeding ---- */

static weft_stretch *last_stretch(weft_turn *t)
{
    return &t->stretch[t->n_stretch - 1];
}

static weft_status feed_byte(weft_turn *t, uint8_t byte, weft_error *err)
{
    size_t at = t->text.size;
    unsigned events = 0;
    weft_status status = WEFT_OK;
    weft_buffer_putc(&t->text, (char)byte);
    weft_turn_state_step(t->plan, &t->state, byte, &events);
    size_t mark = t->mark;
    if (events & WEFT_EVENT_MARK) t->mark = mark = at;
    if (events & WEFT_EVENT_OBJECT) t->object = at;
    if (events & WEFT_EVENT_CLOSE) {
        last_stretch(t)->body_to = mark;
    } else if (events & WEFT_EVENT_END) {
        last_stretch(t)->body_to = at + 1;
    }
    if (events & WEFT_EVENT_CALL) {
        bool has_object = t->object != SIZE_MAX && t->object >= mark;
        bool whole = t->plan->syntax != WEFT_SYNTAX_JSON; /* the delimiters are read with it */
        size_t body = whole ? mark : has_object ? t->object : at + 1;
        status = begin_stretch(t, WEFT_CALL, mark, body, err);
    } else if (events & WEFT_EVENT_PROSE) {
        status = begin_stretch(t, WEFT_ANSWER, at, at, err);
    }
    return status;
}

static weft_status feed_bytes(weft_turn *t, weft_text bytes, bool is_sigil, weft_error *err)
{
    weft_status status = WEFT_OK;
    bool sigils = t->plan->syntax != WEFT_SYNTAX_JSON && !is_sigil;
    for (size_t i = 0; i < bytes.size && !status; i++) {
        uint8_t byte = (uint8_t)bytes.data[i];
        if (sigils && byte >= WEFT_SIGIL_FIRST) byte = WEFT_NO_SIGIL;
        status = feed_byte(t, byte, err);
    }
    return status ? status : weft_buffer_ok(&t->text, err);
}

static weft_status feed_think(weft_turn *t, bool open, weft_text bytes, weft_error *err)
{
    size_t at = t->text.size;
    weft_buffer_append(&t->text, bytes.data, bytes.size);
    if (open) return begin_stretch(t, WEFT_THOUGHT, at, t->text.size, err);
    weft_stretch *last = last_stretch(t);
    if (last->segment == WEFT_CALL) { /* calls inside the thought were rehearsed there */
        last->segment = WEFT_THOUGHT;
        t->rehearsed = t->n_stretch - 1;
    }
    last->body_to = at;
    return begin_stretch(t, WEFT_ANSWER, t->text.size, t->text.size, err);
}

static weft_status feed(weft_turn *t, int32_t id, weft_error *err)
{
    const weft_delimiters *d = &t->dialect->delimiter;
    weft_text bytes = bytes_of(t, id);
    bool think = id >= 0 && (id == d->think || id == d->end_think);
    if (think && weft_turn_state_think(t->plan, &t->state, id == d->think))
        return feed_think(t, id == d->think, bytes, err);
    bool tag = id >= 0 && (id == d->call || id == d->end_call);
    if (tag && t->plan->unmasked && t->state.phase == WEFT_PHASE_BODY &&
        t->state.form == WEFT_FORM_TAG) /* the token is a delimiter even inside an open string */
        t->state.quoted = t->state.escaped = t->state.marks = 0;
    return feed_bytes(t, bytes, sigil_of(t->dialect, id) != 0, err);
}

/* Counts the token and applies what hangs on counts. */
static weft_status apply_budget(weft_turn *t, uint8_t phase_before, weft_error *err)
{
    int64_t budget = t->options.think_budget;
    t->forced = NOWHERE;
    if (t->options.unmasked) return WEFT_OK;
    if (t->state.phase == WEFT_PHASE_THINK) {
        if (phase_before == WEFT_PHASE_THINK) t->n_thought++;
        if (budget > 0 && t->n_thought >= budget) t->forced = t->dialect->delimiter.end_think;
        return WEFT_OK;
    }
    if (t->state.phase != WEFT_PHASE_PROSE || t->options.choice != WEFT_CHOICE_REQUIRED)
        return WEFT_OK;
    if (phase_before == WEFT_PHASE_PROSE) t->n_prose++;
    bool used_up =
        budget > 0 ? t->n_prose + t->n_thought >= budget : t->n_prose >= WEFT_REQUIRED_PROSE;
    if (!used_up || t->state.must) return WEFT_OK;
    weft_turn_state_demand(t->plan, &t->state);
    if (t->state.phase == WEFT_PHASE_LEAD)
        return begin_stretch(t, WEFT_CALL, t->mark, t->text.size, err);
    return WEFT_OK;
}

/* ---- what becomes visible ---- */

/* The first byte that cannot be copied as it is; n if none. */
static size_t first_special(const weft_dialect *dialect, const char *bytes, size_t n)
{
    bool sigils = dialect->family->syntax != WEFT_SYNTAX_JSON;
    for (size_t i = 0; i < n; i++)
        if (!bytes[i] || (sigils && (uint8_t)bytes[i] >= WEFT_SIGIL_FIRST)) return i;
    return n;
}

void weft_turn_clean(const weft_dialect *dialect, const char *bytes, size_t n, weft_buffer *out)
{
    while (n) {
        size_t piece = first_special(dialect, bytes, n);
        weft_utf8_scrub(bytes, piece, out);
        if (piece == n) return;
        if (bytes[piece]) {
            int32_t id = dialect->delimiter.sigil[(uint8_t)bytes[piece] - WEFT_SIGIL_FIRST];
            weft_text text = weft_tokenizer_bytes(dialect->tokenizer, id, true);
            weft_buffer_append(out, text.data, text.size);
        } else {
            weft_buffer_puts(out, "\xef\xbf\xbd");
        }
        bytes += piece + 1;
        n -= piece + 1;
    }
}

/* n without the beginning of a character at its end. */
static size_t whole_characters(const char *bytes, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        uint8_t byte = (uint8_t)bytes[n - back];
        if (byte < 0x80) break;
        if (byte < 0xc0) continue;
        if (byte >= 0xf8) break;
        size_t want = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
        return want > back ? n - back : n;
    }
    return n;
}

/* How far the stretch can be shown. */
static size_t visible_end(const weft_turn *t, size_t index)
{
    const weft_stretch *s = &t->stretch[index];
    if (s->body_to != SIZE_MAX) return s->body_to;
    if (index + 1 < t->n_stretch) return t->stretch[index + 1].from;
    bool held = !t->ended && s->segment != WEFT_THOUGHT && weft_turn_state_open(&t->state);
    size_t end = held && t->mark < t->text.size ? t->mark : t->text.size;
    return t->ended || end <= s->body_from
               ? end
               : s->body_from + whole_characters(t->text.data + s->body_from, end - s->body_from);
}

static weft_segment visible_label(const weft_turn *t, const weft_stretch *s)
{
    if (s->segment != WEFT_ANSWER) return s->segment;
    return t->plan->n == 0 || weft_choice_is_callless(t->options.choice) ? WEFT_ANSWER : WEFT_THOUGHT;
}

static void bring_out(weft_turn *t, weft_turn_delta *out)
{
    weft_buffer_clear(&t->delta);
    for (; t->shown_stretch < t->n_stretch; t->shown_stretch++) {
        const weft_stretch *s = &t->stretch[t->shown_stretch];
        size_t end = visible_end(t, t->shown_stretch);
        if (t->shown < s->body_from) t->shown = s->body_from;
        bool framed = s->segment != WEFT_ANSWER || t->shown_stretch > 0;
        while (framed && t->shown == s->body_from && t->shown < end &&
               t->text.data[t->shown] == '\n')
            t->stretch[t->shown_stretch].body_from = ++t->shown;
        if (t->shown < end) {
            out->segment = visible_label(t, s);
            weft_turn_clean(t->dialect, t->text.data + t->shown, end - t->shown, &t->delta);
            t->shown = end;
            return;
        }
        if (t->shown_stretch + 1 == t->n_stretch) return;
    }
}

static weft_status remember(weft_turn *t, int32_t id, weft_error *err)
{
    if (t->n == t->capacity) {
        size_t more = t->capacity ? 2 * t->capacity : 256;
        int32_t *ids = realloc(t->ids, more * sizeof *ids);
        if (ids) t->ids = ids;
        size_t *ends = realloc(t->token_end, more * sizeof *ends);
        if (ends) t->token_end = ends;
        if (!ids || !ends) return weft_fail(err, WEFT_E_MEMORY, "follow the turn: out of memory");
        t->capacity = more;
    }
    t->ids[t->n++] = id;
    return WEFT_OK;
}

weft_status weft_turn_accept(weft_turn *t, int32_t id, weft_turn_delta *out, weft_error *err)
{
    if (t->ended) return weft_fail(err, WEFT_E_INVALID, "token %d: the turn has ended", (int)id);
    if (!in_vocabulary(t, id))
        return weft_fail(err, WEFT_E_INVALID, "token %d: not in the vocabulary", (int)id);
    bool fits = allowed(t, id);
    if (t->failed) return weft_fail(err, WEFT_E_MEMORY, "compute the token mask: out of memory");
    if (!fits)
        return weft_fail(err, WEFT_E_INVALID,
                         "token %d: the mask of the turn does not allow it at position %zu",
                         (int)id, t->n);
    weft_status status = remember(t, id, err);
    if (status) return status;
    size_t calls = 0, calls_before = 0;
    for (size_t i = 0; i < t->n_stretch; i++)
        calls_before += t->stretch[i].segment == WEFT_CALL && t->stretch[i].body_to != SIZE_MAX;
    t->mask_known = false;
    if (weft_tokenizer_is_end(t->dialect->tokenizer, id)) {
        t->ended = true;
    } else {
        uint8_t phase = t->state.phase;
        status = feed(t, id, err);
        if (!status) status = apply_budget(t, phase, err);
    }
    t->token_end[t->n - 1] = t->text.size;
    if (status) {
        t->failed = true;
        return status;
    }
    for (size_t i = 0; i < t->n_stretch; i++)
        calls += t->stretch[i].segment == WEFT_CALL && t->stretch[i].body_to != SIZE_MAX;
    weft_turn_delta delta = {visible_label(t, last_stretch(t)), "", calls > calls_before, t->ended};
    bring_out(t, &delta);
    if ((status = weft_buffer_ok(&t->delta, err))) return status;
    delta.text = weft_buffer_str(&t->delta);
    *out = delta;
    return WEFT_OK;
}

weft_status weft_turn_finish(weft_turn *t, const weft_turn_result **out, weft_error *err)
{
    if (!t->segment && !t->call) {
        weft_status status = weft_turn_conclude(t, err);
        if (status) return status;
    }
    *out = &t->result;
    return WEFT_OK;
}
