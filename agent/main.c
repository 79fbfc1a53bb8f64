/* Entry: finds the verb, reads settings, runs the command, prints the one error line. */
#include "agent/commands.h"

#include <locale.h>
#include <string.h>
#include <unistd.h>

static weft_status cmd_config(const weft_options *o, int *exit_code, weft_error *err)
{
    weft_config_print(stdout, o, weft_option_flag(o, OPT_JSON));
    return WEFT_OK;
}

static weft_status cmd_completion(const weft_options *o, int *exit_code, weft_error *err)
{
    return weft_completion_print(stdout, o->n_argument ? o->argument[0] : NULL, err);
}

static weft_status cmd_man(const weft_options *o, int *exit_code, weft_error *err)
{
    weft_man_print(stdout);
    return WEFT_OK;
}

static weft_status cmd_help(const weft_options *o, int *exit_code, weft_error *err)
{
    char words[64] = "";
    if (!o->n_argument) {
        weft_help_print(stdout, VERB_COUNT);
        return WEFT_OK;
    }
    snprintf(words, sizeof words, "%s%s%s", o->argument[0], o->n_argument > 1 ? " " : "",
             o->n_argument > 1 ? o->argument[1] : "");
    bool found = false;
    for (int v = 0; v < VERB_COUNT; v++) {
        size_t n = strlen(words);
        const char *known = weft_verb_table[v].words;
        if (strncmp(known, words, n) != 0 || (known[n] && known[n] != ' ')) continue;
        if (found) printf("\n");
        weft_help_print(stdout, (weft_verb)v);
        found = true;
    }
    return found ? WEFT_OK
                 : weft_fail(err, WEFT_E_USAGE, "there is no verb \"%s\": see weft help", words);
}

static weft_command *const commands[VERB_COUNT] = {
    [VERB_RUN] = cmd_run,
    [VERB_RESUME] = cmd_resume,
    [VERB_BATCH] = cmd_batch,
    [VERB_FORK] = cmd_fork,
    [VERB_TRACE_LIST] = cmd_trace_list,
    [VERB_TRACE_SHOW] = cmd_trace_show,
    [VERB_TRACE_STATS] = cmd_trace_stats,
    [VERB_TOOL_LIST] = cmd_tool_list,
    [VERB_TOOL_SHOW] = cmd_tool_show,
    [VERB_TOOL_CALL] = cmd_tool_call,
    [VERB_SANDBOX_RUN] = cmd_sandbox_run,
    [VERB_SANDBOX_CHECK] = cmd_sandbox_check,
    [VERB_MODEL_LIST] = cmd_model_list,
    [VERB_MODEL_PULL] = cmd_model_pull,
    [VERB_MODEL_INFO] = cmd_model_info,
    [VERB_MODEL_RM] = cmd_model_rm,
    [VERB_MODEL_BENCH] = cmd_model_bench,
    [VERB_MODEL_LOGITS] = cmd_model_logits,
    [VERB_TOKENIZE] = cmd_tokenize,
    [VERB_RENDER] = cmd_render,
    [VERB_CONFIG] = cmd_config,
    [VERB_DOCTOR] = cmd_doctor,
    [VERB_COMPLETION] = cmd_completion,
    [VERB_MAN] = cmd_man,
    [VERB_HELP] = cmd_help,
};

int main(int argc, char **argv)
{
    weft_options options;
    weft_error err = {WEFT_OK, ""};
    int exit_code = 0;
    setlocale(LC_CTYPE,
              "C.UTF-8"); /* LC_NUMERIC stays "C": numbers are read and written with a point */
    if (argc > 1 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0)) {
        printf("weft %s\n", WEFT_VERSION);
        return 0;
    }
    weft_status status = weft_options_parse(&options, argc, argv, &err);
    if (!status && weft_option_flag(&options, OPT_HELP)) {
        weft_help_print(stdout, options.verb);
    } else {
        if (!status) status = weft_config_load(&options, &err);
        if (!status) status = commands[options.verb](&options, &exit_code, &err);
    }
    weft_options_free(&options);
    if (!status && (fflush(stdout) != 0 || ferror(stdout)))
        status = weft_fail_errno(&err, WEFT_E_STORAGE, "write to standard output");
    if (status) {
        fprintf(stderr, "weft: %s\n", err.message);
        if (!exit_code) exit_code = weft_status_exit(status);
    }
    return exit_code;
}
