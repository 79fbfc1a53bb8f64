/* Which tokens may come next: a vocabulary trie walked in step with a byte automaton. Private to
 * engine/.
 *
 * The automaton is given as a step function over small copyable states. It is made deterministic
 * lazily: every state that turns up gets a number and a row of 256 next states, filled in as bytes
 * are tried. So a walk over the vocabulary is table look-ups, whatever the automaton costs, and a
 * state seen before has its mask already. Both tables are bounded.
 */
#ifndef WEFT_ENGINE_MASK_H
#define WEFT_ENGINE_MASK_H

#include "engine/tokenizer.h"

/* The bytes of the vocabulary as a trie in preorder. */
typedef struct weft_trie weft_trie;

/* Leaves out the ids in skip, control, unknown and unused tokens, and tokens of no bytes. */
weft_status weft_trie_new(weft_trie **out, const weft_tokenizer *tokenizer, const int32_t *skip,
                          size_t n_skip, weft_error *err);
void weft_trie_free(weft_trie *trie);
bool weft_trie_has(const weft_trie *trie, int32_t id); /* id within the vocabulary */
size_t weft_trie_words(const weft_trie *trie);         /* of a bitset over the vocabulary */
size_t weft_trie_nodes(const weft_trie *trie);

typedef struct weft_machine {
    const void *context;
    size_t state_bytes;
    /* False: the byte cannot follow; the state is then garbage. */
    bool (*step)(const void *context, void *state, uint8_t byte);
    /* Whether something else than a byte may follow: the end, say. */
    bool (*may_stop)(const void *context, const void *state);
    uint64_t (*hash)(const void *state);
    bool (*equal)(const void *a, const void *b);
} weft_machine;

typedef struct weft_masker weft_masker;

/* The trie must outlive the masker. anchor: a state that many others resemble; any state is right, a
 * fitting one is fast. */
weft_status weft_masker_new(weft_masker **out, const weft_trie *trie, const weft_machine *machine,
                            const void *anchor, weft_error *err);
void weft_masker_free(weft_masker *masker);
/* Bitset of the trie's tokens whose bytes can follow the state: [weft_trie_words], valid until the
 * next call. NULL: out of memory. */
const uint32_t *weft_masker_allowed(weft_masker *masker, const void *state);

/* Goes on from `known` bytes of text behind the state as long as only one byte can follow, up to
 * `size` bytes in all; returns how many stand there then. 0: the known bytes cannot follow; SIZE_MAX:
 * out of memory. */
size_t weft_masker_forced_text(weft_masker *masker, const void *state, char *text, size_t known,
                               size_t size);

/* What was found for the state's spelling, to be read and written: WEFT_UNSPELT at first. Valid until the next
 * call; NULL: out of memory. */
enum { WEFT_UNSPELT = -2 };
int32_t *weft_masker_spelt(weft_masker *masker, const void *state);

/* ---- mask_spell.c ---- */

/* Where text is forced but may be cut into tokens in more than one way, the one token that the
 * tokenizer would write; -1: there is a choice to make. sigil (may be NULL): the ids that the bytes 256
 * - n_sigil and above stand for. WEFT_E_MEMORY. */
weft_status weft_masker_spelling(weft_masker *masker, const weft_tokenizer *tokenizer,
                                 const int32_t *sigil, size_t n_sigil, const void *state,
                                 int32_t *out_id, weft_error *err);

#endif
