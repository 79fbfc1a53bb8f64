/* Many tasks on one loaded model. A task's run is a run like any other, in $WEFT_HOME/runs, under an
 * id that is a digest of what decides it: the task's line, the settings and the model. So the same
 * command finds its runs again: answered ones are done, others go on, and a changed line or setting is
 * another run.
 */
#ifndef WEFT_AGENT_BATCH_H
#define WEFT_AGENT_BATCH_H

#include "agent/options.h"
#include "agent/run.h"

typedef struct batch_task {
    size_t line; /* from 1 */
    char *label; /* "id" of the line, or NULL */
    char *text;
    char *run;            /* id of its run */
    weft_options options; /* the line's, then the command's */
    cJSON *result;        /* NULL until it is over */
} batch_task;

/* ---- batch_file.c ---- */

/* The tasks of a file (- : standard input); all of it is checked first. WEFT_E_CONFIG with the line: no
 * JSON object, an unknown key, a value of another type, an id that stands twice, a file to attach that
 * cannot be read. model: SHA-256, part of the runs' ids. */
weft_status batch_read(const weft_options *o, const char *file,
                       const uint8_t model[WEFT_DIGEST_BYTES], batch_task **out, size_t *n,
                       weft_error *err);
void batch_free(batch_task *task, size_t n);

/* ---- batch_lock.c ---- */

/* Keeps other processes from the same batch while *out_fd is open. WEFT_E_STORAGE if one runs it. */
weft_status batch_lock(const char *runs, const batch_task *task, size_t n, int *out_fd,
                       weft_error *err);
/* Keeps other processes' batches from opening the run, until its trace has a lock of its own. fd: of batch_lock.
 * WEFT_E_STORAGE if one opens it just now. */
weft_status batch_lock_run(int fd, const char *run, weft_error *err);
void batch_unlock_run(int fd, const char *run);

/* ---- batch.c ---- */

typedef struct batch_counts {
    size_t answered, limited, failed, interrupted;
    size_t earlier;  /* of the answered: by an earlier command */
    int64_t sampled; /* tokens, by this command */
} batch_counts;

/* Runs what is not done, up to `at_once` tasks at a time, and prints a line of result for each task, in
 * order. Fails only if nothing could begin: what happens to a task stands in its result. */
weft_status batch_run(const weft_options *o, batch_task *task, size_t n, size_t at_once,
                      weft_console *console, batch_counts *out, weft_error *err);

#endif
