/* The lazy automaton and the walk.
 *
 * A state's row has one word per byte: the number of the next state, DEAD, or UNTRIED. Past
 * STATES_MAX states everything is forgotten at the start of a walk: numbers stay valid during one.
 * Masks are kept for MASKS_MAX states, and the one unused for longest makes room. Two things spare
 * most states the walk over the whole vocabulary:
 *
 *  - Inside a string, or a DSML text, most of the vocabulary may follow, and with a maxLength every character makes a
 *    new state. So before it walks, the masker proves by the rows whether the state takes all plain
 *    characters alike, as many as a plain token has: then those tokens are one copy, and the walk is
 *    over the rest.
 *  - Prose has dozens of states (an opener or {"name": " half written), and one ordinary byte leads
 *    them all back to the same one, the anchor. So such a state's mask is the anchor's, corrected by
 *    a walk of both in step that leaves a subtree as soon as the two states are the same.
 *
 * Measured on Qwen2.5's 151,936 tokens: docs/dialect.md. */
#include "engine/mask_trie.h"

#include <stdlib.h>
#include <string.h>

enum { STATES_MAX = 4096, MASKS_MAX = 96, ROW = 256, UNTRIED = -1, DEAD = -2 };
enum { ALIKE = 192 }; /* bytes of 256 that lead to the same state: worth a walk in step */

typedef struct mask_slot {
    uint32_t *bits; /* [words] */
    int32_t state;  /* -1: free */
    uint64_t used;
} mask_slot;

struct weft_masker {
    const weft_trie *trie;
    weft_machine machine;
    uint8_t *states; /* [n][state_bytes] */
    int32_t *rows;   /* [n][ROW] */
    int32_t *takes;  /* [n] the state after any one plain character, DEAD, or UNTRIED */
    int32_t *spelt;  /* [n] what mask_spell.c found there, or WEFT_UNSPELT */
    size_t n, capacity;
    int32_t *buckets; /* [n_buckets], open addressing; -1: empty */
    size_t n_buckets;
    mask_slot slots[MASKS_MAX];
    uint64_t clock;
    uint8_t *scratch;     /* one state */
    uint8_t *anchor;      /* a state */
    uint32_t *anchor_bits; /* its mask; never dropped */
    int32_t path[WEFT_TRIE_DEPTH + 1], anchor_path[WEFT_TRIE_DEPTH + 1];
};

static uint8_t *state_at(weft_masker *m, int32_t number)
{
    return m->states + (size_t)number * m->machine.state_bytes;
}

static void forget(weft_masker *m)
{
    m->n = 0;
    for (size_t i = 0; i < m->n_buckets; i++) m->buckets[i] = -1;
    for (size_t i = 0; i < MASKS_MAX; i++) m->slots[i].state = -1;
}

static void insert(weft_masker *m, int32_t number)
{
    size_t at = m->machine.hash(state_at(m, number)) & (m->n_buckets - 1);
    while (m->buckets[at] >= 0) at = (at + 1) & (m->n_buckets - 1);
    m->buckets[at] = number;
}

static bool grow(weft_masker *m)
{
    size_t capacity = m->capacity ? 2 * m->capacity : 64, n_buckets = 4 * capacity;
    uint8_t *states = realloc(m->states, capacity * m->machine.state_bytes);
    if (states) m->states = states;
    int32_t *rows = realloc(m->rows, capacity * ROW * sizeof *rows);
    if (rows) m->rows = rows;
    int32_t *takes = realloc(m->takes, capacity * sizeof *takes);
    if (takes) m->takes = takes;
    int32_t *spelt = realloc(m->spelt, capacity * sizeof *spelt);
    if (spelt) m->spelt = spelt;
    int32_t *buckets = malloc(n_buckets * sizeof *buckets);
    if (!states || !rows || !takes || !spelt || !buckets) {
        free(buckets);
        return false;
    }
    free(m->buckets);
    m->buckets = buckets;
    m->n_buckets = n_buckets;
    m->capacity = capacity;
    for (size_t i = 0; i < n_buckets; i++) buckets[i] = -1;
    for (size_t i = 0; i < m->n; i++) insert(m, (int32_t)i);
    return true;
}

/* The state's number; -1: out of memory. `state` must not lie in m->states. */
static int32_t number_of(weft_masker *m, const void *state)
{
    if (m->n_buckets) {
        size_t at = m->machine.hash(state) & (m->n_buckets - 1);
        for (; m->buckets[at] >= 0; at = (at + 1) & (m->n_buckets - 1))
            if (m->machine.equal(state_at(m, m->buckets[at]), state)) return m->buckets[at];
    }
    if (m->n == m->capacity && !grow(m)) return -1;
    int32_t number = (int32_t)m->n++;
    memcpy(state_at(m, number), state, m->machine.state_bytes);
    int32_t *row = m->rows + (size_t)number * ROW;
    for (size_t i = 0; i < ROW; i++) row[i] = UNTRIED;
    m->takes[number] = UNTRIED;
    m->spelt[number] = WEFT_UNSPELT;
    insert(m, number);
    return number;
}

/* Tries a byte for the first time: the next state, DEAD, or UNTRIED when out of memory. */
static int32_t try_byte(weft_masker *m, int32_t from, uint8_t byte)
{
    int32_t to = DEAD;
    memcpy(m->scratch, state_at(m, from), m->machine.state_bytes);
    if (m->machine.step(m->machine.context, m->scratch, byte)) {
        to = number_of(m, m->scratch);
        if (to < 0) return UNTRIED;
    }
    m->rows[(size_t)from * ROW + byte] = to;
    return to;
}

static int32_t next_state(weft_masker *m, int32_t from, uint8_t byte)
{
    int32_t to = m->rows[(size_t)from * ROW + byte];
    return to == UNTRIED ? try_byte(m, from, byte) : to;
}

/* The one state that every byte of [low, high] leads to from `from`; DEAD if there is none. */
static int32_t all_lead(weft_masker *m, int32_t from, uint8_t low, uint8_t high)
{
    int32_t to = next_state(m, from, low);
    for (unsigned byte = low + 1u; byte <= high && to >= 0; byte++) {
        int32_t other = next_state(m, from, (uint8_t)byte);
        if (other == UNTRIED) return UNTRIED;
        if (other != to) return DEAD;
    }
    return to;
}

/* Well-formed UTF-8, by its first byte: the range of the second, then how many of 80 to bf. */
static const struct {
    uint8_t low, high, second_low, second_high, more;
} sequences[] = {{0xc2, 0xdf, 0x80, 0xbf, 0}, {0xe0, 0xe0, 0xa0, 0xbf, 1},
                 {0xe1, 0xec, 0x80, 0xbf, 1}, {0xed, 0xed, 0x80, 0x9f, 1},
                 {0xee, 0xef, 0x80, 0xbf, 1}, {0xf0, 0xf0, 0x90, 0xbf, 2},
                 {0xf1, 0xf3, 0x80, 0xbf, 2}, {0xf4, 0xf4, 0x80, 0x8f, 2}};

/* The state after a plain character if it is the same for all of them, else DEAD; ASCII without
 * quote, backslash and '<' in one byte, the rest as sequences. */
static int32_t take_plain(weft_masker *m, int32_t from)
{
    static const uint8_t ascii[][2] = {{' ', '!'}, {'#', ';'}, {'=', '['}, {']', 0x7f}};
    if (m->takes[from] != UNTRIED) return m->takes[from];
    int32_t to = all_lead(m, from, ascii[0][0], ascii[0][1]);
    for (size_t i = 1; i < sizeof ascii / sizeof *ascii && to >= 0; i++) {
        int32_t other = all_lead(m, from, ascii[i][0], ascii[i][1]);
        to = other == to || other == UNTRIED ? other : DEAD;
    }
    for (size_t i = 0; i < sizeof sequences / sizeof *sequences && to >= 0; i++) {
        int32_t at = all_lead(m, from, sequences[i].low, sequences[i].high);
        if (at >= 0) at = all_lead(m, at, sequences[i].second_low, sequences[i].second_high);
        for (unsigned k = 0; k < sequences[i].more && at >= 0; k++)
            at = all_lead(m, at, 0x80, 0xbf);
        to = at == to || at == UNTRIED ? at : DEAD;
    }
    m->takes[from] = to;
    return to;
}

/* Whether every plain token can follow: as many plain characters as the longest has. UNTRIED: no
 * memory. */
static int32_t takes_all_plain(weft_masker *m, int32_t from)
{
    for (size_t i = 0; i < WEFT_TRIE_PLAIN; i++) {
        int32_t to = take_plain(m, from);
        if (to < 0 || to == from) return to;
        from = to;
    }
    return from;
}

/* How many bytes lead from both to the same state; -1: out of memory. */
static int alike(weft_masker *m, int32_t a, int32_t b)
{
    int n = 0;
    for (unsigned byte = 0; byte < ROW; byte++) {
        int32_t x = next_state(m, a, (uint8_t)byte), y = next_state(m, b, (uint8_t)byte);
        if (x == UNTRIED || y == UNTRIED) return -1;
        n += x == y;
    }
    return n;
}

/* The anchor's mask with what differs: a walk in step over the subtrees where the states do. */
static bool walk_in_step(weft_masker *m, int32_t start, int32_t anchor, uint32_t *bits)
{
    const weft_trie *trie = m->trie;
    const weft_trie_part *part = &trie->all;
    memcpy(bits, m->anchor_bits, weft_trie_words(trie) * sizeof *bits);
    m->path[0] = start;
    m->anchor_path[0] = anchor;
    for (size_t i = 0; i < part->n;) {
        const weft_trie_node *node = &part->node[i];
        int32_t a = m->path[node->depth], b = m->anchor_path[node->depth];
        if (a != DEAD) a = next_state(m, a, node->byte);
        if (b != DEAD) b = next_state(m, b, node->byte);
        if (a == UNTRIED || b == UNTRIED) return false;
        if (a == b) {
            i = node->next;
            continue;
        }
        m->path[node->depth + 1] = a;
        m->anchor_path[node->depth + 1] = b;
        for (int32_t id = node->token; id >= 0; id = trie->twin[id]) {
            uint32_t bit = UINT32_C(1) << (id % 32);
            bits[id / 32] = a == DEAD ? bits[id / 32] & ~bit : bits[id / 32] | bit;
        }
        i++;
    }
    return true;
}

static bool walk(weft_masker *m, int32_t start, uint32_t *bits)
{
    const weft_trie *trie = m->trie;
    const weft_trie_part *part = &trie->all;
    int32_t plain = takes_all_plain(m, start);
    if (plain == UNTRIED) return false;
    if (plain != DEAD) {
        part = &trie->rest;
        memcpy(bits, trie->plain, weft_trie_words(trie) * sizeof *bits);
    }
    m->path[0] = start;
    for (size_t i = 0; i < part->n;) {
        const weft_trie_node *node = &part->node[i];
        int32_t to = next_state(m, m->path[node->depth], node->byte);
        if (to == UNTRIED) return false;
        if (to == DEAD) {
            i = node->next;
            continue;
        }
        m->path[node->depth + 1] = to;
        for (int32_t id = node->token; id >= 0; id = trie->twin[id])
            bits[id / 32] |= UINT32_C(1) << (id % 32);
        i++;
    }
    return true;
}

static mask_slot *slot_for(weft_masker *m, int32_t state)
{
    mask_slot *oldest = &m->slots[0];
    for (size_t i = 0; i < MASKS_MAX; i++) {
        if (m->slots[i].state == state) return &m->slots[i];
        if (oldest->state >= 0 && (m->slots[i].state < 0 || m->slots[i].used < oldest->used))
            oldest = &m->slots[i];
    }
    return oldest;
}

static bool compute(weft_masker *m, int32_t state, int32_t anchor, uint32_t *bits)
{
    int n = alike(m, state, anchor);
    if (n < 0) return false;
    if (n >= ALIKE) return walk_in_step(m, state, anchor, bits);
    memset(bits, 0, weft_trie_words(m->trie) * sizeof *bits);
    return walk(m, state, bits);
}

const uint32_t *weft_masker_allowed(weft_masker *m, const void *state)
{
    if (m->n >= STATES_MAX) forget(m);
    int32_t number = number_of(m, state), anchor = number_of(m, m->anchor);
    if (number < 0 || anchor < 0) return NULL;
    if (number == anchor) return m->anchor_bits;
    mask_slot *slot = slot_for(m, number);
    slot->used = ++m->clock;
    if (slot->state == number) return slot->bits;
    size_t bytes = weft_trie_words(m->trie) * sizeof *slot->bits;
    if (!slot->bits && !(slot->bits = malloc(bytes ? bytes : 1))) return NULL;
    slot->state = -1;
    if (!compute(m, number, anchor, slot->bits)) return NULL;
    slot->state = number;
    return slot->bits;
}

int32_t *weft_masker_spelt(weft_masker *m, const void *state)
{
    int32_t number = number_of(m, state);
    return number < 0 ? NULL : &m->spelt[number];
}

/* The one byte that can follow; -1: there is a choice, or something else may follow; -2: no memory. */
static int only_byte(weft_masker *m, int32_t from)
{
    int only = -1;
    if (m->machine.may_stop(m->machine.context, state_at(m, from))) return -1;
    for (unsigned byte = 0; byte < ROW; byte++) {
        int32_t to = next_state(m, from, (uint8_t)byte);
        if (to == UNTRIED) return -2;
        if (to == DEAD) continue;
        if (only >= 0) return -1;
        only = (int)byte;
    }
    return only;
}

size_t weft_masker_forced_text(weft_masker *m, const void *state, char *text, size_t known,
                               size_t size)
{
    size_t n = 0;
    if (m->n >= STATES_MAX) forget(m);
    int32_t at = number_of(m, state);
    for (; at >= 0 && n < size; n++) {
        int byte = n < known ? (uint8_t)text[n] : only_byte(m, at);
        if (byte == -2) return SIZE_MAX;
        if (byte < 0) break;
        text[n] = (char)byte;
        at = next_state(m, at, (uint8_t)byte);
    }
    return at == UNTRIED ? SIZE_MAX : at == DEAD ? 0 : n;
}

/* The anchor's mask is made here, where no token waits for it. */
static bool prepare(weft_masker *m, const void *anchor)
{
    size_t words = weft_trie_words(m->trie);
    m->scratch = malloc(m->machine.state_bytes);
    m->anchor = malloc(m->machine.state_bytes);
    m->anchor_bits = calloc(words ? words : 1, sizeof *m->anchor_bits);
    if (!m->scratch || !m->anchor || !m->anchor_bits) return false;
    memcpy(m->anchor, anchor, m->machine.state_bytes);
    int32_t number = number_of(m, anchor);
    return number >= 0 && walk(m, number, m->anchor_bits);
}

weft_status weft_masker_new(weft_masker **out, const weft_trie *trie, const weft_machine *machine,
                            const void *anchor, weft_error *err)
{
    weft_masker *m = calloc(1, sizeof *m);
    if (!m) return weft_fail(err, WEFT_E_MEMORY, "prepare token masks: out of memory");
    m->trie = trie;
    m->machine = *machine;
    forget(m);
    if (!prepare(m, anchor)) {
        weft_masker_free(m);
        return weft_fail(err, WEFT_E_MEMORY, "prepare token masks: out of memory");
    }
    *out = m;
    return WEFT_OK;
}

void weft_masker_free(weft_masker *m)
{
    if (!m) return;
    for (size_t i = 0; i < MASKS_MAX; i++) free(m->slots[i].bits);
    free(m->states);
    free(m->rows);
    free(m->takes);
    free(m->spelt);
    free(m->buckets);
    free(m->scratch);
    free(m->anchor);
    free(m->anchor_bits);
    free(m);
}
