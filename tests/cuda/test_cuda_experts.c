/* Mixtures of experts: the picks, their order by expert, a whole layer of them. */
#include "cuda_test.h"

/* ---- the choice, in plain loops ---- */

static bool better(const float *v, uint32_t a, uint32_t b)
{
    return v[a] > v[b] || (v[a] == v[b] && a < b);
}

/* How many of the n with `open` stand before i. */
static uint32_t rank(const float *v, const bool *open, uint32_t n, uint32_t i)
{
    uint32_t before = 0;
    for (uint32_t j = 0; j < n; j++) before += open[j] && better(v, j, i);
    return before;
}

static void route_twin(const weft_cuda_route_args *a, float *p, weft_pick *out)
{
    float choice[WEFT_CUDA_EXPERTS], group[WEFT_CUDA_GROUPS], max = p[0], sum = 1, chosen = 0;
    bool open[WEFT_CUDA_EXPERTS], open_group[WEFT_CUDA_GROUPS];
    const uint32_t n = a->n_expert, groups = a->n_group > 1 ? a->n_group : 1, size = n / groups;
    for (uint32_t e = 1; e < n; e++) max = p[e] > max ? p[e] : max;
    if (a->sigmoid)
        for (uint32_t e = 0; e < n; e++) p[e] = 1 / (1 + weft_expf(0 - p[e]));
    else
        sum = cpu_kernels_scalar.softmax_sum(p, n, max, p);
    if (!a->sigmoid && a->bias) {
        for (uint32_t e = 0; e < n; e++) p[e] /= sum;
        sum = 1;
    }
    for (uint32_t e = 0; e < n; e++) choice[e] = p[e] + (a->bias ? a->bias[e] : 0);
    for (uint32_t e = 0; e < n; e++) open[e] = true;
    for (uint32_t g = 0; g < groups; g++) {
        open_group[g] = true;
        group[g] = 0;
        for (uint32_t e = g * size; e < (g + 1) * size; e++) {
            const uint32_t at = rank(choice + g * size, open, size, e - g * size);
            if (at == 0 || (at == 1 && a->sigmoid)) group[g] += choice[e];
        }
    }
    for (uint32_t e = 0; e < n && groups > 1; e++) open[e] = rank(group, open_group, groups, e / size) < a->n_group_used;
    for (uint32_t e = 0; e < n; e++) {
        const uint32_t at = rank(choice, open, n, e);
        if (open[e] && at < a->n_used) out[at] = (weft_pick){e, p[e] / sum};
    }
    for (uint32_t i = 0; i < a->n_used; i++) chosen += out[i].weight;
    if (a->sigmoid) chosen += 1e-20f;
    for (uint32_t i = 0; i < a->n_used; i++)
        out[i].weight = (a->normalise ? out[i].weight / chosen : out[i].weight) * a->scale;
}

static void check_route(uint32_t n_expert, uint32_t n_used, uint32_t n_group, uint32_t n_group_used, bool sigmoid,
                        bool with_bias, bool normalise)
{
    enum { N = 5 };
    rng r = {n_expert * 7 + n_used};
    float *score = random_floats(N * n_expert, &r), *bias = random_floats(n_expert, &r);
    float *p = new_floats(N * n_expert), *q = new_floats(N * n_expert);
    weft_pick want[WEFT_CUDA_USED], *out = new_bytes(N * n_used * sizeof *out);
    for (uint32_t e = 0; e < n_expert; e++) { /* equal ones, large ones, zeros of both signs */
        score[n_expert + e] = (float)(next32(&r) % 3);
        score[2 * n_expert + e] *= 90;
        score[3 * n_expert + e] = e % 2 ? -0.0f : 0.0f;
        bias[e] = with_bias ? bias[e] * 0.1f : 0;
    }
    FOR_EACH_ORDER(order)
    {
        weft_cuda_route_args a = {.score = p, .bias = with_bias ? bias : NULL, .out = out, .scale = 2.5f, .n = N,
                                  .n_expert = n_expert, .n_used = n_used, .n_group = n_group,
                                  .n_group_used = n_group_used, .sigmoid = sigmoid, .normalise = normalise};
        memcpy(p, score, N * n_expert * sizeof *p);
        memcpy(q, score, N * n_expert * sizeof *q);
        memset(out, 0xff, N * n_used * sizeof *out);
        LAUNCH("route", a, weft_cuda_route_launch(&a));
        for (uint32_t t = 0; t < N; t++) {
            route_twin(&a, q + t * n_expert, want);
            for (uint32_t i = 0; i < n_used; i++) {
                assert_int_equal(out[t * n_used + i].expert, want[i].expert);
                assert_bits("weight", 1, &out[t * n_used + i].weight, &want[i].weight);
            }
        }
    }
    free(out);
    free(q);
    free(p);
    free(bias);
    free(score);
}

static void test_route(void **state)
{
    check_route(8, 2, 0, 0, false, false, true);
    check_route(128, 8, 1, 1, false, false, false);
    check_route(33, 6, 0, 0, false, true, true);
    check_route(256, 8, 8, 4, true, true, true);
    check_route(160, 6, 8, 3, false, false, false);
    check_route(1000, 32, 40, 20, true, false, true);
    check_route(1, 1, 0, 0, true, true, true);
}

/* ---- the order ---- */

static void test_group(void **state)
{
    static const struct {
        uint32_t n, n_used, n_expert, width;
    } sizes[] = {{1, 8, 256, 1}, {67, 3, 5, 4}, {300, 4, 128, 16}, {1, 1, 1, 8}, {200, 8, 1024, 64}};
    rng r = {51};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const uint32_t n = sizes[s].n, used = sizes[s].n_used, experts = sizes[s].n_expert, picks = n * used;
        const uint32_t runs = weft_cuda_runs(n, used, experts, sizes[s].width) + 3;
        weft_pick *pick = new_bytes(picks * sizeof *pick);
        weft_cuda_run *run = new_bytes(runs * sizeof *run);
        uint32_t *token_of = new_bytes(picks * sizeof *token_of), *pick_of = new_bytes(picks * sizeof *pick_of);
        for (uint32_t i = 0; i < picks; i++) pick[i] = (weft_pick){next32(&r) % experts, 1};
        FOR_EACH_ORDER(order)
        {
            weft_cuda_group_args a = {pick, run, token_of, pick_of, n, used, experts, sizes[s].width, runs};
            memset(run, 0xff, runs * sizeof *run);
            LAUNCH("group", a, weft_cuda_group_launch(&a));
            uint32_t at = 0, next = 0;
            for (uint32_t e = 0; e < experts; e++) {
                const uint32_t first = at;
                for (uint32_t i = 0; i < picks; i++)
                    if (pick[i].expert == e) {
                        assert_int_equal(pick_of[at], i);
                        assert_int_equal(token_of[at], i / used);
                        at++;
                    }
                for (uint32_t from = first; from < at; from += sizes[s].width, next++) {
                    assert_true(next < runs);
                    assert_int_equal(run[next].matrix, e);
                    assert_int_equal(run[next].first, from);
                    assert_int_equal(run[next].n, at - from < sizes[s].width ? at - from : sizes[s].width);
                }
            }
            for (; next < runs; next++) assert_int_equal(run[next].n, 0);
        }
        free(pick_of);
        free(token_of);
        free(run);
        free(pick);
    }
}

/* ---- a layer ---- */

static weft_tensor stack_of(weft_tensor_type type, size_t rows, size_t columns, size_t n, rng *r)
{
    weft_tensor t = random_tensor(type, rows * n, columns, false, r);
    t.dim[1] = rows;
    t.dim[2] = n;
    t.n_dims = 3;
    return t;
}

static uint8_t *pack_stack(const weft_tensor *t, weft_cuda_format *f, size_t *out_bytes)
{
    assert_true(weft_cuda_format_of(t->type, f));
    const size_t row = cpu_row_bytes(t->type, t->dim[0]);
    *out_bytes = weft_cuda_weight_bytes(*f, t->dim[0], t->dim[1]);
    uint8_t *out = new_bytes(t->dim[2] * *out_bytes);
    for (size_t i = 0; i < t->dim[2]; i++)
        weft_cuda_weight_pack(t->type, t->dim[0], 0, t->dim[1], (const uint8_t *)t->data + i * t->dim[1] * row,
                              out + i * *out_bytes);
    return out;
}

/* Columns of one brick: then the sums are the CPU's to the bit, and so is the layer. */
static void test_layer(void **state)
{
    enum { N = 7, EXPERTS = 5, USED = 2, EMBD = 256, FF = 96 };
    static const struct {
        const char *kind;
        uint32_t width;
    } ways[] = {{"matvec_q4_1", 1}, {"matvec_q4_4", 4}, {"matmul_q4_16", 16}};
    rng r = {52};
    device d;
    weft_error err;
    weft_weight *cpu[3] = {NULL, NULL, NULL};
    weft_tensor t[3] = {stack_of(WEFT_Q4_0, FF, EMBD, EXPERTS, &r), stack_of(WEFT_Q4_0, FF, EMBD, EXPERTS, &r),
                        stack_of(WEFT_Q4_0, EMBD, FF, EXPERTS, &r)};
    weft_pick pick[N * USED];
    float *x = random_floats(N * EMBD, &r), *want = new_floats(N * EMBD), *out = new_floats(N * EMBD);
    float *hidden = new_floats(N * USED * FF), *y = new_floats(N * USED * EMBD);
    uint8_t *w[3];
    size_t bytes[3];
    weft_cuda_format format;
    assert_true(open_device(&d, "scalar", 1));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(d.ops->weight_new(d.b, &t[i], &cpu[i], &err), WEFT_OK);
        w[i] = pack_stack(&t[i], &format, &bytes[i]);
    }
    for (uint32_t i = 0; i < N * USED; i++) /* expert 3 is nobody's choice */
        pick[i] = (weft_pick){i % USED ? 4 : next32(&r) % 3, next_float(&r)};
    const weft_experts_size size = {N, EXPERTS, USED, EMBD, FF};
    const weft_experts e = {cpu[0], cpu[1], cpu[2], WEFT_SILU, USED};
    assert_int_equal(d.ops->reserve_experts(d.b, &size, &err), WEFT_OK);
    d.ops->experts(d.b, &e, pick, x, N, want);
    for (size_t way = 0; way < 3; way++) {
        const uint32_t width = ways[way].width, runs = weft_cuda_runs(N, USED, EXPERTS, width);
        weft_cuda_run *run = new_bytes(runs * sizeof *run);
        uint32_t token_of[N * USED], pick_of[N * USED];
        int8_t q[N * USED * EMBD];
        weft_cuda_block block[N * USED * EMBD / 32];
        weft_cuda_group_args g = {pick, run, token_of, pick_of, N, USED, EXPERTS, width, runs};
        LAUNCH("group", g, weft_cuda_group_launch(&g));
        weft_cuda_quantise_args quantise = {x, q, block, N, EMBD, EMBD};
        LAUNCH("quantise", quantise, weft_cuda_quantise_launch(&quantise));
        weft_cuda_matmul_args up = {.w = {{w[0], NULL, hidden, FF}, {w[1], NULL, NULL, FF}}, .q = q, .block = block,
                                    .run = run, .x_row = token_of, .stack_bytes = {bytes[0], bytes[1]}, .n = N * USED,
                                    .columns = EMBD, .n_w = 2, .n_run = runs, .stack = 1, .gated = true,
                                    .activation = WEFT_SILU};
        LAUNCH(ways[way].kind, up,
               width < 16 ? weft_cuda_matvec_launch(&up, width) : weft_cuda_matmul_launch(&up, width));
        weft_cuda_quantise_args again = {hidden, q, block, N * USED, FF, FF};
        LAUNCH("quantise", again, weft_cuda_quantise_launch(&again));
        weft_cuda_matmul_args down = {.w = {{w[2], NULL, y, EMBD}}, .q = q, .block = block, .run = run,
                                      .y_row = pick_of, .stack_bytes = {bytes[2], 0}, .n = N * USED, .columns = FF,
                                      .n_w = 1, .n_run = runs, .stack = 1};
        LAUNCH(ways[way].kind, down,
               width < 16 ? weft_cuda_matvec_launch(&down, width) : weft_cuda_matmul_launch(&down, width));
        FOR_EACH_ORDER(order)
        {
            weft_cuda_combine_args c = {y, pick, out, N, USED, EMBD};
            clear(out, N * EMBD);
            LAUNCH("combine", c, weft_cuda_combine_launch(&c));
            assert_bits(ways[way].kind, N * EMBD, out, want);
        }
        free(run);
    }
    for (int i = 0; i < 3; i++) {
        free(w[i]);
        d.ops->weight_free(cpu[i]);
        free_tensor(&t[i]);
    }
    weft_cpu_backend_free(d.b);
    free(y);
    free(hidden);
    free(out);
    free(want);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_route), cmocka_unit_test(test_group),
                                       cmocka_unit_test(test_layer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
