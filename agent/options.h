/* The one table of verbs and options. Parsing, help, the man page and shell completions are made from
 * it, and so are the settings that environment and files may give (config.c).
 *
 * A value is kept as text with its origin; getters convert. Precedence: flag > environment WEFT_* >
 * ./weft.toml > $XDG_CONFIG_HOME/weft/weft.toml > default.
 */
#ifndef WEFT_AGENT_OPTIONS_H
#define WEFT_AGENT_OPTIONS_H

#include "base/base.h"

#include <stdio.h>

/* X(id, words, argument synopsis, summary). Words of two parts are a verb and its sub-verb. */
#define WEFT_VERBS(X)                                                                              \
    X(RUN, "run", "[TASK | - | -f FILE]", "run one task to its answer")                            \
    X(RESUME, "resume", "[RUN | --last] [TASK]",                                                   \
      "go on after a stop, a crash or a limit; with TASK, a new user turn")                        \
    X(BATCH, "batch", "FILE.jsonl", "run many tasks at once on one model; a JSON line of result for each") \
    X(FORK, "fork", "RUN --at SEQ | --last --at SEQ [TASK]",                                       \
      "a new run that shares the first SEQ events of another, and their KV")                       \
    X(TRACE_LIST, "trace list", "", "list the runs")                                               \
    X(TRACE_SHOW, "trace show", "RUN | --last", "print what happened in a run")                    \
    X(TRACE_STATS, "trace stats", "RUN | --last", "count tokens, calls and seconds of a run")      \
    X(TOOL_LIST, "tool list", "", "list the tools a run would have")                               \
    X(TOOL_SHOW, "tool show", "NAME", "print a tool's manifest")                                   \
    X(TOOL_CALL, "tool call", "NAME [ARGUMENTS]", "run one tool by hand; ARGUMENTS is a JSON object") \
    X(SANDBOX_RUN, "sandbox", "-- CMD...", "run any command under the tools' confinement")         \
    X(SANDBOX_CHECK, "sandbox check", "", "prove that the layers of the sandbox work")             \
    X(MODEL_LIST, "model list", "", "list known and installed models")                             \
    X(MODEL_PULL, "model pull", "NAME | hf:OWNER/REPO[:FILE] | URL | PATH",                        \
      "fetch a model; resumes, checks SHA-256")                                                    \
    X(MODEL_INFO, "model info", "", "describe a model file")                                       \
    X(MODEL_RM, "model rm", "NAME", "remove an installed model")                                   \
    X(MODEL_BENCH, "model bench", "", "measure prefill and decode")                                \
    X(MODEL_LOGITS, "model logits", "", "print log-probabilities or digests for given ids")        \
    X(TOKENIZE, "tokenize", "[TEXT | -]", "text to token ids, or back with --decode")              \
    X(RENDER, "render", "", "messages JSON on standard input to the dialect's exact text or ids")  \
    X(CONFIG, "config", "", "print every setting with its value and origin")                       \
    X(DOCTOR, "doctor", "", "what works here, what does not, how to mend it")                      \
    X(COMPLETION, "completion", "bash | zsh | fish", "print a shell completion script")            \
    X(MAN, "man", "", "print the man page (roff)")                                                 \
    X(HELP, "help", "[VERB]", "explain weft or one verb")

typedef enum weft_verb {
#define X(id, words, args, summary) VERB_##id,
    WEFT_VERBS(X)
#undef X
        VERB_COUNT
} weft_verb;

typedef enum weft_option_kind { KIND_FLAG, KIND_TEXT, KIND_INT, KIND_REAL, KIND_LIST } weft_option_kind;

#define V(id) (UINT64_C(1) << VERB_##id)
#define V_RUNS (V(RUN) | V(RESUME) | V(FORK))
#define V_TASKS (V(RUN) | V(BATCH)) /* begin runs from a task */
#define V_ALL_RUNS (V_RUNS | V(BATCH))
#define V_DRAWS (V_TASKS | V(FORK)) /* say how tokens are drawn */
#define V_TOOLS (V_TASKS | V(TOOL_LIST) | V(TOOL_SHOW) | V(TOOL_CALL))
#define V_MODELS (V_TASKS | V(TOKENIZE) | V(RENDER) | V(MODEL_LOGITS) | V(MODEL_BENCH) | V(MODEL_INFO) | V(DOCTOR))
#define V_ENGINE (V_ALL_RUNS | V(MODEL_LOGITS) | V(MODEL_BENCH))
#define V_TRACES (V(TRACE_LIST) | V(TRACE_SHOW) | V(TRACE_STATS))
#define V_ALL (~UINT64_C(0))

/* X(id, name, short or 0, kind, argument, verbs, setting?, default, help). A setting may also come
 * from WEFT_<NAME> and weft.toml. */
#define WEFT_OPTIONS(X)                                                                            \
    X(MODEL, "model", 'm', KIND_TEXT, "MODEL", V_MODELS, true, "qwen2.5-coder-1.5b",               \
      "known name, installed name or path of a GGUF file")                                         \
    X(ENGINE, "engine", 0, KIND_TEXT, "auto|cpu|cuda[:N,...]", V_ENGINE, true, "auto",             \
      "where the model is computed: cuda takes as many GPUs as it needs, cuda:0,1 these; auto: the CPU") \
    X(THREADS, "threads", 0, KIND_INT, "N", V_ENGINE, true, "0", "threads; 0: all cores")          \
    X(ISA, "isa", 0, KIND_TEXT, "NAME", V_ENGINE, true, "",                                        \
      "scalar, avx2, avx512 or amx; default: the best of this CPU")                                \
    X(MEMORY, "memory", 0, KIND_TEXT, "auto|SIZE", V_ENGINE | V(MODEL_INFO), true, "auto",         \
      "most that the process may hold (16G); other weights stay in the file, slower; auto: what is free")    \
    X(CTX, "ctx", 0, KIND_INT, "N", V_ENGINE, true, "0",                                           \
      "most tokens on the timeline; 0: what the model was trained for")                            \
    X(KV_TYPE, "kv-type", 0, KIND_TEXT, "f16|f32|q8_0", V_ENGINE | V(MODEL_INFO), true, "f16",     \
      "keys and values; q8_0: half the memory of f16, less exact")                          \
    X(ATTENTION, "attention", 0, KIND_TEXT, "sparse|dense", V_ENGINE, true, "sparse",               \
      "of a model with an indexer (deepseek32): to what it chooses, or to everything, to compare") \
    X(FILE, "file", 'f', KIND_TEXT, "FILE", V(RUN), false, "", "read the task from FILE")          \
    X(SYSTEM, "system", 0, KIND_TEXT, "TEXT|@FILE", V_TASKS, true, "", "system text")               \
    X(TOOLS, "tools", 0, KIND_TEXT, "a,b|all|none", V_TOOLS, true, "all",             \
      "built-in tools to offer")                                                                   \
    X(TOOL, "tool", 0, KIND_LIST, "FILE", V_TOOLS, false, "", "add a tool by its manifest") \
    X(DOCS, "docs", 0, KIND_TEXT, "DIR", V_TOOLS, true, "",                           \
      "documents that web_search looks through")                                                   \
    X(SEARXNG, "searxng", 0, KIND_TEXT, "URL", V_TOOLS, true, "",                     \
      "SearXNG server that web_search asks")                                                       \
    X(ALLOW_PRIVATE, "allow-private", 0, KIND_FLAG, "", V_TOOLS, true, "",            \
      "let web_fetch reach private and loopback addresses")                                        \
    X(WORKDIR, "workdir", 0, KIND_TEXT, "DIR", V(RUN) | V(FORK) | V(TOOL_CALL) | V(SANDBOX_RUN), false, "",   \
      "workspace of the tools (/work); default: one of the run's own, of a fork a copy")           \
    X(ATTACH, "attach", 0, KIND_LIST, "FILE", V(RUN), false, "", "copy FILE into the workspace, read-only") \
    X(DIALECT, "dialect", 0, KIND_TEXT, "NAME", V_TASKS | V(RENDER), true, "", "how turns are written") \
    X(THINK, "think", 0, KIND_TEXT, "auto|on|off", V_TASKS, true, "auto", "thinking, where the model can") \
    X(THINK_BUDGET, "think-budget", 0, KIND_INT, "N", V_TASKS, true, "0",                           \
      "most tokens of thought in a turn; 0: no limit")                                             \
    X(TOOL_CHOICE, "tool-choice", 0, KIND_TEXT, "auto|required|none|NAME", V_TASKS, true, "auto",   \
      "whether the model may, must or must not call")                                              \
    X(SEED, "seed", 0, KIND_INT, "N", V_DRAWS, true, "0", "seed of every random draw")              \
    X(TEMP, "temp", 0, KIND_REAL, "X", V_DRAWS, true, "0", "temperature; 0: the likeliest token")   \
    X(TOP_P, "top-p", 0, KIND_REAL, "X", V_DRAWS, true, "1", "nucleus; 1: off")                     \
    X(TOP_K, "top-k", 0, KIND_INT, "N", V_DRAWS, true, "0", "the N likeliest; 0: off")              \
    X(MIN_P, "min-p", 0, KIND_REAL, "X", V_DRAWS, true, "0", "least share of the likeliest; 0: off") \
    X(REPEAT_PENALTY, "repeat-penalty", 0, KIND_REAL, "X", V_DRAWS, true, "1",                      \
      "divides the logits of recent tokens; 1: off")                                               \
    X(MAX_TURNS, "max-turns", 0, KIND_INT, "N", V_ALL_RUNS, true, "100", "limit; 0: none")             \
    X(MAX_TOOL_CALLS, "max-tool-calls", 0, KIND_INT, "N", V_ALL_RUNS, true, "200", "limit; 0: none")   \
    X(MAX_TOKENS, "max-tokens", 0, KIND_INT, "N", V_ALL_RUNS, true, "0",                               \
      "sampled tokens of the whole run; 0: as the context allows")                                 \
    X(MAX_SECONDS, "max-seconds", 0, KIND_INT, "N", V_ALL_RUNS, true, "0", "limit; 0: none")           \
    X(MAX_REPEATS, "max-repeats", 0, KIND_INT, "N", V_ALL_RUNS, true, "4",                             \
      "identical calls in a row that end the run; 0: none")                                        \
    X(JOBS, "jobs", 'j', KIND_INT, "N", V(RUN), true, "1", "calls of one turn that run at once")   \
    X(AT_ONCE, "jobs", 'j', KIND_INT, "N", V(BATCH), false, "4", "tasks that run at once")         \
    X(DRAFT, "draft", 0, KIND_TEXT, "auto|off|N", V_ALL_RUNS, true, "auto",                        \
      "evaluate up to N guessed tokens along; auto: where it pays")                 \
    X(APPROVE, "approve", 0, KIND_TEXT, "auto|ask|never", V_ALL_RUNS, true, "auto",                    \
      "calls: as the manifests say, ask for each, deny all")                                       \
    X(NO_EXEC, "no-exec", 0, KIND_FLAG, "", V(RUN), false, "",                                     \
      "one turn; calls are parsed, validated and printed, nothing runs")                           \
    X(TOOLS_JSON, "tools-json", 0, KIND_TEXT, "FILE", V(RUN), false, "",                           \
      "with --no-exec: OpenAI-style tool definitions to offer")                                    \
    X(OUTPUT, "output", 'o', KIND_TEXT, "FILE", V_RUNS, false, "", "write the answer to FILE too") \
    X(RUN_ID, "run-id", 0, KIND_TEXT, "ID", V_DRAWS, false, "", "name of the run")                   \
    X(AT, "at", 0, KIND_INT, "SEQ", V(FORK), false, "",                                            \
      "how many events are shared, by the numbers of weft trace show --json")                      \
    X(LAST, "last", 0, KIND_FLAG, "", V(RESUME) | V(FORK) | V(TRACE_SHOW) | V(TRACE_STATS), false, "", \
      "the newest run")                                                                            \
    X(PREFIX_MB, "prefix-mb", 0, KIND_INT, "MB", V_ALL_RUNS, true, "8192",                             \
      "disk for KV pages that no run holds any more, kept for the next; 0: share none")            \
    X(JSON, "json", 0, KIND_FLAG, "",                                                              \
      V_RUNS | V_TRACES | V(TOOL_LIST) | V(TOOL_SHOW) | V(TOOL_CALL) | V(SANDBOX_RUN) | V(SANDBOX_CHECK) | \
          V(MODEL_LIST) | V(MODEL_INFO) | V(MODEL_BENCH) | V(DOCTOR) | V(CONFIG),                  \
      false, "", "machine-readable output")                                                        \
    X(DELTAS, "deltas", 0, KIND_FLAG, "", V_RUNS, false, "", "with --json: text as it is sampled") \
    X(QUIET, "quiet", 'q', KIND_FLAG, "", V_ALL_RUNS | V(MODEL_PULL), true, "", "no progress on standard error") \
    X(COLOR, "color", 0, KIND_TEXT, "auto|always|never", V_ALL, true, "auto", "colours on standard error") \
    X(ACCEPT_LICENSE, "accept-license", 0, KIND_FLAG, "", V(MODEL_PULL), false, "",                \
      "accept a model's own licence terms")                                                        \
    X(PROFILE, "profile", 0, KIND_TEXT, "default|strict", V(SANDBOX_RUN), false, "default", "confinement") \
    X(IDS, "ids", 0, KIND_TEXT, "FILE", V(MODEL_LOGITS), false, "", "JSON array of token ids; - : standard input") \
    X(TOP, "top", 0, KIND_INT, "K", V(MODEL_LOGITS), false, "10", "likeliest tokens a position")   \
    X(CHUNK, "chunk", 0, KIND_INT, "N", V(MODEL_LOGITS) | V(MODEL_BENCH), false, "0", "tokens evaluated at once") \
    X(DIGEST, "digest", 0, KIND_FLAG, "", V(MODEL_LOGITS), false, "", "print SHA-256 of the logits instead") \
    X(REOPEN, "reopen", 0, KIND_INT, "N", V(MODEL_LOGITS), false, "0",                             \
      "close the KV file after N tokens and go on from it")                                        \
    X(PROMPT_TOKENS, "prompt-tokens", 'p', KIND_INT, "N", V(MODEL_BENCH), false, "512", "tokens to prefill") \
    X(DECODE_TOKENS, "decode-tokens", 'n', KIND_INT, "N", V(MODEL_BENCH), false, "64", "tokens to decode") \
    X(BATCH, "batch", 0, KIND_INT, "N", V(MODEL_BENCH), false, "0", "decode N timelines at once too")  \
    X(OPS, "ops", 0, KIND_FLAG, "", V(MODEL_BENCH), false, "", "say where a token's time goes")         \
    X(DEPTH, "depth", 0, KIND_INT, "N", V(MODEL_BENCH), false, "0", "context before the measured decode") \
    X(SPECIAL, "special", 0, KIND_FLAG, "", V(TOKENIZE), false, "", "recognise control tokens")    \
    X(FOREIGN, "foreign", 0, KIND_FLAG, "", V(TOKENIZE), false, "", "no control token, no delimiter") \
    X(DECODE, "decode", 0, KIND_FLAG, "", V(TOKENIZE), false, "", "ids to text")                   \
    X(JSONL, "jsonl", 0, KIND_FLAG, "", V(TOKENIZE) | V(RENDER), false, "", "one object a line")   \
    X(AS_IDS, "ids", 0, KIND_FLAG, "", V(RENDER), false, "", "print ids instead of text")          \
    X(HELP, "help", 'h', KIND_FLAG, "", V_ALL, false, "", "this help")

typedef enum weft_option {
#define X(id, name, letter, kind, arg, verbs, setting, fallback, help) OPT_##id,
    WEFT_OPTIONS(X)
#undef X
        OPT_COUNT
} weft_option;

typedef struct weft_option_spec {
    const char *name;
    char letter;
    weft_option_kind kind;
    const char *argument;
    uint64_t verbs;
    bool setting;
    const char *fallback, *help;
} weft_option_spec;

typedef struct weft_verb_spec {
    const char *words, *arguments, *summary;
} weft_verb_spec;

extern const weft_option_spec weft_option_table[OPT_COUNT];
extern const weft_verb_spec weft_verb_table[VERB_COUNT];

typedef struct weft_value {
    char *text;         /* NULL: the default */
    const char *origin; /* "flag", "environment", "./weft.toml", ... */
} weft_value;

typedef struct weft_options {
    weft_verb verb;
    weft_value value[OPT_COUNT];
    char **list[OPT_COUNT]; /* KIND_LIST: NULL-terminated, or NULL */
    char **argument;        /* positional, NULL-terminated; borrowed from argv */
    size_t n_argument;
} weft_options;

/* Reads verb, options and arguments of a command line. WEFT_E_USAGE with the nearest known word. */
weft_status weft_options_parse(weft_options *o, int argc, char **argv, weft_error *err);
void weft_options_free(weft_options *o);

/* Sets an option unless it has a value already (sources are read from the strongest to the weakest).
 * Checks that the text fits the option's kind. */
weft_status weft_options_set(weft_options *o, weft_option id, const char *text, const char *origin,
                             weft_error *err);

const char *weft_option_text(const weft_options *o, weft_option id); /* never NULL */
int64_t weft_option_int(const weft_options *o, weft_option id);
double weft_option_real(const weft_options *o, weft_option id);
bool weft_option_flag(const weft_options *o, weft_option id);

/* Generated from the tables. verb VERB_COUNT: the overview. */
void weft_help_print(FILE *to, weft_verb verb);
void weft_man_print(FILE *to);
weft_status weft_completion_print(FILE *to, const char *shell, weft_error *err);

/* Environment and files, weakest last (options.h, precedence). */
weft_status weft_config_load(weft_options *o, weft_error *err);
void weft_config_print(FILE *to, const weft_options *o, bool json);

#endif
