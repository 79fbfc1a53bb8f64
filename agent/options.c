/* Command line parsing over the tables of options.h. Two options may share a name where their verbs
 * differ (`render --ids`, `model logits --ids FILE`); a lookup is always by verb. */
#include "agent/options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const weft_option_spec weft_option_table[OPT_COUNT] = {
#define X(id, name, letter, kind, arg, verbs, setting, fallback, help)                             \
    {name, letter, kind, arg, verbs, setting, fallback, help},
    WEFT_OPTIONS(X)
#undef X
};

const weft_verb_spec weft_verb_table[VERB_COUNT] = {
#define X(id, words, args, summary) {words, args, summary},
    WEFT_VERBS(X)
#undef X
};

/* Edit distance of two short words, for "did you mean". */
static size_t distance(const char *a, const char *b)
{
    enum { LONGEST = 32 };
    size_t n = strlen(b), row[LONGEST + 1];
    if (n > LONGEST || strlen(a) > LONGEST) return LONGEST;
    for (size_t j = 0; j <= n; j++) row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            if (row[j] + 1 < best) best = row[j] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

static weft_status unknown_verb(const char *word, const char *sub, weft_error *err)
{
    const char *near = NULL;
    size_t best = 4;
    char whole[128];
    snprintf(whole, sizeof whole, "%s%s%s", word, sub ? " " : "", sub ? sub : "");
    for (int v = 0; v < VERB_COUNT; v++) {
        size_t d = distance(whole, weft_verb_table[v].words);
        if (d < best) {
            best = d;
            near = weft_verb_table[v].words;
        }
    }
    if (near)
        return weft_fail(err, WEFT_E_USAGE,
                         "unknown verb \"%s\": did you mean \"%s\"; see weft help", whole, near);
    return weft_fail(err, WEFT_E_USAGE, "unknown verb \"%s\": see weft help", whole);
}

static bool words_match(const char *words, const char *word, const char *sub, bool *two)
{
    const char *space = strchr(words, ' ');
    *two = space != NULL;
    if (!space) return strcmp(words, word) == 0;
    size_t n = (size_t)(space - words);
    return sub && strlen(word) == n && strncmp(words, word, n) == 0 && strcmp(space + 1, sub) == 0;
}

/* Finds the verb of argv[1..]; *used is how many words it took. Two-word verbs win. */
static weft_status find_verb(int argc, char **argv, weft_verb *out, int *used, weft_error *err)
{
    const char *word = argc > 1 ? argv[1] : "help", *sub = argc > 2 ? argv[2] : NULL;
    if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) word = "help";
    int found = -1;
    bool group = false;
    for (int v = 0; v < VERB_COUNT; v++) {
        bool two;
        size_t n = strcspn(weft_verb_table[v].words, " ");
        if (weft_verb_table[v].words[n] && strlen(word) == n &&
            strncmp(weft_verb_table[v].words, word, n) == 0)
            group = true;
        if (!words_match(weft_verb_table[v].words, word, sub, &two)) continue;
        if (found >= 0 && !two) continue;
        found = v;
        *used = two ? 2 : 1;
    }
    if (found < 0) return unknown_verb(word, group ? sub : NULL, err);
    *out = (weft_verb)found;
    return WEFT_OK;
}

static weft_status check_kind(weft_option id, const char *text, weft_error *err)
{
    const weft_option_spec *spec = &weft_option_table[id];
    char *end;
    errno = 0;
    if (spec->kind == KIND_INT) {
        long long v = strtoll(text, &end, 10);
        if (!*text || *end || errno || v < 0)
            return weft_fail(err, WEFT_E_USAGE, "--%s \"%s\": a whole number from 0 is expected",
                             spec->name, text);
    } else if (spec->kind == KIND_REAL) {
        double v = strtod(text, &end);
        if (!*text || *end || errno || !isfinite(v) || v < 0)
            return weft_fail(err, WEFT_E_USAGE, "--%s \"%s\": a number from 0 is expected",
                             spec->name, text);
    } else if (spec->kind == KIND_FLAG) {
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return weft_fail(err, WEFT_E_USAGE, "--%s \"%s\": true or false is expected",
                             spec->name, text);
    } else if (spec->argument[0] >= 'a' && spec->argument[0] <= 'z' &&
               strchr(spec->argument, '|')) {
        /* "auto|on|off": one of the words; an upper-case word stands for any text */
        for (const char *p = spec->argument; *p;) {
            size_t n = strcspn(p, "|");
            if ((p[0] >= 'A' && p[0] <= 'Z') || strchr(p, ',') ||
                (strlen(text) == n && strncmp(p, text, n) == 0))
                return WEFT_OK;
            p += n + (p[n] == '|');
        }
        return weft_fail(err, WEFT_E_USAGE, "--%s \"%s\": one of %s is expected", spec->name, text,
                         spec->argument);
    }
    return WEFT_OK;
}

static weft_status list_add(weft_options *o, weft_option id, const char *text, weft_error *err)
{
    size_t n = 0;
    while (o->list[id] && o->list[id][n]) n++;
    char **list = realloc(o->list[id], (n + 2) * sizeof *list);
    char *copy = strdup(text);
    if (list) o->list[id] = list;
    if (!list || !copy) {
        free(copy);
        return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    }
    list[n] = copy;
    list[n + 1] = NULL;
    return WEFT_OK;
}

weft_status weft_options_set(weft_options *o, weft_option id, const char *text, const char *origin,
                             weft_error *err)
{
    weft_status status = check_kind(id, text, err);
    if (status) return status;
    if (weft_option_table[id].kind == KIND_LIST) return list_add(o, id, text, err);
    if (o->value[id].text) return WEFT_OK;
    o->value[id].text = strdup(text);
    o->value[id].origin = origin;
    return o->value[id].text ? WEFT_OK : weft_fail(err, WEFT_E_MEMORY, "out of memory");
}

static int find_option(weft_verb verb, const char *name, size_t n, char letter)
{
    for (int i = 0; i < OPT_COUNT; i++) {
        const weft_option_spec *spec = &weft_option_table[i];
        if (!(spec->verbs >> verb & 1)) continue;
        if (name ? strlen(spec->name) == n && strncmp(spec->name, name, n) == 0
                 : spec->letter == letter)
            return i;
    }
    return -1;
}

static weft_status unknown_option(weft_verb verb, const char *word, weft_error *err)
{
    const char *near = NULL, *words = weft_verb_table[verb].words;
    size_t best = 3;
    for (int i = 0; i < OPT_COUNT; i++) {
        if (!(weft_option_table[i].verbs >> verb & 1)) continue;
        size_t d = distance(word + strspn(word, "-"), weft_option_table[i].name);
        if (d < best) {
            best = d;
            near = weft_option_table[i].name;
        }
    }
    if (near)
        return weft_fail(err, WEFT_E_USAGE,
                         "%s: unknown option %s: did you mean --%s; see weft help %s", words, word,
                         near, words);
    return weft_fail(err, WEFT_E_USAGE, "%s: unknown option %s: see weft help %s", words, word,
                     words);
}

/* One word that begins with '-'. *at is advanced when the value is the next word. */
static weft_status parse_option(weft_options *o, int argc, char **argv, int *at, weft_error *err)
{
    const char *word = argv[*at], *value = NULL;
    int id;
    if (word[1] == '-') {
        size_t n = strcspn(word + 2, "=");
        id = find_option(o->verb, word + 2, n, 0);
        if (word[2 + n] == '=') value = word + 3 + n;
    } else {
        id = find_option(o->verb, NULL, 0, word[1]);
        if (word[2]) value = word + 2;
    }
    if (id < 0) return unknown_option(o->verb, word, err);
    const weft_option_spec *spec = &weft_option_table[id];
    if (spec->kind == KIND_FLAG) {
        if (value && word[1] != '-') return unknown_option(o->verb, word, err);
        if (!value) value = "true";
    } else if (!value) {
        if (*at + 1 >= argc)
            return weft_fail(err, WEFT_E_USAGE, "--%s: a value is missing: %s", spec->name,
                             spec->argument);
        value = argv[++*at];
    }
    if (spec->kind != KIND_LIST && o->value[id].text)
        return weft_fail(err, WEFT_E_USAGE, "--%s: given twice", spec->name);
    return weft_options_set(o, (weft_option)id, value, "flag", err);
}

weft_status weft_options_parse(weft_options *o, int argc, char **argv, weft_error *err)
{
    int used = 0;
    memset(o, 0, sizeof *o);
    weft_status status = find_verb(argc, argv, &o->verb, &used, err);
    if (status) return status;
    o->argument = calloc((size_t)argc + 1, sizeof *o->argument);
    if (!o->argument) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    bool only_arguments = false;
    for (int i = 1 + used; i < argc && !status; i++) {
        if (!only_arguments && strcmp(argv[i], "--") == 0)
            only_arguments = true;
        else if (only_arguments || argv[i][0] != '-' || !argv[i][1])
            o->argument[o->n_argument++] = argv[i];
        else
            status = parse_option(o, argc, argv, &i, err);
    }
    return status;
}

void weft_options_free(weft_options *o)
{
    for (int i = 0; i < OPT_COUNT; i++) {
        free(o->value[i].text);
        for (size_t k = 0; o->list[i] && o->list[i][k]; k++) free(o->list[i][k]);
        free(o->list[i]);
    }
    free(o->argument);
    memset(o, 0, sizeof *o);
}

const char *weft_option_text(const weft_options *o, weft_option id)
{
    return o->value[id].text ? o->value[id].text : weft_option_table[id].fallback;
}

int64_t weft_option_int(const weft_options *o, weft_option id)
{
    return strtoll(weft_option_text(o, id), NULL, 10);
}

double weft_option_real(const weft_options *o, weft_option id)
{
    return strtod(weft_option_text(o, id), NULL);
}

bool weft_option_flag(const weft_options *o, weft_option id)
{
    return strcmp(weft_option_text(o, id), "true") == 0;
}
