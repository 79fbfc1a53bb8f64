/* Evaluates one expression a line, for check_calculator.py: "= result" or "! error". */
#include "tools/calculator/calculator.h"

#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    char *line = NULL;
    size_t room = 0;
    for (ssize_t n; (n = getline(&line, &room, stdin)) > 0;) {
        weft_buffer out = WEFT_BUFFER_INIT;
        weft_error err;
        bool failed = calculator_evaluate(line, (size_t)n - 1, &out, &err) != WEFT_OK;
        printf("%c %s\n", failed ? '!' : '=', failed ? err.message : weft_buffer_str(&out));
        weft_buffer_free(&out);
    }
    free(line);
    return 0;
}
