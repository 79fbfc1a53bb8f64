/* Cost of one event: appended batched and durable, and read back with its checks.
 * `meson test --benchmark` or `bench_append DIR`, on the disk that DIR is on. */
#include "traces/trace.h"

#include <stdio.h>
#include <stdlib.h>

static double append_us(weft_trace *t, const cJSON *body, int n, weft_durability how)
{
    weft_error err;
    int64_t from = weft_monotonic_ns();
    for (int i = 0; i < n; i++)
        if (weft_trace_append(t, "segment", "turn-1", body, how, NULL, &err)) {
            fprintf(stderr, "%s\n", err.message);
            exit(1);
        }
    return (double)(weft_monotonic_ns() - from) / 1e3 / n;
}

int main(int argc, char **argv)
{
    enum { BATCHED = 20000, DURABLE = 1000 };
    char dir[512];
    weft_trace *t = NULL;
    weft_error err;
    snprintf(dir, sizeof dir, "%s/bench-append-%lld", argc > 1 ? argv[1] : ".",
             (long long)weft_realtime_ns());
    cJSON *body = cJSON_CreateObject();
    char text[301];
    for (int i = 0; i < 300; i++) text[i] = (char)('a' + i % 26);
    text[300] = '\0';
    cJSON_AddStringToObject(body, "text", text);
    if (weft_trace_create(&t, dir, "bench", &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    double batched = append_us(t, body, BATCHED, WEFT_BATCHED);
    double durable = append_us(t, body, DURABLE, WEFT_DURABLE);
    int64_t from = weft_monotonic_ns();
    weft_status status = weft_trace_each(t, 0, NULL, NULL, &err);
    double read = (double)(weft_monotonic_ns() - from) / 1e3 / (BATCHED + DURABLE);
    printf("batched %.1f us/event, durable %.1f us/event, read and checked %.1f us/event\n",
           batched, durable, read);
    weft_trace_close(t, NULL);
    weft_remove_tree(dir, NULL);
    cJSON_Delete(body);
    return status ? 1 : 0;
}
