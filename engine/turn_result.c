/* What a turn was: its stretches of text as segments of ids, and its calls.
 *
 * A segment begins with the token that holds its first byte, so that the segments cover the ids
 * without gaps; blank prose around a thought or a call belongs to its neighbour. */
#include "engine/turn.h"

#include <stdlib.h>
#include <string.h>

typedef struct span {
    size_t from, to;
} span;

static span trimmed(const weft_turn *t, span s, const char *front, const char *back)
{
    const char *text = t->text.data;
    while (s.from < s.to && text[s.from] && strchr(front, text[s.from])) s.from++;
    while (s.from < s.to && text[s.to - 1] && strchr(back, text[s.to - 1])) s.to--;
    return s;
}

/* The stretch from its first byte to the next one's. */
static span whole(const weft_turn *t, size_t index)
{
    size_t to = index + 1 < t->n_stretch ? t->stretch[index + 1].from : t->text.size;
    return (span){t->stretch[index].from, to};
}

static bool is_blank(const weft_turn *t, size_t index)
{
    span s = trimmed(t, whole(t, index), " \t\r\n", "");
    return s.from == s.to;
}

static span body_of(const weft_turn *t, size_t index)
{
    const weft_stretch *s = &t->stretch[index];
    span all = whole(t, index);
    span body = {s->body_from, s->body_to == SIZE_MAX ? all.to : s->body_to};
    if (body.from > body.to) body.from = body.to;
    if (s->segment == WEFT_CALL) return trimmed(t, body, " \t\r\n", " \t\r\n");
    if (s->segment == WEFT_THOUGHT) return trimmed(t, body, "\n", "\n");
    return trimmed(t, all, index ? "\n" : "", "");
}

static char *clean_copy(const weft_turn *t, span s)
{
    weft_buffer out = WEFT_BUFFER_INIT;
    if (s.to > s.from) weft_turn_clean(t->dialect, t->text.data + s.from, s.to - s.from, &out);
    if (out.failed) {
        weft_buffer_free(&out);
        return NULL;
    }
    return out.data ? weft_buffer_take(&out) : strdup("");
}

/* The first token with a byte past the offset. */
static size_t token_at(const weft_turn *t, size_t offset)
{
    size_t low = 0, high = t->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (t->token_end[mid] > offset) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return low;
}

static bool has_calls(const weft_turn *t)
{
    if (t->rehearsed != SIZE_MAX) return true;
    for (size_t i = 0; i < t->n_stretch; i++)
        if (t->stretch[i].segment == WEFT_CALL) return true;
    return false;
}

static weft_status add_segment(weft_turn *t, weft_segment label, size_t from, span body,
                               weft_error *err)
{
    char *text = clean_copy(t, body);
    if (!text) return weft_fail(err, WEFT_E_MEMORY, "conclude the turn: out of memory");
    weft_turn_segment *last = t->result.n_segment ? &t->segment[t->result.n_segment - 1] : NULL;
    if (last && last->from == from) { /* its token went to the next segment: so does its place */
        free((char *)last->text);
        t->result.n_segment--;
    }
    t->segment[t->result.n_segment++] = (weft_turn_segment){label, from, 0, text};
    return WEFT_OK;
}

static weft_status make_segments(weft_turn *t, weft_error *err)
{
    weft_status status = WEFT_OK;
    bool calls = has_calls(t);
    size_t answer = SIZE_MAX; /* the stretch that is the answer: the last prose */
    for (size_t i = 0; i < t->n_stretch && !calls; i++)
        if (t->stretch[i].segment == WEFT_THOUGHT) {
            answer = SIZE_MAX;
        } else if (!is_blank(t, i)) {
            answer = i;
        }
    for (size_t i = 0; i < t->n_stretch && !status; i++) {
        bool is_prose = t->stretch[i].segment == WEFT_ANSWER;
        if (is_prose && is_blank(t, i)) continue;
        weft_segment label = !is_prose     ? t->stretch[i].segment
                             : i == answer ? WEFT_ANSWER
                                           : WEFT_THOUGHT;
        span body = body_of(t, i);
        if (is_prose && label == WEFT_THOUGHT) body = trimmed(t, body, "", "\n");
        size_t first_byte = is_prose ? body.from : t->stretch[i].from;
        size_t from = t->result.n_segment ? token_at(t, first_byte) : 0;
        if (from < t->n) status = add_segment(t, label, from, body, err);
    }
    /* an ended turn without call or answer gave an empty answer: the end token's */
    if (!status && t->n && !calls && answer == SIZE_MAX && (t->ended || !t->result.n_segment))
        status = add_segment(t, WEFT_ANSWER, t->result.n_segment ? t->n - 1 : 0, (span){0, 0}, err);
    for (size_t i = 0; i < t->result.n_segment; i++)
        t->segment[i].n =
            (i + 1 < t->result.n_segment ? t->segment[i + 1].from : t->n) - t->segment[i].from;
    return status;
}

weft_turn_call *weft_turn_add_call(weft_turn *t)
{
    if (t->result.n_call == t->call_capacity) {
        size_t more = t->call_capacity ? 2 * t->call_capacity : 4;
        weft_turn_call *grown = realloc(t->call, more * sizeof *grown);
        if (!grown) return NULL;
        t->call = grown;
        t->call_capacity = more;
    }
    weft_turn_call *call = &t->call[t->result.n_call++];
    *call = (weft_turn_call){0};
    return call;
}

/* DeepSeek's formats: a region each. One inside a thought that was closed behind it was a rehearsal if
 * calls follow; if none do, the model may believe that it made them. */
static weft_status make_dsml_calls(weft_turn *t, weft_error *err)
{
    bool called = false;
    weft_status status = WEFT_OK;
    for (size_t i = 0; i < t->n_stretch && !status; i++) {
        if (t->stretch[i].segment != WEFT_CALL) continue;
        span all = whole(t, i);
        called = true;
        status = weft_dsml_read(t, t->text.data + all.from, all.to - all.from, !t->ended, err);
    }
    if (status || called || t->rehearsed == SIZE_MAX) return status;
    span all = whole(t, t->rehearsed);
    return weft_dsml_refuse(t, t->text.data + all.from, all.to - all.from,
                            "The call stood inside the thought and was not run. End the thought "
                            "with </think>, then write the call.",
                            err);
}

static weft_status make_calls(weft_turn *t, weft_error *err)
{
    if (t->plan->syntax != WEFT_SYNTAX_JSON) return make_dsml_calls(t, err);
    for (size_t i = 0; i < t->n_stretch; i++) {
        const weft_stretch *s = &t->stretch[i];
        if (s->segment != WEFT_CALL) continue;
        span body = body_of(t, i);
        weft_turn_call *call = weft_turn_add_call(t);
        if (!call) return weft_fail(err, WEFT_E_MEMORY, "conclude the turn: out of memory");
        char *raw = clean_copy(t, body);
        if (!raw) return weft_fail(err, WEFT_E_MEMORY, "conclude the turn: out of memory");
        call->raw = raw;
        weft_status status =
            weft_turn_read_call(t->plan, t->text.data + body.from, body.to - body.from,
                                s->body_to == SIZE_MAX && !t->ended, call, err);
        if (status) return status;
    }
    return WEFT_OK;
}

weft_status weft_turn_conclude(weft_turn *t, weft_error *err)
{
    weft_turn_result_free(t);
    t->segment = calloc(t->n_stretch + 1, sizeof *t->segment);
    weft_status status = t->segment ? WEFT_OK : WEFT_E_MEMORY;
    if (status) weft_fail(err, status, "conclude the turn: out of memory");
    if (!status) status = make_segments(t, err);
    if (!status) status = make_calls(t, err);
    if (status) {
        weft_turn_result_free(t);
        return status;
    }
    t->result.segment = t->segment;
    t->result.call = t->call;
    t->result.ended = t->ended;
    return WEFT_OK;
}

void weft_turn_result_free(weft_turn *t)
{
    for (size_t i = 0; t->segment && i < t->result.n_segment; i++) free((char *)t->segment[i].text);
    for (size_t i = 0; t->call && i < t->result.n_call; i++) {
        free((char *)t->call[i].name);
        free((char *)t->call[i].raw);
        free((char *)t->call[i].error);
        cJSON_Delete(t->call[i].arguments);
    }
    free(t->segment);
    free(t->call);
    t->segment = NULL;
    t->call = NULL;
    t->call_capacity = 0;
    t->result = (weft_turn_result){0};
}
