#include "engine/placement.h"

#include <stdlib.h>
#include <string.h>

enum { SPARE = 8 }; /* one part in so many stays free: keys and values, scratch, the page cache */

static bool is_matrix(const weft_gguf *file, const weft_tensor *t)
{
    if (t->dim[1] == 1) return false;
    return strcmp(t->name, "token_embd.weight") != 0 ||
           !weft_gguf_tensor_find(file, "output.weight"); /* tied: it is the output matrix too */
}

static void place(weft_placement *p, const weft_gguf *file, bool stacks)
{
    for (size_t i = 0; i < weft_gguf_tensor_count(file); i++) {
        const weft_tensor *t = weft_gguf_tensor_at(file, i);
        if (!is_matrix(file, t) || (t->dim[2] > 1) != stacks) continue;
        p->in_memory[i] = t->bytes <= p->budget - p->memory_bytes;
        *(p->in_memory[i] ? &p->memory_bytes : &p->mapped_bytes) += t->bytes;
    }
}

weft_status weft_placement_new(weft_placement *out, const weft_gguf *file,
                               const weft_engine_options *o, weft_error *err)
{
    size_t available = o->limit_memory ? 0 : weft_memory_available();
    weft_placement p = {.budget = available ? available - available / SPARE : SIZE_MAX};
    if (o->limit_memory) p.budget = o->memory;
    p.in_memory = calloc(weft_gguf_tensor_count(file) + 1, sizeof *p.in_memory);
    if (!p.in_memory) return weft_fail(err, WEFT_E_MEMORY, "weights: out of memory");
    place(&p, file, false);
    place(&p, file, true);
    *out = p;
    return WEFT_OK;
}

void weft_placement_free(weft_placement *p)
{
    free(p->in_memory);
    *p = (weft_placement){0};
}

bool weft_placement_in_memory(const weft_placement *p, const weft_gguf *file, const weft_tensor *t)
{
    for (size_t i = 0; i < weft_gguf_tensor_count(file); i++)
        if (weft_gguf_tensor_at(file, i) == t) return p->in_memory[i];
    return false;
}

char *weft_placement_notice(const weft_placement *p, const weft_engine_options *o, bool *memory)
{
    char *text = NULL;
    *memory = false;
    if (p->mapped_bytes == 0) return NULL;
    const size_t all = p->memory_bytes + p->mapped_bytes;
    if (asprintf(&text,
                 "%zu of %zu MiB of weights stay in the file: %zu MiB of memory %s; they are repacked "
                 "each time they are used, so tokens come several times slower, and from the disk if the "
                 "page cache does not hold them: use a smaller quantisation%s",
                 p->mapped_bytes >> 20, all >> 20, p->budget >> 20,
                 o->limit_memory ? "are allowed (--memory)" : "are free for them",
                 o->limit_memory ? " or allow more" : "") < 0) {
        *memory = true;
        return NULL;
    }
    return text;
}
