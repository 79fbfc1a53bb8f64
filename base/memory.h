/* How much memory there is. */
#ifndef WEFT_BASE_MEMORY_H
#define WEFT_BASE_MEMORY_H

#include "base/error.h"

/* Bytes that this process could take now without swapping or being killed: what the kernel calls available,
 * or what the tightest of its memory cgroups leaves, page cache counted as free in both. 0: not known. */
size_t weft_memory_available(void);
/* The same, with /proc and /sys looked for under `root` (tests). */
size_t weft_memory_available_under(const char *root);

/* Bytes of memory that this process holds at the moment; 0: not known. */
size_t weft_memory_resident(void);

/* "16G", "512M", "1.5g", "0" or plain bytes. WEFT_E_USAGE: not a size. */
weft_status weft_memory_parse(const char *text, size_t *out, weft_error *err);

#endif
