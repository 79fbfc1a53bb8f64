/* HTTP(S) to a file, resumably, over libcurl.
 *
 * The partial file and a small JSON state beside it (URL and validator: a strong ETag, or Last-Modified)
 * are all that a later call needs to go on. A byte is never joined to bytes of another version of the
 * resource: a range is asked for with If-Range, and whatever comes back is checked to begin where the
 * file ends and to carry the same validator; anything else starts the file over.
 *
 * A failure to connect is reported at once (another source may work). A transfer that breaks or stalls
 * once it runs is taken up again, until four attempts in a row bring nothing new.
 */
#ifndef WEFT_AGENT_DOWNLOAD_H
#define WEFT_AGENT_DOWNLOAD_H

#include "base/base.h"

typedef struct download {
    const char *url;
    const char *path; /* the partial file; its state is PATH.json */
    const char
        *token;    /* bearer token for the URL's own host, or NULL: never sent past a redirect to
                          another host, port or scheme, and never in a message */
    int64_t bytes; /* expected size, -1: unknown. Another size is WEFT_E_VERIFY */
    int stall_seconds; /* 0: 30 */
    int (*progress)(void *context, const char *what, int64_t done, int64_t total);
    void *context;
} download;

/* The whole resource is in d->path (synced to disk) after WEFT_OK. Otherwise the partial file stays for a
 * later call, except after WEFT_E_VERIFY. WEFT_E_NETWORK, WEFT_E_NOT_FOUND (404, 410),
 * WEFT_E_DENIED (401, 403), WEFT_E_STORAGE (also: too little free space), WEFT_E_INTERRUPTED. */
weft_status download_file(const download *d, weft_error *err);

/* A small resource into memory, at most max_bytes. Appends to out. */
weft_status download_text(const char *url, const char *token, size_t max_bytes, weft_buffer *out,
                          weft_error *err);

/* WEFT_E_STORAGE if the file system of `directory` has less than `bytes` free. */
weft_status download_room(const char *directory, int64_t bytes, weft_error *err);

/* Removes a partial file and its state. */
void download_discard(const char *path);

#endif
