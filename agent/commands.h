/* The verbs. Each prints its own output, returns the status that decides the exit code, and may set
 * *exit_code itself where the code is not weft's (a confined command's). */
#ifndef WEFT_AGENT_COMMANDS_H
#define WEFT_AGENT_COMMANDS_H

#include "agent/options.h"

typedef weft_status weft_command(const weft_options *o, int *exit_code, weft_error *err);

weft_command cmd_run, cmd_resume, cmd_fork, cmd_batch;
weft_command cmd_trace_list, cmd_trace_show, cmd_trace_stats;
weft_command cmd_tool_list, cmd_tool_show, cmd_tool_call;
weft_command cmd_sandbox_run, cmd_sandbox_check;
weft_command cmd_model_list, cmd_model_pull, cmd_model_info, cmd_model_rm, cmd_model_bench,
    cmd_model_logits;
weft_command cmd_tokenize, cmd_render;
weft_command cmd_doctor;

/* Prints a JSON value on one line of standard output and frees it. */
weft_status print_json(cJSON *value, weft_error *err);
/* Directory of runs (malloc'd); WEFT_E_CONFIG without a home. */
weft_status runs_dir(char **out, weft_error *err);
/* Directory of a run named by id, path or, with last, the newest one (malloc'd). name may be NULL.
 */
weft_status find_run(const char *name, bool last, char **out, weft_error *err);

#endif
