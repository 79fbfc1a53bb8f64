/* The subset construction with calls (automaton.h), then its encoding as tables.
 *
 * A *group* is a set of shapes that one frame reads at once; states of different groups are
 * different, since a state reports which shapes of its group fitted. For each group the results
 * seen so far and the states that wait for it are kept; every new pair of the two adds one return
 * edge, until nothing new comes up.
 */
#include "schemas/automaton.h"

#include "schemas/compile.h"
#include "schemas/item.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { ITEM_WORDS_MAX = 8 << 20, NEED_UNKNOWN = 0xffff };

typedef struct group {
    uint32_t entry; /* its first state */
    words results;  /* numbers in builder.results, by ordinal */
    words callers;  /* states that wait for it */
} group;

typedef struct builder {
    const shapes *s;
    automaton *a;
    weft_error *err;
    weft_status status;
    intern groups, results, states; /* shape sets; group + shape set; group + items */
    group *group;                   /* [n_groups] */
    size_t n_groups, group_capacity;
    size_t row_capacity;  /* states that a->rows has room for */
    uint32_t *calls;      /* [states.n] group + 1, 0 = none */
    words *return_states; /* [states.n] by ordinal of the called group's results */
    uint8_t byte_of[256]; /* a byte of each class */
    words items;          /* scratch */
} builder;

static void fail(builder *b, weft_status status)
{
    if (b->status) return;
    b->status = status == WEFT_E_MEMORY
                    ? weft_fail(b->err, status, "out of memory")
                    : weft_fail(b->err, status,
                                "grammar: the schema needs more than %d states; make it simpler",
                                STATES_MAX);
}

/* ---- byte classes ---- */

static void mark_text(bool *alone, shape_text t)
{
    for (uint32_t i = 0; i < t.n; i++) alone[(uint8_t)t.at[i]] = true;
}

/* Bytes that no item tells apart share a class: rows shrink from 256 entries to some 60. */
static void find_classes(builder *b)
{
    static const char syntax[] = "\"\\/{}[]:, \n-+.eEubfnrt0123456789abcdefABCDEF";
    static const uint8_t starts[] = {0x00, 0x20, 0x80, 0x90, 0xa0, 0xc0, 0xc2, 0xe0,
                                     0xe1, 0xed, 0xee, 0xf0, 0xf1, 0xf4, 0xf5};
    bool alone[256] = {false};
    uint32_t n = 0;
    for (const char *c = syntax; *c; c++) alone[(uint8_t)*c] = true;
    for (size_t i = 0; i < b->s->n; i++) {
        const shape *one = &b->s->all[i];
        for (uint32_t j = 0; j < one->n && one->texts; j++) mark_text(alone, one->texts[j]);
    }
    for (size_t range = 0; range < sizeof starts; range++) {
        size_t end = range + 1 < sizeof starts ? starts[range + 1] : 256;
        uint32_t shared = UINT32_MAX;
        for (size_t c = starts[range]; c < end; c++) {
            if (alone[c] || shared == UINT32_MAX) {
                if (!alone[c]) shared = n;
                b->byte_of[n] = (uint8_t)c;
                b->a->class_of[c] = (uint8_t)n++;
            } else {
                b->a->class_of[c] = (uint8_t)shared;
            }
        }
    }
    b->a->n_classes = n;
}

/* ---- states and groups ---- */

/* The number of the state with these items (sorted here) in a group; 0 after a failure. */
static uint32_t state_for(builder *b, uint32_t in_group, words *items)
{
    words key = {0};
    words_sort_unique(items);
    words_add(&key, in_group);
    words_append(&key, items->at, items->n);
    bool fresh = false;
    uint32_t number =
        key.failed || items->failed ? INTERN_FAILED : intern_put(&b->states, key.at, key.n, &fresh);
    words_free(&key);
    if (number == INTERN_FAILED) return fail(b, WEFT_E_MEMORY), 0;
    if (b->states.n > STATES_MAX || b->states.pool.n > ITEM_WORDS_MAX)
        return fail(b, WEFT_E_LIMIT), 0;
    if (!fresh || b->states.n <= b->row_capacity) return number;
    size_t wanted = b->row_capacity ? b->row_capacity * 2 : 256, old = b->row_capacity;
    uint32_t *rows = reallocarray(b->a->rows, wanted, b->a->n_classes * sizeof *rows);
    if (rows) b->a->rows = rows;
    uint32_t *calls = reallocarray(b->calls, wanted, sizeof *calls);
    if (calls) b->calls = calls;
    words *returns = reallocarray(b->return_states, wanted, sizeof *returns);
    if (returns) b->return_states = returns;
    automaton_state *states = reallocarray(b->a->states, wanted, sizeof *states);
    if (states) b->a->states = states;
    if (!rows || !calls || !returns || !states) return fail(b, WEFT_E_MEMORY), 0;
    memset(rows + old * b->a->n_classes, 0, (wanted - old) * b->a->n_classes * sizeof *rows);
    memset(calls + old, 0, (wanted - old) * sizeof *calls);
    memset(returns + old, 0, (wanted - old) * sizeof *returns);
    memset(states + old, 0, (wanted - old) * sizeof *states);
    b->row_capacity = wanted;
    return number;
}

/* The group that reads any of these shapes (sorted here). */
static uint32_t group_for(builder *b, words *shape_numbers)
{
    bool fresh = false;
    words_sort_unique(shape_numbers);
    uint32_t number = shape_numbers->failed
                          ? INTERN_FAILED
                          : intern_put(&b->groups, shape_numbers->at, shape_numbers->n, &fresh);
    if (number == INTERN_FAILED ||
        (fresh && !array_reserve((void **)&b->group, number, &b->group_capacity, sizeof *b->group)))
        return fail(b, WEFT_E_MEMORY), 0;
    if (!fresh) return number;
    b->group[b->n_groups++] = (group){0};
    words items = {0};
    for (size_t i = 0; i < shape_numbers->n; i++)
        words_add(&items, item_begin((uint32_t)shape_numbers->at[i]));
    uint32_t entry = state_for(b, number, &items);
    b->group[number].entry = entry;
    words_free(&items);
    return number;
}

/* The items of a state, copied: the pool may move. items->at[0] is the group. */
static void copy_items(const builder *b, uint32_t state, words *items)
{
    size_t n;
    const uint64_t *at = intern_get(&b->states, state, &n);
    items->n = 0;
    words_append(items, at, n);
}

/* ---- returns ---- */

static bool value_has(const value *v, const uint64_t *shape_numbers, size_t n)
{
    for (uint32_t i = 0; i < v->n; i++)
        for (size_t j = 0; j < n; j++)
            if (v->shapes[i] == shape_numbers[j]) return true;
    return false;
}

/* `state` waits for a value, and these shapes fitted: where it goes on. */
static void add_return(builder *b, uint32_t state, uint64_t result)
{
    words items = {0}, fitted = {0}, next = {0};
    size_t n;
    const uint64_t *at = intern_get(&b->results, (uint32_t)result, &n);
    words_append(&fitted, at + 1, n - 1);
    copy_items(b, state, &items);
    for (size_t i = 1; i < items.n; i++) {
        uint32_t called;
        item after;
        if (item_call(b->s, items.at[i], &called, &after) &&
            value_has(&b->s->values[called], fitted.at, fitted.n))
            words_add(&next, after);
    }
    if (items.failed || fitted.failed) fail(b, WEFT_E_MEMORY);
    if (!b->status) {
        uint32_t target = state_for(b, (uint32_t)items.at[0], &next);
        words_add(&b->return_states[state], target);
        if (b->return_states[state].failed) fail(b, WEFT_E_MEMORY);
    }
    words_free(&items);
    words_free(&fitted);
    words_free(&next);
}

static void add_result(builder *b, uint32_t in_group, uint32_t state, words *fitted)
{
    words key = {0};
    bool fresh = false;
    words_sort_unique(fitted);
    words_add(&key, in_group);
    words_append(&key, fitted->at, fitted->n);
    uint32_t number = key.failed || fitted->failed ? INTERN_FAILED
                                                   : intern_put(&b->results, key.at, key.n, &fresh);
    words_free(&key);
    if (number == INTERN_FAILED) {
        fail(b, WEFT_E_MEMORY);
        return;
    }
    words *known = &b->group[in_group].results;
    if (fresh) words_add(known, number);
    size_t ordinal = 0;
    while (ordinal < known->n && known->at[ordinal] != number) ordinal++;
    if (known->failed || ordinal >= STATES_MAX) {
        fail(b, known->failed ? WEFT_E_MEMORY : WEFT_E_LIMIT);
        return;
    }
    b->a->states[state].accepts = (uint16_t)(ordinal + 1);
    const words *callers = &b->group[in_group].callers;
    for (size_t i = 0; fresh && i < callers->n && !b->status; i++)
        add_return(b, (uint32_t)b->group[in_group].callers.at[i], number);
}

static void add_call(builder *b, uint32_t state, words *called_shapes)
{
    uint32_t called = group_for(b, called_shapes);
    if (b->status) return;
    b->calls[state] = called + 1;
    words_add(&b->group[called].callers, state);
    if (b->group[called].callers.failed) fail(b, WEFT_E_MEMORY);
    for (size_t i = 0; i < b->group[called].results.n && !b->status; i++)
        add_return(b, state, b->group[called].results.at[i]);
}

/* ---- exploring ---- */

/* How the counter behaves in a state: the union over its items. */
static void find_counting(const builder *b, const words *items, automaton_state *out)
{
    bool literal = false;
    out->count_min = NO_LIMIT;
    for (size_t i = 1; i < items->n; i++) {
        item it = items->at[i];
        bool between = false;
        literal |= item_in_literal(it);
        if (item_in_indent(it)) out->indents = out->keeps = true;
        if (!item_in_string(b->s, it, &between)) continue;
        const shape *one = &b->s->all[item_shape(it)];
        uint16_t cap = (uint16_t)(one->max == NO_LIMIT ? one->min : one->max);
        out->keeps = true;
        out->counts |= between;
        if (cap > out->count_cap) out->count_cap = cap;
        if (one->min < out->count_min) out->count_min = (uint16_t)one->min;
        if (one->max > out->count_max) out->count_max = (uint16_t)one->max;
    }
    /* an uncounted string or a literal beside counted ones: nothing can be refused by length here
     */
    for (size_t i = 1; i < items->n; i++) {
        bool between;
        const shape *one = &b->s->all[item_shape(items->at[i])];
        if (one->kind == SHAPE_STRING && !item_in_string(b->s, items->at[i], &between))
            literal = true;
    }
    if (literal || !out->counts) {
        out->count_min = 0;
        out->count_max = NO_LIMIT;
    }
}

static void explore(builder *b, uint32_t state)
{
    words items = {0}, called_shapes = {0}, fitted = {0};
    copy_items(b, state, &items);
    if (items.failed) {
        fail(b, WEFT_E_MEMORY);
        return;
    }
    const uint32_t in_group = (uint32_t)items.at[0];
    find_counting(b, &items, &b->a->states[state]);
    for (uint32_t c = 0; c < b->a->n_classes && !b->status; c++) {
        b->items.n = 0;
        for (size_t i = 1; i < items.n; i++) item_step(b->s, items.at[i], b->byte_of[c], &b->items);
        if (!b->items.n) continue;
        uint32_t target = state_for(b, in_group, &b->items);
        b->a->rows[state * b->a->n_classes + c] = TARGET_VALID | target;
    }
    for (size_t i = 1; i < items.n; i++) {
        uint32_t called;
        item after;
        if (item_accepts(b->s, items.at[i])) words_add(&fitted, item_shape(items.at[i]));
        if (!item_call(b->s, items.at[i], &called, &after)) continue;
        const value *v = &b->s->values[called];
        for (uint32_t j = 0; j < v->n; j++)
            if (b->s->all[v->shapes[j]].live) words_add(&called_shapes, v->shapes[j]);
    }
    if (fitted.n && !b->status) add_result(b, in_group, state, &fitted);
    if (called_shapes.n && !b->status) add_call(b, state, &called_shapes);
    words_free(&items);
    words_free(&called_shapes);
    words_free(&fitted);
}

/* ---- tables ---- */

/* Bytes that begin a called value lead from the waiting state into its frame. */
static void put_calls(builder *b)
{
    const uint32_t n = b->a->n_classes;
    for (size_t i = 0; i < b->states.n; i++) {
        if (!b->calls[i]) continue;
        const uint32_t *entry = b->a->rows + (size_t)b->group[b->calls[i] - 1].entry * n;
        uint32_t *row = b->a->rows + i * n;
        for (uint32_t c = 0; c < n; c++)
            if (entry[c]) row[c] = entry[c] | TARGET_PUSH;
    }
}

/* The frames that the easiest completion takes from a state, given what is known of the others. */
static uint16_t need_of(const builder *b, size_t state)
{
    const automaton *a = b->a;
    uint16_t best = NEED_UNKNOWN;
    if (a->states[state].accepts) return 0;
    for (uint32_t c = 0; c < a->n_classes; c++) {
        uint32_t target = a->rows[state * a->n_classes + c];
        if (!target) continue;
        uint16_t need = a->states[target & TARGET_STATE].need;
        if (target & TARGET_PUSH) {
            if (need != NEED_UNKNOWN) need++;
            if (a->states[state].return_need > need) need = a->states[state].return_need;
        }
        if (need < best) best = need;
    }
    return best;
}

static uint16_t return_need_of(const builder *b, size_t state)
{
    uint16_t worst = b->calls[state] && !b->return_states[state].n ? NEED_UNKNOWN : 0;
    for (size_t i = 0; i < b->return_states[state].n; i++) {
        uint16_t need = b->a->states[b->return_states[state].at[i]].need;
        if (need > worst) worst = need;
    }
    return worst;
}

/* From "unknown" downwards to a fixed point. */
static void find_needs(builder *b)
{
    automaton *a = b->a;
    for (size_t i = 0; i < a->n; i++) a->states[i].need = a->states[i].return_need = NEED_UNKNOWN;
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = a->n; i-- > 0;) {
            uint16_t after = return_need_of(b, i);
            changed |= after != a->states[i].return_need;
            a->states[i].return_need = after;
            uint16_t need = need_of(b, i);
            changed |= need != a->states[i].need;
            a->states[i].need = need;
        }
    }
    for (size_t i = 0; i < a->n; i++) {
        assert(a->states[i].need != NEED_UNKNOWN); /* else a dead end: shapes_finish let it live */
        if (a->states[i].need > a->max_need) a->max_need = a->states[i].need;
        if (a->states[i].return_need > a->max_need) a->max_need = a->states[i].return_need;
    }
}

/* A state that accepts and has no byte of its own is not entered: the frame closes at once. */
static void put_pops(builder *b)
{
    automaton *a = b->a;
    bool *closed = calloc(a->n + 1, sizeof *closed);
    if (!closed) {
        fail(b, WEFT_E_MEMORY);
        return;
    }
    for (size_t i = 0; i < a->n; i++) {
        closed[i] = a->states[i].accepts != 0;
        for (uint32_t c = 0; c < a->n_classes; c++)
            if (a->rows[i * a->n_classes + c]) closed[i] = false;
    }
    for (size_t i = 0; i < a->n * a->n_classes; i++) {
        uint32_t t = a->rows[i];
        if (!t || (t & TARGET_PUSH) || !closed[t & TARGET_STATE]) continue;
        a->rows[i] = TARGET_VALID | TARGET_POP | (a->states[t & TARGET_STATE].accepts - 1u);
    }
    free(closed);
}

static void put_returns(builder *b)
{
    automaton *a = b->a;
    size_t total = 0;
    for (size_t i = 0; i < a->n; i++) total += b->return_states[i].n;
    a->returns = calloc(total + 1, sizeof *a->returns);
    if (!a->returns || total > UINT32_MAX) {
        fail(b, WEFT_E_MEMORY);
        return;
    }
    size_t at = 0;
    for (size_t i = 0; i < a->n; i++) {
        a->states[i].returns = (uint32_t)at;
        for (size_t j = 0; j < b->return_states[i].n; j++)
            a->returns[at++] = (uint16_t)b->return_states[i].at[j];
    }
}

/* ---- the whole ---- */

void automaton_free(automaton *a)
{
    free(a->states);
    free(a->rows);
    free(a->returns);
    *a = (automaton){0};
}

static void builder_free(builder *b)
{
    for (size_t i = 0; i < b->n_groups; i++) {
        words_free(&b->group[i].results);
        words_free(&b->group[i].callers);
    }
    for (size_t i = 0; i < b->row_capacity; i++) words_free(&b->return_states[i]);
    free(b->group);
    free(b->calls);
    free(b->return_states);
    words_free(&b->items);
    intern_free(&b->groups);
    intern_free(&b->results);
    intern_free(&b->states);
}

weft_status automaton_build(const shapes *s, uint32_t root, automaton *out, weft_error *err)
{
    automaton a = {0};
    builder b = {.s = s, .a = &a, .err = err};
    words first = {0};
    find_classes(&b);
    for (uint32_t i = 0; i < s->values[root].n; i++)
        if (s->all[s->values[root].shapes[i]].live) words_add(&first, s->values[root].shapes[i]);
    uint32_t start = group_for(&b, &first);
    for (uint32_t i = 0; i < b.states.n && !b.status; i++) explore(&b, i);
    a.n = b.states.n;
    if (!b.status) {
        a.begin = (uint16_t)b.group[start].entry;
        put_calls(&b);
        find_needs(&b);
        put_pops(&b);
        put_returns(&b);
    }
    weft_status status = b.status;
    builder_free(&b);
    words_free(&first);
    if (status)
        automaton_free(&a);
    else
        *out = a;
    return status;
}
