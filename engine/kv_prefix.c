/* The store of pages that runs share: $WEFT_HOME/prefix/ab/ab12....kv, hard links to pages of runs.
 *
 * A page is put by one link(2) of a file that is complete and never written again, so a reader
 * finds all of it or nothing, and no lock is needed. It is taken by another link(2) into the run's
 * own directory: from then on nothing that happens to the store concerns the run. Where links
 * cannot be (another file system, a read-only store, 65,000 links) a page is copied on the way in,
 * or not shared: correct, only slower.
 *
 * The size of the store is what it alone holds, the pages with one link. Removing another name
 * would free nothing and lose the sharing. Used last = modification time of the file, which taking
 * sets. Trimming looks at no more than TRIM_NAMES names a call, beginning at a random shard, so that
 * it is bounded: stat of a cached name takes about 2 us.
 */
#include "engine/kv_page.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SHARDS = 256, PATH_BYTES = 3 + KV_FILE_BYTES, TRIM_NAMES = 1 << 16 };

struct kv_prefix {
    int dir;
    bool refuses; /* a link into the store failed for a reason that will stay */
};

kv_prefix *kv_prefix_open(const char *dir)
{
    kv_prefix *prefix = calloc(1, sizeof *prefix);
    if (!prefix) return NULL;
    prefix->refuses = weft_mkdirs(dir, NULL) != WEFT_OK;
    prefix->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (prefix->dir >= 0) return prefix;
    free(prefix);
    return NULL;
}

void kv_prefix_close(kv_prefix *prefix)
{
    if (!prefix) return;
    close(prefix->dir);
    free(prefix);
}

static void path_of(const char *file, char out[PATH_BYTES])
{
    snprintf(out, PATH_BYTES, "%.2s/%s", file, file);
}

bool kv_prefix_take(kv_prefix *prefix, const char *file, int dir, size_t file_bytes)
{
    char path[PATH_BYTES];
    path_of(file, path);
    bool taken = linkat(prefix->dir, path, dir, file, 0) == 0;
    if (!taken && (errno == EXDEV || errno == EMLINK || errno == EPERM))
        taken = kv_copy_file(prefix->dir, path, dir, file, file_bytes, 0400);
    if (taken) utimensat(prefix->dir, path, NULL, AT_SYMLINK_NOFOLLOW); /* used now */
    return taken;
}

void kv_prefix_put(kv_prefix *prefix, const char *file, int dir)
{
    char path[PATH_BYTES], shard[3] = {file[0], file[1], '\0'};
    if (prefix->refuses || WEFT_FAULT_POINT("kv.link")) return;
    path_of(file, path);
    if (linkat(dir, file, prefix->dir, path, 0) == 0) return;
    if (errno == ENOENT && mkdirat(prefix->dir, shard, 0700) == 0 &&
        linkat(dir, file, prefix->dir, path, 0) == 0)
        return;
    prefix->refuses = errno != EEXIST && errno != EMLINK && errno != ENOENT;
}

void kv_prefix_drop(kv_prefix *prefix, const char *file)
{
    char path[PATH_BYTES];
    path_of(file, path);
    unlinkat(prefix->dir, path, 0);
}

/* ---- the budget ---- */

typedef struct held {
    char file[KV_FILE_BYTES];
    struct timespec used;
    int64_t bytes;
} held;

typedef struct census {
    held *page; /* [n] pages that only the store holds */
    size_t n, capacity, seen;
    int64_t bytes;
} census;

static bool is_page(const char *file)
{
    return strspn(file, "0123456789abcdef") == WEFT_DIGEST_HEX_BYTES - 1 &&
           strcmp(file + WEFT_DIGEST_HEX_BYTES - 1, ".kv") == 0;
}

static bool count_page(census *c, int dir, const char *file)
{
    struct stat st;
    c->seen++;
    if (!is_page(file) || fstatat(dir, file, &st, AT_SYMLINK_NOFOLLOW) != 0) return true;
    if (!S_ISREG(st.st_mode) || st.st_nlink != 1) return true;
    if (c->n == c->capacity) {
        size_t more = c->capacity ? 2 * c->capacity : 1024;
        held *grown = realloc(c->page, more * sizeof *grown);
        if (!grown) return false;
        c->page = grown;
        c->capacity = more;
    }
    held *page = &c->page[c->n++];
    memcpy(page->file, file, KV_FILE_BYTES);
    page->used = st.st_mtim;
    page->bytes = (int64_t)st.st_blocks * 512;
    c->bytes += page->bytes;
    return true;
}

static bool count_shard(census *c, int store, unsigned shard)
{
    char name[3];
    bool more = true;
    snprintf(name, sizeof name, "%02x", shard);
    int fd = openat(store, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0) close(fd);
        return true;
    }
    for (struct dirent *e; more && (e = readdir(d));)
        if (e->d_name[0] != '.') more = count_page(c, fd, e->d_name);
    closedir(d);
    return more && c->seen < TRIM_NAMES;
}

static int by_use(const void *a, const void *b)
{
    const struct timespec *s = &((const held *)a)->used, *t = &((const held *)b)->used;
    if (s->tv_sec != t->tv_sec) return s->tv_sec < t->tv_sec ? -1 : 1;
    return (s->tv_nsec > t->tv_nsec) - (s->tv_nsec < t->tv_nsec);
}

int64_t weft_prefix_trim(const char *dir, int64_t budget_bytes)
{
    census c = {0};
    int64_t removed = 0;
    uint8_t first;
    int store = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store < 0) return 0;
    if (flock(store, LOCK_EX | LOCK_NB) != 0) goto done; /* another process is at it */
    weft_random(&first, sizeof first);
    for (unsigned i = 0; i < SHARDS && count_shard(&c, store, (first + i) % SHARDS); i++) continue;
    if (c.bytes <= budget_bytes) goto done;
    qsort(c.page, c.n, sizeof *c.page, by_use);
    for (size_t i = 0; i < c.n && c.bytes > budget_bytes; i++) {
        char path[PATH_BYTES];
        path_of(c.page[i].file, path);
        if (unlinkat(store, path, 0) != 0) continue;
        c.bytes -= c.page[i].bytes;
        removed += c.page[i].bytes;
    }
done:
    free(c.page);
    close(store);
    return removed;
}
