#include "engine/placement.h"

#include "engine/arch/arch.h"
#include "engine/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SPARE = 8,                 /* one part in so many stays free: keys and values, scratch, the page cache */
    MAX_LAYERS = 1 << 16       /* a name may say any number */
};

/* Experts of a layer. */
typedef struct layer_experts {
    size_t expert_bytes; /* of one, repacked: gate, up and down */
    uint32_t n_expert;
} layer_experts;

typedef struct survey {
    size_t hot;      /* bytes of what every token reads, repacked */
    size_t experts;  /* of all experts */
    layer_experts *layer; /* [n_layer] */
    uint32_t n_layer;
} survey;

static bool is_matrix(const weft_gguf *file, const weft_tensor *t, uint32_t n_layer)
{
    if (t->dim[1] == 1 || weft_arch_unused(file, t, n_layer)) return false;
    return strcmp(t->name, "token_embd.weight") != 0 ||
           !weft_gguf_tensor_find(file, "output.weight"); /* tied: it is the output matrix too */
}

/* "blk.3.ffn_up_exps.weight"; the number of the layer goes to *out. */
static bool is_experts(const weft_tensor *t, uint32_t *out)
{
    unsigned number;
    if (!strstr(t->name, "_exps.") || sscanf(t->name, "blk.%u.", &number) != 1 || number >= MAX_LAYERS)
        return false;
    *out = number;
    return true;
}

static weft_status survey_file(survey *s, const weft_gguf *file, uint32_t n_layer, weft_error *err)
{
    uint32_t number;
    for (size_t i = 0; i < weft_gguf_tensor_count(file); i++)
        if (is_experts(weft_gguf_tensor_at(file, i), &number) && number >= s->n_layer)
            s->n_layer = number + 1;
    s->layer = calloc((size_t)s->n_layer + 1, sizeof *s->layer);
    if (!s->layer) return weft_fail(err, WEFT_E_MEMORY, "weights: out of memory");
    for (size_t i = 0; i < weft_gguf_tensor_count(file); i++) {
        const weft_tensor *t = weft_gguf_tensor_at(file, i);
        if (!is_matrix(file, t, n_layer)) continue;
        const size_t bytes = weft_cpu_packed_bytes(t);
        if (is_experts(t, &number) && t->dim[2] > 0 && t->dim[2] <= UINT32_MAX) {
            s->layer[number].expert_bytes += bytes / t->dim[2];
            s->layer[number].n_expert = (uint32_t)t->dim[2];
            s->experts += bytes;
        } else {
            s->hot += bytes;
        }
    }
    return WEFT_OK;
}

/* Slots for `each` experts of every layer; their bytes. */
static size_t slots_of(weft_placement *p, const survey *s, uint32_t each)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < s->n_layer; i++) {
        const layer_experts *l = &s->layer[i];
        p->slots[i] = each < l->n_expert ? each : l->n_expert;
        bytes += p->slots[i] * l->expert_bytes;
    }
    return bytes;
}

/* As many slots as fit, the same number in each layer; then one more in the first ones. */
static void share_pool(weft_placement *p, const survey *s, size_t room, uint32_t n_used)
{
    uint32_t each = n_used, most = 0;
    for (uint32_t i = 0; i < s->n_layer; i++)
        most = s->layer[i].n_expert > most ? s->layer[i].n_expert : most;
    while (each < most && slots_of(p, s, each + 1) <= room) each++;
    p->pool_bytes = slots_of(p, s, each);
    for (uint32_t i = 0; i < s->n_layer; i++) {
        const layer_experts *l = &s->layer[i];
        if (p->slots[i] < l->n_expert && p->pool_bytes + l->expert_bytes <= room) {
            p->slots[i]++;
            p->pool_bytes += l->expert_bytes;
        }
        p->n_slot += p->slots[i];
        p->n_expert += l->n_expert;
    }
}

static void place(weft_placement *p, const weft_gguf *file, uint32_t n_layer, size_t room, bool experts)
{
    uint32_t number;
    for (size_t i = 0; i < weft_gguf_tensor_count(file); i++) {
        const weft_tensor *t = weft_gguf_tensor_at(file, i);
        if (!is_matrix(file, t, n_layer)) continue;
        const size_t bytes = weft_cpu_packed_bytes(t);
        const bool fits = bytes <= room - p->memory_bytes;
        p->in_memory[i] = is_experts(t, &number) ? experts : fits;
        if (p->in_memory[i])
            p->memory_bytes += bytes;
        else
            p->mapped_bytes += t->bytes;
    }
}

static size_t budget_of(const weft_engine_options *o, size_t fixed)
{
    if (o->limit_process) return o->memory > fixed ? o->memory - fixed : 0;
    if (o->limit_memory) return o->memory;
    const size_t available = weft_memory_available();
    return available ? available - available / SPARE : SIZE_MAX;
}

weft_status weft_placement_new(weft_placement *out, const weft_gguf *file, uint32_t n_layer, size_t fixed,
                               uint32_t n_used, const weft_engine_options *o, weft_error *err)
{
    survey s = {0};
    weft_placement p = {.budget = budget_of(o, fixed), .fixed = fixed};
    weft_status status = survey_file(&s, file, n_layer, err);
    p.in_memory = calloc(weft_gguf_tensor_count(file) + 1, sizeof *p.in_memory);
    p.slots = calloc((size_t)s.n_layer + 1, sizeof *p.slots);
    if (!status && (!p.in_memory || !p.slots))
        status = weft_fail(err, WEFT_E_MEMORY, "weights: out of memory");
    if (status) goto done;
    const size_t token = slots_of(&p, &s, n_used); /* the least that the pool can be */
    const bool all = s.experts <= p.budget && s.hot <= p.budget - s.experts;
    p.least = fixed + (token < s.experts ? token : s.experts);
    p.n_layer = s.n_layer;
    if (all || s.experts == 0) {
        memset(p.slots, 0, s.n_layer * sizeof *p.slots);
        place(&p, file, n_layer, p.budget, true);
    } else {
        place(&p, file, n_layer, p.budget > token ? p.budget - token : 0, false);
        share_pool(&p, &s, p.budget - (p.memory_bytes < p.budget ? p.memory_bytes : p.budget), n_used);
    }
    *out = p;
    p = (weft_placement){0};
done:
    weft_placement_free(&p);
    free(s.layer);
    return status;
}

void weft_placement_free(weft_placement *p)
{
    free(p->in_memory);
    free(p->slots);
    *p = (weft_placement){0};
}

weft_status weft_placement_check(const weft_placement *p, const weft_engine_options *o, weft_error *err)
{
    if (!o->limit_process || o->memory >= p->least) return WEFT_OK;
    return weft_fail(err, WEFT_E_LIMIT,
                     "%zu MiB of memory are too little: %zu MiB are taken by the program, its scratch, keys "
                     "and values, and the experts of a token; the smallest that works is --memory %zuM",
                     o->memory >> 20, p->least >> 20, (p->least >> 20) + 1);
}

bool weft_placement_in_memory(const weft_placement *p, const weft_gguf *file, const weft_tensor *t)
{
    for (size_t i = 0; i < weft_gguf_tensor_count(file); i++)
        if (weft_gguf_tensor_at(file, i) == t) return p->in_memory[i];
    return false;
}

uint32_t weft_placement_slots(const weft_placement *p, uint32_t layer)
{
    return layer < p->n_layer ? p->slots[layer] : 0;
}

/* Why: "3 MiB of memory are allowed (--memory)" */
static int say_why(char *out, size_t size, const weft_placement *p, const weft_engine_options *o)
{
    const bool limit = o->limit_memory || o->limit_process;
    const size_t bytes = limit ? o->memory : p->budget;
    return snprintf(out, size, "%zu MiB of memory %s", bytes >> 20,
                    limit ? "are allowed (--memory)" : "are free for them");
}

char *weft_placement_notice(const weft_placement *p, const weft_engine_options *o, bool *memory)
{
    char *text = NULL, why[96];
    int n;
    *memory = false;
    if (p->mapped_bytes == 0) return NULL;
    const size_t all = p->memory_bytes + p->mapped_bytes;
    say_why(why, sizeof why, p, o);
    if (p->n_slot > 0)
        n = asprintf(&text,
                     "%zu of %zu MiB of weights stay in the file: %s; of %zu experts %zu fit into memory at "
                     "a time (%zu MiB), the others are read when tokens choose them",
                     p->mapped_bytes >> 20, all >> 20, why, p->n_expert, p->n_slot, p->pool_bytes >> 20);
    else
        n = asprintf(&text,
                     "%zu of %zu MiB of weights stay in the file: %s; they are read and repacked each time "
                     "they are used, so tokens come several times slower: use a smaller quantisation%s",
                     p->mapped_bytes >> 20, all >> 20, why,
                     o->limit_memory || o->limit_process ? " or allow more" : "");
    *memory = n < 0;
    return n < 0 ? NULL : text;
}
