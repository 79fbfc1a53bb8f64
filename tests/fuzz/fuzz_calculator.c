/* Any bytes as an expression. Beyond memory errors it checks what the calculator promises of every
 * result: one line of ASCII, of bounded length, that is either a result or an error with a column;
 * and that the first word of a result, given back as an expression, is a result again, unless it is
 * too large to be exact. */
#include "tools/calculator/calculator.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    weft_buffer out = WEFT_BUFFER_INIT, again = WEFT_BUFFER_INIT;
    weft_error err = {.code = WEFT_OK};
    weft_status status = calculator_evaluate((const char *)data, size, &out, &err);
    if (status) {
        require(status == WEFT_E_INVALID && out.size == 0);
        require(strncmp(err.message, "at column ", 10) == 0 ||
                strstr(err.message, "longer than 4096"));
    } else {
        require(out.size > 0 && out.size < 1200);
        for (size_t i = 0; i < out.size; i++) require(out.data[i] >= 0x20 && out.data[i] < 0x7f);
        if (strncmp(out.data, "true", 4) != 0 && strncmp(out.data, "false", 5) != 0)
            require(!calculator_evaluate(out.data, strcspn(out.data, " "), &again, &err) ||
                    strstr(err.message, "too many digits"));
    }
    weft_buffer_free(&out);
    weft_buffer_free(&again);
    return 0;
}
