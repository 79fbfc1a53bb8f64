/* Items: how far a text has got inside one shape.
 *
 * An item is a word: kind, shape, and two numbers. One byte turns an item into the items that may
 * follow it, which is the whole syntax of JSON under a schema, written as one function (item_step).
 * Where a member or element must begin, no byte steps within the shape; item_call tells which value
 * stands there and the item to go on with after it. The automaton's states are sets of items.
 */
#ifndef WEFT_SCHEMAS_ITEM_H
#define WEFT_SCHEMAS_ITEM_H

#include "schemas/shape.h"

typedef uint64_t item;

/* The item before the first byte of a shape. */
item item_begin(uint32_t number);
uint32_t item_shape(item it);
void item_step(const shapes *s, item it, uint8_t byte, words *out);
/* True if a value may begin here. */
bool item_call(const shapes *s, item it, uint32_t *called, item *after);
/* True if the shape's text may end here. */
bool item_accepts(const shapes *s, item it);

bool item_in_indent(item it);
bool item_in_literal(item it);
/* Inside a string whose length is counted; between = at the start of a character or the end. */
bool item_in_string(const shapes *s, item it, bool *between);

#endif
