/* What a call gives and gets: streams, environment, workspace, binds, kinds of calls. */
#include "tests/sandbox/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static weft_status run(fixture *f, const weft_sandbox_request *request, weft_error *err)
{
    weft_sandbox_result r = {0};
    weft_status status = weft_sandbox_run(f->launcher, request, NULL, &r, err);
    if (status == WEFT_OK) weft_sandbox_result_free(&r);
    return status;
}

/* --- ends and streams ------------------------------------------------------------------------- */

static void exit_status_and_signal_are_reported(void **state)
{
    fixture *f = *state;
    prepared p;
    prepare_shell(&p, "echo out; echo err >&2; exit 7");
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_int_equal(r.exit_status, 7);
    assert_int_equal(r.signal, 0);
    assert_int_equal(r.hit, WEFT_HIT_NONE);
    assert_string_equal(r.out.kept, "out\n");
    assert_string_equal(r.err.kept, "err\n");
    assert_int_equal(r.out.cut, 0);
    assert_int_equal(r.out.cut_at, 4);
    assert_string_equal(r.denials, "[]");
    assert_true(r.wall_ns > 0 && r.cpu_ns > 0 && r.peak_bytes > 0);
    weft_sandbox_result_free(&r);
    prepare_shell(&p, "kill -TERM $$");
    r = run_ok(f, &p.request);
    assert_int_equal(r.exit_status, -1);
    assert_int_equal(r.signal, SIGTERM);
    weft_sandbox_result_free(&r);
}

static void missing_programs_are_told_apart(void **state)
{
    fixture *f = *state;
    weft_error err = {0};
    const char *absent[] = {"no-such-program", NULL}, *path[] = {"/no/such", NULL};
    const char *text[] = {"/etc/passwd", NULL}, *nothing[] = {NULL};
    assert_int_equal(run(f, &(weft_sandbox_request){.argv = absent}, &err), WEFT_E_NOT_FOUND);
    assert_non_null(strstr(err.message, "no-such-program"));
    assert_int_equal(run(f, &(weft_sandbox_request){.argv = path}, &err), WEFT_E_NOT_FOUND);
    assert_int_equal(run(f, &(weft_sandbox_request){.argv = text}, &err), WEFT_E_INVALID);
    assert_int_equal(run(f, &(weft_sandbox_request){.argv = nothing}, &err), WEFT_E_USAGE);
    const char *pwd[] = {"pwd", NULL};
    assert_int_equal(run(f, &(weft_sandbox_request){.argv = pwd, .cwd = "/no"}, &err),
                     WEFT_E_CONFIG);
}

static void standard_input_is_delivered(void **state)
{
    fixture *f = *state;
    enum { BYTES = 3 << 20 };
    prepared p;
    uint8_t digest[WEFT_DIGEST_BYTES];
    char *text = malloc(BYTES);
    assert_non_null(text);
    for (int i = 0; i < BYTES; i++) text[i] = (char)(i * 7 + i / 256);
    weft_sha256_of(text, BYTES, digest);
    prepare_shell(&p, "cat");
    p.request.stdin_bytes = text;
    p.request.stdin_size = BYTES;
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_int_equal(r.out.total, BYTES);
    assert_memory_equal(r.out.sha256, digest, sizeof digest);
    weft_sandbox_result_free(&r);
    /* Nobody reads it: no signal, no error. */
    prepare_shell(&p, "exec 0<&-; echo ok");
    p.request.stdin_bytes = text;
    p.request.stdin_size = BYTES;
    r = run_ok(f, &p.request);
    assert_string_equal(r.out.kept, "ok\n");
    weft_sandbox_result_free(&r);
    /* Empty, and none. */
    prepare_shell(&p, "wc -c");
    p.request.stdin_bytes = text;
    r = run_ok(f, &p.request);
    assert_string_equal(r.out.kept, "0\n");
    weft_sandbox_result_free(&r);
    free(text);
    assert_shell(f, "wc -c; readlink /proc/self/fd/0", "0\n/dev/null\n");
}

static void bytes_pass_as_they_are(void **state)
{
    fixture *f = *state;
    prepared p;
    prepare_shell(&p, "printf '\\377\\000\\033]0;x\\007<|im_end|>'");
    weft_sandbox_result r = run_ok(f, &p.request);
    static const char expected[] = "\377\000\033]0;x\007<|im_end|>";
    assert_int_equal(r.out.n_kept, sizeof expected - 1);
    assert_memory_equal(r.out.kept, expected, sizeof expected - 1);
    weft_sandbox_result_free(&r);
    assert_shell(f, "echo a > /dev/stdout; echo b > /dev/stderr; echo c >/proc/self/fd/1",
                 "a\nc\n");
}

static void the_environment_is_fixed(void **state)
{
    fixture *f = *state;
    prepared p;
    const char *added[] = {"EXTRA=1", "TZ=Europe/Berlin", NULL};
    setenv("WEFT_API_KEY", "secret", 1);
    assert_shell(f, "env | sort | grep -v '^PWD\\|^_=\\|^SHLVL\\|^OLDPWD'",
                 "HOME=/tmp\nLANG=C.UTF-8\nLC_ALL=C.UTF-8\nLOGNAME=weft\nPATH=/usr/bin:/bin\n"
                 "SHELL=/bin/sh\nTERM=dumb\nTMPDIR=/tmp\nTZ=UTC\nUSER=weft\n");
    prepare_shell(&p, "echo $EXTRA $TZ $WEFT_API_KEY; env | grep -c ^TZ=");
    p.request.env = added;
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_string_equal(r.out.kept, "1 Europe/Berlin\n1\n");
    weft_sandbox_result_free(&r);
}

/* --- workspace and binds ---------------------------------------------------------------------- */

static void the_workspace_lasts_and_is_private(void **state)
{
    fixture *f = *state;
    prepared p;
    char path[128];
    struct stat st;
    /* f->dir is 0700 and, as root, root's: the workload's id could not walk there. */
    for (int i = 0; i < 6; i++) { /* through several workers */
        prepare_shell(&p, "echo x >> log; wc -l < log; pwd");
        p.request.workdir = f->work;
        weft_sandbox_result r = run_ok(f, &p.request);
        char expected[32];
        snprintf(expected, sizeof expected, "%d\n/work\n", i + 1);
        assert_string_equal(r.out.kept, expected);
        weft_sandbox_result_free(&r);
    }
    assert_int_equal(stat(f->work, &st), 0);
    assert_int_equal(st.st_uid, weft_sandbox_uid());
    snprintf(path, sizeof path, "%s/log", f->work);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(unlink(path), 0);
    /* Without one, nothing lasts. */
    assert_shell(f, "ls -A /work /tmp; echo x > /tmp/a; echo x > /work/a", "/tmp:\n\n/work:\n");
    assert_shell(f, "ls -A /work /tmp", "/tmp:\n\n/work:\n");
}

static void a_readonly_workspace_is_not_touched(void **state)
{
    fixture *f = *state;
    prepared p;
    char readonly[96], path[128];
    struct stat before, after;
    snprintf(readonly, sizeof readonly, "%s/ro", f->dir);
    snprintf(path, sizeof path, "%s/file", readonly);
    assert_int_equal(mkdir(readonly, 0755), 0);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0 && write(fd, "given", 5) == 5);
    close(fd);
    assert_int_equal(stat(readonly, &before), 0);
    prepare_shell(&p, "cat file; touch new 2>/dev/null || echo -denied; chmod 777 . 2>/dev/null || "
                      "echo -denied");
    p.request.workdir = readonly;
    p.request.workdir_readonly = true;
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_string_equal(r.out.kept, "given-denied\n-denied\n");
    weft_sandbox_result_free(&r);
    assert_int_equal(stat(readonly, &after), 0);
    assert_int_equal(before.st_uid, after.st_uid);
}

static void only_the_workspace_itself_is_given_away(void **state)
{
    fixture *f = *state;
    prepared p;
    weft_error err = {0};
    char work[96], path[128];
    struct stat st;
    if (geteuid() != 0) skip();
    snprintf(work, sizeof work, "%s/given", f->dir);
    snprintf(path, sizeof path, "%s/mine", work);
    assert_int_equal(mkdir(work, 0700), 0);
    close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    prepare_shell(&p, "cat mine 2>/dev/null || echo denied");
    p.request.workdir = work;
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_string_equal(r.out.kept, "denied\n");
    weft_sandbox_result_free(&r);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, 0);
    /* Somebody's directory, and one of the system's. */
    assert_int_equal(chown(work, 12345, 12345), 0);
    assert_int_equal(run(f, &p.request, &err), WEFT_E_CONFIG);
    assert_non_null(strstr(err.message, "uid 12345"));
    p.request.workdir = "/etc";
    assert_int_equal(run(f, &p.request, &err), WEFT_E_CONFIG);
    assert_int_equal(stat("/etc", &st), 0);
    assert_int_equal(st.st_uid, 0);
}

static void traps_left_behind_are_harmless(void **state)
{
    fixture *f = *state;
    prepared p;
    char path[128];
    struct stat st;
    prepare_probe(&p, "traps", NULL);
    p.request.workdir = f->work;
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_int_equal(r.exit_status, 0); /* no fifo, device or set-id file could be made */
    weft_sandbox_result_free(&r);
    snprintf(path, sizeof path, "%s/link", f->work);
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISLNK(st.st_mode)); /* it can: whoever collects must not follow it */
    /* Inside, the link leads to the sandbox's own file; and the next call still starts. */
    prepare_shell(&p, "grep -c weft link; ls up | grep -c work; rm -r link up dir");
    p.request.workdir = f->work;
    r = run_ok(f, &p.request);
    assert_string_equal(r.out.kept, "1\n1\n");
    weft_sandbox_result_free(&r);
}

/* A workload replaces its workspace's content between calls; the mount is of the directory given. */
static void a_workspace_that_is_a_link_is_followed_once(void **state)
{
    fixture *f = *state;
    prepared p;
    char link[96];
    snprintf(link, sizeof link, "%s/link-to-work", f->dir);
    assert_int_equal(symlink(f->work, link), 0);
    prepare_shell(&p, "echo through > f; cat f; rm f");
    p.request.workdir = link;
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_string_equal(r.out.kept, "through\n");
    weft_sandbox_result_free(&r);
}

static void binds_show_what_was_asked(void **state)
{
    fixture *f = *state;
    prepared p;
    char tool[96], file[112], shared[96];
    snprintf(tool, sizeof tool, "%s/tool", f->dir);
    snprintf(file, sizeof file, "%s/run.sh", tool);
    snprintf(shared, sizeof shared, "%s/shared", f->dir);
    assert_int_equal(mkdir(tool, 0755), 0);
    assert_int_equal(mkdir(shared, 0700), 0);
    if (geteuid() == 0) assert_int_equal(chown(shared, weft_sandbox_uid(), weft_sandbox_uid()), 0);
    int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    const char script[] = "#!/bin/sh\necho tool\n";
    assert_true(fd >= 0 && write(fd, script, sizeof script - 1) == sizeof script - 1);
    close(fd);
    const weft_sandbox_bind binds[] = {
        {tool, "/tool", false}, {shared, "/deep/down/shared", true}, {file, "/etc/one.sh", false}};
    prepare_shell(&p, "/tool/run.sh; cat /etc/one.sh | head -1; echo new > /deep/down/shared/made; "
                      "touch /tool/x 2>/dev/null || echo denied; "
                      "echo x 2>/dev/null > /etc/one.sh || echo denied; touch /x 2>/dev/null || "
                      "echo denied");
    p.request.binds = binds;
    p.request.n_binds = 3;
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_string_equal(r.out.kept, "tool\n#!/bin/sh\ndenied\ndenied\ndenied\n");
    weft_sandbox_result_free(&r);
}

static void binds_cannot_cover_the_system(void **state)
{
    fixture *f = *state;
    weft_error err = {0};
    static const char *const forbidden[] = {
        "/",    "/usr", "/usr/x",  "/work", "/work/x", "/proc/x", "/dev", "/tmp",
        "/etc", "tool", "/a/../b", "/a/.",  "/a//b",   "/lib/x",  "/bin", ""};
    for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++) {
        prepared p;
        weft_sandbox_bind bind = {f->dir, forbidden[i], false};
        prepare_shell(&p, "true");
        p.request.binds = &bind;
        p.request.n_binds = 1;
        if (run(f, &p.request, &err) != WEFT_E_USAGE) fail_msg("bind at %s", forbidden[i]);
    }
    prepared p;
    weft_sandbox_bind bind = {"/no/such/place", "/tool", false};
    prepare_shell(&p, "true");
    p.request.binds = &bind;
    p.request.n_binds = 1;
    assert_int_equal(run(f, &p.request, &err), WEFT_E_CONFIG);
    assert_non_null(strstr(err.message, "/no/such/place"));
}

/* --- kinds of calls --------------------------------------------------------------------------- */

static void the_broker_has_the_network_and_nothing_else(void **state)
{
    fixture *f = *state;
    prepared p;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof in;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(listen(listener, 4), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&in, &n), 0);
    char script[400];
    snprintf(script, sizeof script,
             "bash -c 'exec 3<>/dev/tcp/127.0.0.1/%d && echo connected'; "
             "test -e /etc/hosts && echo hosts; ls -A /work; "
             "python3 -c 'import socket as s\n"
             "for f in s.AF_UNIX, s.AF_NETLINK, s.AF_PACKET:\n"
             " try: s.socket(f, s.SOCK_DGRAM); print(\"open\", f)\n"
             " except OSError: pass\n"
             "s.socketpair(); print(s.getaddrinfo(\"127.0.0.1\", 80)[0][4])'",
             ntohs(in.sin_port));
    prepare_shell(&p, script);
    p.request.network = true;
    weft_sandbox_result r = run_ok(f, &p.request);
    if (strcmp(r.err.kept, "") != 0) print_error("%s\n", r.err.kept);
    assert_string_equal(r.out.kept, "connected\nhosts\n('127.0.0.1', 80)\n");
    assert_non_null(strstr(r.layers, "\"net_ns\":false"));
    weft_sandbox_result_free(&r);
    close(listener);
}

static void strict_only_computes(void **state)
{
    fixture *f = *state;
    weft_error err = {0};
    prepared p;
    prepare_shell(&p, "echo $((6 * 7)); (echo fork) || echo no fork");
    p.request.strict = true;
    weft_sandbox_result r = run_ok(f, &p.request);
    assert_string_equal(r.out.kept, "42\n");
    weft_sandbox_result_free(&r);
    prepare_shell(&p, "exec ls /");
    p.request.strict = true;
    r = run_ok(f, &p.request);
    assert_int_not_equal(r.exit_status, 0);
    assert_string_equal(r.out.kept, "");
    assert_non_null(strstr(r.denials, "execve"));
    weft_sandbox_result_free(&r);
    /* Files: the tmpfs only, not even the names of the system's. */
    prepare_shell(&p, "echo a > /tmp/f; read x < /tmp/f; echo $x; echo /usr/* /etc/* /proc/*; "
                      "read y < /usr/share/dict/none; : > /usr/x");
    p.request.strict = true;
    r = run_ok(f, &p.request);
    assert_string_equal(r.out.kept, "a\n/usr/* /etc/* /proc/*\n");
    assert_non_null(strstr(r.layers, "\"proc\":false"));
    weft_sandbox_result_free(&r);
    /* A helper of the host, bound in, loads its libraries from /usr. */
    prepare_probe(&p, "list", NULL);
    p.request.strict = true;
    r = run_ok(f, &p.request);
    assert_int_equal(r.exit_status, 0);
    assert_null(strstr(r.out.kept, "reached"));
    weft_sandbox_result_free(&r);
    prepare_shell(&p, "true");
    p.request.strict = true;
    p.request.workdir = f->work;
    assert_int_equal(run(f, &p.request, &err), WEFT_E_USAGE);
}

static void ordinary_tools_work(void **state)
{
    fixture *f = *state;
    assert_shell(f,
                 "cat > t.py <<'X'\n"
                 "import threading, subprocess, multiprocessing, sqlite3, asyncio, tempfile, os\n"
                 "def square(x): return x * x\n"
                 "if __name__ == '__main__':\n"
                 "    t = threading.Thread(target=lambda: print('thread')); t.start(); t.join()\n"
                 "    print(subprocess.check_output(['echo', 'child']).decode().strip())\n"
                 "    with multiprocessing.Pool(2) as p: print(p.map(square, [1, 2, 3]))\n"
                 "    db = sqlite3.connect('a.db'); db.execute('create table t(x)'); db.commit()\n"
                 "    async def main():\n"
                 "        p = await asyncio.create_subprocess_exec('true'); print(await p.wait())\n"
                 "    asyncio.run(main())\n"
                 "    with tempfile.TemporaryDirectory() as d: print(os.path.dirname(d))\n"
                 "X\n"
                 "python3 t.py",
                 "thread\nchild\n[1, 4, 9]\n0\n/tmp\n");
    assert_shell(f,
                 "printf '#include <stdio.h>\\nint main(void){puts(\"built\");}\\n' > a.c; "
                 "printf 'a: a.c\\n\\tcc -O2 -o a a.c\\n' > Makefile; make -s -j2 && ./a; "
                 "bash -c 'cat <(echo sub)'; perl -e 'print 6*7, \"\\n\"'",
                 "built\nsub\n42\n");
}

int main(int argc, char **argv)
{
    (void)argc;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_status_and_signal_are_reported),
        cmocka_unit_test(missing_programs_are_told_apart),
        cmocka_unit_test(standard_input_is_delivered),
        cmocka_unit_test(bytes_pass_as_they_are),
        cmocka_unit_test(the_environment_is_fixed),
        cmocka_unit_test(the_workspace_lasts_and_is_private),
        cmocka_unit_test(a_readonly_workspace_is_not_touched),
        cmocka_unit_test(only_the_workspace_itself_is_given_away),
        cmocka_unit_test(traps_left_behind_are_harmless),
        cmocka_unit_test(a_workspace_that_is_a_link_is_followed_once),
        cmocka_unit_test(binds_show_what_was_asked),
        cmocka_unit_test(binds_cannot_cover_the_system),
        cmocka_unit_test(the_broker_has_the_network_and_nothing_else),
        cmocka_unit_test(strict_only_computes),
        cmocka_unit_test(ordinary_tools_work),
    };
    int failed = cmocka_run_group_tests(tests, fixture_open, fixture_close);
    return failed + again_as_user(argv);
}
