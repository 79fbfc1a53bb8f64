/* Benchmark: what the grammar costs a sampled token. First at single places of a turn, for the first
 * time and again; then over whole turns as the 1.5B writes them, with the manifests of schemas/tools
 * and the sampler: mean, 99th percentile and worst token, in a fresh dialect and in a warm one.
 * Argument: a model's name as in vocab.h; without one, the largest vocabulary at hand. "dsml": turns of
 * DeepSeek's dialect with a thought before the call, over its own vocabulary, as dsml_test.h writes them. */
#include "engine/sample.h"
#include "tests/engine/dsml_test.h"

typedef struct scene {
    const char *place, *text;
} scene;

static const scene json_places[] = {
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

#define DSML_OPEN "</think>\n\n<~function_calls>\n<~invoke name=\""
#define DSML_TEXT(key) "<~parameter name=\"" key "\" string=\"true\">"
#define DSML_JSON(key) "<~parameter name=\"" key "\" string=\"false\">"
#define DSML_SHUT "</~parameter>\n"
#define DSML_END "</~invoke>\n</~function_calls>"

static const scene dsml_places[] = {
    {"thought, line start", ""},
    {"thought, mid line", "Let me see"},
    {"prose, line start", "</think>"},
    {"prose, mid line", "</think>Let me see"},
    {"call, before the name", DSML_OPEN},
    {"text", DSML_OPEN "calculator\">\n" DSML_TEXT("expression") "1"},
    {"text, one longer", DSML_OPEN "calculator\">\n" DSML_TEXT("expression") "1+"},
    {"counted text", DSML_OPEN "file_write\">\n" DSML_TEXT("path") "a"},
    {"counted text, one longer", DSML_OPEN "file_write\">\n" DSML_TEXT("path") "ab"},
    {"string in JSON", DSML_OPEN "file_write\">\n" DSML_TEXT("path") "a" DSML_SHUT DSML_JSON("lines") "[\"a"},
    {"integer", (DSML_OPEN "file_write\">\n" DSML_TEXT("path") "a" DSML_SHUT DSML_JSON("lines") "[]" DSML_SHUT
                 DSML_JSON("size") "1")},
    {"after the call", DSML_OPEN "next_item\">\n\n</~invoke>\n"},
};

static double mask_us(weft_turn *turn)
{
    int64_t from = weft_monotonic_ns();
    turn->mask_known = false;
    if (!weft_turn_mask(turn)) return -1;
    return (double)(weft_monotonic_ns() - from) / 1000;
}

enum { MAX_PLACES = 16, ROUNDS = 9 };

typedef struct cost {
    double first_us, again_us; /* least of all rounds */
    size_t allowed;
} cost;

/* ---- whole turns ---- */

static const char *const json_turns[] = {
    "```json\n{\n  \"name\": \"calculator\",\n  \"arguments\": {\n    \"expression\": \"129.50 * "
    "4 + 129.50 * 4 * 0.12\"\n  }\n}\n```",
    "```json\n{\n  \"name\": \"web_search\",\n  \"arguments\": {\n    \"query\": \"price per nigh"
    "t hotel seaview\",\n    \"max_results\": 5\n  }\n}\n```",
    "```json\n{\n  \"name\": \"code_run\",\n  \"arguments\": {\n    \"language\": \"python\",\n  "
    "  \"code\": \"def fibonacci(n):\\n    a, b = 0, 1\\n    for _ in range(n):\\n        a, b = "
    "b, a + b\\n    return a\\nprint(fibonacci(20))\",\n    \"stdin\": \"\"\n  }\n}\n```",
    "```json\n{\n  \"name\": \"write_file\",\n  \"arguments\": {\n    \"path\": \"price.txt\",\n "
    "   \"content\": \"137 euros per night in the summer season. Breakfast is included. Check-in "
    "from three in the afternoon.\"\n  }\n}\n```",
    "```json\n{\n  \"name\": \"read_file\",\n  \"arguments\": {\n    \"path\": \"price.txt\",\n  "
    "  \"first_line\": 1,\n    \"max_lines\": 1\n  }\n}\n```",
    "<tool_call>\n{\"name\": \"calculator\", \"arguments\": {\"expression\": \"2^10\"}}\n</tool_c"
    "all>",
    "The price per night of Hotel Seaview is 137 euros, and the price per night of Hotel Fjordgar"
    "d is 124 euros. Three nights in Hotel Seaview cost 39 euros more than three nights in Hotel "
    "Fjordgard.",
};

static const char *const dsml_turns[] = {
    ("I need 12 percent of the price of four nights, then the sum.\n" DSML_OPEN "calculator\">\n"
     DSML_TEXT("expression") "129.50 * 4 + 129.50 * 4 * 0.12" DSML_SHUT DSML_END),
    ("The price is in the documents; let me search for it.\n" DSML_OPEN "web_search\">\n"
     DSML_TEXT("query") "price per night hotel seaview" DSML_SHUT
     DSML_JSON("max_results") "5" DSML_SHUT DSML_END),
    ("A short program is the safest way.</think>I will compute it.\n\n<~function_calls>\n"
     "<~invoke name=\"code_run\">\n" DSML_TEXT("language") "python" DSML_SHUT DSML_TEXT("code")
     "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n"
     "    return a\nprint(fibonacci(20))" DSML_SHUT DSML_TEXT("stdin") "" DSML_SHUT DSML_END),
    ("Both files are wanted, so two calls at once.\n" DSML_OPEN "write_file\">\n"
     DSML_TEXT("path") "price.txt" DSML_SHUT DSML_TEXT("content")
     "137 euros per night in the summer season. Breakfast is included. Check-in from three in the "
     "afternoon." DSML_SHUT "</~invoke>\n<~invoke name=\"read_file\">\n"
     DSML_TEXT("path") "price.txt" DSML_SHUT DSML_JSON("first_line") "1" DSML_SHUT
     DSML_JSON("max_lines") "1" DSML_SHUT DSML_END),
    ("The two prices are known: 137 and 124, and 3 times 13 is 39.</think>The price per night of Hotel "
     "Seaview is 137 euros, and the price per night of Hotel Fjordgard is 124 euros. Three nights in "
     "Hotel Seaview cost 39 euros more than three nights in Hotel Fjordgard."),
};

/* ---- a dialect's places and turns ---- */

typedef struct language {
    const scene *place;
    size_t n_place;
    const char *const *turn;
    size_t n_turn;
    bool dsml; /* with marks for its tokens; a turn begins within its thought */
} language;

static const language json_language = {json_places, sizeof json_places / sizeof *json_places, json_turns,
                                       sizeof json_turns / sizeof *json_turns, false};
static const language dsml_language = {dsml_places, sizeof dsml_places / sizeof *dsml_places, dsml_turns,
                                       sizeof dsml_turns / sizeof *dsml_turns, true};

static int32_t *spelt(const language *l, const char *text, size_t *out_n)
{
    return l->dsml ? ids_with_marks(text, false, out_n) : spell(&v, text, AS_TOKENS, out_n);
}

static void measure(const language *l, const weft_turn_options *options, size_t place, cost *best)
{
    size_t n = 0;
    int32_t *ids = spelt(l, l->place[place].text, &n);
    weft_turn *turn = begin(options);
    if (feed_ids(turn, ids, n, NULL) != n) fail_msg("%s: refused", l->place[place].place);
    double first = mask_us(turn), again = mask_us(turn);
    if (first < best->first_us) best->first_us = first;
    if (again < best->again_us) best->again_us = again;
    best->allowed = turn->mask.n_allowed;
    weft_turn_free(turn);
    free(ids);
}

enum { TOOLS_MAX = 8, SAMPLES_MAX = 4096 };

typedef struct offer {
    weft_turn_tool list[TOOLS_MAX];
    cJSON *manifest[TOOLS_MAX];
    size_t n;
} offer;

static void offer_open(offer *o)
{
    static const char *const names[] = {"calculator", "code_run",  "list_files", "read_file",
                                        "web_fetch",  "web_search", "write_file"};
    *o = (offer){.n = sizeof names / sizeof *names};
    for (size_t i = 0; i < o->n; i++) {
        char relative[128];
        weft_schema *schema = NULL;
        snprintf(relative, sizeof relative, "../../schemas/tools/%s.json", names[i]);
        CHECK(weft_json_parse_file(data_path(relative), &o->manifest[i], err));
        CHECK(weft_schema_compile(cJSON_GetObjectItem(o->manifest[i], "parameters"), &schema, err));
        o->list[i] = (weft_turn_tool){names[i], schema};
    }
}

static void offer_close(offer *o)
{
    for (size_t i = 0; i < o->n; i++) {
        weft_schema_free((weft_schema *)o->list[i].schema);
        cJSON_Delete(o->manifest[i]);
    }
}

typedef struct series {
    const char *what;
    double us[SAMPLES_MAX];
    size_t n;
} series;

static int by_size(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void report(series *s)
{
    const double step_us = 27000; /* of the 1.5B on two cores */
    double sum = 0;
    qsort(s->us, s->n, sizeof *s->us, by_size);
    for (size_t i = 0; i < s->n; i++) sum += s->us[i];
    printf("%-26s %8zu %10.1f %10.1f %10.1f %9.2f %%\n", s->what, s->n, sum / (double)s->n,
           s->us[s->n * 99 / 100], s->us[s->n - 1], 100 * sum / (double)s->n / step_us);
    s->n = 0;
}

typedef struct rig {
    float *logits, *weight;
    int32_t *candidate;
    series mask, accept, greedy, sampled;
} rig;

static void lap(series *s, int64_t *from)
{
    int64_t now = weft_monotonic_ns();
    if (s->n < SAMPLES_MAX) s->us[s->n++] = (double)(now - *from) / 1000;
    *from = weft_monotonic_ns();
}

/* The id is the likeliest; whether the sampler takes it is not asked. */
static void draw_both(rig *r, const weft_mask *mask, int32_t id, int64_t *from)
{
    static const weft_sampler greedy = {0, 0, 1, 0, 1, 1}, sampler = {1, 40, 0.95, 0.05, 1, 1};
    float before = r->logits[id];
    int32_t drawn;
    weft_sample s = {.logits = r->logits, .n_vocab = weft_tokenizer_size(v.tokenizer), .sampler = &greedy,
                     .mask = mask, .weight = r->weight, .candidate = r->candidate};
    r->logits[id] = 25;
    *from = weft_monotonic_ns();
    CHECK(weft_sample_draw(&s, &drawn, NULL, err));
    lap(&r->greedy, from);
    s.sampler = &sampler;
    CHECK(weft_sample_draw(&s, &drawn, NULL, err));
    lap(&r->sampled, from);
    r->logits[id] = before;
}

static void replay(rig *r, const offer *o, const language *l, const char *text)
{
    size_t n = 0;
    weft_turn_delta delta;
    const weft_turn_options options = {.tools = o->list, .n_tools = o->n, .in_thought = l->dsml};
    int32_t *ids = spelt(l, text, &n);
    weft_turn *turn = begin(&options);
    for (size_t i = 0; i < n; i++) {
        int64_t from = weft_monotonic_ns();
        const weft_mask *mask = weft_turn_mask(turn);
        lap(&r->mask, &from);
        draw_both(r, mask, ids[i], &from);
        CHECK(weft_turn_accept(turn, ids[i], &delta, err));
        lap(&r->accept, &from);
    }
    weft_turn_free(turn);
    free(ids);
}

static void whole_turns(const language *l)
{
    static rig r = {.mask = {.what = "mask"}, .accept = {.what = "accept"}, .greedy = {.what = "draw, temperature 0"},
                    .sampled = {.what = "draw, 1, top-k, -p, min-p"}};
    offer o;
    size_t n_vocab = weft_tokenizer_size(v.tokenizer);
    r.logits = malloc(n_vocab * sizeof *r.logits);
    r.weight = malloc(n_vocab * sizeof *r.weight);
    r.candidate = malloc(n_vocab * sizeof *r.candidate);
    for (size_t i = 0; i < n_vocab; i++) r.logits[i] = (float)(20 * weft_sample_uniform(1, (int64_t)i) - 10);
    offer_open(&o);
    weft_dialect_forget(v.dialect);
    for (int warm = 0; warm < 2; warm++) {
        printf("\n%-26s %8s %10s %10s %10s %11s\n", warm ? "again" : "whole turns, first", "tokens", "mean us",
               "p99 us", "worst us", "of a step");
        for (size_t i = 0; i < l->n_turn; i++) replay(&r, &o, l, l->turn[i]);
        report(&r.mask);
        report(&r.accept);
        report(&r.greedy);
        report(&r.sampled);
    }
    weft_dialect_forget(v.dialect);
    offer_close(&o);
    free(r.logits);
    free(r.weight);
    free(r.candidate);
}

int main(int argc, char **argv)
{
    cost best[MAX_PLACES];
    const language *l = argc > 1 && strcmp(argv[1], "dsml") == 0 ? &dsml_language : &json_language;
    if (l->dsml)
        deepseek_open(&v);
    else if (argc > 1 ? !vocab_open(&v, argv[1]) : !vocab_open(&v, "qwen2.5-coder-1.5b") && !vocab_open(&v, TINY))
        return 1;
    tools_open(&t);
    const weft_turn_options o = {.tools = t.list, .n_tools = 3, .in_thought = l->dsml};
    int64_t from = weft_monotonic_ns();
    weft_turn *turn = begin(&o);
    printf("%zu tokens, %zu trie nodes; first turn begins in %.1f ms (index and grammar)\n",
           weft_tokenizer_size(v.tokenizer), weft_trie_nodes(v.dialect->trie),
           (double)(weft_monotonic_ns() - from) / 1e6);
    weft_turn_free(turn);
    printf("%-30s %10s %12s %12s\n", "place", "allowed", "first us", "again us");
    for (size_t i = 0; i < l->n_place; i++) best[i] = (cost){1e9, 1e9, 0};
    for (int round = 0; round < ROUNDS; round++) {
        weft_dialect_forget(v.dialect);
        for (size_t i = 0; i < l->n_place; i++) measure(l, &o, i, &best[i]);
    }
    for (size_t i = 0; i < l->n_place; i++)
        printf("%-30s %10zu %12.0f %12.1f\n", l->place[i].place, best[i].allowed, best[i].first_us,
               best[i].again_us);
    whole_turns(l);
    tools_close(&t);
    vocab_close(&v);
    return 0;
}
