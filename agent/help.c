/* Help, man page and shell completions, all made from the tables of options.h. */
#include "agent/options.h"

#include <string.h>

static const char synopsis[] =
    "weft runs a multi-step task with a local language model that thinks, calls tools, reads the\n"
    "results and goes on thinking, without its thought ever being reset.\n";

static const struct {
    int code;
    const char *meaning;
} exits[] = {
    {0, "done"},
    {1, "the task failed"},
    {2, "wrong use of the command line"},
    {3, "configuration or input file"},
    {4, "model or backend"},
    {5, "the sandbox is not available"},
    {6, "a limit was reached (run.end says which)"},
    {7, "approval denied"},
    {8, "the replay diverged"},
    {9, "verification failed"},
    {10, "storage: the log is not durable, the disk is full"},
    {130,
     "interrupted; 143: terminated. Such a run can be resumed, and so can one that ended with 6"},
};

/* "-m, --model MODEL" */
static int option_label(char *out, size_t size, const weft_option_spec *spec)
{
    char letter[8] = "    ";
    if (spec->letter) snprintf(letter, sizeof letter, "-%c, ", spec->letter);
    return snprintf(out, size, "%s--%s%s%s", letter, spec->name, *spec->argument ? " " : "",
                    spec->argument);
}

static void print_options(FILE *to, weft_verb verb)
{
    fprintf(to, "\nOptions:\n");
    for (int i = 0; i < OPT_COUNT; i++) {
        const weft_option_spec *spec = &weft_option_table[i];
        char label[96];
        if (!(spec->verbs >> verb & 1)) continue;
        option_label(label, sizeof label, spec);
        fprintf(to, "  %-34s %s", label, spec->help);
        if (*spec->fallback) fprintf(to, " (default: %s)", spec->fallback);
        fputc('\n', to);
    }
}

void weft_help_print(FILE *to, weft_verb verb)
{
    if (verb < VERB_COUNT) {
        const weft_verb_spec *spec = &weft_verb_table[verb];
        fprintf(to, "weft %s%s%s\n%s\n", spec->words, *spec->arguments ? " " : "", spec->arguments,
                spec->summary);
        print_options(to, verb);
        return;
    }
    fprintf(to, "%s\nUsage: weft VERB [options] [arguments]\n\nVerbs:\n", synopsis);
    for (int v = 0; v < VERB_COUNT; v++)
        fprintf(to, "  %-14s %s\n", weft_verb_table[v].words, weft_verb_table[v].summary);
    fprintf(to,
            "\nweft help VERB explains one. Settings also come from WEFT_* variables, ./weft.toml\n"
            "and weft.toml in the configuration directory; weft config shows them.\n");
}

static void roff(FILE *to, const char *text)
{
    if (*text == '.' || *text == '\'') fputs("\\&", to);
    for (; *text; text++) {
        if (*text == '-')
            fputs("\\-", to);
        else if (*text == '\\')
            fputs("\\e", to);
        else
            fputc(*text, to);
    }
}

void weft_man_print(FILE *to)
{
    fputs(".TH WEFT 1\n.SH NAME\nweft \\- run a task with a local model, its tools and an unbroken "
          "thought\n"
          ".SH SYNOPSIS\n.B weft\n.I verb\n[options] [arguments]\n.SH DESCRIPTION\n",
          to);
    roff(to, synopsis);
    fputs(".SH VERBS\n", to);
    for (int v = 0; v < VERB_COUNT; v++) {
        const weft_verb_spec *spec = &weft_verb_table[v];
        fputs(".TP\n.B weft ", to);
        roff(to, spec->words);
        fputs(" ", to);
        roff(to, spec->arguments);
        fputs("\n", to);
        roff(to, spec->summary);
        fputs("\n", to);
    }
    fputs(".SH OPTIONS\n", to);
    for (int i = 0; i < OPT_COUNT; i++) {
        const weft_option_spec *spec = &weft_option_table[i];
        char label[96];
        option_label(label, sizeof label, spec);
        fputs(".TP\n.B ", to);
        roff(to, label + strspn(label, " "));
        fputs("\n", to);
        roff(to, spec->help);
        if (*spec->fallback) {
            fputs(" (default: ", to);
            roff(to, spec->fallback);
            fputs(")", to);
        }
        fputs("\n", to);
    }
    fputs(".SH EXIT STATUS\n", to);
    for (size_t i = 0; i < sizeof exits / sizeof *exits; i++) {
        fprintf(to, ".TP\n%d\n", exits[i].code);
        roff(to, exits[i].meaning);
        fputs("\n", to);
    }
    fputs(".SH ENVIRONMENT\nEvery setting as WEFT_ and its name in capitals (WEFT_MODEL, "
          "WEFT_THREADS,\n"
          "WEFT_ISA ...); WEFT_HOME is the directory of models and runs.\n",
          to);
}

/* Words of one level, each once: first words of verbs, or second words after `first`. */
static void verb_words(FILE *to, const char *first)
{
    char seen[1024] = " ";
    for (int v = 0; v < VERB_COUNT; v++) {
        const char *words = weft_verb_table[v].words;
        size_t n = strcspn(words, " ");
        const char *word = words;
        if (first) {
            if (strlen(first) != n || strncmp(words, first, n) != 0 || !words[n]) continue;
            word = words + n + 1;
            n = strlen(word);
        }
        char key[64];
        snprintf(key, sizeof key, " %.*s ", (int)n, word);
        if (strstr(seen, key)) continue;
        strncat(seen, key + 1, sizeof seen - strlen(seen) - 1);
        fprintf(to, "%.*s ", (int)n, word);
    }
}

static void option_words(FILE *to, weft_verb verb)
{
    for (int i = 0; i < OPT_COUNT; i++)
        if (weft_option_table[i].verbs >> verb & 1) fprintf(to, "--%s ", weft_option_table[i].name);
}

static void completion_bash(FILE *to)
{
    fputs("_weft() {\n  local cur=${COMP_WORDS[COMP_CWORD]} verb=\"${COMP_WORDS[1]}\" words=\n"
          "  case \"$verb ${COMP_WORDS[2]}\" in\n",
          to);
    for (int v = 0; v < VERB_COUNT; v++) {
        if (!strchr(weft_verb_table[v].words, ' ')) continue;
        fprintf(to, "    \"%s\") words=\"", weft_verb_table[v].words);
        option_words(to, (weft_verb)v);
        fputs("\" ;;\n", to);
    }
    fputs("    *) case \"$verb\" in\n", to);
    for (int v = 0; v < VERB_COUNT; v++) {
        const char *words = weft_verb_table[v].words;
        if (strchr(words, ' ')) continue;
        fprintf(to, "      %s) words=\"", words);
        verb_words(to, words);
        option_words(to, (weft_verb)v);
        fputs("\" ;;\n", to);
    }
    for (const char *const *g = (const char *const[]){"trace", "tool", "model", NULL}; *g; g++) {
        fprintf(to, "      %s) words=\"", *g);
        verb_words(to, *g);
        fputs("\" ;;\n", to);
    }
    fputs("    esac ;;\n  esac\n  [ $COMP_CWORD -eq 1 ] && words=\"", to);
    verb_words(to, NULL);
    fputs("\"\n  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
          "  [ ${#COMPREPLY[@]} -eq 0 ] && COMPREPLY=($(compgen -f -- \"$cur\"))\n}\n"
          "complete -F _weft weft\n",
          to);
}

static void completion_fish(FILE *to)
{
    fputs("complete -c weft -f -n __fish_use_subcommand -a '", to);
    verb_words(to, NULL);
    fputs("'\n", to);
    for (int v = 0; v < VERB_COUNT; v++) {
        const char *words = weft_verb_table[v].words, *space = strchr(words, ' ');
        size_t n = strcspn(words, " ");
        if (space)
            fprintf(to,
                    "complete -c weft -f -n '__fish_seen_subcommand_from %.*s' -a '%s' -d '%s'\n",
                    (int)n, words, space + 1, weft_verb_table[v].summary);
        for (int i = 0; i < OPT_COUNT; i++) {
            const weft_option_spec *spec = &weft_option_table[i];
            if (!(spec->verbs >> v & 1)) continue;
            fprintf(to, "complete -c weft -n '__fish_seen_subcommand_from %s' -l %s%s\n",
                    space ? space + 1 : words, spec->name, spec->kind == KIND_FLAG ? "" : " -r");
        }
    }
}

weft_status weft_completion_print(FILE *to, const char *shell, weft_error *err)
{
    if (shell && strcmp(shell, "bash") == 0) {
        completion_bash(to);
    } else if (shell && strcmp(shell, "zsh") == 0) {
        fputs("#compdef weft\nautoload -U +X bashcompinit && bashcompinit\n", to);
        completion_bash(to);
    } else if (shell && strcmp(shell, "fish") == 0) {
        completion_fish(to);
    } else {
        return weft_fail(err, WEFT_E_USAGE, "completion: name a shell: bash, zsh or fish");
    }
    return WEFT_OK;
}
