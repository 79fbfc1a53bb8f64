/* The layout of the vocabulary trie, for the walk in mask.c. Private to engine/mask*. */
#ifndef WEFT_ENGINE_MASK_TRIE_H
#define WEFT_ENGINE_MASK_TRIE_H

#include "engine/mask.h"

enum { WEFT_TRIE_DEPTH = 1024 }; /* a longer token is left out */
enum { WEFT_TRIE_LEFT_OUT = -2 };
enum { WEFT_TRIE_PLAIN = 32 }; /* characters */

typedef struct weft_trie_node {
    uint32_t next;  /* the first node after this subtree */
    int32_t token;  /* that ends here; -1: none */
    uint16_t depth; /* from 0 */
    uint8_t byte;
} weft_trie_node;
_Static_assert(sizeof(weft_trie_node) == 12, "a walk reads every node it cannot leave out");

typedef struct weft_trie_part {
    weft_trie_node *node; /* [n] in preorder */
    size_t n;
} weft_trie_part;

struct weft_trie {
    weft_trie_part all, rest; /* every token; those that are not plain */
    uint32_t *plain; /* bitset: at most WEFT_TRIE_PLAIN whole characters of string content */
    int32_t *twin;   /* [n_vocab] the next token of the same bytes, -1: none; LEFT_OUT */
    size_t n_vocab;
};

#endif
