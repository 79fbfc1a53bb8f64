/* Keeping two batches off the same runs.
 *
 * A run's own lock (trace.lock) exists once its trace does. Before that, a second process would take a directory
 * that is being filled for one that a crash left, and remove it. So whoever opens a run holds a lock on its
 * name meanwhile, and one on the whole batch keeps the same command from running twice.
 *
 * The locks are bytes of one file in the directory of runs, which stays empty: a name's byte is where its digest
 * points. fcntl's locks, because a process forked meanwhile (the launcher) does not inherit them, and
 * because they name their holder. They end with the process, however it ends.
 */
#include "agent/batch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of 2^62 bytes: two names share one by chance never. */
static off_t place_of(weft_sha256 *h)
{
    uint8_t digest[WEFT_DIGEST_BYTES];
    uint64_t place = 0;
    weft_sha256_final(h, digest);
    for (size_t i = 0; i < sizeof place; i++) place = place << 8 | digest[i];
    return (off_t)(place >> 2);
}

static off_t place_of_run(const char *run)
{
    weft_sha256 h;
    weft_sha256_init(&h);
    weft_sha256_update(&h, run, strlen(run));
    return place_of(&h);
}

/* The same runs in the same order: what differs in nothing that decides a result. */
static off_t place_of_batch(const batch_task *task, size_t n)
{
    weft_sha256 h;
    weft_sha256_init(&h);
    for (size_t i = 0; i < n; i++) weft_sha256_update(&h, task[i].run, strlen(task[i].run) + 1);
    return place_of(&h);
}

/* what: for the message, if another process has the place (0: one in another namespace). */
static weft_status take(int fd, off_t place, const char *what, weft_error *err)
{
    for (;;) {
        struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = place, .l_len = 1};
        if (fcntl(fd, F_SETLK, &l) == 0) return WEFT_OK;
        if ((errno != EAGAIN && errno != EACCES) || fcntl(fd, F_GETLK, &l) != 0)
            return weft_fail_errno(err, WEFT_E_STORAGE, "lock the directory of runs");
        if (l.l_type != F_UNLCK) /* else it ended just now */
            return weft_fail(err, WEFT_E_STORAGE,
                             "%s: process %ld has it; give the command again when that has ended",
                             what, (long)l.l_pid);
    }
}

weft_status batch_lock(const char *runs, const batch_task *task, size_t n, int *out_fd,
                       weft_error *err)
{
    weft_status status = weft_mkdirs(runs, err);
    if (status) return status;
    char *path = weft_path_join(runs, ".batch.lock");
    if (!path) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) status = weft_fail_errno(err, WEFT_E_STORAGE, "open %s", path);
    free(path);
    if (status) return status;
    status = take(fd, place_of_batch(task, n), "this batch is running already", err);
    if (status)
        close(fd);
    else
        *out_fd = fd;
    return status;
}

weft_status batch_lock_run(int fd, const char *run, weft_error *err)
{
    weft_status status = take(fd, place_of_run(run), "another batch is opening it", err);
    return status ? weft_fail_prefix(err, "run %s", run) : WEFT_OK;
}

void batch_unlock_run(int fd, const char *run)
{
    struct flock l = {
        .l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = place_of_run(run), .l_len = 1};
    (void)fcntl(fd, F_SETLK, &l); /* at the worst it ends with the process */
}
