/* weft's side of the broker (fetch_main.c): finds the program, runs it confined, reads its answer.
 */
#ifndef WEFT_TOOLS_BROKER_H
#define WEFT_TOOLS_BROKER_H

#include "tools/set.h"

typedef struct broker_page {
    long http_status;
    char *url, *content_type; /* of the last hop */
    bool cut;
    char *body; /* [n + 1] */
    size_t n;
} broker_page;

typedef struct broker_request {
    const char *url;
    size_t max_bytes;
    bool allow_private, trust_first; /* get.h */
} broker_request;

/* GET. *got is false where output holds a refusal. */
weft_status broker_get(const tool_call *call, const broker_request *request, tool_output *output,
                       broker_page *out, bool *got, weft_error *err);
/* The page as text, made in a process without network. *got as above. title and text are malloc'd.
 */
weft_status broker_text(const tool_call *call, const broker_page *page, tool_output *output,
                        char **out_title, char **out_text, bool *got, weft_error *err);
void broker_page_free(broker_page *page);

/* Path of weft-fetch: $WEFT_LIBEXEC, the directory of the running program, ../libexec/weft, and
 * ../tools, where a build directory has it. malloc'd; WEFT_E_CONFIG if it is in none. */
weft_status broker_find(char **out, weft_error *err);

#endif
