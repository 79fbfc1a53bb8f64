/* Attention, rotary positions, and keys and values in their pages.
 *
 * The naive twin here is a softmax over all visible positions in double, on the keys and values as the
 * pages hold them. Then the contract: the bits of a token's result depend on neither the other
 * tokens of the call, nor the threads, nor the instruction set, nor on what stale pages contain. */
#include "kernel_test.h"

#include <stdio.h>

enum { MAX_PAGES = 24 };

typedef struct scene {
    weft_kv_layout layout;
    uint32_t n_head;
    size_t length; /* positions */
    float *q, *k, *v;
    float *stored_k, *stored_v; /* as the pages hold them */
    void *page[MAX_PAGES];
    weft_row *row;
} scene;

/* q8_0 by its definition: a half scale for 32 values, rounded before they are divided by it. */
static void stored_block(const float *x, size_t n, float *out)
{
    float top = 0;
    for (size_t i = 0; i < n; i++) top = fmaxf(top, fabsf(x[i]));
    float d = half_to_float(half_from_float(top / 127)), inverse = d > 0 ? 1 / d : 0;
    for (size_t i = 0; i < n; i++) out[i] = d * fminf(127, fmaxf(-127, rintf(x[i] * inverse)));
}

/* n rows of dim */
static float *stored(weft_kv_type type, const float *x, size_t n, size_t dim)
{
    float *out = malloc(n * dim * sizeof *out);
    assert_non_null(out);
    memcpy(out, x, n * dim * sizeof *out);
    if (type == WEFT_KV_F16)
        for (size_t i = 0; i < n * dim; i++) out[i] = half_to_float(half_from_float(x[i]));
    if (type == WEFT_KV_Q8_0)
        for (size_t i = 0; i < n; i++)
            for (size_t d = 0; d < dim; d += 32)
                stored_block(x + i * dim + d, dim - d < 32 ? dim - d : 32, out + i * dim + d);
    return out;
}

/* In place: rows point at its pages. */
static void new_scene(scene *out, weft_kv_type type, uint32_t n_head, uint32_t n_head_kv,
                      uint32_t key_dim, uint32_t value_dim, size_t length, rng *r)
{
    scene s = {
        .layout = {.type = type,
                   .n_layer = 2,
                   .n_head_kv = n_head_kv,
                   .key_dim = key_dim,
                   .value_dim = value_dim},
        .n_head = n_head,
        .length = length};
    s.q = random_floats(length * n_head * key_dim, r);
    s.k = random_floats(length * n_head_kv * key_dim, r);
    s.v = random_floats(length * n_head_kv * value_dim, r);
    for (size_t i = 0; i < length * n_head_kv * key_dim; i++) s.k[i] *= 4;
    s.stored_k = stored(type, s.k, length * n_head_kv, key_dim);
    s.stored_v = stored(type, s.v, length * n_head_kv, value_dim);
    s.row = malloc(length * sizeof *s.row);
    assert_non_null(s.row);
    for (size_t i = 0; i < length; i++) s.row[i] = (weft_row){out->page, (int64_t)i};
    for (size_t i = 0; i < (length + 63) / 64; i++) {
        s.page[i] = malloc(weft_kv_page_bytes(&s.layout));
        assert_non_null(s.page[i]);
    }
    *out = s;
}

static void free_scene(scene *s)
{
    for (int i = 0; i < MAX_PAGES; i++) free(s->page[i]);
    free(s->row);
    free(s->q);
    free(s->k);
    free(s->v);
    free(s->stored_k);
    free(s->stored_v);
}

/* All bits set: NaN in f16 and f32, and in the scales of q8_0. */
static void poison(scene *s)
{
    for (int i = 0; i < MAX_PAGES; i++)
        if (s->page[i]) memset(s->page[i], 0xff, weft_kv_page_bytes(&s->layout));
}

static void write_all(const device *d, scene *s, size_t from, size_t n)
{
    const weft_kv_layout *l = &s->layout;
    d->ops->kv_write(d->b, l, 1, s->row + from, n, s->k + from * l->n_head_kv * l->key_dim,
                     s->v + from * l->n_head_kv * l->value_dim);
}

static void attend(const device *d, const scene *s, int64_t window, size_t from, size_t n,
                   float *out)
{
    const weft_kv_layout *l = &s->layout;
    weft_attention a = {.layout = l,
                        .layer = 1,
                        .n_head = s->n_head,
                        .scale = 0.125f,
                        .window = window,
                        .row = s->row + from,
                        .n = n,
                        .q = s->q + from * s->n_head * l->key_dim,
                        .out = out};
    d->ops->attention(d->b, &a);
}

/* out [value_dim] of one query head, in double */
static void naive(const scene *s, int64_t window, size_t token, uint32_t head, double *out)
{
    const weft_kv_layout *l = &s->layout;
    uint32_t h = head / (s->n_head / l->n_head_kv);
    size_t from = window > 0 && (int64_t)token >= window ? token - (size_t)window + 1 : 0;
    double score[MAX_PAGES * 64], max = -INFINITY, sum = 0;
    const float *q = s->q + (token * s->n_head + head) * l->key_dim;
    for (size_t j = from; j <= token; j++) {
        const float *k = s->stored_k + (j * l->n_head_kv + h) * l->key_dim;
        score[j] = 0;
        for (uint32_t d = 0; d < l->key_dim; d++) score[j] += 0.125 * q[d] * k[d];
        max = score[j] > max ? score[j] : max;
    }
    for (uint32_t d = 0; d < l->value_dim; d++) out[d] = 0;
    for (size_t j = from; j <= token; j++) {
        double p = exp(score[j] - max);
        sum += p;
        for (uint32_t d = 0; d < l->value_dim; d++)
            out[d] += p * s->stored_v[(j * l->n_head_kv + h) * l->value_dim + d];
    }
    for (uint32_t d = 0; d < l->value_dim; d++) out[d] /= sum;
}

static bool open_reserved(device *d, const char *isa, int threads, size_t n)
{
    weft_error err;
    if (!open_device(d, isa, threads)) return false;
    assert_int_equal(d->ops->reserve(d->b, n, 2048, &err), WEFT_OK);
    return true;
}

typedef struct shape {
    weft_kv_type type;
    uint32_t n_head, n_head_kv, key_dim, value_dim;
    size_t length;
    int64_t window;
} shape;

static const shape shapes[] = {
    {WEFT_KV_F16, 6, 1, 64, 64, 300, 0},    {WEFT_KV_F16, 7, 1, 64, 64, 300, 100},
    {WEFT_KV_F32, 4, 2, 32, 80, 130, 0},    {WEFT_KV_F16, 4, 1, 256, 256, 70, 64},
    {WEFT_KV_F32, 2, 2, 24, 21, 600, 7},    {WEFT_KV_F16, 30, 1, 16, 16, 280, 0},
    {WEFT_KV_Q8_0, 7, 1, 64, 64, 300, 100}, {WEFT_KV_Q8_0, 2, 2, 24, 21, 530, 7},
    {WEFT_KV_Q8_0, 6, 1, 128, 80, 270, 0},
    {WEFT_KV_F16, 12, 2, 128, 128, 520, 0}, {WEFT_KV_F16, 3, 3, 64, 64, 1100, 300},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static void test_against_double(void **state)
{
    rng r = {11};
    for (int k = 0; k < N_SHAPES; k++) {
        const shape *p = &shapes[k];
        scene s;
        new_scene(&s, p->type, p->n_head, p->n_head_kv, p->key_dim, p->value_dim, p->length, &r);
        float *out = new_floats(s.length * s.n_head * p->value_dim);
        double want[256];
        device d;
        assert_true(open_reserved(&d, NULL, 2, s.length));
        poison(&s);
        write_all(&d, &s, 0, s.length);
        attend(&d, &s, p->window, 0, s.length, out);
        for (size_t t = 0; t < s.length; t = t < 140 || t + 20 > s.length ? t + 1 : t + 37)
            for (uint32_t h = 0; h < s.n_head; h++) {
                naive(&s, p->window, t, h, want);
                for (uint32_t i = 0; i < p->value_dim; i++) {
                    float got = out[(t * s.n_head + h) * p->value_dim + i];
                    if (!(fabs(got - want[i]) < 1e-5))
                        fail_msg("shape %d token %zu head %u dim %u: %g, not %g", k, t, h, i,
                                 (double)got, want[i]);
                }
            }
        weft_cpu_backend_free(d.b);
        free(out);
        free_scene(&s);
    }
}

/* Prefill in chunks of any size equals one token at a time; what later tokens and stale pages hold is
 * never seen. */
static void check_bits(const shape *p, rng *r)
{
    static const size_t chunks[] = {1, 2, 7, 8, 9, 64, 100};
    scene s;
    new_scene(&s, p->type, p->n_head, p->n_head_kv, p->key_dim, p->value_dim, p->length, r);
    const size_t width = s.n_head * p->value_dim, n = s.length * width;
    float *want = new_floats(n), *out = new_floats(n);
    for (int isa = 0; isa < N_ISAS; isa++)
        for (int threads = 1; threads <= 3; threads++)
            for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++) {
                device d;
                if (isa == 0 && (size_t)threads + c > 2 && c % 3) continue; /* scalar is slow */
                if (!open_reserved(&d, all_isas[isa], threads, 100)) continue;
                poison(&s);
                memset(out, 0xff, n * sizeof *out);
                for (size_t t = 0; t < s.length; t += chunks[c]) {
                    size_t m = chunks[c] < s.length - t ? chunks[c] : s.length - t;
                    write_all(&d, &s, t, m);
                    attend(&d, &s, p->window, t, m, out + t * width);
                }
                if (isa == 0 && threads == 1 && c == 0) memcpy(want, out, n * sizeof *out);
                if (memcmp(want, out, n * sizeof *out) != 0)
                    fail_msg("%s, %d threads, chunks of %zu: other bits than scalar one by one",
                             all_isas[isa], threads, chunks[c]);
                weft_cpu_backend_free(d.b);
            }
    free(want);
    free(out);
    free_scene(&s);
}

static void test_bits(void **state)
{
    rng r = {12};
    for (int k = 0; k < N_SHAPES - 2; k++) check_bits(&shapes[k], &r);
}

/* Tokens of different timelines in one call. */
static void test_batch(void **state)
{
    enum { HEADS = 6, DIM = 32 };
    rng r = {13};
    scene s[3];
    static const size_t length[3] = {290, 64, 65};
    for (int i = 0; i < 3; i++) new_scene(&s[i], WEFT_KV_F16, HEADS, 2, DIM, DIM, length[i], &r);
    for (int isa = 0; isa < N_ISAS; isa++)
        for (int threads = 1; threads <= 2; threads++) {
            device d;
            weft_row row[12];
            float q[12 * HEADS * DIM], out[12 * HEADS * DIM], alone[HEADS * DIM];
            if (!open_reserved(&d, all_isas[isa], threads, 512)) continue;
            for (int i = 0; i < 3; i++) write_all(&d, &s[i], 0, length[i]);
            for (int i = 0; i < 12; i++) { /* runs of 2, 1 and 1 */
                const scene *from = &s[i % 4 == 3 ? 2 : i % 4 / 2];
                size_t at = from->length - 2 + (size_t)(i % 2);
                row[i] = from->row[at];
                memcpy(q + i * HEADS * DIM, from->q + at * HEADS * DIM, HEADS * DIM * sizeof *q);
            }
            weft_attention a = {.layout = &s[0].layout,
                                .layer = 1,
                                .n_head = HEADS,
                                .scale = 0.125f,
                                .row = row,
                                .n = 12,
                                .q = q,
                                .out = out};
            d.ops->attention(d.b, &a);
            for (int i = 0; i < 12; i++) {
                const scene *from = &s[i % 4 == 3 ? 2 : i % 4 / 2];
                attend(&d, from, 0, from->length - 2 + (size_t)(i % 2), 1, alone);
                assert_memory_equal(alone, out + i * HEADS * DIM, sizeof alone);
            }
            weft_cpu_backend_free(d.b);
        }
    for (int i = 0; i < 3; i++) free_scene(&s[i]);
}

/* Element (position, dim) of the page, read by the drawing in ops.h. */
static float element(const weft_kv_layout *l, const uint8_t *side, bool key, size_t at, size_t d)
{
    const size_t dim = key ? l->key_dim : l->value_dim, blocks = (dim + 31) / 32;
    const size_t index = key ? d * 64 + at : at * dim + d;
    float f;
    if (l->type == WEFT_KV_F16) return load_half(side + 2 * index);
    if (l->type == WEFT_KV_F32) {
        memcpy(&f, side + 4 * index, 4);
        return f;
    }
    const uint8_t *scale = side + d / 32 * (key ? 128 + 32 * 64 : 128);
    const uint8_t *q = key ? scale + 128 + d % 32 * 64 + at : side + 128 * blocks + index;
    return load_half(scale + 2 * at) * (float)(int8_t)*q;
}

static void test_layout(void **state)
{
    rng r = {15};
    for (int type = 0; type < WEFT_KV_TYPES; type++) {
        scene s;
        device d;
        new_scene(&s, (weft_kv_type)type, 2, 2, 40, 33, 70, &r);
        const weft_kv_layout *l = &s.layout;
        static const size_t sides[WEFT_KV_TYPES] = {64 * 2 * (40 + 33), 64 * 4 * (40 + 33),
                                                    64 * (40 + 33 + 2 * 2 + 2 * 2)};
        assert_int_equal(weft_kv_head_bytes(l), sides[type]);
        assert_true(open_reserved(&d, NULL, 1, 70));
        poison(&s);
        write_all(&d, &s, 0, s.length);
        for (size_t t = 0; t < s.length; t++)
            for (uint32_t h = 0; h < 2; h++) {
                const uint8_t *keys = (uint8_t *)s.page[t / 64] + weft_kv_offset(l, 1, h);
                const uint8_t *values = keys + weft_kv_side_bytes(l->type, l->key_dim);
                for (size_t i = 0; i < 40; i++)
                    assert_true(element(l, keys, true, t % 64, i) ==
                                s.stored_k[(t * 2 + h) * 40 + i]);
                for (size_t i = 0; i < 33; i++)
                    assert_true(element(l, values, false, t % 64, i) ==
                                s.stored_v[(t * 2 + h) * 33 + i]);
            }
        weft_cpu_backend_free(d.b);
        free_scene(&s);
    }
}

/* What a block of q8_0 makes of values that are not ordinary. */
static void test_q8_edges(void **state)
{
    static const struct {
        float x;
        uint16_t scale;
        int8_t q;
    } edges[] = {{0, 0, 0},           {NAN, 0x7e00, 0},       {-INFINITY, 0x7e00, 0},
                 {1e7f, 0x7e00, 0},   {1e-7f, 0, 0},          {-127, 0x3c00, -127},
                 {4.5e-6f, 1, 75},    {1.13e-5f, 1, 127}, /* 1.49 steps of the smallest scale */
                 {0x1.fcp+22f, 0x7c00 - 1 + 1, 0}};
    for (size_t k = 0; k + 1 < sizeof edges / sizeof *edges; k++)
        for (int isa = 0; isa < N_ISAS; isa++) {
            bool known;
            const cpu_kernels *kernels = cpu_kernels_find(all_isas[isa], &known, NULL);
            float x[32] = {0};
            int8_t q[32];
            if (!kernels) continue;
            x[5] = edges[k].x;
            assert_int_equal(kernels->to_q8(x, 21, q), edges[k].scale);
            assert_int_equal(q[5], edges[k].q);
            for (int i = 0; i < 21; i++) assert_true(i == 5 || q[i] == 0);
        }
}

/* A context of more spans than there are slots: several waves give what one thread gives. All pages
 * of the timeline are the same three. */
static void test_waves(void **state)
{
    enum { POSITION = 40000, DIM = 16, HEADS = 2 };
    rng r = {16};
    scene s;
    float one[HEADS * DIM], two[HEADS * DIM];
    void **page = malloc((POSITION / 64 + 1) * sizeof *page);
    assert_non_null(page);
    new_scene(&s, WEFT_KV_F16, HEADS, 1, DIM, DIM, 192, &r);
    for (size_t i = 0; i <= POSITION / 64; i++) page[i] = s.page[i % 3];
    for (int threads = 1; threads <= 2; threads++) {
        device d;
        assert_true(open_reserved(&d, NULL, threads, 192));
        write_all(&d, &s, 0, s.length);
        s.row[0] = (weft_row){page, POSITION};
        attend(&d, &s, 0, 0, 1, threads == 1 ? one : two);
        s.row[0] = (weft_row){s.page, 0};
        weft_cpu_backend_free(d.b);
    }
    assert_memory_equal(one, two, sizeof one);
    free(page);
    free_scene(&s);
}

static void test_rope(void **state)
{
    enum { N = 9, HEADS = 3, DIM = 64, ROPE = 48 };
    rng r = {14};
    float *x = random_floats(N * HEADS * DIM, &r), want[N * HEADS * DIM], y[N * HEADS * DIM];
    double inv_freq[ROPE / 2];
    weft_row row[N];
    for (int i = 0; i < ROPE / 2; i++) inv_freq[i] = weft_pow(10000, -2.0 * i / ROPE);
    for (int i = 0; i < N; i++) row[i] = (weft_row){NULL, i == N - 1 ? 1000003 : 37 * i};
    for (int kind = 0; kind < 2; kind++)
        for (int isa = 0; isa < N_ISAS; isa++) {
            device d;
            if (!open_reserved(&d, all_isas[isa], 2, N)) continue;
            memcpy(y, x, sizeof y);
            d.ops->rope(d.b, y, row, N, HEADS, DIM, ROPE, (weft_rope_kind)kind, inv_freq, 1);
            if (isa == 0) memcpy(want, y, sizeof y);
            assert_memory_equal(y, want, sizeof y);
            for (int t = 0; t < N; t++) /* one at a time, from another table */
                for (int h = 0; h < HEADS; h++) {
                    float one[DIM];
                    memcpy(one, x + (t * HEADS + h) * DIM, sizeof one);
                    d.ops->rope(d.b, one, row + t, 1, 1, DIM, ROPE, (weft_rope_kind)kind, inv_freq,
                                1);
                    assert_memory_equal(one, y + (t * HEADS + h) * DIM, sizeof one);
                }
            for (int i = 0; i < N * HEADS * ROPE / 2; i++) {
                int t = i / (HEADS * ROPE / 2), h = i / (ROPE / 2) % HEADS, k = i % (ROPE / 2);
                int a = kind == WEFT_ROPE_NEOX ? k : 2 * k;
                int b = kind == WEFT_ROPE_NEOX ? k + ROPE / 2 : 2 * k + 1;
                const float *u = x + (t * HEADS + h) * DIM, *v = y + (t * HEADS + h) * DIM;
                double angle = (double)row[t].position * inv_freq[k];
                assert_true(fabs(v[a] - (u[a] * cos(angle) - u[b] * sin(angle))) < 3e-7);
                assert_true(fabs(v[b] - (u[a] * sin(angle) + u[b] * cos(angle))) < 3e-7);
            }
            for (int i = ROPE; i < DIM; i++) assert_true(x[i] == y[i]);
            weft_cpu_backend_free(d.b);
        }
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_double),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_q8_edges),
        cmocka_unit_test(test_waves),
        cmocka_unit_test(test_rope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
