/* Plans: the grammar and the masks of one set of callable tools, kept in the dialect from turn to
 * turn.
 *
 * A plan is known by its names, the addresses of its schemas and what the options say of calls. The
 * list is short, the most recently used first; a plan that a turn holds is never dropped. */
#include "engine/turn.h"

#include <stdlib.h>
#include <string.h>

enum { PLANS_MAX = 8, TOOLS_MAX = 4096 };

static void plan_free(weft_plan *plan)
{
    for (size_t i = 0; plan->name && i < plan->n; i++) free(plan->name[i]);
    free(plan->name);
    free(plan->schema);
    weft_grammar_free(plan->grammar);
    free(plan->entry);
    weft_masker_free(plan->masker);
    free(plan);
}

static int by_name(const void *a, const void *b)
{
    const weft_turn_tool *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* The callable tools, sorted by the bytes of their names. */
static weft_status sorted_tools(const weft_turn_options *o, weft_turn_tool **out, size_t *out_n,
                                weft_error *err)
{
    size_t n = 0;
    if (o->n_tools > TOOLS_MAX)
        return weft_fail(err, WEFT_E_INVALID, "offer tools: %zu are too many; offer at most %d",
                         o->n_tools, TOOLS_MAX);
    weft_turn_tool *list = malloc((o->n_tools ? o->n_tools : 1) * sizeof *list);
    if (!list) return weft_fail(err, WEFT_E_MEMORY, "offer tools: out of memory");
    const char *only = o->choice == WEFT_CHOICE_REQUIRED ? o->only : NULL;
    for (size_t i = 0; i < o->n_tools; i++)
        if (!only || strcmp(only, o->tools[i].name) == 0) list[n++] = o->tools[i];
    if (n == 0 && o->choice == WEFT_CHOICE_REQUIRED) {
        free(list);
        return weft_fail(err, WEFT_E_INVALID,
                         "require a call: %s%s is offered; offer it or require none",
                         only ? "no tool " : "no tool", only ? only : "");
    }
    qsort(list, n, sizeof *list, by_name);
    *out = list;
    *out_n = n;
    return WEFT_OK;
}

static bool plan_is(const weft_plan *plan, const weft_turn_options *o, const weft_turn_tool *tools,
                    size_t n)
{
    if (plan->n != n || plan->choice != o->choice || plan->unmasked != o->unmasked) return false;
    for (size_t i = 0; i < n; i++)
        if (plan->schema[i] != tools[i].schema || strcmp(plan->name[i], tools[i].name) != 0)
            return false;
    return true;
}

/* The grammar's states after {"name": "NAME", for calls that only their name made calls. */
static weft_status find_entries(weft_plan *plan, weft_error *err)
{
    weft_status status = WEFT_OK;
    plan->entry = malloc(plan->n * sizeof *plan->entry);
    if (!plan->entry) return weft_fail(err, WEFT_E_MEMORY, "prepare calls: out of memory");
    for (size_t i = 0; i < plan->n && !status; i++) {
        weft_buffer head = WEFT_BUFFER_INIT;
        cJSON name = {.type = cJSON_String, .valuestring = plan->name[i]};
        weft_buffer_puts(&head, "{\"name\": ");
        weft_json_compact(&name, &head);
        status = weft_buffer_ok(&head, err);
        weft_grammar_begin(plan->grammar, &plan->entry[i]);
        for (size_t k = 0; k < head.size && !status; k++)
            if (!weft_grammar_step(plan->grammar, &plan->entry[i], (uint8_t)head.data[k]))
                status = weft_fail(err, WEFT_E_INVALID,
                                   "prepare calls: the grammar does not accept the name %s",
                                   plan->name[i]);
        weft_buffer_free(&head);
    }
    return status;
}

static weft_status plan_new(weft_plan **out, const weft_dialect *dialect, const weft_turn_options *o,
                            const weft_turn_tool *tools, size_t n, weft_error *err)
{
    weft_status status = WEFT_OK;
    weft_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return weft_fail(err, WEFT_E_MEMORY, "prepare calls: out of memory");
    plan->choice = o->choice;
    plan->unmasked = o->unmasked;
    plan->syntax = dialect->family->syntax;
    plan->n = n;
    plan->name = calloc(n ? n : 1, sizeof *plan->name);
    plan->schema = calloc(n ? n : 1, sizeof *plan->schema);
    if (!plan->name || !plan->schema) status = WEFT_E_MEMORY;
    for (size_t i = 0; i < n && !status; i++) {
        plan->schema[i] = tools[i].schema;
        plan->name[i] = strdup(tools[i].name);
        if (!plan->name[i]) status = WEFT_E_MEMORY;
    }
    if (status) weft_fail(err, status, "prepare calls: out of memory");
    if (!status && n && !plan->unmasked && !weft_choice_is_callless(plan->choice)) {
        status = weft_grammar_of_calls((const char *const *)plan->name, plan->schema, n, -1,
                                       &plan->grammar, err);
        if (!status) status = find_entries(plan, err);
    }
    if (!status && !plan->unmasked) {
        weft_machine machine = weft_turn_machine(plan);
        weft_turn_state middle; /* of a line of prose */
        weft_turn_state_begin(&middle);
        middle.line = 0;
        status = weft_masker_new(&plan->masker, dialect->trie, &machine, &middle, err);
    }
    if (status) {
        plan_free(plan);
        return status;
    }
    *out = plan;
    return WEFT_OK;
}

/* Takes the plan out of the list; it lives on while turns use it. */
static void drop(weft_plan **link)
{
    weft_plan *plan = *link;
    *link = plan->next;
    plan->next = NULL;
    plan->forgotten = true;
    if (plan->users == 0) plan_free(plan);
}

static void trim(weft_dialect *dialect)
{
    size_t n = 0;
    for (weft_plan **link = &dialect->plans; *link;) {
        if (++n > PLANS_MAX && (*link)->users == 0) {
            drop(link);
        } else {
            link = &(*link)->next;
        }
    }
}

static bool is_delimiter(const weft_dialect *d, int32_t id)
{
    const weft_delimiters *x = &d->delimiter;
    return id == x->think || id == x->end_think || id == x->call || id == x->end_call ||
           id == x->response || id == x->end_response;
}

/* Whether the token's bytes would be read as a sigil's. */
static bool has_sigil(const weft_dialect *d, int32_t id)
{
    weft_text bytes = weft_tokenizer_bytes(d->tokenizer, id, false);
    for (size_t i = 0; d->family->syntax != WEFT_SYNTAX_JSON && i < bytes.size; i++)
        if ((uint8_t)bytes.data[i] >= WEFT_SIGIL_FIRST) return true;
    return false;
}

/* What turns need of the vocabulary. */
static weft_status need_trie(weft_dialect *d, weft_error *err)
{
    size_t n_vocab = weft_tokenizer_size(d->tokenizer), n_skip = 0;
    if (d->trie) return WEFT_OK;
    int32_t *skip = malloc((n_vocab + 1) * sizeof *skip);
    free(d->ends);
    d->n_ends = 0;
    d->ends = malloc((n_vocab + 1) * sizeof *d->ends);
    weft_status status = skip && d->ends ? WEFT_OK : WEFT_E_MEMORY;
    if (status) weft_fail(err, status, "index the vocabulary: out of memory");
    for (int32_t id = 0; !status && (size_t)id < n_vocab; id++) {
        if (weft_tokenizer_is_end(d->tokenizer, id)) d->ends[d->n_ends++] = id;
        if (is_delimiter(d, id) || has_sigil(d, id)) skip[n_skip++] = id;
    }
    if (!status) status = weft_trie_new(&d->trie, d->tokenizer, skip, n_skip, err);
    free(skip);
    return status;
}

weft_status weft_plan_get(weft_plan **out, weft_dialect *dialect, const weft_turn_options *options,
                          weft_error *err)
{
    weft_turn_tool *tools = NULL;
    weft_plan *plan = NULL;
    size_t n = 0;
    weft_status status = need_trie(dialect, err);
    if (!status) status = sorted_tools(options, &tools, &n, err);
    if (status) return status;
    for (weft_plan **link = &dialect->plans; *link; link = &(*link)->next)
        if (plan_is(*link, options, tools, n)) {
            plan = *link;
            *link = plan->next;
            break;
        }
    if (!plan) status = plan_new(&plan, dialect, options, tools, n, err);
    free(tools);
    if (status) return status;
    plan->next = dialect->plans;
    dialect->plans = plan;
    plan->users++;
    trim(dialect);
    *out = plan;
    return WEFT_OK;
}

void weft_plan_release(weft_plan *plan)
{
    if (!plan) return;
    plan->users--;
    if (plan->forgotten && plan->users == 0) plan_free(plan);
}

void weft_dialect_forget(weft_dialect *dialect)
{
    while (dialect->plans) drop(&dialect->plans);
}
