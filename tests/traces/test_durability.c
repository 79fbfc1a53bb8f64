/* What survives: kill -9, a second writer, a reader beside the writer, a full disk, injected
 * faults.
 *
 * The program runs itself as the writer to be killed: `test_durability write DIR` appends for ever
 * and prints the number of each event that weft_trace_append promised to be durable.
 */
#include "tests/traces/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* ---- syncs, counted: these stand before libc's for SQLite too ---- */

static int syncs, dirs_synced;
static ino_t dir_synced[64]; /* inodes of the last of them */

int fsync(int fd)
{
    struct stat st;
    syncs++;
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) dir_synced[dirs_synced++ % 64] = st.st_ino;
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    syncs++;
    return (int)syscall(SYS_fdatasync, fd);
}

static bool directory_was_synced(const char *path)
{
    struct stat st;
    bool found = false;
    assert_int_equal(stat(path, &st), 0);
    for (int i = 0; i < 64; i++) found |= dir_synced[i] == st.st_ino;
    return found;
}

static void durable_means_synced(void **state)
{
    weft_trace *t = NULL;
    weft_error err;
    uint8_t digest[WEFT_DIGEST_BYTES];
    char dir[512];
    snprintf(dir, sizeof dir, "%s/run", (const char *)*state);
    syncs = 0;
    must(weft_trace_create(&t, dir, "sync", &err), &err);
    assert_true(syncs > dirs_synced);
    assert_true(directory_was_synced(dir));    /* for the name of the file in it */
    assert_true(directory_was_synced(*state)); /* and for its own */
    for (int i = 0; i < 5; i++) {
        syncs = 0;
        must(append_text(t, "turn", "", "{}", WEFT_DURABLE, &err), &err);
        assert_true(syncs >= 1);
        syncs = 0;
        must(append_text(t, "turn", "", "{}", WEFT_BATCHED, &err), &err);
        assert_int_equal(syncs, 0);
    }
    must(weft_trace_put_blob(t, "bytes", 5, digest, &err), &err);
    syncs = 0;
    must(append_text(t, "turn", "", "{}", WEFT_BATCHED, &err), &err);
    assert_true(syncs >= 1);
    syncs = 0;
    sleep(1); /* the first event after a second is synced, whatever its kind */
    must(append_text(t, "turn", "", "{}", WEFT_BATCHED, &err), &err);
    assert_true(syncs >= 1);
    must(append_text(t, "turn", "", "{}", WEFT_BATCHED, &err), &err);
    weft_trace *r = NULL; /* keeps the last close from checkpointing, which would sync as well */
    must(weft_trace_open(&r, dir, false, &err), &err);
    syncs = 0;
    must(weft_trace_close(t, &err), &err);
    assert_true(syncs >= 1);
    must(weft_trace_close(r, &err), &err);
}

/* ---- the writer process ---- */

static int write_for_ever(const char *dir)
{
    weft_trace *t = NULL;
    weft_error err = {0};
    uint8_t digest[WEFT_DIGEST_BYTES];
    char path[512];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(path, sizeof path, "%s/trace.db", dir);
    weft_status status = weft_file_exists(path) ? weft_trace_open(&t, dir, true, &err)
                                                : weft_trace_create(&t, dir, "killed", &err);
    cJSON *body = json_of("{\"text\":\"some words that take up room in the log\",\"n\":12345}");
    for (int i = 0; !status; i++) {
        bool durable = i % 3 == 0;
        int64_t seq = -1;
        if (i % 7 == 0) status = weft_trace_put_blob(t, dir, strlen(dir), digest, &err);
        if (!status)
            status = weft_trace_append(t, "segment", "s", body,
                                       durable ? WEFT_DURABLE : WEFT_BATCHED, &seq, &err);
        if (!status && durable && write(STDOUT_FILENO, &seq, sizeof seq) != sizeof seq) break;
    }
    fprintf(stderr, "writer: %s\n", err.message);
    return 1;
}

/* A child running this program with two arguments; its standard output is *out_fd. */
static pid_t start(const char *verb, const char *dir, int *out_fd)
{
    int fd[2];
    char self[512];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = '\0';
    assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fd[1], STDOUT_FILENO);
        execl(self, self, verb, dir, (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    close(fd[1]);
    *out_fd = fd[0];
    return pid;
}

static bool in_order(void *context, const weft_event *event)
{
    int64_t *next = context;
    return event->seq == (*next)++;
}

static void killed_writers_lose_nothing_they_promised(void **state)
{
    int64_t before = 0;
    srand(7);
    for (int round = 0; round < 25; round++) {
        int fd;
        int64_t seq = -1, last = -1;
        pid_t pid = start("write", *state, &fd);
        for (int acks = rand() % 40; acks >= 0; acks--)
            assert_int_equal(read(fd, &seq, sizeof seq), sizeof seq);
        for (volatile int spin = rand() % 100000; spin > 0; spin--) continue;
        kill(pid, SIGKILL);
        while (read(fd, &seq, sizeof seq) == sizeof seq) last = seq; /* promised before it died */
        if (last < 0) last = seq;
        close(fd);
        waitpid(pid, NULL, 0);

        weft_trace *t = NULL;
        weft_error err;
        int64_t next = 0;
        must(weft_trace_open(&t, *state, true, &err),
             &err); /* the dead writer's lock is no obstacle */
        assert_true(weft_trace_size(t) > last);
        assert_true(weft_trace_size(t) > before);
        must(weft_trace_each(t, 0, in_order, &next, &err), &err);
        assert_int_equal(next, weft_trace_size(t));
        must(append_text(t, "resume", "", "{\"why\":\"killed\"}", WEFT_DURABLE, &err), &err);
        before = weft_trace_size(t);
        must(weft_trace_close(t, &err), &err);
    }
}

/* ---- writers and readers ---- */

static void two_writers_are_refused(void **state)
{
    weft_trace *t = NULL, *second = NULL;
    weft_error err;
    char pid_text[32];
    must(weft_trace_create(&t, *state, "one", &err), &err);
    must(append_text(t, "run.begin", "", "{}", WEFT_DURABLE, &err), &err);
    assert_int_equal(weft_trace_open(&second, *state, true, &err), WEFT_E_STORAGE);
    snprintf(pid_text, sizeof pid_text, "in use by pid %ld;", (long)getpid());
    assert_non_null(strstr(err.message, pid_text));
    assert_int_equal(weft_trace_create(&second, *state, "one", &err), WEFT_E_STORAGE);
    assert_null(second);
    must(append_text(t, "turn", "", "{}", WEFT_DURABLE, &err), &err);
    must(weft_trace_close(t, &err), &err);

    int fd; /* and from another process, by its path as well as by its directory */
    int64_t seq;
    pid_t pid = start("write", *state, &fd);
    assert_int_equal(read(fd, &seq, sizeof seq), sizeof seq);
    char path[512];
    snprintf(path, sizeof path, "%s/trace.db", (const char *)*state);
    assert_int_equal(weft_trace_open(&second, path, true, &err), WEFT_E_STORAGE);
    snprintf(pid_text, sizeof pid_text, "in use by pid %ld;", (long)pid);
    assert_non_null(strstr(err.message, pid_text));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(fd);
    must(weft_trace_open(&second, *state, true, &err), &err);
    must(weft_trace_close(second, &err), &err);
}

static void a_reader_follows_the_writer(void **state)
{
    weft_trace *w = NULL, *r = NULL;
    weft_error err;
    must(weft_trace_create(&w, *state, "pair", &err), &err);
    must(weft_trace_open(&r, *state, false, &err), &err); /* no event yet */
    assert_int_equal(weft_trace_size(r), 0);
    assert_string_equal(weft_trace_run_id(r), "");
    must(weft_trace_close(r, &err), &err);
    must(append_text(w, "run.begin", "", "{}", WEFT_BATCHED, &err), &err);
    must(weft_trace_open(&r, *state, false, &err), &err);
    for (int i = 1; i < 3000; i++) { /* past several checkpoints of the WAL */
        int64_t next = i;
        uint8_t a[WEFT_DIGEST_BYTES], b[WEFT_DIGEST_BYTES];
        must(append_text(w, "turn", "", "{\"text\":\"words\"}", WEFT_BATCHED, &err), &err);
        if (i % 10) continue;
        must(weft_trace_each(r, i - 9, in_order, &(int64_t){i - 9}, &err), &err);
        must(weft_trace_each(r, next, in_order, &next, &err), &err);
        assert_int_equal(next, i + 1); /* the batched event is there at once */
        assert_int_equal(weft_trace_size(r), weft_trace_size(w));
        weft_trace_head(w, a);
        weft_trace_head(r, b);
        assert_memory_equal(a, b, sizeof a);
    }
    must(weft_trace_close(w, &err), &err); /* the writer goes first */
    must(weft_trace_each(r, 0, in_order, &(int64_t){0}, &err), &err);
    must(weft_trace_close(r, &err), &err);
}

enum protection { PROTECTED, STRAY_WAL, WRITABLE_DIRECTORY };

/* In a child without root's powers and with the directory write-protected; 0 if all held. */
static int read_protected(const char *dir, enum protection how)
{
    weft_trace *t = NULL;
    weft_error err = {0};
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) return 2;
    weft_status status = weft_trace_open(&t, dir, false, &err);
    if (how == WRITABLE_DIRECTORY) {
        weft_trace_close(t, NULL);
        status = weft_trace_open(&t, dir, true, &err);
        return status == WEFT_E_STORAGE && strstr(err.message, "write-protected") ? 0 : 7;
    }
    if (how == STRAY_WAL) return status == WEFT_E_STORAGE && strstr(err.message, "-wal") ? 0 : 3;
    if (status) return 4;
    int64_t next = 0;
    status = weft_trace_each(t, 0, in_order, &next, &err);
    weft_trace_close(t, NULL);
    if (status || next != 2) return 5;
    return weft_trace_open(&t, dir, true, NULL) == WEFT_E_STORAGE ? 0 : 6;
}

static int protected_result(const char *dir, enum protection how)
{
    int result = -1;
    pid_t pid = fork();
    if (pid == 0) _exit(read_protected(dir, how));
    assert_true(pid > 0);
    waitpid(pid, &result, 0);
    return WIFEXITED(result) ? WEXITSTATUS(result) : -1;
}

static void a_closed_trace_reads_from_a_protected_directory(void **state)
{
    weft_trace *t = NULL;
    weft_error err;
    char dir[512], file[600];
    assert_int_equal(chmod(*state, 0755), 0);
    snprintf(dir, sizeof dir, "%s/a%%b #c?d", (const char *)*state);
    snprintf(file, sizeof file, "%s/trace.db", dir);
    must(weft_trace_create(&t, dir, "closed", &err), &err);
    must(append_text(t, "run.begin", "", "{}", WEFT_DURABLE, &err), &err);
    must(append_text(t, "run.end", "", "{}", WEFT_DURABLE, &err), &err);
    must(weft_trace_close(t, &err), &err);
    assert_int_equal(chmod(file, 0444), 0);
    assert_int_equal(chmod(dir, 0555), 0);
    assert_int_equal(protected_result(dir, PROTECTED), 0);
    /* a WAL beside it holds events that an immutable open would not see: refused, not skipped */
    assert_int_equal(chmod(dir, 0755), 0);
    snprintf(file, sizeof file, "%s/trace.db-wal", dir);
    assert_int_equal(weft_file_write(file, "some frames", 11, 0600, NULL), WEFT_OK);
    assert_int_equal(chmod(dir, 0555), 0);
    assert_int_equal(protected_result(dir, STRAY_WAL), 0);
    assert_int_equal(chmod(dir, 0777), 0);
    assert_int_equal(unlink(file), 0);
    snprintf(file, sizeof file, "%s/trace.lock", dir);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(protected_result(dir, WRITABLE_DIRECTORY), 0);
}

/* ---- failing storage ---- */

/* Appends until it fails, then checks the refusal; returns how many events were promised. */
static int64_t fill(const char *dir, const char **out_reason)
{
    static weft_error err;
    weft_trace *t = NULL;
    must(weft_trace_create(&t, dir, "full", &err), &err);
    weft_status status = WEFT_OK;
    for (int i = 0; !status && i < 100000; i++)
        status = append_text(t, "segment", "", "{\"text\":\"words words words words words words\"}",
                             i % 4 ? WEFT_BATCHED : WEFT_DURABLE, &err);
    assert_int_equal(status, WEFT_E_STORAGE);
    int64_t promised = weft_trace_size(t);
    assert_true(promised > 10);
    weft_error again;
    uint8_t digest[WEFT_DIGEST_BYTES];
    assert_int_equal(append_text(t, "error", "", "{}", WEFT_DURABLE, &again), WEFT_E_STORAGE);
    assert_non_null(strstr(again.message, "refused"));
    assert_int_equal(weft_trace_put_blob(t, "x", 1, digest, &again), WEFT_E_STORAGE);
    weft_trace_close(t, NULL);
    *out_reason = err.message;
    return promised;
}

static void goes_on_once_there_is_room(const char *dir, int64_t promised)
{
    weft_trace *t = NULL;
    weft_error err;
    int64_t next = 0;
    must(weft_trace_open(&t, dir, true, &err), &err);
    assert_true(weft_trace_size(t) >= promised);
    must(weft_trace_each(t, 0, in_order, &next, &err), &err);
    must(append_text(t, "resume", "", "{}", WEFT_DURABLE, &err), &err);
    must(weft_trace_close(t, &err), &err);
}

static void a_file_limit_breaks_the_trace(void **state)
{
    const char *reason;
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    struct rlimit small = {300000, old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int64_t promised = fill(*state, &reason);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_DFL);
    assert_non_null(strstr(reason, "append event"));
    goes_on_once_there_is_room(*state, promised);
}

static void a_full_disk_breaks_the_trace(void **state)
{
    const char *reason;
    int status = 0;
    pid_t pid = fork(); /* the mount lives and dies with the child's name space */
    assert_true(pid >= 0);
    if (pid == 0) {
        if (unshare(CLONE_NEWNS) != 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("tmpfs", *state, "tmpfs", 0, "size=512k") != 0)
            _exit(77);
        int64_t promised = fill(*state, &reason);
        if (!strstr(reason, "free some space")) _exit(3);
        if (mount("tmpfs", *state, "tmpfs", MS_REMOUNT, "size=8m") != 0) _exit(4);
        goes_on_once_there_is_room(*state, promised);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) skip(); /* mounting needs root */
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_file_in_the_way_is_reported(void **state)
{
    weft_trace *t = NULL;
    weft_error err;
    char path[512], target[512];
    snprintf(path, sizeof path, "%s/file", (const char *)*state);
    assert_int_equal(weft_file_write(path, "", 0, 0600, NULL), WEFT_OK);
    assert_int_equal(weft_trace_create(&t, path, "x", &err), WEFT_E_STORAGE);
    snprintf(path, sizeof path, "%s/trace.lock",
             (const char *)*state); /* a planted link is not followed */
    snprintf(target, sizeof target, "%s/target", (const char *)*state);
    assert_int_equal(weft_file_write(target, "precious", 8, 0600, NULL), WEFT_OK);
    assert_int_equal(symlink(target, path), 0);
    assert_int_equal(weft_trace_create(&t, *state, "x", &err), WEFT_E_STORAGE);
    assert_null(t);
    weft_buffer b = WEFT_BUFFER_INIT;
    assert_int_equal(weft_file_read(target, 100, &b, NULL), WEFT_OK);
    assert_string_equal(b.data, "precious");
    weft_buffer_free(&b);
}

#ifdef WEFT_FAULTS
/* ---- injected faults (test builds) ---- */

static void a_failed_append_stops_the_trace(void **state)
{
    static const char *const point[] = {"trace.append:3:fail", "trace.committed:1:fail"};
    /* the counter of passes is one per process: each case in a process of its own */
    for (int i = 0; i < 2; i++) {
        int status = 0;
        char dir[512];
        snprintf(dir, sizeof dir, "%s/%d", (const char *)*state, i);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            weft_trace *t = NULL;
            weft_error err;
            setenv("WEFT_FAULT", point[i], 1);
            must(weft_trace_create(&t, dir, "fault", &err), &err);
            must(append_text(t, "turn", "", "{}", WEFT_BATCHED, &err), &err);
            must(append_text(t, "turn", "", "{}", WEFT_BATCHED, &err), &err);
            if (append_text(t, "tool.call", "", "{}", WEFT_DURABLE, &err) != WEFT_E_STORAGE)
                _exit(3);
            if (append_text(t, "turn", "", "{}", WEFT_BATCHED, &err) != WEFT_E_STORAGE) _exit(4);
            if (weft_trace_size(t) != 2) _exit(5);
            weft_trace_close(t, NULL);
            must(weft_trace_open(&t, dir, true, &err), &err);
            _exit(weft_trace_size(t) == 2 + i ? 0 : 6); /* after the commit, it is in the log */
        }
        waitpid(pid, &status, 0);
        assert_int_equal(status, 0);
    }
}

static void death_at_a_fault_point_keeps_the_promise(void **state)
{
    static const struct {
        const char *point;
        int64_t size;
    } cases[] = {{"trace.append:3", 2}, {"trace.committed:1", 3}};
    for (int i = 0; i < 2; i++) {
        int status = 0;
        char dir[512];
        snprintf(dir, sizeof dir, "%s/%d", (const char *)*state, i);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            weft_trace *t = NULL;
            setenv("WEFT_FAULT", cases[i].point, 1);
            weft_trace_create(&t, dir, "fault", NULL);
            append_text(t, "turn", "", "{}", WEFT_BATCHED, NULL);
            append_text(t, "turn", "", "{}", WEFT_BATCHED, NULL);
            append_text(t, "tool.call", "", "{}", WEFT_DURABLE, NULL);
            _exit(0);
        }
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status));
        weft_trace *t = NULL;
        weft_error err;
        must(weft_trace_open(&t, dir, true, &err), &err);
        assert_int_equal(weft_trace_size(t), cases[i].size);
        must(weft_trace_close(t, &err), &err);
    }
}
#endif

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "write") == 0) return write_for_ever(argv[2]);
#define T(f) cmocka_unit_test_setup_teardown(f, scratch_make, scratch_remove)
    const struct CMUnitTest tests[] = {
        T(durable_means_synced),
        T(killed_writers_lose_nothing_they_promised),
        T(two_writers_are_refused),
        T(a_reader_follows_the_writer),
        T(a_closed_trace_reads_from_a_protected_directory),
        T(a_file_limit_breaks_the_trace),
        T(a_full_disk_breaks_the_trace),
        T(a_file_in_the_way_is_reported),
#ifdef WEFT_FAULTS
        T(a_failed_append_stops_the_trace),
        T(death_at_a_fault_point_keeps_the_promise),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
