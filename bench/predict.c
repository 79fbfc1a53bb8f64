/* Decoding with and without guesses of the model's own layer, in turns.
 *
 *     build/bench/predict MODEL THREADS TOKENS ROUNDS
 *
 * MODEL: of bench/predict, in which i + 1 follows i. Ids go on by 1, as the layer predicts, or by 2, in given shares, so
 * that no place repeats and prompt lookup has nothing. One line of JSON a share: tokens a second, the median round; the
 * ratio of each round; guesses, and how many were right.
 */
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_ROUNDS = 32, WARM = 24 };

typedef struct decoded {
    double rate;
    int64_t guessed, right;
} decoded;

static void check(weft_status status, const weft_error *err)
{
    if (status == WEFT_OK) return;
    fprintf(stderr, "predict: %s\n", err->message);
    exit(1);
}

static decoded decode(weft_model *m, int tokens, double share, int guesses)
{
    weft_error err;
    weft_timeline *t = NULL;
    int32_t id = 1;
    int64_t begun = 0;
    decoded d = {0};
    uint64_t state = 7;
    check(weft_timeline_open(&t, m, NULL, &id, 1, &err), &err);
    check(weft_timeline_guess(t, guesses, &err), &err);
    for (int i = 0; i < WARM + tokens; i++) {
        if (i == WARM) begun = weft_monotonic_ns();
        check(weft_timeline_evaluate(t, NULL, NULL, &err), &err);
        state = state * 6364136223846793005u + 1442695040888963407u;
        id += (double)(state >> 40) * 0x1p-24 < share ? 1 : 2;
        check(weft_timeline_append(t, &id, 1, &err), &err);
    }
    d.rate = tokens / ((double)(weft_monotonic_ns() - begun) * 1e-9);
    d.guessed = weft_timeline_guessed(t, &d.right);
    weft_timeline_close(t);
    return d;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static const double shares[] = {1, 0.85, 0.5, 0};
    if (argc != 5) {
        fprintf(stderr, "predict MODEL THREADS TOKENS ROUNDS\n");
        return 2;
    }
    const int tokens = atoi(argv[3]), rounds = atoi(argv[4]);
    const weft_engine_options o = {.threads = atoi(argv[2]), .context = 4096};
    weft_model *m = NULL;
    weft_error err;
    if (tokens < 1 || tokens > 220 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "predict: 1 to 220 tokens, 1 to %d rounds\n", (int)MAX_ROUNDS);
        return 2;
    }
    check(weft_model_open(&m, argv[1], &o, &err), &err);
    for (size_t s = 0; s < sizeof shares / sizeof *shares; s++) {
        double off[MAX_ROUNDS], on[MAX_ROUNDS], ratio[MAX_ROUNDS];
        decoded with = {0};
        for (int i = 0; i < rounds; i++) {
            off[i] = decode(m, tokens, shares[s], 0).rate;
            with = decode(m, tokens, shares[s], -1);
            on[i] = with.rate;
            ratio[i] = on[i] / off[i];
        }
        qsort(off, (size_t)rounds, sizeof *off, ascending);
        qsort(on, (size_t)rounds, sizeof *on, ascending);
        printf("{\"share\": %g, \"off\": %.2f, \"auto\": %.2f, \"ratios\": [", shares[s], off[rounds / 2], on[rounds / 2]);
        for (int i = 0; i < rounds; i++) printf("%s%.3f", i ? ", " : "", ratio[i]);
        printf("], \"guessed\": %lld, \"right\": %lld}\n", (long long)with.guessed, (long long)with.right);
    }
    weft_model_close(m);
    return 0;
}
