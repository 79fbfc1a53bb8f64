/* From shapes to a deterministic pushdown machine.
 *
 * A state is a set of items, all those that the bytes read so far can mean; that is the subset
 * construction. Calls make it a pushdown: where members begin, the machine opens a frame that reads
 * *any* of the values that may stand there, and when that frame ends it reports which shapes
 * fitted, its *result*; the waiting state then goes on with the items that wanted one of them. So
 * {"name": "b", "arguments": ...} follows the arguments of b alone, though both tools were read at
 * once. It works because JSON values delimit themselves (visibly pushdown languages can be made
 * deterministic; Alur and Madhusudan 2004); numbers, which do not, end at the first byte that is
 * not theirs.
 *
 * Rows: for every state and byte class a target word, 0 if the byte cannot follow.
 */
#ifndef WEFT_SCHEMAS_AUTOMATON_H
#define WEFT_SCHEMAS_AUTOMATON_H

#include "schemas/shape.h"

enum {
    STATES_MAX = 65535,
    INDENT_MAX = 64, /* spaces after a newline */
    TARGET_STATE = 0xffff,
    TARGET_VALID = 1 << 16,
    TARGET_PUSH = 1 << 17, /* open a frame in the target state */
    TARGET_POP = 1 << 18,  /* close the frame; the low bits are its result */
};

typedef struct automaton_state {
    uint32_t returns;           /* where its row in `returns` begins: [result] -> state */
    uint16_t accepts;           /* result + 1; 0: the value cannot end here */
    uint16_t need, return_need; /* frames that some completion takes from here; after any return */
    uint16_t count_min, count_max, count_cap; /* when counts: characters, NO_LIMIT; saturation */
    bool keeps;                               /* the counter survives into this state */
    bool counts;  /* at the start of a counted character or the end of its string */
    bool indents; /* spaces are counted here */
} automaton_state;

typedef struct automaton {
    uint8_t class_of[256];
    uint32_t n_classes;
    automaton_state *states; /* [n] */
    size_t n;
    uint32_t *rows;    /* [n][n_classes] */
    uint16_t *returns; /* all rows, one after the other */
    uint16_t begin;
    uint16_t max_need;
} automaton;

/* The machine for one value of finished shapes. WEFT_E_LIMIT: too many states. */
weft_status automaton_build(const shapes *s, uint32_t root, automaton *out, weft_error *err);
void automaton_free(automaton *a);

#endif
