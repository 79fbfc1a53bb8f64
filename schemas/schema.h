/* JSON Schema 2020-12: compile a schema, check a value, turn a schema into a grammar.
 *
 * Keywords that validate: type enum const, minimum maximum exclusiveMinimum exclusiveMaximum
 * multipleOf, minLength maxLength pattern, items prefixItems minItems maxItems uniqueItems,
 * properties required additionalProperties minProperties maxProperties, anyOf oneOf allOf not, $ref
 * $defs (definitions), boolean schemas. Annotations (title, description, default, examples, format,
 * $schema, $id, $comment, deprecated, readOnly, writeOnly) are accepted. Any other keyword is refused
 * at compile time with its path, never ignored. schemas/README.md lists both sets.
 * Source: JSON Schema Core and Validation, draft 2020-12.
 */
#ifndef WEFT_SCHEMA_H
#define WEFT_SCHEMA_H

#include "base/base.h"

typedef struct weft_schema weft_schema;

/* Compiles a schema (borrowed only during the call). WEFT_E_INVALID names the path and the keyword.
 * Bounded: at most 10,000 subschemas; only local $ref ("#", "#/...", "#anchor" of $anchor). */
weft_status weft_schema_compile(const cJSON *schema, weft_schema **out, weft_error *err);
void weft_schema_free(weft_schema *schema);

/* WEFT_OK if value conforms; WEFT_E_INVALID with "at /items/0/price: 12.5 is above the maximum 10"
 * (JSON pointer, then rule) if not. Recursion and pattern matching are bounded. */
weft_status weft_schema_check(const weft_schema *schema, const cJSON *value, weft_error *err);

/* ---- grammar: the texts of all JSON values that conform, as a byte automaton ----
 *
 * The grammar accepts a compact-or-spaced JSON text (at most one space after ':' and ',', no other
 * blank outside strings, except where `loose` allows newlines and indentation as models write them).
 * What a regular or context-free grammar cannot say (pattern beyond a simple subset, uniqueItems,
 * numeric bounds, not, oneOf exclusivity) is left to weft_schema_check afterwards; everything the
 * grammar accepts is valid JSON of the right shape. Object members: required ones in the schema's
 * order of `properties`, optional ones may be left out, unknown ones only if additionalProperties
 * allows. Strings accept valid UTF-8 and JSON escapes only.
 *
 * A state is a small value that can be copied: the mask asks "which bytes may follow" for many
 * states of one grammar and memoises by weft_grammar_state_hash.
 */
typedef struct weft_grammar weft_grammar;

enum { WEFT_GRAMMAR_DEPTH = 64 }; /* pushdown depth: deeper nesting is refused */

typedef struct weft_grammar_state {
    uint32_t depth;                        /* frames in use; 0 = the value is complete */
    uint32_t frame[WEFT_GRAMMAR_DEPTH];    /* return positions, opaque */
    uint64_t seen[4];                      /* properties already written of the innermost objects, opaque */
} weft_grammar_state;

/* A grammar for one schema; NULL schema = any JSON value. */
weft_status weft_grammar_of_schema(const weft_schema *schema, weft_grammar **out, weft_error *err);
/* A grammar for a call object: {"name": <one of names>, "arguments": <that tool's schema>}, keys in
 * this order; schemas[i] may be NULL (any object). With fixed_name >= 0 only that one. */
weft_status weft_grammar_of_calls(const char *const *names, const weft_schema *const *schemas,
                                  size_t n, int fixed_name, weft_grammar **out, weft_error *err);
void weft_grammar_free(weft_grammar *grammar);

void weft_grammar_begin(const weft_grammar *grammar, weft_grammar_state *state);
/* Consumes one byte. False: the byte cannot follow; the state is then unchanged. */
bool weft_grammar_step(const weft_grammar *grammar, weft_grammar_state *state, uint8_t byte);
/* True if the text so far is a whole value (a number may both be complete and go on). */
bool weft_grammar_done(const weft_grammar *grammar, const weft_grammar_state *state);
uint64_t weft_grammar_state_hash(const weft_grammar_state *state);
bool weft_grammar_state_equal(const weft_grammar_state *a, const weft_grammar_state *b);

#endif
