/* Between the parts of the checker: the walk (check.c), arrays and objects (check_members.c), and
 * what goes into a message (check_report.c). */
#ifndef WEFT_SCHEMAS_CHECK_H
#define WEFT_SCHEMAS_CHECK_H

#include "schemas/node.h"

typedef enum rule_kind { RULE_TYPE, RULE_VALUE, RULE_OTHER } rule_kind; /* VALUE: enum or const */

typedef struct checker {
    const weft_schema *schema;
    weft_error *err;
    unsigned quiet;    /* > 0: inside anyOf and the like; failures are judged, not told */
    size_t steps;      /* work left */
    size_t frames;     /* recursion left */
    size_t base_depth; /* where the innermost anyOf/oneOf stands */
    size_t score;      /* of the latest failure: how far the value got before it failed */
    unsigned expected; /* types wanted by the latest failure if it was RULE_TYPE */
} checker;

/* WEFT_OK, WEFT_E_INVALID (does not conform), WEFT_E_LIMIT, WEFT_E_MEMORY. */
weft_status check_node(checker *c, uint32_t node, const cJSON *value, const json_path *path);

weft_status check_array(checker *c, const schema_node *node, const cJSON *value,
                        const json_path *path);
weft_status check_object(checker *c, const schema_node *node, const cJSON *value,
                         const json_path *path);

/* Records a failure and returns WEFT_E_INVALID; the text is formatted only when not quiet. */
weft_status report(checker *c, const json_path *path, rule_kind rule, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
weft_status report_type(checker *c, const json_path *path, unsigned expected, const cJSON *value);
/* "<value> <format>" */
weft_status report_value(checker *c, const json_path *path, rule_kind rule, const cJSON *value,
                         const char *format, ...) __attribute__((format(printf, 5, 6)));
weft_status report_enum(checker *c, const json_path *path, const cJSON *allowed,
                        const cJSON *value);
weft_status report_missing(checker *c, const json_path *path, const cJSON *required,
                           const cJSON *value, const char *because);
/* Names the members of value that `node` has no room for, and those it has. */
weft_status report_unknown(checker *c, const json_path *path, const schema_node *node,
                           const cJSON *value);

/* True if some name in `properties` or a pattern of `patternProperties` covers the member. */
weft_status is_named(const schema_node *node, const char *name, bool *out, weft_error *err);

#endif
