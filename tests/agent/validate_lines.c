/* Checks that every line of standard input is JSON that conforms to a schema file: the end-to-end
 * tests run it over the output of --json. Exit 1 names the first line that does not. */
#include "base/base.h"
#include "schemas/schema.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    cJSON *json = NULL, *value = NULL;
    weft_schema *schema = NULL;
    weft_error err;
    char *line = NULL;
    size_t capacity = 0, number = 0;
    int bad = 0;
    if (argc != 2 || weft_json_parse_file(argv[1], &json, &err) ||
        weft_schema_compile(json, &schema, &err)) {
        fprintf(stderr, "%s\n", argc == 2 ? err.message : "usage: validate_lines SCHEMA");
        cJSON_Delete(json);
        return 2;
    }
    for (ssize_t n; !bad && (n = getline(&line, &capacity, stdin)) >= 0;) {
        number++;
        bad = weft_json_parse(line, (size_t)n, &value, &err) ||
              weft_schema_check(schema, value, &err);
        if (bad) fprintf(stderr, "line %zu: %s: %s", number, err.message, line);
        cJSON_Delete(value);
        value = NULL;
    }
    if (!number) {
        fprintf(stderr, "no lines\n");
        bad = 1;
    }
    free(line);
    weft_schema_free(schema);
    cJSON_Delete(json);
    return bad;
}
