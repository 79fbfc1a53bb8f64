/* Shared by the tests of pages on disk: where a page lies, and what a directory of pages takes. */
#ifndef WEFT_TESTS_KV_TEST_H
#define WEFT_TESTS_KV_TEST_H

#include "tests/engine/engine_test.h"

#include "engine/kv_page.h"
#include "engine/model.h"

#include <dirent.h>
#include <sys/stat.h>

/* dir/<name of page p>.kv; past the last complete page: dir/open-<p>. */
static inline char *kv_test_page_path(const weft_model *model, const char *dir, const int32_t *ids,
                                      size_t n, size_t p)
{
    char file[KV_FILE_BYTES];
    kv_name name;
    kv_name_root(&model->kv, model->kv_identity, &name);
    for (size_t i = 0; i <= p && (p + 1) * WEFT_PAGE <= n; i++)
        kv_name_next(&name, ids + i * WEFT_PAGE, WEFT_PAGE, &name);
    if ((p + 1) * WEFT_PAGE <= n)
        kv_sealed_file(&name, file);
    else
        kv_open_file((int64_t)p, file);
    char *path = weft_path_join(dir, file);
    assert_non_null(path);
    return path;
}

typedef struct kv_usage {
    size_t sealed, open, bytes; /* files; bytes of all of them */
    size_t shared;              /* sealed files with another name elsewhere */
} kv_usage;

static inline kv_usage kv_usage_of(const char *dir)
{
    kv_usage use = {0};
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        if (e->d_name[0] == '.' || fstatat(dirfd(d), e->d_name, &st, 0) != 0) continue;
        bool sealed = strlen(e->d_name) == KV_FILE_BYTES - 1;
        use.bytes += (size_t)st.st_size;
        use.sealed += sealed;
        use.shared += sealed && st.st_nlink > 1;
        use.open += strncmp(e->d_name, "open-", 5) == 0;
        if (sealed) assert_int_equal(st.st_mode & 0777, 0400);
    }
    closedir(d);
    return use;
}

#endif
