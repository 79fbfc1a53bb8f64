/* The bytes of a tensor: read where they are needed, never looked up in the mapping.
 *
 * Why: a page of a mapping counts as ours for as long as the kernel likes, so a budget of memory could not be
 * kept; and a file that is cut while it is mapped ends the process with SIGBUS. A read copies, 4 to 7 GB/s a core
 * out of the page cache, as fast as pages are mapped that were let go (docs/speed.md).
 */
#include "engine/gguf_read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

weft_status gguf_read(const weft_tensor_file *file, const char *what, size_t offset, size_t n,
                      void *out, weft_error *err)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(file->fd, (uint8_t *)out + done, n - done, (off_t)(offset + done));
        if (WEFT_FAULT_POINT("engine.read")) got = 0;
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return weft_fail_errno(err, WEFT_E_STORAGE, "read %s: %s", file->path, what);
        if (got == 0)
            return weft_fail(err, WEFT_E_STORAGE,
                             "read %s: %s: the file ends before it, it was cut while in use; put the whole "
                             "file back, then go on",
                             file->path, what);
        done += (size_t)got;
    }
    return WEFT_OK;
}

weft_status weft_tensor_read(const weft_tensor *t, size_t at, size_t n, void *out, weft_error *err)
{
    if (t->file) return gguf_read(t->file, t->name, t->offset + at, n, out, err);
    memcpy(out, (const uint8_t *)t->data + at, n);
    return WEFT_OK;
}

void weft_tensor_ahead(const weft_tensor *t, size_t at, size_t n)
{
    enum { PIECE = 128 << 10 }; /* the kernel may shorten a longer wish to what it reads ahead itself */
    for (size_t from = 0; t->file && from < n; from += PIECE)
        (void)posix_fadvise(t->file->fd, (off_t)(t->offset + at + from),
                            (off_t)(n - from < PIECE ? n - from : PIECE), POSIX_FADV_WILLNEED);
}
