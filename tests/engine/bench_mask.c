/* Benchmark: what a mask costs at the places of a turn, for the first time and again. Argument: a model's
 * name as in vocab.h; without one, the largest vocabulary at hand. */
#include "tests/engine/turn_test.h"

#include <time.h>

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

int main(int argc, char **argv)
{
    vocab v;
    tools t;
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
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        size_t n = 0;
        int32_t *ids = spell(&v, places[i].text, AS_TOKENS, &n);
        CHECK(weft_turn_begin(&turn, v.dialect, &o, err));
        if (feed_ids(turn, ids, n, NULL) != n) return 1;
        double first = mask_us(turn), again = mask_us(turn);
        printf("%-30s %10zu %12.0f %12.1f\n", places[i].place, turn->mask.n_allowed, first, again);
        weft_turn_free(turn);
        free(ids);
    }
    tools_close(&t);
    vocab_close(&v);
    return 0;
}
