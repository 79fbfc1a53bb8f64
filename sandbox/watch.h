/* The watchdog's view of a call: what its processes use, summed over the tree below init.
 *
 * It stands in for the memory group where there is none, and is the only one that sees the CPU time
 * of all processes together. Resident memory counts shared pages once per process, so it errs on the
 * safe side; swap counts as memory.
 */
#ifndef WEFT_SANDBOX_WATCH_H
#define WEFT_SANDBOX_WATCH_H

#include "base/base.h"

#include <sys/types.h>

typedef struct sandbox_usage {
    int64_t memory_bytes; /* resident and swapped, summed */
    int64_t cpu_ns;       /* user and system, children that ended included */
    int64_t tasks;        /* threads, init not counted */
} sandbox_usage;

/* Sums up the tree of `init`, init included. False if /proc does not show it (it has ended, or the
 * kernel lacks CONFIG_PROC_CHILDREN). A tree that changes meanwhile is counted as found. */
bool sandbox_watch(pid_t init, sandbox_usage *out);

/* Free bytes below which the file system of a workspace must not fall during a call: the workload may
 * take 16 of its largest files, and never the last twentieth. Judged by free space, so another
 * program's writes count too: better a call too few than a full disk. */
int64_t sandbox_disk_floor(int fd, int64_t file_bytes);

/* Bytes that may still be written above the floor; negative below it, INT64_MAX if the file system does
 * not tell. */
int64_t sandbox_disk_room(int fd, int64_t floor);

#endif
