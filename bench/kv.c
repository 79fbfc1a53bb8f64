/* What pages on disk cost: decode with and without a directory, in turns and each first as often as the other, so that
 * a drifting machine hits both; and taking pages over at open. Usage: bench/kv MODEL [TOKENS], on an idle machine. */
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 10, OPENINGS = 4, DECODED = 64 };

static void must(weft_status status, const weft_error *err)
{
    if (!status) return;
    fprintf(stderr, "bench/kv: %s\n", err->message);
    exit(1);
}

static double ms_since(int64_t from)
{
    return (double)(weft_monotonic_ns() - from) / 1e6;
}

/* Appends n ids, evaluated `step` at a time; milliseconds. */
static double extend(weft_timeline *t, size_t n, size_t step)
{
    weft_error err;
    int64_t from = weft_monotonic_ns();
    for (size_t done = 0; done < n; done += step) {
        for (size_t i = 0; i < step; i++) {
            int32_t id = (int32_t)((weft_timeline_length(t) * 37) % 900 + 50);
            must(weft_timeline_append(t, &id, 1, &err), &err);
        }
        must(weft_timeline_evaluate(t, NULL, NULL, &err), &err);
    }
    return ms_since(from);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void compare(weft_timeline *plain, weft_timeline *paged)
{
    double ratio[ROUNDS], a = 0, b;
    for (int round = 0; round < ROUNDS; round++) {
        if (round % 2 == 0) a = extend(plain, DECODED, 1);
        b = extend(paged, DECODED, 1);
        if (round % 2 == 1) a = extend(plain, DECODED, 1);
        printf("decode of %d tokens: %.1f ms in memory, %.1f ms with pages on disk\n", DECODED, a, b);
        ratio[round] = b / a;
    }
    qsort(ratio, ROUNDS, sizeof *ratio, by_value);
    printf("pages on disk cost %.2f %% of decode in the median round, %.2f to %.2f in the middle half\n",
           100 * ((ratio[ROUNDS / 2 - 1] + ratio[ROUNDS / 2]) / 2 - 1), 100 * (ratio[ROUNDS / 4] - 1),
           100 * (ratio[ROUNDS - 1 - ROUNDS / 4] - 1));
}

int main(int argc, char **argv)
{
    weft_error err;
    weft_model *model = NULL;
    weft_timeline *plain = NULL, *paged = NULL;
    char dir[] = "/tmp/weft-bench-kv-XXXXXX";
    size_t tokens = argc > 2 ? strtoul(argv[2], NULL, 10) / 64 * 64 : 512;
    if (argc < 2 || !mkdtemp(dir)) {
        fprintf(stderr, "usage: bench/kv MODEL [TOKENS]\n");
        return 2;
    }
    must(weft_model_open(&model, argv[1], NULL, &err), &err);
    must(weft_timeline_open(&plain, model, NULL, NULL, 0, &err), &err);
    must(weft_timeline_open(&paged, model, dir, NULL, 0, &err), &err);
    compare(plain, paged);
    extend(paged, tokens, 64);
    size_t n = (size_t)weft_timeline_length(paged);
    int32_t *ids = malloc(n * sizeof *ids);
    if (!ids) return 1;
    for (size_t i = 0; i < n; i++) ids[i] = weft_timeline_ids(paged)[i];
    for (int round = 0; round < OPENINGS; round++) {
        weft_timeline_close(paged);
        int64_t from = weft_monotonic_ns();
        must(weft_timeline_open(&paged, model, dir, ids, n, &err), &err);
        double ms = ms_since(from), pages = (double)n / 64;
        double bytes = pages * (double)weft_model_get_info(model)->kv_page_bytes;
        printf("open over %zu tokens, %lld taken over: %.1f ms, %.2f ms a page, %.1f GB/s\n", n,
               (long long)weft_timeline_restored(paged), ms, ms / pages, bytes / ms / 1e6);
    }
    weft_timeline_close(paged);
    weft_timeline_close(plain);
    weft_model_close(model);
    free(ids);
    must(weft_remove_tree(dir, &err), &err);
    return 0;
}
