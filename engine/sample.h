/* Drawing a token from logits. Private to engine/.
 *
 * A draw is a pure function of (logits, sampler, mask, recent ids, position): no state is kept
 * between draws, and no operation depends on the vector width, so a resumed run draws what it would
 * have.
 */
#ifndef WEFT_ENGINE_SAMPLE_H
#define WEFT_ENGINE_SAMPLE_H

#include "engine/ops.h"

enum { WEFT_REPEAT_LAST = 64 }; /* tokens the repetition penalty looks back */

typedef struct weft_sample {
    const float *logits; /* [n_vocab] */
    size_t n_vocab;
    const weft_sampler *sampler;
    const weft_mask *mask; /* NULL: every id is allowed */
    const int32_t *recent; /* [n_recent] last ids, at most WEFT_REPEAT_LAST are used */
    size_t n_recent;
    int64_t position;   /* of the token to be drawn */
    float *weight;      /* scratch [n_vocab] */
    int32_t *candidate; /* scratch [n_vocab] */
} weft_sample;

/* WEFT_E_USAGE names the setting that is out of range. */
weft_status weft_sampler_check(const weft_sampler *sampler, weft_error *err);

/* out_logprob may be NULL: ln of the id's probability before penalty, mask and temperature.
 * WEFT_E_USAGE: a setting out of range; WEFT_E_INVALID: the mask allows nothing; WEFT_E_MODEL: a
 * logit is not finite. */
weft_status weft_sample_draw(const weft_sample *s, int32_t *out_id, float *out_logprob,
                             weft_error *err);

/* Uniform on [0, 1), 53 bits, from (seed, position) alone. */
double weft_sample_uniform(uint64_t seed, int64_t position);

#endif
