/* Shared by the trace tests: a scratch directory per test, bodies from JSON text, raw SQL. */
#ifndef WEFT_TESTS_TRACES_SCRATCH_H
#define WEFT_TESTS_TRACES_SCRATCH_H

#include "traces/trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

/* cmocka setup and teardown: *state is the directory's path. */
static inline int scratch_make(void **state)
{
    const char *base = getenv("TMPDIR");
    weft_buffer b = WEFT_BUFFER_INIT;
    weft_buffer_printf(&b, "%s/weft-trace-XXXXXX", base && *base ? base : "/tmp");
    *state = weft_buffer_take(&b);
    return *state && mkdtemp(*state) ? 0 : -1;
}

static inline int scratch_remove(void **state)
{
    weft_status status = weft_remove_tree(*state, NULL);
    free(*state);
    return status;
}

static inline cJSON *json_of(const char *text)
{
    cJSON *v = NULL;
    assert_int_equal(weft_json_parse(text, strlen(text), &v, NULL), WEFT_OK);
    return v;
}

static inline weft_status append_text(weft_trace *t, const char *type, const char *span,
                                      const char *body, weft_durability how, weft_error *err)
{
    cJSON *v = json_of(body);
    weft_status status = weft_trace_append(t, type, span, v, how, NULL, err);
    cJSON_Delete(v);
    return status;
}

static inline void must(weft_status status, const weft_error *err)
{
    if (status) fail_msg("%d %s", status, err->message);
}

/* Runs SQL on DIR/trace.db through a connection of its own; returns SQLite's result code. */
static inline int raw_sql(const char *dir, const char *sql)
{
    char *path = weft_path_join(dir, "trace.db");
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    sqlite3_busy_timeout(db, 2000);
    int result = sqlite3_exec(db, sql, NULL, NULL, NULL);
    sqlite3_close(db);
    free(path);
    return result;
}

#endif
