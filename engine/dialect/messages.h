/* Reading OpenAI-style messages, the same for every family; and the two kinds of text that a writer
 * puts into a script. Private to engine/dialect/. */
#ifndef WEFT_ENGINE_DIALECT_MESSAGES_H
#define WEFT_ENGINE_DIALECT_MESSAGES_H

#include "engine/dialect/dialect.h"

#include <string.h>

typedef struct weft_message {
    const char *role;
    weft_buffer joined;  /* owns content that came in parts */
    const char *content; /* "" where there is none */
    bool has_content;    /* it is there and not null */
    const char *thought; /* reasoning_content, or NULL */
    const cJSON *calls;  /* array, or NULL */
    const cJSON *item;   /* the message itself */
} weft_message;

/* The request's "messages", which must outlive the list. WEFT_E_INVALID names what is wrong. */
weft_status messages_read(const cJSON *request, weft_message **out, size_t *out_n, weft_error *err);
void messages_free(weft_message *list, size_t n);

static inline bool is_role(const weft_message *m, const char *role)
{
    return strcmp(m->role, role) == 0;
}

/* One of a message's calls: its name, borrowed, and its arguments, borrowed or in out_owned (the
 * caller deletes). Arguments come as OpenAI's JSON string or as the value itself. index: of the
 * message, for the words. */
weft_status message_call(const cJSON *call, size_t index, const char **out_name,
                         const cJSON **out_arguments, cJSON **out_owned, weft_error *err);

/* The template's words: they become control tokens. */
static inline void put_trusted(weft_script *out, weft_segment segment, const char *text)
{
    weft_script_puts(out, WEFT_TRUSTED, segment, text);
}

/* Whatever came in through a parameter. */
static inline void put_foreign(weft_script *out, weft_segment segment, const char *text, size_t n)
{
    weft_script_put(out, WEFT_FOREIGN, segment, text, n);
}

/* As Python's json.dumps(ensure_ascii=False), foreign. */
weft_status messages_put_json(weft_script *out, weft_segment segment, const cJSON *value,
                              weft_error *err);

#endif
