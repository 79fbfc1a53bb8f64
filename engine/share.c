/* Many threads, one model: whoever wants a timeline evaluated waits here; one of those who wait makes a
 * step for all of them (step.c).
 *
 * There is no thread of its own: a single run steps in its own thread, without a switch. Who was
 * served by a step seals its pages and draws its token in its own thread, while the others do the
 * same; so the next step waits until all of them are back, for an eighth of a step and 5 ms at most: one
 * that went to run a tool does not hold up the others, one that is late joins the step after.
 * When a step is made and who is in it cannot be seen in any result.
 */
#include "engine/timeline.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

enum { WAIT_SHARE = 8, WAIT_MAX_NS = 5000000, WAIT_MIN_NS = 500000 };

typedef struct waiter {
    weft_step_item *item;
    bool served;
    struct waiter *next;
} waiter;

struct weft_share {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    waiter *first, **end; /* who wants a step, in the order of coming */
    weft_step_item *part; /* [most] of the step in progress */
    waiter **of;          /* [most] whose part it is */
    size_t most;
    bool stepping;
    size_t expected; /* served by the last step and not back yet */
    uint64_t last;   /* step_clock before it */
    int64_t until;   /* they are waited for until then */
};

weft_status weft_model_share(weft_model *model, size_t most, weft_error *err)
{
    assert(!model->share && most > 0);
    weft_share *s = calloc(1, sizeof *s);
    pthread_condattr_t monotonic;
    if (!s) return weft_fail(err, WEFT_E_MEMORY, "share the model: out of memory");
    s->part = calloc(most, sizeof *s->part);
    s->of = calloc(most, sizeof(waiter *));
    s->most = most;
    s->end = &s->first;
    pthread_mutex_init(&s->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (!s->part || !s->of) {
        share_free(s);
        return weft_fail(err, WEFT_E_MEMORY, "share the model: out of memory");
    }
    model->share = s;
    return WEFT_OK;
}

void share_free(weft_share *s)
{
    if (!s) return;
    assert(!s->first);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->mutex);
    free(s->part);
    free(s->of);
    free(s);
}

/* Takes who was served out of the queue. The others wait for the next step. */
static size_t hand_back(weft_share *s, size_t n)
{
    size_t served = 0;
    for (size_t i = 0; i < n; i++) {
        if (!s->part[i].status && s->part[i].timeline->step_n == 0) continue;
        s->of[i]->item->status = s->part[i].status;
        if (s->part[i].status) s->of[i]->item->err = s->part[i].err;
        s->of[i]->served = true;
        served++;
    }
    s->end = &s->first;
    for (waiter *w = s->first; w; w = w->next) {
        if (w->served) continue;
        *s->end = w;
        s->end = &w->next;
    }
    *s->end = NULL;
    return served;
}

/* Makes one step for those who wait. The mutex is held, but not during the pass. */
static void lead(weft_share *s)
{
    size_t n = 0;
    for (waiter *w = s->first; w && n < s->most; w = w->next) {
        s->of[n] = w;
        s->part[n].timeline = w->item->timeline;
        s->part[n++].status = WEFT_OK;
    }
    s->last = step_clock(s->part[0].timeline->model);
    s->stepping = true;
    pthread_mutex_unlock(&s->mutex);
    int64_t begun = weft_monotonic_ns();
    step_forward(s->part, n, NULL, NULL);
    int64_t now = weft_monotonic_ns(), wait = (now - begun) / WAIT_SHARE;
    pthread_mutex_lock(&s->mutex);
    s->stepping = false;
    s->expected = hand_back(s, n);
    if (wait < WAIT_MIN_NS) wait = WAIT_MIN_NS;
    s->until = now + (wait < WAIT_MAX_NS ? wait : WAIT_MAX_NS);
    pthread_cond_broadcast(&s->changed);
}

void share_step(weft_share *s, weft_step_item *item)
{
    waiter own = {.item = item};
    pthread_mutex_lock(&s->mutex);
    *s->end = &own;
    s->end = &own.next;
    if (!s->stepping && s->expected > 0 && item->timeline->step_clock > s->last) s->expected--;
    while (!own.served) {
        if (s->stepping) {
            pthread_cond_wait(&s->changed, &s->mutex);
        } else if (s->expected == 0 || weft_monotonic_ns() >= s->until) {
            lead(s);
        } else {
            const struct timespec until = {s->until / 1000000000, s->until % 1000000000};
            pthread_cond_timedwait(&s->changed, &s->mutex, &until);
        }
    }
    pthread_mutex_unlock(&s->mutex);
}
