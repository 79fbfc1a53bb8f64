/* Mixtures of experts: the same bits however the tokens are grouped, only chosen experts read, and weights
 * that stay in their file. The mathematics is in test_arch.c. */
#include "tests/engine/random_model.h"

#include "engine/kv.h"
#include "engine/model.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* ---- the choice ---- */

static void route(const device *d, const weft_routing *r, const float *scores, size_t n,
                  weft_pick *out) {
    float *copy = malloc(n * r->n_expert * sizeof *copy);
    memcpy(copy, scores, n * r->n_expert * sizeof *copy);
    d->ops->route(d->b, r, copy, n, out);
    free(copy);
}

/* Equal scores go by the lower index; weights fall and have the sum they should. */
static void test_route_order(void **state) {
    const weft_routing r = {.n_expert = 6, .n_used = 3, .normalise = true, .scale = 1};
    const weft_routing raw = {.n_expert = 6, .n_used = 3, .scale = 2};
    const float scores[] = {1, 2, 2, 0, 2, 1, /* two tokens */ 0, 0, 0, 0, 0, 0};
    const float share = 2 * expf(2) / (3 * expf(2) + 2 * expf(1) + 1);
    for (int isa = 0; isa < N_ISAS; isa++) {
        device d;
        weft_pick p[6];
        if (!open_device(&d, all_isas[isa], 1)) continue;
        route(&d, &r, scores, 2, p);
        const uint32_t want[] = {1, 2, 4, 0, 1, 2};
        for (int i = 0; i < 6; i++) {
            assert_int_equal(p[i].expert, want[i]);
            assert_true(fabsf(p[i].weight - 1.0f / 3) < 1e-6f);
        }
        route(&d, &raw, scores, 1, p);
        assert_true(fabsf(p[0].weight - share) < 1e-5f);
        weft_cpu_backend_free(d.b);
    }
}

/* Whatever the scores are, the choice names experts that exist, each once. */
static void test_route_not_finite(void **state) {
    const weft_routing r = {.n_expert = 5, .n_used = 3, .normalise = true, .scale = 1};
    const float bad[][5] = {{NAN, NAN, NAN, NAN, NAN},
                            {0, NAN, 1, 2, 3},
                            {INFINITY, INFINITY, 0, 0, 0},
                            {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY},
                            {1e30f, 0, 0, 0, 0}};
    device d;
    assert_true(open_device(&d, NULL, 1));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        weft_pick p[3];
        uint32_t seen = 0;
        route(&d, &r, bad[i], 1, p);
        for (int k = 0; k < 3; k++) {
            assert_true(p[k].expert < 5 && !(seen & 1u << p[k].expert));
            seen |= 1u << p[k].expert;
        }
        assert_true(i == 4 ? p[0].expert == 0 && p[0].weight == 1 : isnan(p[0].weight));
    }
    weft_cpu_backend_free(d.b);
}

/* ---- the experts ---- */

enum { N_EMBD = 256, N_FF = 256, N_EXPERT = 11, N_USED = 3, MOST = 40 };

typedef struct stacks {
    weft_tensor t[3];
    weft_weight *w[3];
} stacks;

static weft_tensor random_stack(weft_tensor_type type, size_t rows, size_t columns, rng *r) {
    weft_tensor t = random_tensor(type, rows * N_EXPERT, columns, false, r);
    t.dim[1] = rows;
    t.dim[2] = N_EXPERT;
    t.n_dims = 3;
    return t;
}

static stacks stacks_new(const device *d, weft_tensor_type type, bool mapped, rng *r) {
    stacks s;
    weft_error err;
    for (int i = 0; i < 3; i++) {
        s.t[i] = random_stack(type, i == 2 ? N_EMBD : N_FF, i == 2 ? N_FF : N_EMBD, r);
        assert_int_equal((mapped ? d->ops->weight_map : d->ops->weight_new)(d->b, &s.t[i], &s.w[i],
                                                                            &err),
                         WEFT_OK);
    }
    return s;
}

static void stacks_free(const device *d, stacks *s) {
    for (int i = 0; i < 3; i++) {
        d->ops->weight_free(s->w[i]);
        free_tensor(&s->t[i]);
    }
}

static void run(const device *d, const stacks *s, const weft_pick *pick, const float *x, size_t n,
                float *out) {
    const weft_experts e = {s->w[0], s->w[1], s->w[2], WEFT_SILU, N_USED};
    const weft_experts_size size = {MOST, N_EXPERT, N_USED, N_EMBD, N_FF};
    weft_error err;
    if (n == MOST) assert_int_equal(d->ops->reserve_experts(d->b, &size, &err), WEFT_OK);
    d->ops->experts(d->b, &e, pick, x, n, out);
}

/* An expert alone, of the ordinary operations. */
static void by_hand(const device *d, const stacks *s, const weft_pick *pick, const float *x,
                    float *out) {
    weft_error err;
    assert_int_equal(d->ops->reserve(d->b, 1, N_EMBD, &err), WEFT_OK);
    memset(out, 0, N_EMBD * sizeof *out);
    for (int k = 0; k < N_USED; k++) {
        weft_weight *w[3];
        float hidden[N_FF], y[N_EMBD], *const yp[1] = {y};
        const float *const bias[1] = {NULL};
        for (int i = 0; i < 3; i++) {
            weft_tensor one = s->t[i];
            one.dim[2] = 1;
            one.bytes /= N_EXPERT;
            one.data = (const uint8_t *)one.data + pick[k].expert * one.bytes;
            assert_int_equal(d->ops->weight_new(d->b, &one, &w[i], &err), WEFT_OK);
        }
        const weft_weight *const down[1] = {w[2]};
        d->ops->gated(d->b, w[0], w[1], WEFT_SILU, x, 1, hidden);
        d->ops->matmul(d->b, down, bias, yp, 1, hidden, 1);
        for (int i = 0; i < N_EMBD; i++) out[i] += y[i] * pick[k].weight;
        for (int i = 0; i < 3; i++) d->ops->weight_free(w[i]);
    }
}

static void random_picks(weft_pick *pick, size_t n, rng *r) {
    for (size_t t = 0; t < n; t++)
        for (size_t k = 0; k < N_USED; k++) { /* distinct, and some experts liked by most */
            uint32_t first = next32(r) % 4 ? 0 : next32(r) % N_EXPERT;
            pick[t * N_USED + k] = (weft_pick){(first + (uint32_t)k * 4) % N_EXPERT, next_float(r)};
        }
}

/* For every format: a token's result is what the ordinary operations make of its experts one by one in
 * scalar, whatever else is in the call, the instruction set, the threads, and where the weights are. */
static void test_experts_equal(void **state) {
    static const size_t counts[] = {MOST, 1, 2, 9};
    for (int k = 0; k < N_TYPES; k++) {
        rng r = {40 + (uint64_t)k};
        weft_pick pick[MOST * N_USED];
        float *x = random_floats(MOST * N_EMBD, &r), *want = new_floats(MOST * N_EMBD);
        float *y = new_floats(MOST * N_EMBD);
        random_picks(pick, MOST, &r);
        for (int isa = 0; isa < N_ISAS; isa++)
            for (int threads = 1; threads <= 3; threads += 2)
                for (int mapped = 0; mapped < 2; mapped++) {
                    device d;
                    if (!open_device(&d, all_isas[isa], threads)) continue;
                    rng same = {k};
                    stacks s = stacks_new(&d, all_types[k], mapped, &same);
                    for (size_t t = 0; isa == 0 && threads == 1 && !mapped && t < MOST; t++)
                        by_hand(&d, &s, pick + t * N_USED, x + t * N_EMBD, want + t * N_EMBD);
                    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
                        const size_t n = counts[c], from = MOST - n;
                        memset(y, 0xff, n * N_EMBD * sizeof *y);
                        run(&d, &s, pick + from * N_USED, x + from * N_EMBD, n, y);
                        if (memcmp(y, want + from * N_EMBD, n * N_EMBD * sizeof *y) != 0)
                            fail_msg("%s, %s, %d threads, %zu tokens, mapped %d: other bits",
                                     weft_tensor_type_name(all_types[k]), all_isas[isa], threads, n,
                                     mapped);
                    }
                    stacks_free(&d, &s);
                    weft_cpu_backend_free(d.b);
                }
        free(x);
        free(want);
        free(y);
    }
}

/* Experts that no token chose lie on pages that cannot be read; `forbidden` is one of them. */
static int run_with_guards(uint32_t forbidden) {
    enum { BYTES = N_EMBD * N_FF * 4 }; /* of an expert: whole pages */
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); /* cmocka catches it */
        device d;
        rng r = {3};
        weft_pick pick[4 * N_USED];
        weft_error err;
        float *x = random_floats(4 * N_EMBD, &r), *y = new_floats(4 * N_EMBD);
        assert_true(open_device(&d, NULL, 1));
        stacks s;
        for (int i = 0; i < 3; i++) {
            uint8_t *map = mmap(NULL, N_EXPERT * BYTES, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            for (uint32_t e = 0; e < N_EXPERT; e++)
                if (e == forbidden || (e != 2 && e != 5 && e != 9))
                    mprotect(map + (size_t)e * BYTES, BYTES, PROT_NONE);
            s.t[i] = (weft_tensor){.name = "guarded",
                                   .type = WEFT_F32,
                                   .n_dims = 3,
                                   .dim = {i == 2 ? N_FF : N_EMBD, i == 2 ? N_EMBD : N_FF, N_EXPERT, 1},
                                   .data = map,
                                   .bytes = N_EXPERT * BYTES};
            if (d.ops->weight_map(d.b, &s.t[i], &s.w[i], &err)) _exit(2);
        }
        for (size_t t = 0; t < 4; t++)
            for (size_t k = 0; k < N_USED; k++)
                pick[t * N_USED + k] = (weft_pick){(const uint32_t[]){5, 2, 9}[k], 0.5f};
        const weft_experts_size size = {4, N_EXPERT, N_USED, N_EMBD, N_FF};
        if (d.ops->reserve_experts(d.b, &size, &err)) _exit(2);
        run(&d, &s, pick, x, 4, y);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void test_only_chosen_are_read(void **state) {
    assert_int_equal(run_with_guards(N_EXPERT), 0);
    int status = run_with_guards(5); /* the guard bites: a chosen one is read */
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 1); /* 1: a sanitizer's report */
}

/* ---- whole models ---- */

static void check_digests(const char *path, const digests *want, const int32_t *ids,
                          const weft_engine_options *o, const char *what) {
    weft_model *model = model_open(path, o);
    digests d = digests_of(model, ids, want->n);
    digests_compare(want, &d, 0, want->n, what);
    free(d.at);
    weft_model_close(model);
}

/* Two timelines in one call give the bits of each alone. */
static void check_batch(weft_model *model, const digests *want, const int32_t *ids) {
    weft_kv *kv[2];
    size_t n_vocab = model->h.n_vocab, n = want->n;
    digests got[2] = {digests_new(model, n), digests_new(model, n)};
    float *logits = malloc(4 * n_vocab * sizeof *logits);
    for (int i = 0; i < 2; i++)
        CHECK(weft_kv_open(&kv[i], NULL, &model->kv, model->info.fingerprint, 128, err));
    for (size_t t = 0; t < n; t++) {
        const weft_row row[2] = {{weft_kv_pages(kv[0]), (int64_t)t}, {weft_kv_pages(kv[1]), (int64_t)t}};
        const int32_t two[2] = {ids[t], ids[t]};
        const weft_pass pass = {two, row, 2, (const size_t[]){0, 1}, 2, 0, 2, logits, NULL};
        CHECK(weft_model_pass(model, &pass, err));
        for (int i = 0; i < 2; i++)
            digests_visit(&got[i], (int64_t)t, logits + (size_t)i * n_vocab);
    }
    for (int i = 0; i < 2; i++) {
        digests_compare(want, &got[i], 0, n, "batch of 2");
        free(got[i].at);
        weft_kv_close(kv[i], 0);
    }
    free(logits);
}

static void test_model_digests(void **state) {
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    int32_t ids[TOKENS];
    for (int i = 0; i < TOKENS; i++) ids[i] = (i * 31 + 7) % VOCAB;
    static const weft_tensor_type types[] = {WEFT_Q4_K, WEFT_Q8_0, WEFT_F32};
    for (int k = 0; k < 3; k++) {
        spec s = moe;
        s.type = types[k];
        writer_free(new_model(&s, path));
        weft_engine_options o = {.chunk = 64, .threads = 2};
        weft_model *model = model_open(path, &o);
        digests want = digests_of(model, ids, TOKENS);
        check_batch(model, &want, ids);
        weft_model_close(model);
        const int chunks[] = {1, 7};
        for (int i = 0; i < 2; i++) {
            o = (weft_engine_options){.chunk = chunks[i], .threads = 1};
            check_digests(path, &want, ids, &o, "chunk");
        }
        for (int isa = 0; isa < N_ISAS; isa++) {
            if (!isa_usable(all_isas[isa])) continue;
            o = (weft_engine_options){.isa = all_isas[isa], .threads = 2};
            check_digests(path, &want, ids, &o, all_isas[isa]);
        }
        free(want.at);
    }
    free(path);
    remove_temp_dir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route_order),       cmocka_unit_test(test_route_not_finite),
        cmocka_unit_test(test_experts_equal),     cmocka_unit_test(test_only_chosen_are_read),
        cmocka_unit_test(test_model_digests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
