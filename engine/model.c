/* Opening a model: file -> vocabulary, and beside it hyper-parameters -> backend -> repacked weights -> scratch.
 *
 * Everything a forward pass needs is allocated here, once. Memory afterwards is the weights that were
 * repacked (placement.h says which), the scratch of one chunk (64 KiB a token on a 1.5B). How the chunk is chosen is invisible in the logits.
 */
#include "engine/timeline.h"

#include "engine/cuda/backend.h"
#include "engine/kv.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_DEFAULT =
        64, /* a kill loses at most a chunk and an unsealed page; 512 is 5 to 8 % faster */
    CHUNK_MIN = 16,
    CHUNK_MAX = 4096,
    SCRATCH_MAX_BYTES = 256 << 20, /* for the default chunk */
    SCRATCH_ALIGN = 64
};

/* ---- what the file says ---- */

static weft_status copy_text(const weft_gguf *file, const char *key, char **out, weft_error *err)
{
    weft_text text;
    if (!weft_gguf_text(file, key, &text)) return WEFT_OK;
    *out = strndup(text.data, text.size);
    return *out ? WEFT_OK : weft_fail(err, WEFT_E_MEMORY, "metadata: out of memory");
}

static uint64_t weights_of_type(const weft_gguf *file, weft_tensor_type type)
{
    uint64_t n = 0;
    for (size_t i = 0; i < weft_gguf_tensor_count(file); i++) {
        const weft_tensor *t = weft_gguf_tensor_at(file, i);
        if (t->type == type && t->dim[1] > 1) n += t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3];
    }
    return n;
}

/* The type that holds most weights, vectors left out. */
static const char *common_type(const weft_gguf *file)
{
    static const weft_tensor_type types[] = {
#define X(name, number, block, bytes) WEFT_##name,
        WEFT_TENSOR_TYPES(X)
#undef X
    };
    uint64_t most = 0;
    const char *name = "none";
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        uint64_t n = weights_of_type(file, types[i]);
        if (n <= most) continue;
        most = n;
        name = weft_tensor_type_name(types[i]);
    }
    return name;
}

static weft_status read_info(weft_model *m, const char *path, weft_error *err)
{
    weft_model_info *info = &m->info;
    m->text[0] = strdup(path);
    weft_status e = m->text[0] ? WEFT_OK : weft_fail(err, WEFT_E_MEMORY, "path: out of memory");
    if (!e) e = copy_text(m->file, "general.name", &m->text[1], err);
    if (!e) e = copy_text(m->file, "general.architecture", &m->text[2], err);
    if (!e) e = copy_text(m->file, "tokenizer.chat_template", &m->text[3], err);
    if (e) return e;
    info->path = m->text[0];
    info->name = m->text[1] ? m->text[1] : "";
    info->architecture = m->text[2] ? m->text[2] : "";
    info->chat_template = m->text[3];
    info->quantisation = common_type(m->file);
    info->backend = "none";
    info->file_bytes = weft_gguf_file_bytes(m->file);
    for (size_t i = 0; i < weft_gguf_tensor_count(m->file); i++) {
        const weft_tensor *t = weft_gguf_tensor_at(m->file, i);
        info->n_params += (int64_t)(t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3]);
    }
    e = weft_gguf_fingerprint(m->file, info->fingerprint, err);
    if (e) return e;
    memcpy(m->kv_identity, info->fingerprint, sizeof m->kv_identity);
    return WEFT_OK;
}

static weft_status read_vocabulary_info(weft_model *m, weft_error *err)
{
    m->info.tokenizer = weft_tokenizer_model(m->tokenizer);
    m->info.pre = weft_tokenizer_pre(m->tokenizer);
    m->info.n_vocab = (int64_t)weft_tokenizer_size(m->tokenizer);
    size_t missing = weft_tokenizer_missing_bytes(m->tokenizer);
    if (missing > 0 &&
        asprintf(
            &m->notice,
            "this vocabulary cannot write %zu of the 256 byte values: characters that need them "
            "are dropped",
            missing) < 0) {
        m->notice = NULL;
        return weft_fail(err, WEFT_E_MEMORY, "vocabulary: out of memory");
    }
    return WEFT_OK;
}

static bool wants_gpu(const weft_engine_options *o)
{
    return o->engine && (strcmp(o->engine, "cuda") == 0 || strncmp(o->engine, "cuda:", 5) == 0);
}

static weft_status read_hparams(weft_model *m, const weft_engine_options *o, weft_error *err)
{
    weft_status e = weft_hparams_read(m->file, &m->h, err);
    if (e) return e;
    const weft_hparams *h = &m->h;
    if (o->context < 0 || o->context > h->context_length)
        return weft_fail(err, WEFT_E_LIMIT,
                         "context of %lld tokens: this model was trained for %lld at most",
                         (long long)o->context, (long long)h->context_length);
    m->context = o->context ? o->context : h->context_length;
    m->sparse = h->index_heads > 0 && !o->dense_attention;
    m->predicts = h->predicts && !wants_gpu(o);
    m->kv = (weft_kv_layout){.type = o->kv_type,
                             .n_layer = weft_model_layers(m),
                             .n_head_kv = h->n_head_kv,
                             .key_dim = h->latent_dim ? h->index_dim : h->head_dim,
                             .value_dim = h->latent_dim ? h->latent_dim + h->rope_dim : h->head_dim,
                             .latent_dim = h->latent_dim,
                             .variant = h->index_heads > 0 && !m->sparse};
    m->info.n_vocab = h->n_vocab;
    return WEFT_OK;
}

static weft_status check_vocabulary(const weft_model *m, weft_error *err)
{
    if (m->h.n_vocab == weft_tokenizer_size(m->tokenizer)) return WEFT_OK;
    return weft_fail(err, WEFT_E_MODEL, "vocabulary: %zu tokens, but token_embd.weight has %u rows",
                     weft_tokenizer_size(m->tokenizer), m->h.n_vocab);
}

/* ---- scratch ---- */

enum { SCRATCH_PARTS = 20, SCRATCH_STEP = SCRATCH_ALIGN / sizeof(float) };

typedef struct scratch_part {
    float **at;
    size_t width;
    bool by_head; /* no matrix has so many columns: ops take it head by head */
} scratch_part;

static void scratch_parts(weft_model *m, scratch_part part[SCRATCH_PARTS])
{
    const weft_hparams *h = &m->h;
    weft_scratch *s = &m->scratch;
    const bool latent = h->latent_dim > 0;
    const size_t n_kv = latent ? 0 : (size_t)h->n_head_kv * h->head_dim;
    const size_t n_latent = (size_t)h->n_head * h->latent_dim;
    const size_t dense = h->n_expert && h->n_dense == 0 ? 0 : h->n_ff;
    const size_t predicted = m->predicts ? h->n_embd : 0;
    const scratch_part parts[SCRATCH_PARTS] = {
        {&s->x, h->n_embd, false},
        {&s->normed, h->n_embd, false},
        {&s->branch, h->n_embd, false},
        {&s->q, weft_query_width(h), latent},
        {&s->attended, weft_attended_width(h), false},
        {&s->k, n_kv, false},
        {&s->v, n_kv, false},
        {&s->ff, dense > h->n_ff_shared ? dense : h->n_ff_shared, false},
        {&s->scores, h->n_expert, false},
        {&s->latent, h->latent_dim, false},
        {&s->k_rope, latent ? h->rope_dim : 0, false},
        {&s->q_lora, h->q_lora, false},
        {&s->q_latent, n_latent, true},
        {&s->attended_latent, n_latent, true},
        {&s->index_q, (size_t)h->index_heads * h->index_dim, true},
        {&s->index_k, h->index_dim, false},
        {&s->index_weight, h->index_heads, false},
        {&s->hidden, predicted, false},
        {&s->pair, 2 * predicted, false},
        {&s->predicted, predicted, false}};
    memcpy(part, parts, sizeof parts);
}

/* Chooses the chunk and says what it takes. */
static void size_scratch(weft_model *m, int wanted_chunk)
{
    scratch_part part[SCRATCH_PARTS];
    size_t width = 0, last = 2 * WEFT_LOGIT_ROWS * (size_t)m->h.n_embd;
    scratch_parts(m, part);
    for (size_t i = 0; i < SCRATCH_PARTS; i++) width += part[i].width;
    size_t fits = SCRATCH_MAX_BYTES / (width * sizeof(float));
    if (fits < CHUNK_MIN) fits = CHUNK_MIN;
    size_t chunk = fits < CHUNK_DEFAULT ? fits : CHUNK_DEFAULT;
    if (wanted_chunk > 0) chunk = (size_t)(wanted_chunk < CHUNK_MAX ? wanted_chunk : CHUNK_MAX);
    m->chunk = (int)chunk;
    m->scratch.bytes = (width * chunk + SCRATCH_PARTS * SCRATCH_STEP + last) * sizeof(float);
    m->scratch.bytes = (m->scratch.bytes + SCRATCH_ALIGN - 1) / SCRATCH_ALIGN * SCRATCH_ALIGN;
}

static weft_status reserve_latent(weft_model *m, weft_error *err)
{
    const weft_hparams *h = &m->h;
    if (!m->ops->reserve_latent)
        return weft_fail(err, WEFT_E_MODEL, "backend %s: has no latent attention yet; use the CPU",
                         m->ops->name);
    const weft_latent_size size = {.n_head = h->n_head,
                                   .latent_dim = h->latent_dim,
                                   .rope_dim = h->rope_dim,
                                   .index_heads = h->index_heads,
                                   .index_dim = h->index_dim,
                                   .top_k = h->index_top_k,
                                   .context = m->context};
    return m->ops->reserve_latent(m->backend, &size, err);
}

static weft_status reserve_backend(weft_model *m, weft_error *err)
{
    const weft_hparams *h = &m->h;
    const size_t chunk = (size_t)m->chunk;
    scratch_part part[SCRATCH_PARTS];
    size_t columns = 0;
    scratch_parts(m, part);
    for (size_t i = 0; i < SCRATCH_PARTS; i++) 
        if (!part[i].by_head && part[i].width > columns) columns = part[i].width;
    size_t most = chunk > 2 * WEFT_LOGIT_ROWS ? chunk : 2 * WEFT_LOGIT_ROWS;
    weft_status e = m->ops->reserve(m->backend, most, columns, err);
    if (!e && h->latent_dim) e = reserve_latent(m, err);
    if (e || !h->n_expert) return e;
    const weft_experts_size size = {chunk, h->n_expert, h->n_expert_used, h->n_embd, h->n_ff_expert};
    return m->ops->reserve_experts(m->backend, &size, err);
}

static weft_status new_scratch(weft_model *m, weft_error *err)
{
    const weft_hparams *h = &m->h;
    weft_scratch *s = &m->scratch;
    scratch_part part[SCRATCH_PARTS];
    const size_t chunk = (size_t)m->chunk;
    s->memory = aligned_alloc(SCRATCH_ALIGN, s->bytes);
    s->row = calloc(chunk, sizeof *s->row);
    s->pick = calloc(chunk * (h->n_expert ? h->n_expert_used : 1), sizeof *s->pick);
    if (m->sparse) s->selected = calloc(chunk * h->index_top_k, sizeof *s->selected);
    if (m->sparse) s->count = calloc(chunk, sizeof *s->count);
    if (m->predicts) s->pair_id = calloc(chunk, sizeof *s->pair_id);
    if (m->predicts) s->pair_row = calloc(chunk, sizeof *s->pair_row);
    if (!s->memory || !s->row || !s->pick || (m->sparse && !(s->selected && s->count)) ||
        (m->predicts && !(s->pair_id && s->pair_row)))
        return weft_fail(err, WEFT_E_MEMORY, "scratch of %zu MiB: out of memory", s->bytes >> 20);
    float *next = s->memory;
    scratch_parts(m, part);
    for (size_t i = 0; i < SCRATCH_PARTS; i++) {
        *part[i].at = next;
        next += (part[i].width * chunk + SCRATCH_STEP - 1) / SCRATCH_STEP * SCRATCH_STEP;
    }
    s->last = next;
    return reserve_backend(m, err);
}

/* ---- where the weights go ---- */

enum {
    RESERVED_TOKENS = 4096,   /* whose keys and values a limit of the process counts, unless the context is said */
    OTHER_BYTES = 24 << 20    /* the log, masks, tools, what the allocator keeps: 10 to 20 MiB in a run */
};

/* What a token reads of the weights: of a layer's experts only its share. */
static size_t step_bytes(const weft_model *m)
{
    size_t bytes = 0;
    for (size_t i = 0; i < weft_gguf_tensor_count(m->file); i++) {
        const weft_tensor *t = weft_gguf_tensor_at(m->file, i);
        if (t->dim[1] == 1 || weft_arch_unused(m->file, t, m->h.n_layer) || (t == weft_gguf_tensor_find(m->file, "token_embd.weight") &&
                               weft_gguf_tensor_find(m->file, "output.weight")))
            continue;
        bytes += m->h.n_expert && strstr(t->name, "_exps.") ? t->bytes / m->h.n_expert * m->h.n_expert_used : t->bytes;
    }
    return bytes;
}

/* Layers for multi-token prediction that are not loaded: that is said. */
static weft_status note_unused(weft_model *m, weft_error *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < weft_gguf_tensor_count(m->file); i++) {
        const weft_tensor *t = weft_gguf_tensor_at(m->file, i);
        if (weft_arch_unused(m->file, t, weft_model_layers(m))) bytes += t->bytes;
    }
    if (bytes > 0 &&
        asprintf(&m->unused_notice,
                 "the file has %s for multi-token prediction that %s: %zu MiB are not loaded",
                 m->predicts ? "further layers" : "a layer",
                 m->predicts ? "are not used" : "is not used on a GPU (--engine cpu uses it)", (bytes + (1 << 20) - 1) >> 20) < 0) {
        m->unused_notice = NULL;
        return weft_fail(err, WEFT_E_MEMORY, "weights: out of memory");
    }
    return WEFT_OK;
}

/* What the process will hold beside its matrices. */
static size_t fixed_bytes(const weft_model *m, const weft_backend *b, const weft_ops *ops,
                          const weft_engine_options *o)
{
    const int64_t tokens = o->context                     ? o->context
                           : m->context < RESERVED_TOKENS ? m->context
                                                          : RESERVED_TOKENS;
    size_t vectors = 0, room = 0;
    for (size_t i = 0; i < weft_gguf_tensor_count(m->file); i++) {
        const weft_tensor *t = weft_gguf_tensor_at(m->file, i);
        if (t->dim[1] == 1) vectors += t->bytes;
        const size_t needs = t->dim[1] == 1 ? 0 : weft_cpu_room_bytes(t);
        if (needs > room) room = needs;
    }
    return weft_memory_resident() + weft_model_memory(m, tokens) + vectors +
           room * (size_t)weft_cpu_backend_threads(b) + (ops->scratch_bytes ? ops->scratch_bytes(b) : 0) +
           OTHER_BYTES;
}

static weft_status place_weights(weft_model *m, const weft_engine_options *o, weft_error *err)
{
    bool memory;
    const weft_engine_options all = {.limit_memory = true, .memory = SIZE_MAX};
    if (m->ops && m->ops->device) o = &all; /* it has memory of its own, and has looked at it */
    const size_t fixed = o->limit_process ? fixed_bytes(m, m->backend, m->ops, o) : 0;
    const uint32_t n_used = m->h.n_expert ? m->h.n_expert_used : 1;
    weft_status e = weft_placement_new(&m->placement, m->file, weft_model_layers(m), fixed, n_used, o, err);
    if (e) return e;
    m->memory_notice = weft_placement_notice(&m->placement, o, &memory);
    if (memory) return weft_fail(err, WEFT_E_MEMORY, "weights: out of memory");
    const weft_placement *p = &m->placement;
    m->info.weight_bytes = p->memory_bytes;
    m->info.mapped_bytes = p->mapped_bytes;
    m->info.pool_bytes = p->pool_bytes;
    m->info.pool_experts = p->n_slot;
    m->info.file_experts = p->n_slot ? p->n_expert : 0;
    m->info.least_bytes = o->limit_process ? p->least : 0;
    m->info.step_bytes = step_bytes(m);
    return o->vocab_only ? WEFT_OK : weft_placement_check(p, o, err);
}

/* What operations are given lies on the device too. */
static weft_status place_on_device(weft_model *m, weft_error *err)
{
    const weft_device_ops *device = m->ops->device;
    const weft_scratch *s = &m->scratch;
    const size_t picks = (size_t)m->chunk * (m->h.n_expert ? m->h.n_expert_used : 1);
    weft_status e =
        device->twin(m->backend, s->memory, s->bytes, WEFT_TWIN_ACTIVATIONS, err);
    if (!e) e = device->twin(m->backend, s->pick, picks * sizeof *s->pick, WEFT_TWIN_ACTIVATIONS, err);
    if (!e && m->sparse)
        e = device->twin(m->backend, s->selected,
                         (size_t)m->chunk * m->h.index_top_k * sizeof *s->selected, WEFT_TWIN_ACTIVATIONS, err);
    if (!e && m->sparse)
        e = device->twin(m->backend, s->count, (size_t)m->chunk * sizeof *s->count, WEFT_TWIN_ACTIVATIONS,
                         err);
    if (!e) e = device->twin(m->backend, m->vectors, m->vector_bytes, WEFT_TWIN_CONSTANTS, err);
    for (int i = 0; i < 2 && !e; i++)
        if (m->inv_freq[i])
            e = device->twin(m->backend, m->inv_freq[i], m->h.rope_dim / 2 * sizeof(double),
                             WEFT_TWIN_CONSTANTS, err);
    if (!e) e = device->twin(m->backend, step_logits(m->step),
                             2 * (size_t)WEFT_LOGIT_ROWS * m->h.n_vocab * sizeof(float),
                             WEFT_TWIN_RESULTS, err);
    const weft_pass_places places = {.x = s->x, .kept = s->row, .n_embd = m->h.n_embd, .n_vocab = m->h.n_vocab,
                                     .n_head = m->h.n_head, .chunk = (size_t)m->chunk,
                                     .max_logits = WEFT_LOGIT_ROWS, .context = m->context};
    return e ? e : device->places(m->backend, &places, err);
}

/* ---- open and close ---- */

static void describe_shape(weft_model *m)
{
    weft_model_info *info = &m->info;
    info->n_layer = m->h.n_layer;
    info->n_predict = m->predicts;
    info->n_embd = m->h.n_embd;
    info->n_head = m->h.n_head;
    info->n_head_kv = m->h.n_head_kv;
    info->context_length = m->h.context_length;
    info->context = m->context;
    info->kv_page_bytes = weft_kv_page_bytes(&m->kv);
    info->kv_page_file_bytes = weft_kv_file_bytes(&m->kv);
    info->kv_type = m->kv.type;
}

/* The CPU, unless a GPU is asked for: a kernel that was never run on this kind of GPU must not be what a user
 * gets without knowing. */
static weft_status new_backend(weft_model *m, const weft_engine_options *o, weft_error *err)
{
    const char *engine = o->engine ? o->engine : "auto";
    if (strcmp(engine, "auto") == 0 || strcmp(engine, "cpu") == 0)
        return weft_cpu_backend_new(&m->backend, &m->ops, o->isa, o->threads, err);
    if (!wants_gpu(o))
        return weft_fail(err, WEFT_E_USAGE,
                         "engine %s: unknown; choose auto, cpu, cuda, or GPUs by number: cuda:0 or cuda:0,1",
                         engine);
    weft_status e = weft_cuda_backend_new(&m->backend, &m->ops, engine, err);
    if (e) weft_fail_prefix(err, "engine %s (cpu needs no GPU)", engine);
    return e ? e : m->ops->device->plan(m->backend, m->file, &m->kv, err);
}

static weft_status open_weights(weft_model *m, const weft_engine_options *o, weft_error *err)
{
    weft_status e = read_hparams(m, o, err);
    if (!e) describe_shape(m);
    if (!e) size_scratch(m, o->chunk);
    if (!e) e = new_backend(m, o, err);
    if (!e) e = new_scratch(m, err);
    if (!e) e = place_weights(m, o, err);
    if (!e) e = note_unused(m, err);
    if (!e) e = weft_transformer_load(m, o, err);
    if (!e) e = step_state_new(&m->step, m, err);
    if (!e && m->ops->device) e = place_on_device(m, err);
    if (e) return e;
    m->info.backend = m->ops->name;
    m->info.threads = m->ops->device ? 0 : weft_cpu_backend_threads(m->backend);
    return WEFT_OK;
}

/* For a model that is not going to be loaded: with a limit of the process the backend's scratch is asked for, not
 * touched, and given back. */
static weft_status place_unopened(weft_model *m, const weft_engine_options *o, weft_error *err)
{
    if (!o->limit_process) return place_weights(m, o, err);
    weft_status e = weft_cpu_backend_new(&m->backend, &m->ops, o->isa, o->threads, err);
    if (!e) e = reserve_backend(m, err);
    if (!e) e = place_weights(m, o, err);
    weft_cpu_backend_free(m->backend);
    m->backend = NULL;
    m->ops = NULL;
    return e;
}

typedef struct vocabulary_job {
    weft_model *model;
    weft_status status;
    weft_error err;
} vocabulary_job;

static void *load_vocabulary(void *context)
{
    vocabulary_job *job = context;
    job->status = weft_tokenizer_new(&job->model->tokenizer, job->model->file, &job->err);
    return NULL;
}

/* The vocabulary takes 0.1 s of one core, before the weights or, here, beside them; but where the process has a
 * limit, it must be there to be counted. Its complaint goes first: without a vocabulary the weights' is not of
 * interest. */
static weft_status open_parts(weft_model *m, const weft_engine_options *o, weft_error *err)
{
    vocabulary_job job = {.model = m};
    pthread_t thread;
    const bool beside = !o->vocab_only && !o->limit_process &&
                        pthread_create(&thread, NULL, load_vocabulary, &job) == 0;
    if (!beside) load_vocabulary(&job);
    weft_status weights = WEFT_OK;
    if (!o->vocab_only && (beside || !job.status)) weights = open_weights(m, o, err);
    if (beside) pthread_join(thread, NULL);
    if (job.status) {
        *err = job.err;
        return job.status;
    }
    if (!weights) weights = read_vocabulary_info(m, err);
    if (!weights && !o->vocab_only) weights = check_vocabulary(m, err);
    return weights;
}

static weft_status share_pages(weft_model *m, const weft_engine_options *o, weft_error *err)
{
    if (o->file_digest) memcpy(m->kv_identity, o->file_digest, sizeof m->kv_identity);
    if (m->ops && m->ops->numerics) /* other bits, other pages */
        weft_blake2b_of(m->kv_identity, sizeof m->kv_identity, &m->ops->numerics,
                        sizeof m->ops->numerics, m->kv_identity);
    if (!o->prefix_dir) return WEFT_OK;
    m->prefix_dir = strdup(o->prefix_dir);
    return m->prefix_dir ? WEFT_OK : weft_fail(err, WEFT_E_MEMORY, "model: out of memory");
}

weft_status weft_model_open(weft_model **out, const char *path, const weft_engine_options *options,
                            weft_error *err)
{
    const weft_engine_options defaults = {0};
    const weft_engine_options *o = options ? options : &defaults;
    weft_error own;
    if (!err) err = &own;
    if (!weft_kv_type_name(o->kv_type))
        return weft_fail(err, WEFT_E_USAGE, "KV type %d: unknown", (int)o->kv_type);
    weft_model *m = calloc(1, sizeof *m);
    if (!m) return weft_fail(err, WEFT_E_MEMORY, "model: out of memory");
    weft_status e = weft_gguf_open(&m->file, path, err);
    if (e) goto done; /* names the path itself */
    e = read_info(m, path, err);
    if (!e) e = open_parts(m, o, err);
    if (!e) e = share_pages(m, o, err);
    /* a vocabulary may come without a model, or with one of an architecture not known here */
    if (!e && o->vocab_only && !read_hparams(m, o, &own) && !check_vocabulary(m, &own)) {
        describe_shape(m);
        size_scratch(m, o->chunk);
        e = place_unopened(m, o, err);
    }
    if (e) {
        weft_fail_prefix(err, "model %s", path);
        goto done;
    }
    *out = m;
    m = NULL;
done:
    weft_model_close(m);
    return e;
}

void weft_model_close(weft_model *model)
{
    if (!model) return;
    share_free(model->share);
    step_state_free(model->step);
    weft_transformer_unload(model);
    if (model->ops && model->ops->device)
        model->ops->device->free(model->backend);
    else
        weft_cpu_backend_free(model->backend);
    weft_tokenizer_free(model->tokenizer);
    weft_gguf_close(model->file);
    free(model->scratch.memory);
    free(model->scratch.row);
    free(model->scratch.pick);
    free(model->scratch.selected);
    free(model->scratch.count);
    free(model->scratch.pair_id);
    free(model->scratch.pair_row);
    for (size_t i = 0; i < sizeof model->text / sizeof *model->text; i++) free(model->text[i]);
    weft_placement_free(&model->placement);
    free(model->prefix_dir);
    free(model->notice);
    free(model->memory_notice);
    free(model->unused_notice);
    free(model);
}

/* ---- accessors ---- */

static const char *const kv_type_names[WEFT_KV_TYPES] = {
    [WEFT_KV_F16] = "f16", [WEFT_KV_F32] = "f32", [WEFT_KV_Q8_0] = "q8_0"};

const char *weft_kv_type_name(weft_kv_type type)
{
    return (unsigned)type < WEFT_KV_TYPES ? kv_type_names[type] : NULL;
}

bool weft_kv_type_find(const char *name, weft_kv_type *out)
{
    for (int i = 0; i < WEFT_KV_TYPES; i++)
        if (strcmp(name, kv_type_names[i]) == 0) {
            *out = (weft_kv_type)i;
            return true;
        }
    return false;
}

const weft_model_info *weft_model_get_info(const weft_model *model)
{
    return &model->info;
}

const char *weft_best_backend(void)
{
    return weft_cpu_backend_best();
}

const weft_tokenizer *weft_model_tokenizer(const weft_model *model)
{
    return model->tokenizer;
}

const char *weft_model_vocabulary_notice(const weft_model *model)
{
    return model->notice;
}

const char *weft_model_unused_notice(const weft_model *model)
{
    return model->unused_notice;
}

const char *weft_model_memory_notice(const weft_model *model)
{
    return model->memory_notice;
}

weft_expert_counts weft_model_expert_counts(const weft_model *model)
{
    weft_expert_counts counts = {0};
    if (model->ops && model->ops->experts_counts) model->ops->experts_counts(model->backend, &counts);
    return counts;
}

static void add_type(cJSON *types, const weft_gguf *file, weft_tensor_type type)
{
    int64_t count = 0, bytes = 0;
    for (size_t i = 0; i < weft_gguf_tensor_count(file); i++) {
        const weft_tensor *t = weft_gguf_tensor_at(file, i);
        if (t->type != type) continue;
        count++;
        bytes += (int64_t)t->bytes;
    }
    if (count == 0) return;
    cJSON *pair = cJSON_AddArrayToObject(types, weft_tensor_type_name(type));
    cJSON_AddItemToArray(pair, cJSON_CreateNumber((double)count));
    cJSON_AddItemToArray(pair, cJSON_CreateNumber((double)bytes));
}

cJSON *weft_model_tensor_types(const weft_model *model)
{
    cJSON *types = cJSON_CreateObject();
    if (!types) return NULL;
#define X(name, number, block, bytes) add_type(types, model->file, WEFT_##name);
    WEFT_TENSOR_TYPES(X)
#undef X
    return types;
}

size_t weft_model_memory(const weft_model *model, int64_t n_tokens)
{
    int64_t pages = n_tokens > 0 ? (n_tokens + WEFT_PAGE - 1) / WEFT_PAGE : 0;
    size_t kv = (size_t)pages * model->info.kv_page_bytes;
    /* logits (with guesses), probabilities and candidate ids of the timeline; the ids themselves */
    size_t timeline = (size_t)model->info.n_vocab * 4 * (WEFT_GUESSES + 3) + (size_t)(n_tokens > 0 ? n_tokens : 0) * 4;
    if (model->predicts) timeline += (WEFT_GUESSES + 1) * (size_t)model->h.n_embd * sizeof(float);
    /* Few rows of a step's logits are touched as a rule, all of them by many runs at once. */
    size_t step = 2 * (size_t)WEFT_LOGIT_ROWS * (size_t)model->info.n_vocab * sizeof(float);
    return kv + timeline + step + model->scratch.bytes;
}
