/* What the sandbox tests share: a scratch directory, a launcher, short ways to run a program. */
#ifndef WEFT_TESTS_SANDBOX_HARNESS_H
#define WEFT_TESTS_SANDBOX_HARNESS_H

#include "sandbox/sandbox.h"

#include <sys/types.h>

typedef struct fixture {
    char dir[64];   /* scratch, mode 0700 */
    char work[80];  /* a workspace below it */
    char token[16]; /* a process name nobody else has */
    weft_launcher *launcher;
} fixture;

/* cmocka group set-up and tear-down; the launcher is started by the first. */
int fixture_open(void **state);
int fixture_close(void **state);

/* A request for the probe program (bound at /probe) with up to three arguments, NULL-terminated. */
typedef struct prepared {
    weft_sandbox_request request;
    const char *argv[24];
    weft_sandbox_bind bind;
} prepared;
void prepare_probe(prepared *p, const char *mode, const char *argument);
/* A request for `sh -c script`. */
void prepare_shell(prepared *p, const char *script);

/* Runs it and asserts WEFT_OK. The caller frees the result. */
weft_sandbox_result run_ok(fixture *f, const weft_sandbox_request *request);
/* Runs `sh -c script` with defaults and asserts its standard output. */
void assert_shell(fixture *f, const char *script, const char *output);

/* Path of the probe program, from the environment. */
const char *probe_path(void);
/* Number of processes on the host named `token`; zombies do not count. */
int survivors(const char *token);
/* True if survivors() becomes 0 soon. */
bool all_gone(const char *token);
/* The processes behind the daemon `token`: its parent is init, whose parent is the worker. */
pid_t init_of(const char *token);
pid_t worker_of(const char *token);
/* The launcher's pid: the only child of this process of that name. */
pid_t launcher_pid(void);

/* Moves this process into a user namespace (and others by flags) where it is root, mapped to itself. */
bool user_namespace_enter(int flags);
/* Becomes an ordinary user for good. */
bool become_ordinary(void);
/* If run as root: runs the program again as an ordinary user and returns its failures. */
int again_as_user(char **argv);

#endif
