/* Benchmark: what a mask costs at the places of a turn, for the first time and again. Argument: a
 * model's name as in vocab.h; without one, the largest vocabulary at hand. */
#include "tests/engine/turn_test.h"

static const struct {
    const char *place, *text;
} places[] = {
    {"prose, line start", ""},
    {"prose, mid line", "Let me see"},
    {"call, before the name", "<tool_call>\n{\"name\": \""},
    {"string", "<tool_call>\n{\"name\": \"calculator\", \"arguments\": {\"expression\": \"1"},
    {"string, one longer",
     "<tool_call>\n{\"name\": \"calculator\", \"arguments\": {\"expression\": \"1+"},
    {"counted string", "<tool_call>\n{\"name\": \"file_write\", \"arguments\": {\"path\": \"a"},
    {"counted string, one longer",
     "<tool_call>\n{\"name\": \"file_write\", \"arguments\": {\"path\": \"ab"},
    {"integer", "<tool_call>\n{\"name\": \"file_write\", \"arguments\": {\"path\": \"a\", "
                "\"lines\": [], \"size\": 1"},
    {"after the call", "<tool_call>\n{\"name\": \"next_item\", \"arguments\": {}}\n"},
};

static double mask_us(weft_turn *turn)
{
    int64_t from = weft_monotonic_ns();
    turn->mask_known = false;
    if (!weft_turn_mask(turn)) return -1;
    return (double)(weft_monotonic_ns() - from) / 1000;
}

enum { N_PLACES = sizeof places / sizeof *places, ROUNDS = 9 };

typedef struct cost {
    double first_us, again_us; /* least of all rounds */
    size_t allowed;
} cost;

static void measure(const vocab *v, const weft_turn_options *options, size_t place, cost *best)
{
    size_t n = 0;
    weft_turn *turn = NULL;
    int32_t *ids = spell(v, places[place].text, AS_TOKENS, &n);
    CHECK(weft_turn_begin(&turn, v->dialect, options, err));
    if (feed_ids(turn, ids, n, NULL) != n) fail_msg("%s: refused", places[place].place);
    double first = mask_us(turn), again = mask_us(turn);
    if (first < best->first_us) best->first_us = first;
    if (again < best->again_us) best->again_us = again;
    best->allowed = turn->mask.n_allowed;
    weft_turn_free(turn);
    free(ids);
}

int main(int argc, char **argv)
{
    vocab v;
    tools t;
    cost best[N_PLACES];
    if (argc > 1 ? !vocab_open(&v, argv[1])
                 : !vocab_open(&v, "qwen2.5-coder-1.5b") && !vocab_open(&v, TINY))
        return 1;
    tools_open(&t);
    weft_turn_options o = {.tools = t.list, .n_tools = 3};
    weft_turn *turn = NULL;
    int64_t from = weft_monotonic_ns();
    CHECK(weft_turn_begin(&turn, v.dialect, &o, err));
    printf("%zu tokens, %zu trie nodes; first turn begins in %.1f ms (index and grammar)\n",
           weft_tokenizer_size(v.tokenizer), weft_trie_nodes(v.dialect->trie),
           (double)(weft_monotonic_ns() - from) / 1e6);
    weft_turn_free(turn);
    printf("%-30s %10s %12s %12s\n", "place", "allowed", "first us", "again us");
    for (size_t i = 0; i < N_PLACES; i++) best[i] = (cost){1e9, 1e9, 0};
    for (int round = 0; round < ROUNDS; round++) {
        weft_dialect_forget(v.dialect);
        for (size_t i = 0; i < N_PLACES; i++) measure(&v, &o, i, &best[i]);
    }
    for (size_t i = 0; i < N_PLACES; i++)
        printf("%-30s %10zu %12.0f %12.1f\n", places[i].place, best[i].allowed, best[i].first_us,
               best[i].again_us);
    tools_close(&t);
    vocab_close(&v);
    return 0;
}
