/* Draws on the device: what the host announced goes in with the rows of the pass, the ids come out with the logits.
 *
 * A pass draws from the logits that it computes first, all that a decode step has. The ids are the host's own
 * (sample.cu); where the device leaves a draw to the host, for whichever reason, nobody learns of it: the host
 * has the logits and draws from them as ever. So nothing here can fail but the driver.
 */
#include "engine/cuda/call.h"

#include <string.h>

static size_t mask_bytes(const cuda_backend *b)
{
    return (b->places.n_vocab + 31) / 32 * sizeof(uint32_t);
}

bool cuda_draws(const cuda_backend *b, const weft_pass *pass)
{
    if (!pass->draw || pass->n == 0 || b->places.n_vocab > WEFT_CUDA_VOCAB) return false;
    for (size_t i = 0; i < pass->n_logits; i++)
        if (pass->draw[pass->from + i].sampler) return true;
    return false;
}

size_t cuda_draw_bytes(const cuda_backend *b, size_t n)
{
    return n * (sizeof(weft_cuda_draw) + mask_bytes(b));
}

/* The draws, then a mask's room for each. */
void cuda_draw_write(const cuda_backend *b, const weft_pass *pass, cuda_address address, uint8_t *to)
{
    weft_cuda_draw *out = (weft_cuda_draw *)(void *)to;
    const size_t bytes = mask_bytes(b);
    for (size_t i = 0; i < pass->n_logits; i++) {
        const weft_draw *draw = &pass->draw[pass->from + i];
        const size_t mask = pass->n_logits * sizeof *out + i * bytes;
        out[i] = (weft_cuda_draw){.temperature = -1};
        if (!draw->sampler) continue;
        out[i] = (weft_cuda_draw){.temperature = draw->sampler->temperature,
                                  .top_p = draw->sampler->top_p,
                                  .min_p = draw->sampler->min_p,
                                  .seed = draw->sampler->seed,
                                  .position = draw->position,
                                  .allowed = draw->allowed ? cuda_scratch(address + mask) : NULL,
                                  .top_k = draw->sampler->top_k};
        if (draw->allowed) memcpy(to + mask, draw->allowed, bytes);
    }
}

/* The weights lie where the output's product had its second half of rows (weft_pass.logits). */
void cuda_draw_run(cuda_backend *b, cuda_address draws)
{
    const cuda_stage *s = cuda_here(b);
    const weft_pass *pass = b->pass;
    const weft_cuda_sample_args a = {.logits = cuda_ptr(b, pass->logits),
                                     .draw = cuda_scratch(draws),
                                     .out = cuda_scratch(s->drawn),
                                     .weight = cuda_ptr(b, pass->logits + pass->n_logits * b->places.n_vocab),
                                     .sum = cuda_scratch(s->sums),
                                     .n = (uint32_t)pass->n_logits,
                                     .n_vocab = (uint32_t)b->places.n_vocab};
    CUDA_RUN(b, sample_top, a);
    CUDA_RUN(b, sample_weigh, a);
    CUDA_RUN(b, sample_pick, a);
    if (b->status) return;
    b->status = cuda_check(b->driver,
                           b->driver->copy_out(b->drawn, s->drawn, pass->n_logits * sizeof(weft_cuda_drawn), s->stream),
                           &b->err, "copying drawn ids");
}

void cuda_draw_arrived(const cuda_backend *b, const weft_pass *pass)
{
    const weft_cuda_drawn *drawn = b->drawn;
    for (size_t i = 0; b->shape.draws && i < pass->n_logits; i++)
        if (drawn[i].finite && drawn[i].id >= 0) *pass->draw[pass->from + i].id = drawn[i].id;
}
