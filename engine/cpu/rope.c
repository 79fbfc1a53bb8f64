/* Rotary positions and the writing of keys and values into their pages. */
#include "engine/cpu/cpu.h"
#include "engine/trig.h"

#include <assert.h>

enum { SERIAL_FLOATS = 16384, MAX_VALUE = 2048 /* latent and rope of a position */ };

typedef struct rope_job {
    weft_backend *b;
    cpu_rope_table *table;
    float *x;
    size_t heads, head_dim, rope_dim;
    weft_rope_kind kind;
} rope_job;

static void fill_item(void *context, uint32_t token, int thread)
{
    const cpu_rope_table *t = ((const rope_job *)context)->table;
    float *out = t->cos_sin + token * t->rope_dim;
    for (size_t i = 0; i < t->rope_dim / 2; i++) {
        double s, c;
        weft_sincos((double)t->position[token] * t->inv_freq[i], &s, &c);
        out[2 * i] = (float)c * t->magnitude;
        out[2 * i + 1] = (float)s * t->magnitude;
    }
}

static bool table_fits(const cpu_rope_table *t, const weft_row *row, size_t n, size_t rope_dim,
                       const double *inv_freq, float magnitude)
{
    if (t->n < n || t->rope_dim != rope_dim || t->magnitude != magnitude ||
        memcmp(t->inv_freq, inv_freq, rope_dim / 2 * sizeof *inv_freq) != 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (t->position[i] != row[i].position) return false;
    return true;
}

/* The table of these tokens and frequencies, computed if the last calls did not. */
static cpu_rope_table *table_of(weft_backend *b, const weft_row *row, size_t n, size_t rope_dim,
                                const double *inv_freq, float magnitude)
{
    for (int i = 0; i < CPU_ROPE_TABLES; i++)
        if (table_fits(&b->rope[i], row, n, rope_dim, inv_freq, magnitude)) return &b->rope[i];
    cpu_rope_table *t = &b->rope[b->rope_next];
    b->rope_next = (b->rope_next + 1) % CPU_ROPE_TABLES;
    t->n = n;
    t->rope_dim = rope_dim;
    t->magnitude = magnitude;
    memcpy(t->inv_freq, inv_freq, rope_dim / 2 * sizeof *inv_freq);
    for (size_t i = 0; i < n; i++) t->position[i] = row[i].position;
    rope_job job = {.table = t};
    cpu_pool_run(b->pool, fill_item, &job, (uint32_t)n);
    return t;
}

static void rotate_item(void *context, uint32_t token, int thread)
{
    const rope_job *job = context;
    float *x = job->x + token * job->heads * job->head_dim;
    for (size_t h = 0; h < job->heads; h++)
        job->b->k->rotate(x + h * job->head_dim, job->rope_dim, job->kind,
                          job->table->cos_sin + token * job->rope_dim);
}

void cpu_rope(weft_backend *b, float *x, const weft_row *row, size_t n, size_t heads,
              size_t head_dim, size_t rope_dim, weft_rope_kind kind, const double *inv_freq,
              float magnitude)
{
    if (n == 0) return;
    assert(n <= b->max_tokens && rope_dim <= head_dim && rope_dim <= b->max_columns);
    rope_job job = {
        .b = b, .x = x, .heads = heads, .head_dim = head_dim, .rope_dim = rope_dim, .kind = kind};
    job.table = table_of(b, row, n, rope_dim, inv_freq, magnitude);
    if (n * heads * head_dim >= SERIAL_FLOATS)
        cpu_pool_run(b->pool, rotate_item, &job, (uint32_t)n);
    else
        for (size_t i = 0; i < n; i++) rotate_item(&job, (uint32_t)i, 0);
}

/* ---- keys and values ---- */

typedef struct write_job {
    weft_backend *b;
    const weft_kv_layout *l;
    uint32_t layer;
    const weft_row *row;
    size_t n;
    const float *k, *v;
} write_job;

/* Keys lie transposed: element d of a key is 64 elements behind element d - 1. */
static void write_key(const write_job *job, const float *k, uint8_t *page_head, size_t at)
{
    const size_t dim = job->l->key_dim;
    if (job->l->type == WEFT_KV_F32) {
        float *out = (float *)(void *)page_head + at;
        for (size_t d = 0; d < dim; d++) out[WEFT_PAGE * d] = k[d];
        return;
    }
    for (size_t from = 0; from < dim; from += WEFT_KV_BLOCK) {
        const size_t n = cpu_min(WEFT_KV_BLOCK, dim - from);
        if (job->l->type == WEFT_KV_F16) {
            uint16_t half[WEFT_KV_BLOCK], *out = (uint16_t *)(void *)page_head + at;
            job->b->k->to_half(k + from, n, half);
            for (size_t d = 0; d < n; d++) out[WEFT_PAGE * (from + d)] = half[d];
        } else {
            int8_t q[WEFT_KV_BLOCK];
            uint8_t *block = page_head + weft_kv_side_bytes(WEFT_KV_Q8_0, (uint32_t)from);
            uint8_t *out = block + sizeof(uint16_t) * WEFT_PAGE + at;
            ((uint16_t *)(void *)block)[at] = job->b->k->to_q8(k + from, n, q);
            for (size_t d = 0; d < n; d++) out[WEFT_PAGE * d] = (uint8_t)q[d];
        }
    }
}

static void write_value(const write_job *job, const float *v, uint8_t *values, size_t at)
{
    const size_t dim = job->l->value_dim;
    if (job->l->type == WEFT_KV_F32) {
        memcpy(values + sizeof *v * at * dim, v, dim * sizeof *v);
    } else if (job->l->type == WEFT_KV_F16) {
        job->b->k->to_half(v, dim, (uint16_t *)(void *)values + at * dim);
    } else {
        uint16_t *scale = (uint16_t *)(void *)values;
        int8_t *out = (int8_t *)(scale + WEFT_PAGE * cpu_divide_up(dim, WEFT_KV_BLOCK)) + at * dim;
        for (size_t from = 0; from < dim; from += WEFT_KV_BLOCK)
            scale[WEFT_PAGE * (from / WEFT_KV_BLOCK) + at] =
                job->b->k->to_q8(v + from, cpu_min(WEFT_KV_BLOCK, dim - from), out + from);
    }
}

static void write_item(void *context, uint32_t head, int thread)
{
    const write_job *job = context;
    const weft_kv_layout *l = job->l;
    for (size_t t = 0; t < job->n; t++) {
        const weft_row *row = &job->row[t];
        size_t at = (size_t)(row->position % WEFT_PAGE);
        uint8_t *page_head =
            (uint8_t *)row->page[row->position / WEFT_PAGE] + weft_kv_offset(l, job->layer, head);
        write_key(job, job->k + (t * l->n_head_kv + head) * l->key_dim, page_head, at);
        write_value(job, job->v + (t * l->n_head_kv + head) * l->value_dim,
                    page_head + weft_kv_side_bytes(l->type, l->key_dim), at);
    }
}

/* The latent form: the indexer's key stands where a head's key does, latent and rope where its value does. */
void cpu_latent_write(weft_backend *b, const weft_kv_layout *l, uint32_t layer, const weft_row *row,
                      size_t n, const float *latent, const float *rope, const float *index)
{
    float value[MAX_VALUE];
    const write_job job = {b, l, layer, row, n, index, value};
    const size_t rope_dim = l->value_dim - l->latent_dim;
    assert(l->n_head_kv == 1 && l->value_dim <= MAX_VALUE);
    for (size_t t = 0; t < n; t++) {
        const size_t at = (size_t)(row[t].position % WEFT_PAGE);
        uint8_t *keys = (uint8_t *)row[t].page[row[t].position / WEFT_PAGE] + weft_kv_offset(l, layer, 0);
        memcpy(value, latent + t * l->latent_dim, l->latent_dim * sizeof *value);
        memcpy(value + l->latent_dim, rope + t * rope_dim, rope_dim * sizeof *value);
        if (l->key_dim > 0) write_key(&job, index + t * l->key_dim, keys, at);
        write_value(&job, value, keys + weft_kv_side_bytes(l->type, l->key_dim), at);
    }
}

void cpu_kv_write(weft_backend *b, const weft_kv_layout *l, uint32_t layer, const weft_row *row,
                  size_t n, const float *k, const float *v)
{
    write_job job = {b, l, layer, row, n, k, v};
    if (n * l->n_head_kv * l->key_dim >= SERIAL_FLOATS)
        cpu_pool_run(b->pool, write_item, &job, l->n_head_kv);
    else
        for (uint32_t h = 0; h < l->n_head_kv; h++) write_item(&job, h, 0);
}
