/* The format of a trace, its refusal of change, and the detection of any that happened anyway. */
#include "tests/traces/scratch.h"

#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>

static weft_trace *begin(const char *dir)
{
    weft_trace *t = NULL;
    weft_error err;
    must(weft_trace_create(&t, dir, "run-1", &err), &err);
    return t;
}

/* Six events and a blob, closed. */
static void six_events(const char *dir)
{
    static const char *const type[] = {"run.begin", "segment",     "turn",
                                       "tool.call", "tool.result", "run.end"};
    weft_trace *t = begin(dir);
    weft_error err;
    for (int i = 0; i < 6; i++)
        must(append_text(t, type[i], i ? "turn-1" : "", "{\"text\":\"caf\xc3\xa9\",\"n\":3}",
                         i == 3 ? WEFT_DURABLE : WEFT_BATCHED, &err),
             &err);
    must(weft_trace_close(t, &err), &err);
}

static bool count_event(void *context, const weft_event *event)
{
    ++*(int *)context;
    return true;
}

/* Opens to read and walks; returns the status, the reason in err. */
static weft_status read_all(const char *dir, weft_error *err, int *out_count)
{
    weft_trace *t = NULL;
    weft_status status = weft_trace_open(&t, dir, false, err);
    if (status) return status;
    *out_count = 0;
    status = weft_trace_each(t, 0, count_event, out_count, err);
    assert_int_equal(weft_trace_close(t, NULL), WEFT_OK);
    return status;
}

/* ---- format ---- */

static void format_is_recomputed_by_a_stranger(void **state)
{
    const char *dir = *state, *script = getenv("WEFT_TRACE_CHECK");
    static const char *const body[] = {
        "{}",
        "{\"z\":1,\"a\":{\"d\":[],\"c\":[1,-2,9007199254740991]},\"B\":true,\"_\":null}",
        ("{\"text\":\"\\u0001\\u001f\\b\\t\\n\\f\\r\\\"\\\\/ \\u007f "
         "\\u00e9\\u2028\\ud83d\\ude00\"}"),
        "{\"x\":1.0,\"y\":-0,\"z\":1e3}",
    };
    weft_trace *t = begin(dir);
    weft_error err;
    for (int i = 0; i < 12; i++)
        must(append_text(t, "segment", i & 1 ? "turn-1" : "", body[i % 4],
                         i % 3 ? WEFT_BATCHED : WEFT_DURABLE, &err),
             &err);
    uint8_t head[WEFT_DIGEST_BYTES];
    char hex[WEFT_DIGEST_HEX_BYTES], expected[96], got[128] = "";
    weft_trace_head(t, head);
    snprintf(expected, sizeof expected, "%lld %s\n", (long long)weft_trace_size(t),
             weft_hex(head, sizeof head, hex));
    assert_int_equal(weft_trace_size(t), 12);

    char command[1024]; /* beside the open writer: a hot WAL is read as well */
    assert_non_null(script);
    snprintf(command, sizeof command, "python3 '%s' '%s/trace.db' run-1", script, dir);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    assert_non_null(fgets(got, sizeof got, p));
    assert_int_equal(pclose(p), 0);
    assert_string_equal(got, expected);
    must(weft_trace_close(t, &err), &err);

    struct stat st;
    char path[512];
    snprintf(path, sizeof path, "%s/trace.db", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void run_ids_are_checked(void **state)
{
    static const char *const bad[] = {
        "",         "A",
        "a_b",      "../x",
        "a/b",      "a b",
        "\xc3\xa9", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    weft_trace *t = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(weft_trace_create(&t, *state, bad[i], NULL), WEFT_E_USAGE);
    assert_null(t);
}

static void create_refuses_an_existing_trace(void **state)
{
    weft_trace *t = NULL;
    weft_error err;
    six_events(*state);
    assert_int_equal(weft_trace_create(&t, *state, "run-2", &err), WEFT_E_STORAGE);
    assert_non_null(strstr(err.message, "there already"));
    int n = 0;
    must(read_all(*state, &err, &n), &err);
    assert_int_equal(n, 6);
}

/* ---- what may be appended ---- */

static void bad_arguments_change_nothing(void **state)
{
    static const char *const bad[] = {"{\"x\":0.5}",
                                      "{\"x\":9007199254740992}",
                                      "{\"x\":[1e300]}",
                                      "{\"\xc3\xa9\":1}",
                                      "[1]",
                                      "\"text\"",
                                      "3"};
    weft_trace *t = begin(*state);
    weft_error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (append_text(t, "segment", "", bad[i], WEFT_DURABLE, &err) != WEFT_E_INVALID)
            fail_msg("accepted %s", bad[i]);
    static const char *const bad_type[] = {
        "", "Turn", "a b", "tool\"call", "1x", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < sizeof bad_type / sizeof *bad_type; i++)
        assert_int_equal(append_text(t, bad_type[i], "", "{}", WEFT_DURABLE, &err), WEFT_E_INVALID);
    static const char *const bad_span[] = {"a\"b", "a\\b", "a\nb", "\xc3\xa9", "\x7f"};
    for (size_t i = 0; i < sizeof bad_span / sizeof *bad_span; i++)
        assert_int_equal(append_text(t, "turn", bad_span[i], "{}", WEFT_DURABLE, &err),
                         WEFT_E_INVALID);

    char span[130];
    memset(span, 'x', sizeof span - 1);
    span[129] = '\0';
    assert_int_equal(append_text(t, "turn", span, "{}", WEFT_DURABLE, &err), WEFT_E_INVALID);

    cJSON *v = cJSON_CreateObject(); /* what a parser would not have let through */
    cJSON_AddStringToObject(v, "text", "bad \xff byte");
    assert_int_equal(weft_trace_append(t, "turn", "", v, WEFT_DURABLE, NULL, &err), WEFT_E_INVALID);
    cJSON_Delete(v);
    v = cJSON_CreateObject();
    cJSON_AddNumberToObject(v, "a", 1);
    cJSON_AddNumberToObject(v, "b", 1);
    cJSON_AddNumberToObject(v, "a", 2);
    assert_int_equal(weft_trace_append(t, "turn", "", v, WEFT_DURABLE, NULL, &err), WEFT_E_INVALID);
    cJSON_Delete(v);
    v = cJSON_CreateObject();
    cJSON *at = v;
    for (int i = 0; i < 250; i++) at = cJSON_AddObjectToObject(at, "a");
    assert_int_equal(weft_trace_append(t, "turn", "", v, WEFT_DURABLE, NULL, &err), WEFT_E_INVALID);
    cJSON_Delete(v);

    assert_int_equal(weft_trace_size(t), 0);
    int64_t seq = -1; /* and the trace is still good */
    v = json_of("{\"ok\":1}");
    must(weft_trace_append(t, "turn", "a span!", v, WEFT_DURABLE, &seq, &err), &err);
    cJSON_Delete(v);
    assert_int_equal(seq, 0);
    must(weft_trace_close(t, &err), &err);
}

static void tap_line(void *context, int64_t seq, const char *type, const char *line)
{
    weft_buffer_printf(context, "%lld %s %s\n", (long long)seq, type, line);
}

static void tap_sees_each_event_as_stored(void **state)
{
    weft_trace *t = begin(*state);
    weft_buffer seen = WEFT_BUFFER_INIT;
    weft_error err;
    weft_trace_set_tap(t, tap_line, &seen);
    must(append_text(t, "turn", "t", "{\"b\":2,\"a\":\"\\n\"}", WEFT_BATCHED, &err), &err);
    assert_int_equal(append_text(t, "turn", "t", "{\"b\":0.5}", WEFT_BATCHED, &err),
                     WEFT_E_INVALID);
    static const char start[] =
        "0 turn {\"body\":{\"a\":\"\\n\",\"b\":2},\"seq\":0,\"span\":\"t\",\"ts\":\"";
    assert_memory_equal(seen.data, start, sizeof start - 1);
    assert_string_equal(strchr(seen.data, '\n'), "\n");
    assert_non_null(strstr(seen.data, "\",\"type\":\"turn\"}\n"));
    weft_buffer_free(&seen);
    must(weft_trace_close(t, &err), &err);
}

/* ---- append-only ---- */

static void triggers_refuse_change(void **state)
{
    static const char *const refused[] = {
        "DELETE FROM ev WHERE seq = 2",
        "DELETE FROM ev",
        "UPDATE ev SET body = x'7b7d' WHERE seq = 1",
        "UPDATE ev SET hdr = x'00' WHERE seq = 1",
        "UPDATE ev SET seq = 9 WHERE seq = 5",
        "UPDATE ev SET body = NULL WHERE seq = 1",
        "UPDATE ev SET salt = NULL WHERE seq = 1",
        "UPDATE ev SET salt = NULL, body = NULL, hdr = x'00' WHERE seq = 1",
        "INSERT OR REPLACE INTO ev VALUES(2, x'00', NULL, NULL)",
        "INSERT INTO ev VALUES(7, x'00', NULL, NULL)",
        "INSERT INTO ev VALUES(-1, x'00', NULL, NULL)",
        "INSERT INTO ev(hdr) VALUES(x'00')"};
    weft_error err;
    int n = 0;
    six_events(*state);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (raw_sql(*state, refused[i]) != SQLITE_CONSTRAINT) fail_msg("allowed: %s", refused[i]);
    must(read_all(*state, &err, &n), &err);
    assert_int_equal(n, 6);
}

static bool note_redacted(void *context, const weft_event *event)
{
    weft_buffer_printf(context, "%lld%s ", (long long)event->seq, event->body ? "" : "-");
    return true;
}

static void redacted_events_are_tolerated(void **state)
{
    weft_trace *t = NULL;
    weft_buffer seen = WEFT_BUFFER_INIT;
    weft_error err;
    six_events(*state);
    assert_int_equal(raw_sql(*state, "UPDATE ev SET salt = NULL, body = NULL WHERE seq IN (2, 5)"),
                     SQLITE_OK);
    must(weft_trace_open(&t, *state, true, &err), &err);
    must(weft_trace_each(t, 0, note_redacted, &seen, &err), &err);
    assert_string_equal(seen.data, "0 1 2- 3 4 5- ");
    must(append_text(t, "redact", "", "{\"seq\":5}", WEFT_DURABLE, &err), &err);
    weft_buffer_clear(&seen);
    must(weft_trace_each(t, 5, note_redacted, &seen, &err), &err);
    assert_string_equal(seen.data, "5- 6 ");
    weft_buffer_free(&seen);
    must(weft_trace_close(t, &err), &err);
}

/* ---- tampering ---- */

/* An attacker who can write the file takes the triggers away and puts them back. */
static void tamper(const char *dir, const char *sql)
{
    weft_buffer b = WEFT_BUFFER_INIT;
    char *path = weft_path_join(dir, "trace.db");
    sqlite3 *db = NULL;
    sqlite3_stmt *q = NULL;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(
        sqlite3_prepare_v2(db, "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'", -1, &q,
                           NULL),
        SQLITE_OK);
    weft_buffer_puts(&b, "BEGIN;");
    weft_buffer again = WEFT_BUFFER_INIT;
    while (sqlite3_step(q) == SQLITE_ROW) {
        weft_buffer_printf(&b, "DROP TRIGGER %s;", sqlite3_column_text(q, 0));
        weft_buffer_printf(&again, "%s;", sqlite3_column_text(q, 1));
    }
    sqlite3_finalize(q);
    weft_buffer_printf(&b, "%s;%sCOMMIT;", sql, weft_buffer_str(&again));
    if (sqlite3_exec(db, b.data, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    sqlite3_close(db);
    weft_buffer_free(&b);
    weft_buffer_free(&again);
    free(path);
}

#define HDR(seq, from, to)                                                                         \
    "UPDATE ev SET hdr = CAST(replace(CAST(hdr AS TEXT), '" from "', '" to                         \
    "') AS BLOB) WHERE seq = " #seq

static void tampering_is_found_where_it_was_done(void **state)
{
    static const struct {
        const char *sql, *found;
    } cases[] = {
        {"UPDATE ev SET body = CAST(replace(CAST(body AS TEXT), '3', '4') AS BLOB) WHERE seq = 2",
         "event 2:"},
        {"UPDATE ev SET body = body || x'20' WHERE seq = 2", "event 2:"},
        {"UPDATE ev SET salt = x'00112233445566778899aabbccddeeff' WHERE seq = 4", "event 4:"},
        {"UPDATE ev SET salt = x'00' WHERE seq = 4", "event 4:"},
        {"UPDATE ev SET salt = NULL WHERE seq = 4", "event 4:"},
        {"UPDATE ev SET body = NULL WHERE seq = 1", "event 1:"},
        {"UPDATE ev SET body = CAST(body AS TEXT) WHERE seq = 1", "event 1:"},
        {"UPDATE ev SET hdr = x'7b7d' WHERE seq = 3", "event 3:"},
        {"UPDATE ev SET hdr = x'' WHERE seq = 3", "event 3:"},
        {"UPDATE ev SET hdr = x'ff00' WHERE seq = 0", "event 0:"},
        {HDR(3, "tool.call", "tool.tall"), "event 3:"},
        {HDR(3, "\"span\":\"turn-1", "\"span\":\"turn-2"), "event 3:"},
        {HDR(3, "\"seq\":3", "\"seq\":4"), "event 3:"},
        {HDR(3, "\"run\":\"run-1", "\"run\":\"run-2"), "event 3:"},
        {HDR(0, "\"run\":\"run-1", "\"run\":\"run-2"), "event 0:"},
        {HDR(3, "\"ts\":\"1", "\"ts\":\"2"), "event 3:"},
        {HDR(0, "\"ts\":\"1", "\"ts\":\"2"), "event 0:"},
        {HDR(4, "\"ts\":\"1", "\"ts\":\"2"), "event 5:"}, /* nothing behind vouches for event 5 */
        {HDR(3, "\"len\":2", "\"len\":1"), "event 3:"},
        {HDR(3, "\"v\":1", "\"v\":2"), "event 3: its header has format version 2"},
        {HDR(3, ",\"v\":1", ", \"v\":1"), "event 3:"},
        /* the last header has no event behind it: only what it says of itself can show */
        {HDR(5, ",\"v\":1", ", \"v\":1"), "event 5:"},
        {HDR(5, "\"seq\":5", "\"seq\":6"), "event 5:"},
        {HDR(5, "\"run\":\"run-1", "\"run\":\"run-2"), "event 5:"},
        {HDR(5, "\"len\":2", "\"len\":1"), "event 5:"},
        {HDR(3, "\"prev\":\"", "\"prev\":\"0"), "event 3:"},
        {HDR(2, "\"body\":\"", "\"body\":\"0"), "event 2:"},
        {"UPDATE ev SET hdr = (SELECT hdr FROM ev WHERE seq = 2) WHERE seq = 3", "event 3:"},
        {"UPDATE ev SET salt = (SELECT salt FROM ev e WHERE e.seq = 7 - ev.seq), body = (SELECT "
         "body "
         "FROM ev e WHERE e.seq = 7 - ev.seq) WHERE seq IN (3, 4)",
         "event 3:"},
        {"DELETE FROM ev WHERE seq = 3", "event 3: is missing"},
        {"DELETE FROM ev WHERE seq = 0", "event 0: is missing"},
        {"DELETE FROM ev WHERE seq = 4", "event 4:"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        weft_error err = {0};
        int n = 0;
        char dir[512];
        snprintf(dir, sizeof dir, "%s/%zu", (const char *)*state, i);
        six_events(dir);
        tamper(dir, cases[i].sql);
        weft_status status = read_all(dir, &err, &n);
        if (status != WEFT_E_VERIFY || !strstr(err.message, cases[i].found))
            fail_msg("%s: wanted %s, got %d %s", cases[i].sql, cases[i].found, status, err.message);
        weft_trace *t = NULL; /* a writer looks at the end and at the count only */
        if (strstr(cases[i].sql, "DELETE"))
            assert_int_equal(weft_trace_open(&t, dir, true, NULL), WEFT_E_VERIFY);
    }
}

static void a_header_changed_in_its_prev_alone_is_named(void **state)
{
    weft_error err;
    int n = 0;
    six_events(*state);
    /* the first digit of event 3's prev becomes another hex digit */
    tamper(*state,
           "UPDATE ev SET hdr = CAST(substr(CAST(hdr AS TEXT), 1, instr(CAST(hdr AS TEXT), "
           "'\"prev\":\"') + 7) || CASE substr(CAST(hdr AS TEXT), instr(CAST(hdr AS TEXT), "
           "'\"prev\":\"') + 8, 1) WHEN '0' THEN '1' ELSE '0' END || substr(CAST(hdr AS TEXT), "
           "instr(CAST(hdr AS TEXT), '\"prev\":\"') + 9) AS BLOB) WHERE seq = 3");
    assert_int_equal(read_all(*state, &err, &n), WEFT_E_VERIFY);
    assert_non_null(strstr(err.message, "event 3:"));
    assert_int_equal(n, 3);
}

static void a_writer_refuses_a_damaged_end(void **state)
{
    weft_trace *t = NULL;
    weft_error err;
    six_events(*state);
    tamper(*state, "UPDATE ev SET body = x'7b7d' WHERE seq = 5");
    assert_int_equal(weft_trace_open(&t, *state, true, &err), WEFT_E_VERIFY);
    assert_non_null(strstr(err.message, "event 5:"));
    assert_null(t);
}

static void foreign_schemas_are_refused(void **state)
{
    static const char *const change[] = {
        "DROP TRIGGER ev_delete",
        "CREATE TABLE extra(x)",
        "CREATE TRIGGER t AFTER INSERT ON ev BEGIN DELETE FROM ckpt; END",
        ("DROP TRIGGER ev_update;"
         "CREATE TRIGGER ev_update BEFORE UPDATE ON ev WHEN 0 BEGIN SELECT 1; END"),
        "ALTER TABLE ev RENAME TO ev2; CREATE VIEW ev AS SELECT * FROM ev2",
        "PRAGMA application_id = 1"};
    for (size_t i = 0; i < sizeof change / sizeof *change; i++) {
        char dir[512];
        snprintf(dir, sizeof dir, "%s/%zu", (const char *)*state, i);
        six_events(dir);
        assert_int_equal(raw_sql(dir, change[i]), SQLITE_OK);
        weft_trace *t = NULL;
        for (int writing = 0; writing < 2; writing++)
            if (weft_trace_open(&t, dir, writing, NULL) != WEFT_E_VERIFY)
                fail_msg("opened after: %s", change[i]);
    }
    char path[512];
    weft_trace *t = NULL;
    snprintf(path, sizeof path, "%s/text", (const char *)*state);
    assert_int_equal(weft_file_write(path, "no database at all, just text", 29, 0600, NULL),
                     WEFT_OK);
    assert_int_equal(weft_trace_open(&t, path, false, NULL), WEFT_E_VERIFY);
    assert_int_equal(weft_file_write(path, "", 0, 0600, NULL), WEFT_OK);
    assert_int_equal(weft_trace_open(&t, path, false, NULL), WEFT_E_VERIFY);
    assert_int_equal(weft_trace_open(&t, path, true, NULL), WEFT_E_NOT_FOUND); /* never began */
    assert_int_equal(weft_trace_open(&t, "/nowhere/at/all", false, NULL), WEFT_E_NOT_FOUND);
}

/* ---- reading ---- */

static bool stop_at_three(void *context, const weft_event *event)
{
    *(int64_t *)context = event->seq;
    assert_string_equal(event->body, "{\"n\":3,\"text\":\"caf\xc3\xa9\"}");
    assert_int_equal(event->body_size, strlen(event->body));
    assert_int_equal(event->header_size, strlen(event->header));
    return event->seq < 3;
}

static void each_starts_and_stops_where_asked(void **state)
{
    weft_trace *t = NULL;
    weft_error err;
    int64_t last = -1;
    int n = 0;
    six_events(*state);
    must(weft_trace_open(&t, *state, false, &err), &err);
    assert_string_equal(weft_trace_run_id(t), "run-1");
    assert_int_equal(weft_trace_size(t), 6);
    must(weft_trace_each(t, 1, stop_at_three, &last, &err), &err);
    assert_int_equal(last, 3);
    must(weft_trace_each(t, 4, count_event, &n, &err), &err);
    assert_int_equal(n, 2);
    must(weft_trace_each(t, 6, count_event, &n, &err), &err);
    assert_int_equal(n, 2);
    assert_int_equal(weft_trace_each(t, -1, count_event, &n, &err), WEFT_E_INVALID);
    assert_int_equal(append_text(t, "turn", "", "{}", WEFT_DURABLE, &err), WEFT_E_STORAGE);
    must(weft_trace_close(t, &err), &err);
}

/* ---- blobs ---- */

static void blobs_come_back_or_say_why_not(void **state)
{
    enum { N = 300000 };
    weft_trace *t = begin(*state);
    weft_error err;
    weft_buffer out = WEFT_BUFFER_INIT;
    uint8_t big[WEFT_DIGEST_BYTES], empty[WEFT_DIGEST_BYTES], noise[WEFT_DIGEST_BYTES], want[32];
    char *bytes = malloc(N);
    assert_non_null(bytes);
    for (int i = 0; i < N; i++) bytes[i] = (char)((int64_t)i * i >> 5);
    must(weft_trace_put_blob(t, bytes, N, big, &err), &err);
    must(weft_trace_put_blob(t, bytes, N, big, &err), &err); /* the same again: one row */
    must(weft_trace_put_blob(t, "", 0, empty, &err), &err);
    weft_random(bytes, 4096);
    must(weft_trace_put_blob(t, bytes, 4096, noise, &err), &err);
    weft_sha256_of(bytes, 4096, want);
    assert_memory_equal(noise, want, sizeof want);
    must(append_text(t, "tool.result", "", "{\"n\":1}", WEFT_BATCHED, &err), &err);
    uint8_t late[WEFT_DIGEST_BYTES];
    must(weft_trace_put_blob(t, "late", 4, late, &err), &err); /* no event follows: close commits */
    must(weft_trace_close(t, &err), &err);

    must(weft_trace_open(&t, *state, false, &err), &err);
    must(weft_trace_get_blob(t, late, &out, &err), &err);
    assert_string_equal(out.data, "late");
    weft_buffer_clear(&out);
    weft_buffer_puts(&out, "kept:");
    must(weft_trace_get_blob(t, noise, &out, &err), &err);
    assert_int_equal(out.size, 5 + 4096);
    assert_memory_equal(out.data + 5, bytes, 4096);
    weft_buffer_clear(&out);
    must(weft_trace_get_blob(t, big, &out, &err), &err);
    assert_int_equal(out.size, N);
    for (int i = 0; i < N; i++)
        if (out.data[i] != (char)((int64_t)i * i >> 5)) fail_msg("byte %d", i);
    weft_buffer_clear(&out);
    must(weft_trace_get_blob(t, empty, &out, &err), &err);
    assert_int_equal(out.size, 0);
    want[0] ^= 1;
    assert_int_equal(weft_trace_get_blob(t, want, &out, &err), WEFT_E_NOT_FOUND);
    assert_int_equal(weft_trace_put_blob(t, "x", 1, want, &err), WEFT_E_STORAGE);
    must(weft_trace_close(t, &err), &err);

    /* another blob's content under this name; not zstd; a frame that claims 2^60 bytes; redacted */
    static const struct {
        const char *sql;
        weft_status status;
    } damage[] = {
        {"UPDATE blob SET z = (SELECT z FROM blob ORDER BY length(z) LIMIT 1)", WEFT_E_VERIFY},
        {"UPDATE blob SET z = x'00010203'", WEFT_E_VERIFY},
        {"UPDATE blob SET z = x'28b52ffde00000000000000010010000'", WEFT_E_VERIFY},
        {"UPDATE blob SET z = x''", WEFT_E_VERIFY},
        {"UPDATE blob SET z = NULL", WEFT_E_NOT_FOUND},
    };
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        assert_int_equal(raw_sql(*state, damage[i].sql), SQLITE_OK);
        must(weft_trace_open(&t, *state, false, &err), &err);
        assert_int_equal(weft_trace_get_blob(t, big, &out, &err), damage[i].status);
        assert_int_equal(out.size, 0);
        must(weft_trace_close(t, &err), &err);
    }
    weft_buffer_free(&out);
    free(bytes);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, scratch_make, scratch_remove)
    const struct CMUnitTest tests[] = {
        T(format_is_recomputed_by_a_stranger),
        T(run_ids_are_checked),
        T(create_refuses_an_existing_trace),
        T(bad_arguments_change_nothing),
        T(tap_sees_each_event_as_stored),
        T(triggers_refuse_change),
        T(redacted_events_are_tolerated),
        T(tampering_is_found_where_it_was_done),
        T(a_header_changed_in_its_prev_alone_is_named),
        T(a_writer_refuses_a_damaged_end),
        T(foreign_schemas_are_refused),
        T(each_starts_and_stops_where_asked),
        T(blobs_come_back_or_say_why_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
