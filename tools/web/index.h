/* Full-text index over a folder of documents (.txt .md .html .htm), SQLite FTS5.
 *
 * The index is a cache: one file per folder, brought up to date before each search by comparing
 * size, mtime and ctime of every file; a damaged or outdated one is built again. Several processes
 * may share it (SQLite locks). Symbolic links are not followed, files above 8 MiB and beyond 20,000
 * entries are left out and counted.
 */
#ifndef WEFT_TOOLS_INDEX_H
#define WEFT_TOOLS_INDEX_H

#include "base/base.h"

enum { INDEX_FILE_BYTES = 8 << 20 };

typedef struct docs_hit {
    char *path; /* relative to the folder */
    char *title, *snippet;
} docs_hit;

typedef struct docs_hits {
    docs_hit *hit; /* [n], best first */
    size_t n;
    size_t files, read,
        left_out; /* in the index, read anew by this search, too large or too many */
} docs_hits;

/* cache_dir NULL: the index lives in memory for this one search. Files that hold all words come
 * first, then files that hold some. WEFT_E_CONFIG if the folder cannot be read. */
weft_status docs_search(const char *docs, const char *cache_dir, const char *query, size_t limit,
                        docs_hits *out, weft_error *err);
void docs_hits_free(docs_hits *hits);

/* One document as text, by its relative path. WEFT_E_INVALID with words for the model. */
weft_status docs_read(const char *docs, const char *path, weft_buffer *out_title,
                      weft_buffer *out_text, weft_error *err);

/* "file:" and the path percent-encoded, and back (malloc'd; NULL if the URL is no such). */
void docs_put_url(const char *path, weft_buffer *out);
char *docs_path_of(const char *url);

#endif
