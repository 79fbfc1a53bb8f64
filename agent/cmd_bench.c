/* `weft model bench`: prefill and decode speed, beside a plain read of as many bytes as decode
 * reads, in the same run: the share of the machine's limit that is reached. */
#include "agent/commands.h"
#include "agent/engine_options.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { READ_REPEATS = 5, MAX_READERS = 64, READ_LEAST = 64 << 20 };

typedef struct reader {
    const uint64_t *from;
    size_t n;
    uint64_t sum; /* keeps the reads from being optimised away */
} reader;

static void *read_part(void *context)
{
    reader *r = context;
    uint64_t sum[8] = {0};
    for (size_t i = 0; i + 8 <= r->n; i += 8)
        for (size_t k = 0; k < 8; k++) sum[k] ^= r->from[i + k];
    for (size_t k = 0; k < 8; k++) r->sum ^= sum[k];
    return NULL;
}

static double read_once(const uint64_t *from, size_t words, int threads)
{
    pthread_t thread[MAX_READERS];
    reader part[MAX_READERS];
    int started = 0;
    size_t each = words / (size_t)threads;
    int64_t begin = weft_monotonic_ns();
    for (int i = 0; i < threads; i++) part[i] = (reader){from + each * (size_t)i, each, 0};
    for (; started < threads - 1; started++)
        if (pthread_create(&thread[started], NULL, read_part, &part[started]) != 0) break;
    for (int i = started; i < threads; i++) read_part(&part[i]);
    for (int i = 0; i < started; i++) pthread_join(thread[i], NULL);
    int64_t spent = weft_monotonic_ns() - begin;
    uint64_t all = 0;
    for (int i = 0; i < threads; i++) all ^= part[i].sum;
    return all == 42 ? -1 : (double)(words * sizeof *from) / ((double)spent / 1e9);
}

/* Best of several plain reads, bytes per second, with as many threads as the engine uses; in huge
 * pages where the system gives them, as the weights are. */
static weft_status plain_read(size_t bytes, int threads, double *out, weft_error *err)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return weft_fail_errno(err, WEFT_E_MEMORY, "map %zu bytes for the plain read", bytes);
    madvise(memory, bytes, MADV_HUGEPAGE);
    uint64_t *word = memory;
    size_t words = bytes / sizeof *word;
    for (size_t i = 0; i < words; i++) word[i] = i;
    *out = 0;
    if (threads > MAX_READERS) threads = MAX_READERS;
    for (int i = 0; i < READ_REPEATS; i++) {
        double speed = read_once(word, words, threads);
        if (speed > *out) *out = speed;
    }
    munmap(memory, bytes);
    return WEFT_OK;
}

static void fill(int32_t *ids, size_t n, int64_t n_vocab)
{
    uint64_t x = 88172645463325252u; /* any ids do: speed does not depend on them */
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        ids[i] = (int32_t)(x % (uint64_t)n_vocab);
    }
}

enum { OPS_MAX = 32 };

typedef struct figures {
    double prefill, decode; /* tokens per second */
    bool wants_ops;
    weft_profile_row op[OPS_MAX]; /* of the decoded tokens */
    size_t n_ops;
    weft_expert_counts experts; /* of the decoded tokens */
    size_t resident;            /* bytes, at the most so far */
} figures;

static weft_expert_counts counted_since(const weft_model *model, const weft_expert_counts *before)
{
    weft_expert_counts c = weft_model_expert_counts(model);
    c.hits -= before->hits;
    c.misses -= before->misses;
    c.read_bytes -= before->read_bytes;
    c.guesses -= before->guesses;
    c.right -= before->right;
    return c;
}

static size_t most_resident(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : (size_t)usage.ru_maxrss << 10;
}

static void ops_take(weft_profile *profile, figures *out)
{
    size_t n;
    const weft_profile_row *row = weft_profile_rows(profile, &n);
    for (size_t i = 0; i < n; i++)
        if (row[i].calls > 0 && out->n_ops < OPS_MAX) out->op[out->n_ops++] = row[i];
}

static weft_status measure(weft_model *model, size_t n_prompt, size_t n_decode, size_t depth,
                           figures *out, weft_error *err)
{
    const weft_model_info *info = weft_model_get_info(model);
    size_t n = n_prompt > depth ? n_prompt : depth;
    weft_timeline *timeline = NULL;
    int32_t *ids = calloc(n + n_decode + 1, sizeof *ids);
    if (!ids) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    fill(ids, n + n_decode, info->n_vocab);
    weft_status status = weft_timeline_open(&timeline, model, NULL, NULL, 0, err);
    int64_t begin = weft_monotonic_ns();
    if (!status && n_prompt) status = weft_timeline_append(timeline, ids, n_prompt, err);
    if (!status && n_prompt) status = weft_timeline_evaluate(timeline, NULL, NULL, err);
    out->prefill = (double)n_prompt / ((double)(weft_monotonic_ns() - begin) / 1e9);
    if (depth < n_prompt) { /* decode begins at the wanted depth: on a timeline of its own */
        weft_timeline_close(timeline);
        timeline = NULL;
        if (!status) status = weft_timeline_open(&timeline, model, NULL, NULL, 0, err);
        if (!status) status = weft_timeline_append(timeline, ids, depth ? depth : 1, err);
    } else if (!status && depth > n_prompt) {
        status = weft_timeline_append(timeline, ids + n_prompt, depth - n_prompt, err);
    }
    if (!status && weft_timeline_pending(timeline))
        status = weft_timeline_evaluate(timeline, NULL, NULL, err);
    weft_profile *profile = NULL;
    const weft_expert_counts before = weft_model_expert_counts(model);
    if (!status && out->wants_ops) status = weft_profile_begin(&profile, model, err);
    begin = weft_monotonic_ns();
    for (size_t i = 0; i < n_decode && !status; i++) {
        status = weft_timeline_append(timeline, ids + n + i, 1, err);
        if (!status) status = weft_timeline_evaluate(timeline, NULL, NULL, err);
    }
    out->decode = (double)n_decode / ((double)(weft_monotonic_ns() - begin) / 1e9);
    if (profile) ops_take(profile, out);
    weft_profile_end(profile);
    out->experts = counted_since(model, &before);
    out->resident = most_resident();
    weft_timeline_close(timeline);
    free(ids);
    return status;
}

enum { BATCH_MAX = 64 };

/* n_decode tokens on each of `batch` timelines, a step for all of them at a time: tokens a second, all together. */
static weft_status measure_batch(weft_model *model, size_t batch, size_t n_decode, size_t depth,
                                 double *out, weft_error *err)
{
    weft_step_item *item = calloc(batch, sizeof *item);
    size_t n = depth ? depth : 1, length = n + n_decode;
    int32_t *ids = calloc(batch * length, sizeof *ids);
    weft_status status = item && ids ? WEFT_OK : weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (!status) fill(ids, batch * length, weft_model_get_info(model)->n_vocab);
    for (size_t i = 0; i < batch && !status; i++) {
        status =
            weft_timeline_open(&item[i].timeline, model, NULL, ids + i * length, n, err);
        if (!status) status = weft_timeline_evaluate(item[i].timeline, NULL, NULL, err);
    }
    int64_t begin = weft_monotonic_ns();
    for (size_t k = n; k < length && !status; k++) {
        for (size_t i = 0; i < batch && !status; i++)
            status = weft_timeline_append(item[i].timeline, ids + i * length + k, 1, err);
        if (!status) weft_step(item, batch);
        for (size_t i = 0; i < batch && !status; i++) {
            status = item[i].status;
            if (status) *err = item[i].err;
        }
    }
    *out = (double)(batch * n_decode) / ((double)(weft_monotonic_ns() - begin) / 1e9);
    for (size_t i = 0; item && i < batch; i++) weft_timeline_close(item[i].timeline);
    free(item);
    free(ids);
    return status;
}

/* Nanoseconds of a token that are spent in no operation. */
static double outside_ns(const figures *speed, size_t n_decode)
{
    double all = 1e9 / speed->decode;
    for (size_t i = 0; i < speed->n_ops; i++) all -= (double)speed->op[i].ns / (double)n_decode;
    return all;
}

static void ops_print(const figures *speed, size_t n_decode, double read)
{
    const double n = (double)n_decode, all = 1e9 / speed->decode;
    printf("%-20s %8s %10s %7s %8s %8s %11s\n", "decode, a token", "calls", "us", "share", "MB",
           "GB/s", "of the read");
    for (size_t i = 0; i < speed->n_ops; i++) {
        const weft_profile_row *op = &speed->op[i];
        printf("%-20s %8.0f %10.1f %5.1f %%", op->name, (double)op->calls / n,
               (double)op->ns / n / 1e3, 100 * (double)op->ns / n / all);
        if (op->bytes)
            printf(" %8.2f %8.2f %9.0f %%", (double)op->bytes / n / 1e6,
                   (double)op->bytes / (double)op->ns,
                   100 * (double)op->bytes / (double)op->ns / (read / 1e9));
        printf("\n");
    }
    const double outside = outside_ns(speed, n_decode);
    printf("%-20s %8s %10.1f %5.1f %%\n", "outside", "", outside / 1e3, 100 * outside / all);
}

static void ops_json(const figures *speed, size_t n_decode, cJSON *line)
{
    cJSON *list = cJSON_AddArrayToObject(line, "ops");
    for (size_t i = 0; i < speed->n_ops && list; i++) {
        const weft_profile_row *op = &speed->op[i];
        cJSON *one = cJSON_CreateObject();
        cJSON_AddStringToObject(one, "name", op->name);
        cJSON_AddNumberToObject(one, "calls_per_token", (double)op->calls / (double)n_decode);
        cJSON_AddNumberToObject(one, "ns_per_token", (double)op->ns / (double)n_decode);
        cJSON_AddNumberToObject(one, "bytes_per_token", (double)op->bytes / (double)n_decode);
        if (!cJSON_AddItemToArray(list, one)) cJSON_Delete(one);
    }
    cJSON_AddNumberToObject(line, "outside_ns_per_token", outside_ns(speed, n_decode));
}

static double share(int64_t part, int64_t rest)
{
    return part + rest > 0 ? (double)part / (double)(part + rest) : 0;
}

static void experts_json(const weft_expert_counts *c, size_t n_decode, cJSON *line)
{
    cJSON *experts = cJSON_AddObjectToObject(line, "experts");
    cJSON_AddNumberToObject(experts, "hit_rate", share(c->hits, c->misses));
    cJSON_AddNumberToObject(experts, "read_bytes_per_token", (double)c->read_bytes / (double)n_decode);
    cJSON_AddNumberToObject(experts, "guessed_of_missed", share(c->right, c->misses - c->right));
    cJSON_AddNumberToObject(experts, "right_of_guessed", share(c->right, c->guesses - c->right));
}

static void experts_print(const weft_expert_counts *c, size_t n_decode)
{
    printf("experts: %.0f %% were in memory, %.1f MB a token read from the file; of those missed %.0f %% were "
           "guessed, of the guesses %.0f %% were right\n",
           100 * share(c->hits, c->misses), (double)c->read_bytes / (double)n_decode / 1e6,
           100 * share(c->right, c->misses - c->right), 100 * share(c->right, c->guesses - c->right));
}

weft_status cmd_model_bench(const weft_options *o, int *exit_code, weft_error *err)
{
    size_t n_prompt = (size_t)weft_option_int(o, OPT_PROMPT_TOKENS),
           n_decode = (size_t)weft_option_int(o, OPT_DECODE_TOKENS);
    size_t depth = (size_t)weft_option_int(o, OPT_DEPTH);
    weft_model *model = NULL;
    figures speed = {.wants_ops = weft_option_flag(o, OPT_OPS)};
    double read = 0, together = 0;
    size_t batch = (size_t)weft_option_int(o, OPT_BATCH);
    if (batch > BATCH_MAX)
        return weft_fail(err, WEFT_E_USAGE, "--batch %zu: at most %d", batch, BATCH_MAX);
    weft_status status = engine_open(o, false, &model, err);
    if (status) return status;
    const weft_model_info *info = weft_model_get_info(model);
    status = measure(model, n_prompt, n_decode, depth, &speed, err);
    if (!status && batch)
        status = measure_batch(model, batch, n_decode, depth, &together, err);
    /* as many bytes as a token reads, but for those that are not in memory because it is full */
    size_t in_memory = info->weight_bytes > READ_LEAST ? info->weight_bytes : READ_LEAST;
    size_t plain = info->step_bytes < in_memory ? info->step_bytes : in_memory;
    if (!status) status = plain_read(plain, info->threads, &read, err);
    if (!status) {
        double read_share = read > 0 ? speed.decode * (double)info->step_bytes / read : 0;
        if (weft_option_flag(o, OPT_JSON)) {
            cJSON *line = cJSON_CreateObject();
            cJSON_AddStringToObject(line, "backend", info->backend);
            weft_json_add_int(line, "threads", info->threads);
            weft_json_add_int(line, "depth", (int64_t)depth);
            cJSON_AddNumberToObject(line, "prefill_tokens_per_second", speed.prefill);
            cJSON_AddNumberToObject(line, "decode_tokens_per_second", speed.decode);
            cJSON_AddNumberToObject(line, "read_bytes_per_second", read);
            cJSON_AddNumberToObject(line, "read_share", read_share);
            if (batch) {
                weft_json_add_int(line, "batch", (int64_t)batch);
                cJSON_AddNumberToObject(line, "batch_tokens_per_second", together);
            }
            weft_json_add_int(line, "resident_bytes", (int64_t)speed.resident);
            if (info->file_experts) experts_json(&speed.experts, n_decode, line);
            if (speed.wants_ops) ops_json(&speed, n_decode, line);
            status = print_json(line, err);
        } else {
            printf("%s, %d threads, %zu MiB of weights\nprefill %zu tokens: %.1f tokens/s\n"
                   "decode %zu tokens at %zu: %.1f tokens/s, %.0f %% of a plain read (%.1f GB/s)\n",
                   info->backend, info->threads, info->weight_bytes >> 20, n_prompt, speed.prefill,
                   n_decode, depth, speed.decode, 100 * read_share, read / 1e9);
            if (info->file_experts) experts_print(&speed.experts, n_decode);
            if (batch)
                printf("decode of %zu timelines at once: %.1f tokens/s, %.2f times one\n", batch,
                       together, together / speed.decode);
            if (speed.wants_ops) ops_print(&speed, n_decode, read);
        }
    }
    weft_model_close(model);
    return status;
}
