/* The engine: tokens in, tokens out.
 *
 * It knows a model file, its tokens, their KV and the dialect that turns roles, thoughts, calls and
 * results into tokens. It knows nothing of tools' effects, runs or logs.
 *
 * The numeric contract: the logits after a token are a pure function of the model file and the token
 * ids up to it, whatever the chunking, the threads, the vector width, the batch, the restart.
 *
 * Objects: weft_model (weights, tokenizer, backend; one per process, many timelines), weft_timeline (one
 * run's ids and KV, append-only), weft_dialect (how this family writes turns), weft_turn (recognises
 * one sampled turn and constrains it). A model and its timelines belong to one thread at a time,
 * unless the model is shared (weft_model_share).
 */
#ifndef WEFT_ENGINE_H
#define WEFT_ENGINE_H

#include "base/base.h"
#include "schemas/schema.h"

/* ---- model ---- */

typedef struct weft_model weft_model;

/* How keys and values are kept. A part of every page's digest, so the numbers stay. */
typedef enum weft_kv_type {
    WEFT_KV_F16 = 0,
    WEFT_KV_F32 = 1,
    WEFT_KV_Q8_0 = 2, /* int8, one half scale for 32 dims of a position */
    WEFT_KV_TYPES
} weft_kv_type;
/* "f16"; NULL if unknown. */
const char *weft_kv_type_name(weft_kv_type type);
/* The type of that name; false if there is none. */
bool weft_kv_type_find(const char *name, weft_kv_type *out);

/* Called during long work: done of total units of `what` ("load", "prefill"). Non-zero stops it with
 * WEFT_E_INTERRUPTED; what was evaluated until then stays valid. */
typedef int (*weft_progress)(void *context, const char *what, int64_t done, int64_t total);

typedef struct weft_engine_options {
    const char *engine; /* "cpu", "cuda" (as many GPUs as the weights need), "cuda:0,1" (these); NULL or "auto": the
                           CPU */
    const char *isa; /* "scalar", "avx2", "avx512", "amx"; NULL: the best this CPU has */
    int threads;     /* 0: the cores this process may use */
    weft_kv_type kv_type;
    int64_t context; /* most tokens on a timeline; 0: the model's own context length */
    int chunk;       /* prefill chunk in tokens; 0: chosen by the engine. Never visible in logits */
    bool vocab_only; /* tokenizer and metadata, no weights */
    bool dense_attention; /* a model that chooses what it attends to (deepseek32) attends to everything, for
                             comparison: other logits, and pages of its own */
    /* How many weights are in memory: as many as fit what is available; with limit_memory, `memory` bytes of them;
     * with limit_process, as many as keep the whole process's resident memory within `memory` bytes, keys and
     * values of `context` tokens (0: of 4,096) counted. The others are read from the file, with the same results,
     * slower: it must stay as it is. WEFT_E_LIMIT: the process alone takes more; the message says the least. */
    bool limit_memory, limit_process;
    size_t memory;
    const char *prefix_dir; /* where its timelines share pages with other runs; NULL: nowhere */
    const uint8_t *file_digest; /* of the whole file, where it is known: pages are named by it. NULL:
                                       by the fingerprint, which samples the weights */
    weft_progress progress; /* may be NULL */
    void *progress_context;
} weft_engine_options;

/* Maps and prepares the file. WEFT_E_MODEL: not a GGUF, damaged, unknown architecture, type or
 * tokenizer (named). options may be NULL. */
weft_status weft_model_open(weft_model **out, const char *path, const weft_engine_options *options,
                            weft_error *err);
void weft_model_close(weft_model *model);

typedef struct weft_model_info {
    const char *path, *name, *architecture, *tokenizer,
        *pre;                  /* borrowed; name "" if the file has none */
    const char *quantisation;  /* most common weight type: "Q4_K" */
    const char *chat_template; /* NUL-terminated or NULL */
    const char *backend;       /* "cpu-avx512", "cuda-9.0", "cuda-9.0-x2" */
    int threads;               /* 0: of no meaning for the backend */
    int64_t n_params, n_vocab, n_layer, n_embd, n_head, n_head_kv, context_length, context;
    int64_t n_predict; /* layers beside n_layer that guess further tokens: 0 or 1 */
    size_t file_bytes, weight_bytes; /* on disk; in memory after repacking */
    size_t mapped_bytes;             /* of weights that stay in the file */
    size_t pool_bytes, pool_experts; /* of memory for those of the file's experts that are worth it */
    size_t file_experts;             /* experts that stay in the file, of all layers */
    size_t least_bytes;              /* the least limit_process; 0: not asked for */
    size_t step_bytes;               /* of weights that one token reads */
    size_t kv_page_bytes;            /* 64 positions */
    size_t kv_page_file_bytes;       /* and as a file */
    weft_kv_type kv_type;
    uint8_t fingerprint[WEFT_DIGEST_BYTES]; /* of the file, cheap: see gguf.h */
} weft_model_info;
const weft_model_info *weft_model_get_info(const weft_model *model);
/* The backend of a model opened on this machine's CPU without options.isa. */
const char *weft_best_backend(void);
/* One line for each GPU of the machine: what it is and that --engine cuda uses it, or why it cannot; or one line
 * that says why there is none. Takes up to a second a GPU. */
typedef void (*weft_gpu_visit)(void *context, bool usable, const char *finding);
void weft_gpu_look(weft_gpu_visit visit, void *context);
/* A notice if weights stay in the file ("... of ... MiB of weights stay in the file: ..."), or NULL. */
const char *weft_model_memory_notice(const weft_model *model);
/* A notice if the file has layers for multi-token prediction that are not used, or NULL. */
const char *weft_model_unused_notice(const weft_model *model);
/* Experts that evaluation needed, where they stay in the file. */
typedef struct weft_expert_counts {
    int64_t hits, misses;   /* in memory already; read from the file */
    int64_t read_bytes;
    int64_t guesses, right; /* of experts not in memory: read ahead as likely; those of them that were then needed */
} weft_expert_counts;
weft_expert_counts weft_model_expert_counts(const weft_model *model);
/* Tensor types with counts and bytes: {"Q4_K":[169,bytes],...} as a cJSON object, caller frees. */
cJSON *weft_model_tensor_types(const weft_model *model);
/* Bytes of memory a run of n tokens needs beyond the weights (KV and scratch). */
size_t weft_model_memory(const weft_model *model, int64_t n_tokens);

/* ---- where the time goes ---- */

typedef struct weft_profile weft_profile;
typedef struct weft_profile_row {
    const char *name; /* of the operation: "q, k, v" */
    int64_t calls, ns;
    size_t bytes; /* of weights that stay in memory, over all calls; 0 for `experts`, whose share varies */
} weft_profile_row;
/* From now on each operation of the model's evaluations is timed, until the profile's end. One at a time;
 * the model must not be closed before. WEFT_E_USAGE: its backend makes no single operations. */
weft_status weft_profile_begin(weft_profile **out, weft_model *model, weft_error *err);
/* In the order of a layer; operations that were never called too. Borrowed. */
const weft_profile_row *weft_profile_rows(const weft_profile *profile, size_t *out_n);
void weft_profile_end(weft_profile *profile);

/* ---- text and ids ---- */

typedef enum weft_trust {
    WEFT_TRUSTED, /* control and user-defined tokens match: template text only */
    WEFT_PLAIN,   /* user-defined match, control do not */
    WEFT_FOREIGN  /* neither control tokens nor the dialect's delimiters match */
} weft_trust;

typedef enum weft_segment {
    WEFT_SYSTEM,
    WEFT_USER,
    WEFT_THOUGHT,
    WEFT_CALL,
    WEFT_RESULT,
    WEFT_ANSWER
} weft_segment;
const char *weft_segment_name(weft_segment segment); /* "system" ... */

typedef struct weft_span {
    const char *text;
    size_t size;
    weft_trust trust;
    weft_segment segment; /* label only */
} weft_span;

/* Ids of the concatenated spans; no BOS is added. out_from as in tokenizer.h, may be NULL. */
weft_status weft_encode(const weft_model *model, const weft_span *spans, size_t n_spans,
                        int32_t **out_ids, size_t **out_from, size_t *out_n, weft_error *err);
/* Appends the bytes of the ids (may be cut UTF-8); control tokens as their text if with_control. */
void weft_decode(const weft_model *model, const int32_t *ids, size_t n, bool with_control,
                 weft_buffer *out);
/* A notice about the vocabulary worth telling the user ("the bytes ... cannot be written"), or NULL. */
const char *weft_model_vocabulary_notice(const weft_model *model);

/* ---- timeline ---- */

typedef struct weft_timeline weft_timeline;

/* Opens a timeline over known ids (n may be 0). kv_dir: directory of its pages, created if missing;
 * NULL keeps pages in memory only. Pages that were made for model, KV type and these ids, here or, with
 * prefix_dir, in any run, are taken over; the rest of the ids counts as pending. The directory is locked:
 * WEFT_E_STORAGE if another process has it. */
weft_status weft_timeline_open(weft_timeline **out, weft_model *model, const char *kv_dir,
                               const int32_t *ids, size_t n, weft_error *err);
/* The same, and pages of another timeline are taken over up to where its ids differ: complete ones by
 * hard link, of the last one a copy. That timeline may be closed, or open in another process. */
typedef struct weft_kv_source {
    const char *kv_dir;
    const int32_t *ids; /* [n] all ids of that timeline */
    size_t n;
} weft_kv_source;
weft_status weft_timeline_open_from(weft_timeline **out, weft_model *model, const char *kv_dir,
                                    const weft_kv_source *source, const int32_t *ids, size_t n,
                                    weft_error *err);
/* A new timeline over the first `length` ids of `from`, with their KV: whatever is evaluated there is not
 * evaluated again. Complete pages are shared if both have a directory, else everything is copied.
 * WEFT_E_INVALID if `from` is shorter. `from` stays as it is. */
weft_status weft_timeline_fork(weft_timeline **out, weft_timeline *from, int64_t length,
                               const char *kv_dir, weft_error *err);
/* Seals the last, partial page so that a later open takes it over, then closes. NULL allowed. */
void weft_timeline_close(weft_timeline *timeline);

/* Adds ids; they are pending until evaluated. WEFT_E_LIMIT if the context would overflow. */
weft_status weft_timeline_append(weft_timeline *timeline, const int32_t *ids, size_t n,
                                 weft_error *err);
/* Evaluates all pending ids. progress may be NULL. */
weft_status weft_timeline_evaluate(weft_timeline *timeline, weft_progress progress, void *context,
                                   weft_error *err);
/* As _evaluate, and calls visit(context, position, logits [n_vocab]) for every position evaluated. */
typedef void (*weft_logits_visit)(void *context, int64_t position, const float *logits);
weft_status weft_timeline_evaluate_each(weft_timeline *timeline, weft_logits_visit visit,
                                        void *context, weft_error *err);
int64_t weft_timeline_length(const weft_timeline *timeline);
int64_t weft_timeline_pending(const weft_timeline *timeline);
const int32_t *weft_timeline_ids(const weft_timeline *timeline);
/* Tokens taken over from pages by this object. By all processes that had this directory so far (kept
 * in it, survives kill -9; in memory-only mode: by this object): tokens evaluated, and tokens whose pages
 * came from elsewhere, from other runs or a fork's parent. */
int64_t weft_timeline_restored(const weft_timeline *timeline);
int64_t weft_timeline_evaluated(const weft_timeline *timeline);
int64_t weft_timeline_shared(const weft_timeline *timeline);
/* Removes pages from a prefix_dir, those used longest ago first, until what the directory alone holds is
 * at most budget_bytes; a page that a run has too is not counted and stays. Safe beside other processes.
 * Returns the bytes that became free. */
int64_t weft_prefix_trim(const char *prefix_dir, int64_t budget_bytes);
/* Called when a page of 64 positions is complete and sealed. The digest binds its ids, the model and its
 * bytes. */
typedef weft_status (*weft_page_visit)(void *context, int64_t page,
                                       const uint8_t digest[WEFT_DIGEST_BYTES], weft_error *err);
void weft_timeline_on_page(weft_timeline *timeline, weft_page_visit visit, void *context);

/* Logits after the last evaluated token, [n_vocab]; NULL before the first evaluation in this process
 * (after a restore, evaluation of at least one pending token is needed: keep the last sampled id
 * pending when stopping; if every id was restored, _evaluate computes the last position again). */
const float *weft_timeline_logits(const weft_timeline *timeline);

/* ---- several timelines at once ---- */

typedef struct weft_step_item {
    weft_timeline *timeline;
    weft_status status; /* out: of this timeline alone; err says why */
    weft_error err;
    bool ready; /* out: nothing is pending and the logits stand */
} weft_step_item;
/* One forward pass, a chunk at most, over the pending ids of n distinct timelines of one model: those with
 * few (they decode) take part, prompts share the rest. Each gets what it would get alone, bit for bit.
 * weft_timeline_evaluate is steps of one timeline until it is ready. */
void weft_step(weft_step_item *item, size_t n);

/* From now on the model's timelines may live in different threads, each in one at a time: what up to
 * `most` threads evaluate at the same time is gathered into steps. weft_encode, _decode and
 * weft_timeline_open may be called from any thread too; a dialect and its turns belong to one thread. Once,
 * before other threads start; ends with the model. */
weft_status weft_model_share(weft_model *model, size_t most, weft_error *err);

/* ---- guessing ahead ---- */

/* Prompt lookup: where the last ids stand earlier on the timeline too, up to `most` (below 0: as many as
 * pay, 0: none) of those that followed are evaluated along; where they do not, as many ids as the model's layer for it
 * predicts, if it has one. Appending an id that was guessed needs no
 * evaluation. Every id is drawn as ever: no result changes, nor what weft_timeline_evaluated counts. */
weft_status weft_timeline_guess(weft_timeline *timeline, int most, weft_error *err);
/* The caller's own guesses (the first 7 count) of the ids after those that are pending; for the next
 * evaluation, and dropped by an append before it. */
void weft_timeline_propose(weft_timeline *timeline, const int32_t *ids, size_t n);
/* Guesses that this object evaluated; how many were right. */
int64_t weft_timeline_guessed(const weft_timeline *timeline, int64_t *out_right);

/* ---- sampling ---- */

typedef struct weft_sampler {
    double temperature;    /* 0: the largest logit, ties by the lower id */
    int top_k;             /* 0: off */
    double top_p;          /* 1: off */
    double min_p;          /* 0: off */
    double repeat_penalty; /* 1: off; over the last 64 tokens */
    uint64_t seed;
} weft_sampler;

/* Allowed ids: bit id of word id / 32. */
typedef struct weft_mask {
    const uint32_t *allowed; /* [(n_vocab + 31) / 32] */
    size_t n_allowed;
} weft_mask;

/* Draws the next id from the current logits; the draw depends on (seed, position) alone. mask may be
 * NULL. Nothing is appended. out_logprob (may be NULL): of the drawn id, before masking and
 * temperature. WEFT_E_MODEL if a logit is not finite. */
weft_status weft_timeline_sample(const weft_timeline *timeline, const weft_sampler *sampler,
                                 const weft_mask *mask, int32_t *out_id, float *out_logprob,
                                 weft_error *err);

/* Announces, before an evaluation, the draw that will follow it: a GPU then draws along, and weft_timeline_sample with
 * these arguments only has to say what. Both are copied. Changes no result: a draw that was not announced, or not so,
 * is made as ever. */
void weft_timeline_will_draw(weft_timeline *timeline, const weft_sampler *sampler, const weft_mask *mask);

/* ---- dialect ---- */

typedef struct weft_dialect weft_dialect;

/* name NULL: chosen by architecture, vocabulary and chat template. Known: "qwen", "chatml", "dsv32",
 * "dsv31", "dsv3".
 * WEFT_E_USAGE lists the known; WEFT_E_MODEL if the vocabulary lacks what it needs. */
weft_status weft_dialect_open(weft_dialect **out, const weft_model *model, const char *name,
                              weft_error *err);
void weft_dialect_close(weft_dialect *dialect);
const char *weft_dialect_name(const weft_dialect *dialect);
/* True if the family has thinking tokens (<think>). */
bool weft_dialect_thinks(const weft_dialect *dialect);

/* True if the ids end with an open <think> that the generation prompt wrote: the turn behind them
 * begins inside its thought (weft_turn_options). */
bool weft_dialect_in_thought(const weft_dialect *dialect, const int32_t *ids, size_t n);

/* Labelled text that a dialect writes: spans over one owned text. */
typedef struct weft_script {
    weft_buffer text;
    weft_span *span; /* [n]; text pointers are set by weft_script_spans */
    size_t n, capacity;
} weft_script;
void weft_script_free(weft_script *script);

typedef enum weft_think { WEFT_THINK_AUTO, WEFT_THINK_ON, WEFT_THINK_OFF } weft_think;

/* Whole conversations, for `render` and servers: {"messages","tools","add_generation_prompt",
 * "thinking"} in OpenAI's form, byte for byte as the model's own template. */
weft_status weft_dialect_render(const weft_dialect *dialect, const cJSON *request, weft_script *out,
                                weft_error *err);
/* The opening of a run: system text (NULL: the family's default), tool definitions (OpenAI array or
 * NULL), the user's text, and the generation prompt. */
weft_status weft_dialect_begin(const weft_dialect *dialect, const char *system, const cJSON *tools,
                               const char *user, weft_think think, weft_script *out,
                               weft_error *err);
typedef struct weft_result_text {
    const char *name; /* tool */
    const char *text; /* foreign */
} weft_result_text;
/* What follows a sampled turn with calls: its closing (if `ended` is false the end token is written
 * too), the results in call order, the generation prompt. `note` (NULL or weft's own words to the model)
 * stands after the results. */
weft_status weft_dialect_results(const weft_dialect *dialect, bool ended,
                                 const weft_result_text *results, size_t n, const char *note,
                                 weft_think think, weft_script *out, weft_error *err);
/* What follows a finished turn when the user speaks again. */
weft_status weft_dialect_user(const weft_dialect *dialect, bool ended, const char *user,
                              weft_think think, weft_script *out, weft_error *err);
/* What of a run's ids stays when the user speaks again. A family that drops earlier thoughts then
 * rewrites them: out_ids (malloc'd, [out_n]) are the ids without the thoughts, of which the first out_kept are
 * the old ones; what is behind them must be evaluated again. Nothing is tokenised anew. A family that
 * keeps them, or where there are none: out_ids NULL and out_kept n. */
weft_status weft_dialect_retain(const weft_dialect *dialect, const int32_t *ids, size_t n,
                                int32_t **out_ids, size_t *out_n, size_t *out_kept,
                                weft_error *err);
/* The spans with their text pointers set; valid until the script grows or is freed. */
const weft_span *weft_script_spans(weft_script *script);
/* Encodes a script; out_segment (malloc'd, may be NULL) labels each id with its span's segment. */
weft_status weft_script_encode(const weft_model *model, weft_script *script, int32_t **out_ids,
                               weft_segment **out_segment, size_t *out_n, weft_error *err);

/* ---- one sampled turn ---- */

typedef struct weft_turn weft_turn;

typedef enum weft_choice {
    WEFT_CHOICE_AUTO,
    WEFT_CHOICE_REQUIRED, /* the turn must reach a call: no end before it, an opener after the budget */
    WEFT_CHOICE_NONE,     /* call openers are masked */
    WEFT_CHOICE_WORDS /* as NONE, and no line may begin as code, JSON or a tag does: plain words */
} weft_choice;

typedef struct weft_turn_tool {
    const char *name;
    const weft_schema *schema; /* of the arguments; NULL: any object */
} weft_turn_tool;

typedef struct weft_turn_options {
    const weft_turn_tool *tools; /* [n_tools], borrowed for the turn's life */
    size_t n_tools;
    weft_choice choice;
    const char *only; /* with REQUIRED: this tool; NULL: any */
    weft_think think;
    bool in_thought;      /* the generation prompt opened the thought: weft_dialect_in_thought */
    int64_t think_budget; /* most tokens of thought; 0: no limit, but for REQUIRED, where prose
                                    before the call ends after WEFT_REQUIRED_PROSE tokens */
    bool unmasked;        /* the turn was sampled elsewhere: no mask, any id is accepted, and
                                    what is no valid call after an opener becomes a call with an error */
} weft_turn_options;
enum { WEFT_REQUIRED_PROSE = 256 };

/* The generation prompt must be on the timeline already. Turns are freed before their dialect. Grammars
 * and masks are cached in the dialect by tool set, so that turns after the first are free. */
weft_status weft_turn_begin(weft_turn **out, weft_dialect *dialect,
                            const weft_turn_options *options, weft_error *err);
void weft_turn_free(weft_turn *turn);
/* The cache knows a schema by its address: call this before freeing schemas that turns were given while
 * the dialect lives on. Turns under way keep what they use. */
void weft_dialect_forget(weft_dialect *dialect);
/* What may be sampled next; NULL: anything (or no memory: then the next accept fails). Borrowed until the
 * next accept. */
const weft_mask *weft_turn_mask(weft_turn *turn);

/* True if only one id may come: it need not be sampled, and so what is before it need not be evaluated
 * yet. The caller appends and accepts it, asks again, and evaluates them all at once (jump-ahead). */
bool weft_turn_forced(weft_turn *turn, int32_t *out_id);

typedef struct weft_turn_delta {
    weft_segment
        segment; /* of the text below: THOUGHT (prose too, until the turn is known), CALL, ANSWER */
    const char *text;   /* whole UTF-8 characters that became visible, "" if none; borrowed */
    bool call_complete; /* a call was completed by this token */
    bool ended;         /* the turn is over: an end token, or nothing may follow */
} weft_turn_delta;
/* Takes the id that was sampled (or forced, on replay). WEFT_E_INVALID if the turn cannot go on with
 * it: the mask's ids and, where text is forced, its other spellings are accepted. */
weft_status weft_turn_accept(weft_turn *turn, int32_t id, weft_turn_delta *out, weft_error *err);

typedef struct weft_turn_segment {
    weft_segment segment;
    size_t from, n;   /* ids of the turn, from 0; the segments cover the turn without gaps */
    const char *text; /* UTF-8 (scrubbed), delimiters and control tokens left out */
} weft_turn_segment;

typedef struct weft_turn_call {
    const char *name;  /* "" if it could not be read */
    cJSON *arguments;  /* object; NULL if malformed */
    const char *raw;   /* the text as sampled */
    const char *error; /* NULL, or the words for the model: what is wrong and what to write */
} weft_turn_call;

typedef struct weft_turn_result {
    const weft_turn_segment *segment;
    size_t n_segment;
    const weft_turn_call *call;
    size_t n_call;
    bool ended; /* by an end token (false: cut by a limit) */
} weft_turn_result;
/* Closes the turn and says what it was. Prose before a call is thought; a turn without a call is an
 * answer. Borrowed until weft_turn_free. */
weft_status weft_turn_finish(weft_turn *turn, const weft_turn_result **out, weft_error *err);

#endif
