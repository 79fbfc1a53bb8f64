/* `weft batch`: many tasks on one model. */
#include "agent/batch.h"
#include "agent/commands.h"
#include "agent/models.h"

#include <stdlib.h>
#include <string.h>

enum { AT_ONCE_MAX = 64 };

static void summary(weft_console *console, const batch_counts *c, size_t n, double seconds)
{
    weft_console_break(console);
    weft_console_notice(
        console,
        "batch of %zu: %zu answered (%zu of them before), %zu at a limit, %zu failed, "
        "%zu interrupted; %lld tokens sampled in %.1f s, %.1f tokens/s",
        n, c->answered, c->earlier, c->limited, c->failed, c->interrupted, (long long)c->sampled,
        seconds, seconds > 0 ? (double)c->sampled / seconds : 0);
}

/* A signal, then failures, then limits. */
static int exit_of(const batch_counts *c)
{
    if (weft_interrupted) return 128 + weft_interrupted;
    if (c->failed || c->interrupted) return 1;
    return c->limited ? weft_status_exit(WEFT_E_LIMIT) : 0;
}

static weft_status check_options(const weft_options *o, weft_error *err)
{
    int64_t at_once = weft_option_int(o, OPT_AT_ONCE);
    if (o->n_argument != 1)
        return weft_fail(err, WEFT_E_USAGE,
                         "batch: one FILE.jsonl is expected; - : standard input");
    if (at_once < 1 || at_once > AT_ONCE_MAX)
        return weft_fail(err, WEFT_E_USAGE, "--jobs %lld: 1 to %d are expected", (long long)at_once,
                         AT_ONCE_MAX);
    if (strcmp(weft_option_text(o, OPT_APPROVE), "ask") == 0)
        return weft_fail(err, WEFT_E_USAGE,
                         "--approve ask: a batch has nobody to ask; take auto or never");
    return WEFT_OK;
}

weft_status cmd_batch(const weft_options *o, int *exit_code, weft_error *err)
{
    weft_console console;
    batch_task *task = NULL;
    batch_counts counts;
    size_t n = 0;
    char *model = NULL;
    uint8_t digest[WEFT_DIGEST_BYTES];
    bool quiet = weft_option_flag(o, OPT_QUIET);
    int64_t begun = weft_monotonic_ns();
    weft_console_init(&console, quiet, weft_option_text(o, OPT_COLOR));
    run_catch_signals();
    weft_status status = check_options(o, err);
    if (!status) status = models_resolve(weft_option_text(o, OPT_MODEL), &model, err);
    if (!status) status = models_digest(model, digest, err);
    if (!status) status = batch_read(o, o->argument[0], digest, &task, &n, err);
    if (!status) {
        status =
            batch_run(o, task, n, (size_t)weft_option_int(o, OPT_AT_ONCE), &console, &counts, err);
        if (!quiet && !status)
            summary(&console, &counts, n, (double)(weft_monotonic_ns() - begun) / 1e9);
        if (!status) *exit_code = exit_of(&counts);
    }
    batch_free(task, n);
    free(model);
    return status;
}
