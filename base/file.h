/* Files and paths. All functions retry EINTR and report through weft_error. */
#ifndef WEFT_BASE_FILE_H
#define WEFT_BASE_FILE_H

#include "base/buffer.h"

/* Whole file, at most max_bytes (WEFT_E_CONFIG past that). path "-" reads standard input. */
weft_status weft_file_read(const char *path, size_t max_bytes, weft_buffer *out, weft_error *err);
/* Writes a temporary beside path, syncs it, renames it over path and syncs the directory. */
weft_status weft_file_write(const char *path, const void *bytes, size_t n, unsigned mode,
                            weft_error *err);
weft_status weft_write_all(int fd, const void *bytes, size_t n, weft_error *err);
/* Creates path and its parents (mode 0700 for those created). */
weft_status weft_mkdirs(const char *path, weft_error *err);
/* Removes a file or a directory tree; symbolic links are removed, never followed. */
weft_status weft_remove_tree(const char *path, weft_error *err);
/* Copies what a directory holds into another one: files and their modes, directories, symbolic links as
 * links; sockets, pipes and devices are left out. WEFT_E_LIMIT past max_bytes. Nothing is synced. */
weft_status weft_copy_tree(const char *from, const char *to, int64_t max_bytes, weft_error *err);
weft_status weft_sync_dir(const char *path, weft_error *err);
bool weft_file_exists(const char *path);
/* dir/name as a malloc'd string; NULL on lack of memory. */
char *weft_path_join(const char *dir, const char *name);

/* $WEFT_HOME or $XDG_DATA_HOME/weft or ~/.local/share/weft; malloc'd, NULL without a home. */
char *weft_home(void);
/* $XDG_CONFIG_HOME/weft or ~/.config/weft; malloc'd, NULL without a home. */
char *weft_config_home(void);

#endif
