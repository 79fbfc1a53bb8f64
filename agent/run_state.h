/* The state of a run is a fold over its events: the loop appends an event to the trace and applies
 * it here, and `resume` applies the recorded events in the same way. So a resumed run stands
 * exactly where the trace says, with no second account of what happened.
 *
 * The timeline's ids are the concatenation of the `ids` of all `segment` events, of which a `compact`
 * event replaces the end; behind them stand the ids of an unfinished turn, known from `kv` events.
 */
#ifndef WEFT_AGENT_RUN_STATE_H
#define WEFT_AGENT_RUN_STATE_H

#include "base/base.h"

typedef enum run_phase {
    RUN_NEW,      /* nothing but run.begin: the opening script is to be written */
    RUN_TURN,     /* the generation prompt stands: a turn is to be sampled */
    RUN_CALLS,    /* a turn with calls is recorded: they are to be run */
    RUN_RESULTS,  /* every call has its result: the results are to be written */
    RUN_USER,     /* a new user turn is to be written */
    RUN_ANSWERED, /* the answer stands; run.end is to be written */
} run_phase;

typedef struct run_call {
    char *name, *arguments,
        *error; /* arguments: compact JSON text or NULL; error: NULL if well formed */
    bool started, finished, failed; /* tool.call, tool.result recorded; the result is an error */
    char *result;                   /* what the model sees */
} run_call;

/* A call to an idempotent tool that ran since the last call that may have changed something. */
typedef struct run_memory {
    char *key, *result; /* name, newline, canonical arguments */
} run_memory;

typedef struct run_state {
    cJSON *begin; /* body of run.begin */
    run_phase phase;
    bool ended; /* a run.end stands last */
    int32_t *id;
    size_t n_id, id_capacity;
    size_t turn_from; /* ids before the turn in progress */
    int32_t *sampled; /* ids of the turn in progress that kv events recorded */
    size_t n_sampled, sampled_capacity;
    size_t script_done;   /* segments of the script in progress that are recorded */
    size_t turn_segments; /* segments of the turn in progress that are recorded */
    bool turn_closed;     /* the last turn was ended by an end token */
    run_call *call;       /* of the last turn */
    size_t n_call;
    run_memory *memory;
    size_t n_memory;
    char *last_key, *last_result; /* of the last call that has a result */
    int64_t repeats;              /* in a row: interventions of the repeat guard, calls that failed
                                     in the very same way again */
    bool must_answer;             /* the next turn may not call */
    int64_t turns, calls, sampled_total, elapsed_ns;
    int64_t evaluated, shared; /* tokens: by this run; by others, taken over */
    int64_t copied_left;       /* events behind `fork` that are still the parent's */
    char *answer, *user; /* last answer; text of the user turn to write */
    char *question;      /* what the user asked last */
    char *output;        /* of the last call that ran and did not fail */
} run_state;

void run_state_free(run_state *s);
/* Applies one event. WEFT_E_VERIFY if the trace cannot have been written by weft. */
weft_status run_state_apply(run_state *s, const char *type, const cJSON *body, weft_error *err);
/* Ids of the turn in progress that are known already: *out borrowed. */
size_t run_state_forced(const run_state *s, const int32_t **out);
/* Key of a call for the repeat guard (malloc'd), NULL if the arguments cannot be read. */
char *run_call_key(const char *name, const char *arguments);
/* Result of an identical earlier call, or NULL. */
const char *run_state_recall(const run_state *s, const char *key);

#endif
