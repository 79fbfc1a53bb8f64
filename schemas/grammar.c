/* Grammars: the public constructors, and the machine at work.
 *
 * A step is one look-up in the row of the innermost frame, and at most one more: a number learns
 * that it is over from the byte after it. It costs some 10 ns, whatever the schema. The depth check
 * keeps the promise that no state is a dead end: a byte is refused if every completion after it
 * would need more than WEFT_GRAMMAR_DEPTH frames.
 */
#include "schemas/automaton.h"

#include <stdlib.h>
#include <string.h>

struct weft_grammar {
    automaton machine;
};

/* ---- at work ---- */

void weft_grammar_begin(const weft_grammar *grammar, weft_grammar_state *state)
{
    state->depth = 1;
    state->count = 0;
    state->frame[0] = grammar->machine.begin;
}

static uint32_t target_of(const automaton *a, uint32_t state, uint8_t byte)
{
    return a->rows[(size_t)state * a->n_classes + a->class_of[byte]];
}

/* Where the state that waits goes on after the result. */
static uint16_t return_to(const automaton *a, uint16_t waiting, uint32_t result)
{
    return a->returns[a->states[waiting].returns + result];
}

/* Applies the byte to the counter; false if a length or an indent would leave its bounds. */
static bool count_byte(const automaton_state *from, uint8_t byte, uint32_t *count)
{
    if (from->indents) {
        if (byte != ' ') return true;
        return (*count)++ < INDENT_MAX;
    }
    if (!from->counts) return true;
    if (byte == '"') return *count >= from->count_min;
    if (*count >= from->count_max) return false;
    if (*count < from->count_cap) ++*count;
    return true;
}

bool weft_grammar_step(const weft_grammar *grammar, weft_grammar_state *state, uint8_t byte)
{
    const automaton *a = &grammar->machine;
    uint32_t depth = state->depth, count = state->count;
    if (!depth) return false;
    uint16_t top = state->frame[depth - 1];
    uint32_t target = target_of(a, top, byte);
    if (!target) {
        if (!a->states[top].accepts || depth == 1) return false;
        depth--;
        top = return_to(a, state->frame[depth - 1], a->states[top].accepts - 1u);
        target = target_of(a, top, byte);
        if (!target) return false;
        count = 0;
    }
    const automaton_state *from = &a->states[top];
    if (!count_byte(from, byte, &count)) return false;
    if (target & TARGET_POP) {
        depth--;
        if (depth)
            state->frame[depth - 1] = return_to(a, state->frame[depth - 1], target & TARGET_STATE);
        state->count = 0;
        state->depth = (uint16_t)depth;
        return true;
    }
    const uint16_t to = target & TARGET_STATE;
    const uint32_t deeper = depth + ((target & TARGET_PUSH) != 0);
    if (deeper + a->max_need > WEFT_GRAMMAR_DEPTH) {
        if (deeper + a->states[to].need > WEFT_GRAMMAR_DEPTH) return false;
        if (deeper > depth && depth + from->return_need > WEFT_GRAMMAR_DEPTH) return false;
    }
    state->frame[depth - 1] = top;
    state->frame[deeper - 1] = to;
    state->depth = (uint16_t)deeper;
    state->count = a->states[to].keeps && deeper == depth ? (uint16_t)count : 0;
    return true;
}

bool weft_grammar_done(const weft_grammar *grammar, const weft_grammar_state *state)
{
    if (!state->depth) return true;
    return state->depth == 1 && grammar->machine.states[state->frame[0]].accepts;
}

uint64_t weft_grammar_state_hash(const weft_grammar_state *state)
{
    uint64_t h = ((uint64_t)state->depth << 16 | state->count) * 0x9e3779b97f4a7c15;
    for (uint32_t i = 0; i < state->depth; i++) {
        h = (h ^ state->frame[i]) * 0xff51afd7ed558ccd;
        h ^= h >> 32;
    }
    return h;
}

bool weft_grammar_state_equal(const weft_grammar_state *a, const weft_grammar_state *b)
{
    return a->depth == b->depth && a->count == b->count &&
           memcmp(a->frame, b->frame, a->depth * sizeof *a->frame) == 0;
}

/* ---- construction ---- */

void weft_grammar_free(weft_grammar *grammar)
{
    if (!grammar) return;
    automaton_free(&grammar->machine);
    free(grammar);
}

/* Takes finished shapes to a grammar. */
static weft_status build(const shapes *s, uint32_t root, weft_grammar **out, weft_error *err)
{
    if (!s->values[root].live)
        return weft_fail(err, WEFT_E_INVALID, "grammar: no JSON value conforms to the schema");
    weft_grammar *g = calloc(1, sizeof *g);
    if (!g) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    weft_status status = automaton_build(s, root, &g->machine, err);
    if (!status && g->machine.states[g->machine.begin].need + 1 > WEFT_GRAMMAR_DEPTH)
        status = weft_fail(err, WEFT_E_LIMIT,
                           "grammar: every value of the schema is nested deeper than %d levels",
                           WEFT_GRAMMAR_DEPTH);
    if (status)
        weft_grammar_free(g);
    else
        *out = g;
    return status;
}

typedef struct request { /* names NULL: one schema; else calls */
    const weft_schema *const *schemas;
    const char *const *names;
    size_t n;
} request;

static uint32_t schema_value(shapes *s, size_t schema, bool only_object)
{
    words nodes = {0};
    if (s->schemas[schema]) words_add(&nodes, shape_node(schema, 0));
    uint32_t number = shapes_value(s, &nodes, only_object);
    words_free(&nodes);
    return number;
}

/* {"name": <names[i]>, "arguments": <an object of schemas[i]>} */
static uint32_t call_shape(shapes *s, const char *name, size_t schema, uint32_t *arguments)
{
    words members = {0};
    cJSON *text = cJSON_CreateString(name);
    if (!text) {
        shapes_fail(s, WEFT_E_MEMORY, "out of memory");
        return 0;
    }
    s->constants[s->n_constants++] = text;
    *arguments = schema_value(s, schema, true);
    words_append(&members,
                 (const uint64_t[]){shapes_text(s, "\"name\"", 6), shapes_constant(s, text), 1,
                                    shapes_text(s, "\"arguments\"", 11), *arguments, 1},
                 6);
    uint32_t number = shapes_object(s, &members, NO_VALUE);
    words_free(&members);
    return number;
}

static weft_status check_arguments(const shapes *s, const request *r, const uint32_t *arguments,
                                   weft_error *err)
{
    for (size_t i = 0; i < r->n; i++)
        if (!s->values[arguments[i]].live)
            return weft_fail(err, WEFT_E_INVALID,
                             "grammar: no object conforms to the parameters of tool %s",
                             r->names[i]);
    return WEFT_OK;
}

static weft_status try_build(const request *r, bool flat, weft_grammar **out, weft_error *err)
{
    shapes s = {.flat = flat, .err = err};
    uint32_t *arguments = calloc(r->n, sizeof *arguments), root = 0;
    words calls = {0};
    s.schemas = calloc(r->n, sizeof *s.schemas);
    s.constants = calloc(r->n, sizeof *s.constants);
    if (!arguments || !s.schemas || !s.constants) {
        shapes_fail(&s, WEFT_E_MEMORY, "out of memory");
        goto done;
    }
    s.n_schemas = r->n;
    for (size_t i = 0; i < r->n; i++) s.schemas[i] = r->schemas[i];
    if (r->names) {
        for (size_t i = 0; i < r->n && !s.status; i++)
            words_add(&calls, call_shape(&s, r->names[i], i, &arguments[i]));
        root = shapes_union(&s, &calls);
    } else {
        root = schema_value(&s, 0, false);
    }
    if (shapes_finish(&s)) goto done;
    if (r->names && (s.status = check_arguments(&s, r, arguments, err))) goto done;
    s.status = build(&s, root, out, err);
done:;
    weft_status status = s.status;
    free(arguments);
    free(s.schemas);
    words_free(&calls);
    shapes_free(&s);
    return status;
}

/* Exactly, or if that takes too many states, without telling alternative objects apart. */
static weft_status build_some(const request *r, weft_grammar **out, weft_error *err)
{
    weft_status status = try_build(r, false, out, err);
    return status == WEFT_E_LIMIT ? try_build(r, true, out, err) : status;
}

weft_status weft_grammar_of_schema(const weft_schema *schema, weft_grammar **out, weft_error *err)
{
    const request r = {&schema, NULL, 1};
    return build_some(&r, out, err);
}

weft_status weft_grammar_of_calls(const char *const *names, const weft_schema *const *schemas,
                                  size_t n, int fixed_name, weft_grammar **out, weft_error *err)
{
    if (n == 0 || (fixed_name >= 0 && (size_t)fixed_name >= n))
        return weft_fail(err, WEFT_E_INVALID, "grammar: there is no tool to call");
    request r = {schemas, names, n};
    if (fixed_name >= 0) r = (request){schemas + fixed_name, names + fixed_name, 1};
    for (size_t i = 0; i < r.n; i++)
        if (!*r.names[i] || weft_utf8_valid(r.names[i], strlen(r.names[i])) < strlen(r.names[i]))
            return weft_fail(err, WEFT_E_INVALID, "grammar: a tool's name is empty or no UTF-8");
    return build_some(&r, out, err);
}
