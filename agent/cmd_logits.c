/* `weft model logits`: log-probabilities, or digests of the raw logits, for given ids. The tests of
 * the numeric contract compare its digests over chunks, threads, vector widths and reopened KV. */
#include "agent/commands.h"
#include "agent/engine_options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct logits_view {
    const int32_t *ids;
    size_t n;
    int64_t n_vocab;
    int top;
    bool digest;
    weft_sha256 all;
    int32_t *order;
    bool failed;
} logits_view;

static void print_top(logits_view *v, int64_t position, const float *logits)
{
    double sum = 0, max = logits[0];
    for (int64_t i = 1; i < v->n_vocab; i++)
        if (logits[i] > max) max = logits[i];
    for (int64_t i = 0; i < v->n_vocab; i++) sum += exp((double)logits[i] - max);
    double base = max + log(sum);
    int count = 0;
    for (int64_t i = 0; i < v->n_vocab;
         i++) { /* insertion into the K best; ties keep the lower id first */
        if (count == v->top && !(logits[i] > logits[v->order[count - 1]])) continue;
        int at = count < v->top ? count++ : count - 1;
        for (; at > 0 && logits[i] > logits[v->order[at - 1]]; at--)
            v->order[at] = v->order[at - 1];
        v->order[at] = (int32_t)i;
    }
    printf("{\"pos\":%lld,\"top\":[", (long long)position);
    for (int i = 0; i < count; i++)
        printf("%s[%d,%.6f]", i ? "," : "", v->order[i], (double)logits[v->order[i]] - base);
    if ((size_t)position + 1 < v->n)
        printf("],\"next_logprob\":%.6f}\n", (double)logits[v->ids[position + 1]] - base);
    else
        printf("],\"next_logprob\":null}\n");
}

static void on_logits(void *context, int64_t position, const float *logits)
{
    logits_view *v = context;
    if (!v->digest) {
        print_top(v, position, logits);
        return;
    }
    uint8_t digest[WEFT_DIGEST_BYTES];
    char hex[WEFT_DIGEST_HEX_BYTES];
    size_t bytes = (size_t)v->n_vocab * sizeof *logits;
    weft_sha256_of(logits, bytes, digest);
    weft_sha256_update(&v->all, logits, bytes);
    printf("%lld %s\n", (long long)position, weft_hex(digest, sizeof digest, hex));
}

/* Evaluates ids [from, to) on a timeline that is opened over the first `from`. */
static weft_status logits_part(weft_model *model, const char *kv, logits_view *v, size_t from,
                               size_t to, weft_error *err)
{
    weft_timeline *timeline = NULL;
    weft_status status = weft_timeline_open(&timeline, model, kv, v->ids, from, err);
    if (!status && weft_timeline_restored(timeline) < (int64_t)from)
        status = weft_fail(err, WEFT_E_MODEL, "--reopen: only %lld of %zu tokens were restored",
                           (long long)weft_timeline_restored(timeline), from);
    if (!status) status = weft_timeline_append(timeline, v->ids + from, to - from, err);
    if (!status) status = weft_timeline_evaluate_each(timeline, on_logits, v, err);
    weft_timeline_close(timeline);
    return status;
}

weft_status cmd_model_logits(const weft_options *o, int *exit_code, weft_error *err)
{
    const char *file = weft_option_text(o, OPT_IDS);
    weft_model *model = NULL;
    weft_buffer input = WEFT_BUFFER_INIT;
    cJSON *list = NULL;
    int32_t *ids = NULL;
    char kv[] = "/tmp/weft-kv-XXXXXX";
    bool made = false;
    logits_view v = {.top = (int)weft_option_int(o, OPT_TOP),
                     .digest = weft_option_flag(o, OPT_DIGEST)};
    size_t reopen = (size_t)weft_option_int(o, OPT_REOPEN);
    if (!*file) return weft_fail(err, WEFT_E_USAGE, "model logits: --ids FILE is missing");
    if (v.top < 1) return weft_fail(err, WEFT_E_USAGE, "model logits: --top must be at least 1");
    weft_status status = weft_file_read(file, (size_t)64 << 20, &input, err);
    if (!status) status = weft_json_parse(weft_buffer_str(&input), input.size, &list, err);
    if (!status) status = engine_open(o, false, &model, err);
    if (!status) {
        v.n_vocab = weft_model_get_info(model)->n_vocab;
        if (v.top > v.n_vocab) v.top = (int)v.n_vocab;
        status = engine_read_ids(list, v.n_vocab, &ids, &v.n, err);
    }
    if (!status && reopen >= v.n && reopen)
        status =
            weft_fail(err, WEFT_E_USAGE, "model logits: --reopen must be below the number of ids");
    if (!status && !(v.order = calloc((size_t)v.top, sizeof *v.order)))
        status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (!status && reopen && !(made = mkdtemp(kv) != NULL))
        status = weft_fail_errno(err, WEFT_E_STORAGE, "create %s", kv);
    v.ids = ids;
    weft_sha256_init(&v.all);
    if (!status && reopen) status = logits_part(model, kv, &v, 0, reopen, err);
    if (!status) status = logits_part(model, made ? kv : NULL, &v, reopen, v.n, err);
    if (!status && v.digest) {
        uint8_t digest[WEFT_DIGEST_BYTES];
        char hex[WEFT_DIGEST_HEX_BYTES];
        weft_sha256_final(&v.all, digest);
        printf("all %s\n", weft_hex(digest, sizeof digest, hex));
    }
    if (made) weft_remove_tree(kv, NULL);
    free(v.order);
    free(ids);
    cJSON_Delete(list);
    weft_buffer_free(&input);
    weft_model_close(model);
    return status;
}
