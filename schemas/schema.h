/* JSON Schema 2020-12: compile a schema, check a value, turn a schema into a grammar.
 *
 * Keywords that validate: type enum const, minimum maximum exclusiveMinimum exclusiveMaximum
 * multipleOf, minLength maxLength pattern, items prefixItems minItems maxItems uniqueItems contains
 * minContains maxContains, properties patternProperties additionalProperties propertyNames required
 * minProperties maxProperties dependentRequired dependentSchemas, anyOf oneOf allOf not if then
 * else, $ref $defs $anchor $id, boolean schemas; from draft-07: definitions, items as an array with
 * additionalItems, dependencies. Annotations (title, description, default, examples, format,
 * content*, $schema, $comment, deprecated, readOnly, writeOnly) are accepted. Any other keyword is
 * refused at compile time with its path, never ignored. schemas/README.md lists both sets.
 * Source: JSON Schema Core and Validation, draft 2020-12.
 */
#ifndef WEFT_SCHEMA_H
#define WEFT_SCHEMA_H

#include "base/base.h"

typedef struct weft_schema weft_schema;

/* Compiles a schema (borrowed only during the call). WEFT_E_INVALID names the path and the keyword.
 * Bounded: at most 10,000 subschemas, 200 levels; $ref only to places in the same document ("#",
 * "#/...", "#anchor", or the $id of one of its subschemas). */
weft_status weft_schema_compile(const cJSON *schema, weft_schema **out, weft_error *err);
void weft_schema_free(weft_schema *schema);

/* WEFT_OK if value conforms; WEFT_E_INVALID with "at /items/0/price: 12.5 is above the maximum 10"
 * (JSON pointer, then rule) if not. Recursion, the number of steps and pattern matching are
 * bounded; past a bound WEFT_E_LIMIT. Safe to call from several threads on one schema. */
weft_status weft_schema_check(const weft_schema *schema, const cJSON *value, weft_error *err);

/* ---- grammar: the texts of all JSON values that conform, as a byte automaton ----
 *
 * Blanks: one space after ':' and ','; a newline and up to 64 spaces after '{' '[' ',' and before '}'
 * ']' (models print that way); none elsewhere, so no state can emit blanks for ever. Strings are
 * valid UTF-8 with JSON escapes, without NUL and lone surrogates. Object members come in the
 * schema's order of `properties`; optional ones may be left out; unknown ones follow, if
 * additionalProperties allows them. Lengths up to 256 characters and 64 items are counted. What
 * this cannot say (pattern, uniqueItems, numeric bounds, not, if, that only one oneOf branch fits,
 * that two unknown names differ) is left to weft_schema_check. From every state that a text can
 * reach some byte leads on, or the text is done.
 *
 * The automaton is a deterministic pushdown machine: a table row per state, one frame per open
 * value. A state is a plain value that can be copied, compared and hashed, so that a token mask can
 * be memoised. A grammar is read-only once made and can be shared by threads.
 */
typedef struct weft_grammar weft_grammar;

enum { WEFT_GRAMMAR_DEPTH = 64 }; /* pushdown depth: deeper nesting is refused */

typedef struct weft_grammar_state {
    uint16_t depth; /* frames in use; 0 = complete, nothing may follow */
    uint16_t count; /* characters of the current string, or of the current indent */
    uint16_t frame[WEFT_GRAMMAR_DEPTH]; /* table rows, innermost last; past depth: anything */
} weft_grammar_state;

/* A grammar for one schema; NULL schema = any JSON value. WEFT_E_INVALID if no value conforms,
 * WEFT_E_LIMIT if the grammar needs more than 65,535 states. */
weft_status weft_grammar_of_schema(const weft_schema *schema, weft_grammar **out, weft_error *err);
/* A grammar for a call object: {"name": <one of names>, "arguments": <that tool's schema>}, keys in
 * this order; schemas[i] may be NULL (any object). With fixed_name >= 0 only that one. The
 * arguments are always an object, even where a schema forgot to say so. The schemas are borrowed
 * only during the call. */
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
