/* One HTTP GET, with every hop checked. Runs in the broker (fetch_main.c), never in weft itself. */
#ifndef WEFT_TOOLS_GET_H
#define WEFT_TOOLS_GET_H

#include "base/base.h"

enum { GET_REDIRECTS = 5, GET_CONNECT_MS = 10000 };

typedef struct get_request {
    const char *url;
    int64_t timeout_ms; /* of all hops together */
    size_t max_bytes;   /* of the decoded body; what is beyond is not read */
    bool allow_private; /* private and loopback addresses too */
    bool trust_first;   /* the URL itself may lead to one, what it redirects to may not */
} get_request;

typedef struct get_reply {
    long http_status;
    char *url;          /* after redirects */
    char *content_type; /* as sent, "" if none */
    weft_buffer body;
    bool cut; /* the body is longer than max_bytes */
} get_reply;

/* WEFT_E_NETWORK with words for the model, whatever failed before a reply was there. A reply with a
 * status such as 404 is WEFT_OK. */
weft_status web_get(const get_request *request, get_reply *out, weft_error *err);
void get_reply_free(get_reply *reply);

/* True for types that are text: text/..., JSON, XML; and for none at all. */
bool web_type_is_text(const char *content_type);
bool web_type_is_html(const char *content_type);

#endif
