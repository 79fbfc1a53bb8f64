/* Regular expressions of schemas: ECMA-262 as far as PCRE2 can be set to read it, bounded in work.
 *
 * Set up: UTF-8, '$' only at the very end, \uXXXX and \xHH escapes, [] matches nothing, \d \w and
 * \b ASCII. Rewritten: \s and \S (Unicode spaces too, but \S inside a class stays ASCII) and the
 * long names of \p{Letter} and the like; \p{Script=...} is refused. A match takes at most 200,000
 * steps and 16 MiB; beyond that it is given up with WEFT_E_LIMIT, not answered.
 */
#ifndef WEFT_SCHEMAS_PATTERN_H
#define WEFT_SCHEMAS_PATTERN_H

#include "base/base.h"

typedef struct pattern pattern;

/* WEFT_E_INVALID: "missing closing parenthesis at character 5". */
weft_status pattern_compile(const char *text, pattern **out, weft_error *err);
void pattern_free(pattern *p);
const char *pattern_text(const pattern *p);
weft_status pattern_match(const pattern *p, const char *subject, bool *out, weft_error *err);

#endif
