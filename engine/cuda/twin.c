/* Memory that has an address on the host and bytes on the devices, and the scratch of passes.
 *
 * The graph (arch/) reckons with addresses of host memory that nobody touches: a range's twin lies on each
 * device at an address of its own, and calls translate. So the graph is the same for all backends, and
 * the bytes that a pass needs are where they are needed.
 */
#include "engine/cuda/call.h"

#include <assert.h>

enum { ALIGN = 256, SLOT_ROWS = 4, SLOT_MAX_BYTES = 256 << 20 };

weft_status cuda_twin(weft_backend *wb, void *host, size_t bytes, weft_twin_kind kind, weft_error *err)
{
    cuda_backend *b = cuda_of(wb);
    const cuda_driver *d = b->driver;
    weft_status e = WEFT_OK;
    assert(b->n_range < CUDA_TWINS && bytes > 0);
    for (int i = 0; i < b->n_stage && !e; i++) {
        cuda_stage *s = &b->stage[i];
        if (kind == WEFT_TWIN_RESULTS && i + 1 < b->n_stage) continue; /* logits are the last one's */
        e = cuda_stage_enter(s, d, err);
        if (!e) e = cuda_memory_new(d, s, bytes, "activations", &s->twin[b->n_range], err);
        if (e || kind != WEFT_TWIN_CONSTANTS) continue;
        e = cuda_check(d, d->copy_in(s->twin[b->n_range], host, bytes, s->stream), err, "copying constants");
        if (!e) e = cuda_check(d, d->synchronize(s->stream), err, "copying constants");
    }
    b->range[b->n_range++] = (cuda_range){host, bytes};
    return e;
}

cuda_address cuda_at(const cuda_backend *b, const void *host)
{
    return cuda_twin_of(b, host, cuda_stage_here(b));
}

cuda_address cuda_twin_of(const cuda_backend *b, const void *host, int stage)
{
    const uint8_t *at = host;
    for (int i = 0; i < b->n_range; i++) {
        const cuda_range *r = &b->range[i];
        if (at >= r->host && at < r->host + r->bytes)
            return b->stage[stage].twin[i] + (cuda_address)(at - r->host);
    }
    assert(!"an operation was given memory that has no twin");
    return 0;
}

/* ---- scratch ---- */

static size_t round_up(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

/* Spans of a few rows at full length, so that a decode step's attention is work for the whole GPU. */
static size_t slots(const cuda_backend *b, int64_t positions, size_t n_head)
{
    size_t spans = 1;
    while (spans * WEFT_CUDA_SPAN < (size_t)positions) spans *= 2;
    const size_t row = n_head * spans * (WEFT_CUDA_STATE + b->layout.value_dim) * sizeof(float);
    return row * SLOT_ROWS < SLOT_MAX_BYTES ? row * SLOT_ROWS : row;
}

weft_status cuda_scratch_new(cuda_backend *b, cuda_stage *s, const size_t *parts, cuda_address *const *at,
                             size_t n, cuda_address *out, weft_error *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) bytes += round_up(parts[i]);
    weft_status e = cuda_stage_enter(s, b->driver, err);
    if (!e) e = cuda_memory_new(b->driver, s, bytes, "scratch", out, err);
    if (e) return e;
    cuda_address next = *out;
    for (size_t i = 0; i < n; i++) {
        *at[i] = next;
        next += round_up(parts[i]);
    }
    return WEFT_OK;
}

static weft_status new_scratch(cuda_backend *b, cuda_stage *s, weft_error *err)
{
    const size_t wide = b->max_rows * b->max_columns;
    const size_t table = b->max_rows * (b->layout.key_dim > 256 ? b->layout.key_dim : 256) * sizeof(float);
    const size_t picked = b->experts.n * b->experts.n_used * b->experts.n_ff;
    b->quantised_room = wide > picked ? wide : picked;
    const size_t parts[] = {b->quantised_room, b->quantised_room / WEFT_CUDA_BLOCK * sizeof(weft_cuda_block),
                            wide * sizeof(float), wide * sizeof(float), b->slot_bytes,
                            b->places.max_logits * WEFT_CUDA_SUMS * sizeof(double),
                            b->places.max_logits * sizeof(weft_cuda_drawn),
                            table, table, table, table};
    cuda_address *const at[] = {&s->quantised, &s->blocks, &s->kept, &s->other, &s->slots, &s->sums, &s->drawn,
                                &s->cos_sin[0], &s->cos_sin[1], &s->cos_sin[2], &s->cos_sin[3]};
    _Static_assert(sizeof parts / sizeof *parts == 7 + CUDA_ROPE_TABLES, "each table has a part");
    weft_status e = cuda_scratch_new(b, s, parts, at, sizeof parts / sizeof *parts, &s->scratch, err);
    if (!e) e = cuda_mixture_scratch(b, s, err);
    if (!e) e = cuda_latent_scratch(b, s, err);
    return e ? e : cuda_memory_new(b->driver, s, b->input_bytes, "a pass's rows", &s->input, err);
}

static weft_status pin(cuda_backend *b, size_t bytes, void **out, weft_error *err)
{
    return cuda_check(b->driver, b->driver->host_new(out, bytes, CUDA_HOST_PORTABLE_), err,
                      "pinned memory of the host");
}

weft_status cuda_places(weft_backend *wb, const weft_pass_places *places, weft_error *err)
{
    cuda_backend *b = cuda_of(wb);
    b->places = *places;
    b->input_bytes = places->chunk * (2 * sizeof(weft_row) + sizeof(uint32_t)) + 16 + cuda_draw_bytes(b, places->max_logits);
    b->input_bytes = round_up(b->input_bytes); /* each stage's begins aligned */
    b->slot_bytes = slots(b, places->context, places->n_head);
    if (b->staging) b->driver->host_free(b->staging);
    free(b->rows);
    b->staging = b->rows = NULL;
    weft_status e = WEFT_OK;
    for (int i = 0; i < b->n_stage && !e; i++) e = new_scratch(b, &b->stage[i], err);
    if (!e) e = pin(b, b->input_bytes * (size_t)b->n_stage, &b->input, err);
    if (!e) e = pin(b, places->chunk * places->n_embd * sizeof(float), &b->x, err);
    if (!e) e = pin(b, places->max_logits * places->n_vocab * sizeof(float), &b->logits, err);
    if (!e) e = pin(b, places->max_logits * sizeof(weft_cuda_drawn), &b->drawn, err);
    if (!e) e = pin(b, CUDA_STAGED * b->page_bytes, &b->staged, err);
    return e;
}
