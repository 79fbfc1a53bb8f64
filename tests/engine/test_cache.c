/* Experts that stay in the file: which of them are kept in memory, that nothing of it shows in the logits, that a
 * limit of memory holds, and what happens when a read or an allocation fails. */
#include "tests/engine/random_model.h"

#include "engine/cpu/cache.h"
#include "engine/kv.h"
#include "engine/model.h"

#include <fcntl.h>
#include <math.h>
#include <sys/wait.h>

/* ---- which are kept ---- */

typedef struct policy {
    cpu_residents r;
    void *memory;
} policy;

static policy policy_new(size_t n_expert, size_t n_slot, double half_life) {
    policy p = {.memory = malloc(cpu_residents_bytes(n_expert, n_slot))};
    cpu_residents_init(&p.r, n_expert, n_slot, half_life, p.memory);
    return p;
}

/* One call with these experts, in order, one a wave; returns how many had a slot. */
static size_t call(cpu_residents *r, const size_t *expert, size_t n) {
    size_t hits = 0;
    cpu_residents_begin(r);
    for (size_t i = 0; i < n; i++) cpu_residents_use(r, expert[i]);
    for (size_t i = 0; i < n; i++) {
        if (r->slot_of[expert[i]] != CPU_NO_SLOT) {
            hits++;
            continue;
        }
        cpu_residents_wave(r);
        cpu_residents_take(r, expert[i]);
    }
    return hits;
}

static bool has(const policy *p, size_t expert) {
    return p->r.slot_of[expert] != CPU_NO_SLOT;
}

/* A short half-life is the order of the last use, a long one that of the number of uses. */
static void test_last_or_often(void **state) {
    policy last = policy_new(8, 2, 0.5), often = policy_new(8, 2, 1e6);
    policy *const p[] = {&last, &often};
    for (int i = 0; i < 2; i++) {
        const size_t uses[] = {1, 1, 1, 2, 2, 3};
        for (size_t k = 0; k < sizeof uses / sizeof *uses; k++) call(&p[i]->r, &uses[k], 1);
        assert_true(has(p[i], 3)); /* whoever is needed now is in */
    }
    assert_true(has(&last, 2) && !has(&last, 1));
    assert_true(has(&often, 1) && !has(&often, 2));
    free(last.memory);
    free(often.memory);
}

static int count_in(const bool *in, int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) sum += in[i];
    return sum;
}

/* Against the sum of fading uses, computed anew for every expert and call: whoever must go is worth least. */
static void test_against_the_sum(void **state) {
    enum { EXPERTS = 40, SLOTS = 11, CALLS = 3000, USED = 4 };
    const double half_life = 20;
    policy p = policy_new(EXPERTS, SLOTS, half_life);
    double sum[EXPERTS] = {0};
    size_t gone = 0;
    rng r = {7};
    for (int t = 0; t < CALLS; t++) {
        size_t expert[USED];
        cpu_residents_begin(&p.r);
        for (int e = 0; e < EXPERTS; e++) sum[e] *= exp2(-1 / half_life);
        for (size_t k = 0; k < USED; k++) { /* distinct, unevenly liked */
            expert[k] = k * 10 + (next32(&r) % 10) * (next32(&r) % 10) / 10;
            cpu_residents_use(&p.r, expert[k]);
            sum[expert[k]]++;
        }
        for (size_t k = 0; k < USED; k++) {
            if (has(&p, expert[k])) continue;
            bool in[EXPERTS];
            double least = INFINITY;
            for (size_t e = 0; e < EXPERTS; e++)
                if ((in[e] = has(&p, e))) least = fmin(least, sum[e]);
            cpu_residents_wave(&p.r);
            const bool full = p.r.n_slot == (size_t)count_in(in, EXPERTS);
            assert_int_equal(cpu_residents_admit(&p.r, expert[k]), !full || least < sum[expert[k]] * (1 - 1e-9));
            cpu_residents_take(&p.r, expert[k]);
            for (size_t e = 0; e < EXPERTS; e++) {
                if (!in[e] || has(&p, e)) continue;
                assert_true(sum[e] <= least * (1 + 1e-9));
                gone++;
            }
        }
    }
    assert_true(gone > CALLS / 2);
    free(p.memory);
}

/* In a wave no slot is given twice; slots and experts point at each other; a dropped one is out and its slot free. */
static void test_waves(void **state) {
    enum { EXPERTS = 16, SLOTS = 5 };
    policy p = policy_new(EXPERTS, SLOTS, CPU_HALF_LIFE);
    rng r = {9};
    for (int t = 0; t < 500; t++) {
        cpu_residents_begin(&p.r);
        for (size_t e = 0; e < EXPERTS; e++)
            if (next32(&r) % 2) cpu_residents_use(&p.r, e);
        cpu_residents_wave(&p.r);
        size_t n = 0, slot[SLOTS];
        for (size_t e = next32(&r) % EXPERTS; e < EXPERTS && n < SLOTS; e++) {
            if (has(&p, e)) continue;
            slot[n] = cpu_residents_take(&p.r, e);
            for (size_t i = 0; i < n; i++) assert_true(slot[i] != slot[n]);
            assert_int_equal(p.r.slot_of[e], slot[n]);
            assert_int_equal(p.r.expert_of[slot[n++]], e);
        }
        size_t in = 0;
        for (size_t e = 0; e < EXPERTS; e++) in += has(&p, e);
        size_t full = 0;
        for (size_t s = 0; s < SLOTS; s++) full += p.r.expert_of[s] != CPU_NO_SLOT;
        assert_int_equal(in, full);
        if (t % 7 == 0 && n > 0) {
            const size_t e = p.r.expert_of[slot[0]];
            cpu_residents_drop(&p.r, e);
            cpu_residents_drop(&p.r, e);
            assert_false(has(&p, e));
            assert_int_equal(p.r.expert_of[slot[0]], CPU_NO_SLOT);
        }
    }
    free(p.memory);
}

/* ---- whole models ---- */

static void fill(int32_t ids[TOKENS]) {
    for (int i = 0; i < TOKENS; i++) ids[i] = (i * 31 + 7) % VOCAB;
}

static digests open_and_digest(const char *path, const weft_engine_options *o, weft_expert_counts *out) {
    int32_t ids[TOKENS];
    fill(ids);
    weft_model *model = model_open(path, o);
    digests d = digests_of(model, ids, TOKENS);
    *out = weft_model_expert_counts(model);
    weft_model_close(model);
    return d;
}

static void check_budget(const char *path, size_t memory, const digests *want) {
    static const int chunks[] = {1, 7, 64};
    for (int isa = 0; isa < N_ISAS; isa++)
        for (int k = 0; k < 3; k++) {
            if (!isa_usable(all_isas[isa])) continue;
            /* every chunk on the best instruction set, one on the others */
            if (chunks[k] != 7 && strcmp(all_isas[isa], weft_best_backend() + sizeof "cpu-" - 1) != 0) continue;
            weft_expert_counts counts[2];
            for (int threads = 1; threads <= 2; threads++) {
                const weft_engine_options o = {.isa = all_isas[isa],
                                               .chunk = chunks[k],
                                               .threads = threads,
                                               .limit_memory = true,
                                               .memory = memory};
                char what[96];
                snprintf(what, sizeof what, "%zu bytes, %s, chunk %d, %d threads", memory,
                         all_isas[isa], chunks[k], threads);
                digests d = open_and_digest(path, &o, &counts[threads - 1]);
                digests_compare(want, &d, 0, TOKENS, what);
                free(d.at);
            }
            assert_memory_equal(&counts[0], &counts[1], sizeof *counts); /* threads decide nothing */
            assert_true(counts[0].misses >= LAYERS * 3 && (counts[0].hits > 0 || chunks[k] > TOKENS));
            assert_true(counts[0].right <= counts[0].guesses && counts[0].right <= counts[0].misses);
            assert_true(chunks[k] > 8 ? counts[0].guesses == 0 : counts[0].right > 0);
        }
}

/* Any budget, chunk, thread count and instruction set: the bits of the model that is all in memory. */
static void test_same_digests(void **state) {
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    static const weft_tensor_type types[] = {WEFT_Q4_K, WEFT_IQ2_XXS, WEFT_F32};
    for (int k = 0; k < 3; k++) {
        spec s = moe;
        s.type = types[k];
        writer_free(new_model(&s, path));
        weft_expert_counts none;
        digests want = open_and_digest(path, &(weft_engine_options){.threads = 2}, &none);
        assert_int_equal(none.hits + none.misses, 0);
        weft_engine_options o = {.vocab_only = true};
        weft_model *model = model_open(path, &o);
        const size_t all = weft_model_get_info(model)->weight_bytes;
        weft_model_close(model);
        check_budget(path, 0, &want);
        check_budget(path, all / 2, &want);
        check_budget(path, all - 1, &want);
        free(want.at);
    }
    free(path);
    remove_temp_dir(dir);
}

/* Four timelines in a step, with other neighbours each time: what each gets alone. */
static void test_batch(void **state) {
    enum { SETS = 4 };
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    int32_t ids[TOKENS];
    spec s = moe;
    s.type = WEFT_Q4_K;
    writer_free(new_model(&s, path));
    fill(ids);
    weft_expert_counts counts;
    digests want = open_and_digest(path, &(weft_engine_options){.threads = 2}, &counts);
    const weft_engine_options o = {.threads = 2, .limit_memory = true, .chunk = 16};
    weft_model *model = model_open(path, &o);
    weft_step_item item[SETS] = {{0}};
    for (size_t i = 0; i < SETS; i++)
        CHECK(weft_timeline_open(&item[i].timeline, model, NULL, ids, 1 + 5 * i, err));
    for (size_t length = 16; length <= TOKENS; length++) {
        for (;;) {
            weft_step(item, SETS);
            bool ready = true;
            for (size_t i = 0; i < SETS; i++) {
                if (item[i].status) fail_msg("%s", item[i].err.message);
                ready = ready && item[i].ready;
            }
            if (ready) break;
        }
        for (size_t i = 0; i < SETS; i++) {
            const size_t n = (size_t)weft_timeline_length(item[i].timeline);
            digests now = digests_new(model, TOKENS);
            digests_visit(&now, (int64_t)n - 1, weft_timeline_logits(item[i].timeline));
            digests_compare(&want, &now, n - 1, n, "four at once");
            free(now.at);
            if (n < TOKENS) CHECK(weft_timeline_append(item[i].timeline, ids + n, 1, err));
        }
    }
    for (size_t i = 0; i < SETS; i++) weft_timeline_close(item[i].timeline);
    weft_model_close(model);
    free(want.at);
    free(path);
    remove_temp_dir(dir);
}

/* ---- the limit of the process ---- */

/* Bytes of a line of /proc/self/status. */
static size_t status_bytes(const char *name) {
    char line[256], format[32];
    size_t kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    snprintf(format, sizeof format, "%s: %%zu", name);
    while (f && fgets(line, sizeof line, f)) sscanf(line, format, &kib);
    fclose(f);
    return kib << 10;
}

#ifdef __has_feature
#define WITH_SHADOW (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define WITH_SHADOW 0
#endif

typedef struct outcome {
    size_t peak, least, weights, pool;
    weft_expert_counts counts;
    uint8_t last[WEFT_DIGEST_BYTES];
    char said[WEFT_ERROR_BYTES];
    weft_status status;
} outcome;

enum { PROMPT = 70, DRAWN = 30 };

/* A prompt and then tokens one by one, in a process of its own, with its pages in files. */
static outcome run_apart(const char *path, const char *dir, size_t memory) {
    int ends[2];
    outcome out;
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        outcome o = {0};
        weft_model *model = NULL;
        weft_timeline *t = NULL;
        weft_error err = {0};
        const weft_engine_options options = {
            .threads = 2, .limit_process = memory > 0, .memory = memory, .context = 128};
        o.status = weft_model_open(&model, path, &options, &err);
        for (int n = 0; !o.status && n < PROMPT + DRAWN; n++) {
            const int32_t id = (n * 31 + 7) % VOCAB;
            if (n == 0) o.status = weft_timeline_open(&t, model, dir, NULL, 0, &err);
            if (!o.status) o.status = weft_timeline_append(t, &id, 1, &err);
            if (!o.status && n + 1 >= PROMPT) o.status = weft_timeline_evaluate(t, NULL, NULL, &err);
        }
        if (!o.status) {
            const weft_model_info *info = weft_model_get_info(model);
            weft_blake2b_of(NULL, 0, weft_timeline_logits(t), VOCAB * sizeof(float), o.last);
            o.counts = weft_model_expert_counts(model);
            o.least = info->least_bytes;
            o.weights = info->weight_bytes;
            o.pool = info->pool_bytes;
        }
        snprintf(o.said, sizeof o.said, "%s", err.message);
        o.peak = status_bytes("VmHWM");
        _exit(write(ends[1], &o, sizeof o) == sizeof o ? 0 : 1);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &out, sizeof out), sizeof out);
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    return out;
}

/* A file of twice the limit: the right bits, and the process's peak within the limit. And a limit that is too small
 * for anything says the smallest, which works. */
static void test_twice_the_memory(void **state) {
    if (WITH_SHADOW) skip();
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    spec s = moe;
    s.type = WEFT_Q8_0;
    s.experts = 64;
    s.used = 4;
    s.embd = 1024;
    s.ff = 512;
    const pid_t writer_process = fork(); /* what writing takes is not ours then */
    if (writer_process == 0) {
        writer_free(new_model(&s, path));
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(writer_process, &status, 0), writer_process);
    assert_int_equal(status, 0);
    weft_model *model = model_open(path, &(weft_engine_options){.vocab_only = true});
    const size_t file = weft_model_get_info(model)->file_bytes;
    weft_model_close(model);
    char *kv[3];
    for (int i = 0; i < 3; i++) kv[i] = weft_path_join(dir, (const char *const[]){"a", "b", "c"}[i]);
    const outcome whole = run_apart(path, kv[0], 0);
    const outcome half = run_apart(path, kv[1], file / 2);
    assert_int_equal(whole.status, WEFT_OK);
    if (half.status) fail_msg("%s", half.said);
    print_message("file %zu MiB, limit %zu, peak %zu (all in memory %zu), pool %zu, least %zu, hits %.2f\n",
                  file >> 20, file >> 21, half.peak >> 20, whole.peak >> 20, half.pool >> 20,
                  half.least >> 20,
                  (double)half.counts.hits / (double)(half.counts.hits + half.counts.misses));
    assert_true(file > 200 << 20 && whole.peak > file && whole.pool == 0);
    assert_memory_equal(half.last, whole.last, sizeof half.last);
    assert_true(half.pool > file / 8 && half.counts.hits > 0 && half.counts.misses > 0);
    assert_true(half.peak <= file / 2);
    assert_true(half.peak > file / 4); /* and it is used */

    const outcome none = run_apart(path, kv[2], 1 << 20);
    assert_int_equal(none.status, WEFT_E_LIMIT);
    const char *at = strstr(none.said, "the smallest that works is --memory ");
    assert_non_null(at);
    const size_t least = (size_t)atol(at + strlen("the smallest that works is --memory ")) << 20;
    const outcome smallest = run_apart(path, kv[2], least);
    if (smallest.status) fail_msg("%s", smallest.said);
    assert_memory_equal(smallest.last, whole.last, sizeof whole.last);
    print_message("limit %zu MiB: peak %zu KiB\n", least >> 20, smallest.peak >> 10);
    assert_true(smallest.peak <= least);
    for (int i = 0; i < 3; i++) free(kv[i]);
    free(path);
    remove_temp_dir(dir);
}

/* ---- failures ---- */

#ifdef WEFT_FAULTS
static void test_no_memory_for_slots(void **state) {
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    spec s = moe;
    s.type = WEFT_Q8_0;
    writer_free(new_model(&s, path));
    for (int at = 1; at <= LAYERS; at++) {
        char fault[32];
        snprintf(fault, sizeof fault, "engine.slots:%d:fail", at);
        const pid_t child = fork();
        if (child == 0) {
            setenv("WEFT_FAULT", fault, 1);
            weft_model *model = NULL;
            weft_error err = {0};
            const weft_engine_options o = {.limit_memory = true, .threads = 2};
            const weft_status status = weft_model_open(&model, path, &o, &err);
            _exit(status == WEFT_E_MEMORY && strstr(err.message, "allow less (--memory)") ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
    free(path);
    remove_temp_dir(dir);
}
#endif

/* A file that is cut between two tokens: one line; whole again, the same bits. What a failed read left in a slot is
 * not taken for an expert. */
static void test_cut(void **state) {
    char *dir = make_temp_dir(), *path = weft_path_join(dir, "random.gguf");
    int32_t ids[TOKENS];
    spec s = moe;
    s.type = WEFT_Q4_K;
    writer_free(new_model(&s, path));
    fill(ids);
    weft_buffer file = WEFT_BUFFER_INIT;
    CHECK(weft_file_read(path, 64 << 20, &file, err));
    weft_expert_counts counts;
    digests want = open_and_digest(path, &(weft_engine_options){.threads = 2}, &counts);
    weft_model *model = model_open(path, NULL);
    const size_t hot = weft_model_get_info(model)->weight_bytes;
    weft_model_close(model);
    model = model_open(path, &(weft_engine_options){.threads = 2, .limit_memory = true, .memory = hot / 2});
    weft_timeline *t = NULL;
    CHECK(weft_timeline_open(&t, model, NULL, ids, 1, err));
    size_t failed = 0;
    for (int n = 1;;) {
        weft_error said = {0};
        if (n % 2 && truncate(path, (off_t)(file.size / 3)) != 0) fail_msg("truncate failed");
        weft_status status = weft_timeline_evaluate(t, NULL, NULL, &said);
        if (status) {
            assert_int_equal(status, WEFT_E_STORAGE);
            assert_non_null(strstr(said.message, "_exps.weight"));
            failed++;
            const int fd = open(path, O_WRONLY);
            assert_int_equal(pwrite(fd, file.data, file.size, 0), file.size);
            close(fd);
            CHECK(weft_timeline_evaluate(t, NULL, NULL, err));
        }
        digests now = digests_new(model, TOKENS);
        digests_visit(&now, n - 1, weft_timeline_logits(t));
        digests_compare(&want, &now, (size_t)n - 1, (size_t)n, "after a cut");
        free(now.at);
        if (n == TOKENS) break;
        CHECK(weft_timeline_append(t, ids + n++, 1, err));
    }
    assert_true(failed > 3);
    weft_timeline_close(t);
    weft_model_close(model);
    weft_buffer_free(&file);
    free(want.at);
    free(path);
    remove_temp_dir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_last_or_often), cmocka_unit_test(test_against_the_sum),
        cmocka_unit_test(test_waves),         cmocka_unit_test(test_same_digests),
        cmocka_unit_test(test_batch),         cmocka_unit_test(test_twice_the_memory),
        cmocka_unit_test(test_cut),
#ifdef WEFT_FAULTS
        cmocka_unit_test(test_no_memory_for_slots),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
