/* The bytes of a tensor: read where they are needed, never looked up in the mapping.
 *
 * Why: a page of a mapping counts as ours for as long as the kernel likes, so a budget of memory could not be
 * kept; and a file that is cut while it is mapped ends the process with SIGBUS. A read copies, 4 to 7 GB/s a core
 * out of the page cache, as fast as pages are mapped that were let go (docs/speed.md).
 */
#include "engine/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

weft_status weft_tensor_read(const weft_tensor *t, size_t at, size_t n, void *out, weft_error *err)
{
    uint8_t *to = out;
    if (!t->file) {
        memcpy(out, (const uint8_t *)t->data + at, n);
        return WEFT_OK;
    }
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(t->file->fd, to + done, n - done, (off_t)(t->offset + at + done));
        if (WEFT_FAULT_POINT("engine.read")) got = 0;
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return weft_fail_errno(err, WEFT_E_STORAGE, "read %s: tensor %s", t->file->path, t->name);
        if (got == 0)
            return weft_fail(err, WEFT_E_STORAGE,
                             "read %s: tensor %s: the file ends before it, it was cut while in use; put "
                             "the whole file back, then go on",
                             t->file->path, t->name);
        done += (size_t)got;
    }
    return WEFT_OK;
}

void weft_tensor_ahead(const weft_tensor *t, size_t at, size_t n)
{
    enum { PIECE = 128 << 10 }; /* the kernel may shorten a longer wish to what it reads ahead itself */
    for (size_t from = 0; t->file && from < n; from += PIECE)
        (void)posix_fadvise(t->file->fd, (off_t)(t->offset + at + from),
                            (off_t)(n - from < PIECE ? n - from : PIECE), POSIX_FADV_WILLNEED);
}

void weft_tensor_release(const weft_tensor *t)
{
    if (!t->file) return; /* borrowed bytes may be anonymous memory, where the advice would erase them */
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t from = ((uintptr_t)t->data + page - 1) / page * page;
    const uintptr_t to = ((uintptr_t)t->data + t->bytes) / page * page;
    /* Advice only: if the kernel refuses, the pages stay until memory is short. */
    if (from < to) (void)madvise((void *)from, to - from, MADV_DONTNEED);
}
