/* The workspace from outside: its files belong to programs that nobody trusts.
 *
 * Every path goes through openat2 below a descriptor of the workspace, without following any link;
 * files must be regular with one name. So no "..", no absolute path, no symbolic or hard link that
 * a program left behind leads anywhere else, not even when it is swapped while we look.
 */
#ifndef WEFT_TOOLS_WORKSPACE_H
#define WEFT_TOOLS_WORKSPACE_H

#include "base/base.h"

#include <sys/stat.h>

enum { WORKSPACE_FILE_BYTES = 16 << 20, WORKSPACE_DEPTH = 32, WORKSPACE_ENTRIES = 20000 };

/* A descriptor of the directory; -1 with errno. */
int workspace_open(const char *root);

/* What stands after "/work/" or "./" in a path that a model wrote; "." for the workspace itself. */
const char *workspace_relative(const char *path);

/* Opens below root as described above. WEFT_E_INVALID with words for the model. `max_bytes` limits
 * the size; a file with a second name is refused unless any_links. */
weft_status workspace_open_file(int root, const char *path, bool any_links, size_t max_bytes,
                                int *out_fd, struct stat *out_stat, weft_error *err);
weft_status workspace_read(int root, const char *path, bool any_links, size_t max_bytes,
                           weft_buffer *out, weft_error *err);
/* Replaces or makes a file, and the directories above it, in one step (a new file is renamed over
 * the old). They get the user id that programs of the sandbox run under. */
weft_status workspace_write(int root, const char *path, const void *bytes, size_t n,
                            bool *out_replaced, weft_error *err);

/* One entry of a walk; path is relative to where the walk began. */
typedef struct workspace_entry {
    const char *path;
    struct stat stat;
} workspace_entry;
/* false ends the walk. */
typedef bool (*workspace_visit)(void *context, const workspace_entry *entry);
/* Visits everything below `path` ("." for all), directories before what they hold, in byte order of
 * names. At most WORKSPACE_DEPTH levels and WORKSPACE_ENTRIES entries; *out_whole is false if there
 * were more. WEFT_E_INVALID if path is no directory. */
weft_status workspace_walk(int root, const char *path, workspace_visit visit, void *context,
                           bool *out_whole, weft_error *err);

/* The state of all files, to tell what a program wrote. */
typedef struct workspace_state workspace_state;
weft_status workspace_state_take(int root, workspace_state **out, weft_error *err);
void workspace_state_free(workspace_state *state);
/* Files of `after` that are new or changed, as [{"name", "bytes"}...], at most `limit`; *out_count
 * counts all. A change of content changes ctime, which no program can set back. NULL on lack of
 * memory. */
cJSON *workspace_state_changes(const workspace_state *before, const workspace_state *after,
                               size_t limit, size_t *out_count);

/* Appends a file name as it can be shown: control characters as \xNN, invalid UTF-8 as U+FFFD. */
void workspace_put_name(const char *name, weft_buffer *out);

#endif
