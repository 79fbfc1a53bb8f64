/* Starts server.py for a test program; it ends with the program, whose end of the pipe closes. */
#ifndef WEFT_TESTS_TOOLS_SERVER_H
#define WEFT_TESTS_TOOLS_SERVER_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct test_server {
    pid_t pid;
    int input, port;
    char base[64]; /* "http://127.0.0.1:PORT" */
} test_server;

/* False if it could not be started. */
static inline bool server_start(test_server *s)
{
    int in[2], out[2];
    char line[32] = "";
    if (pipe(in) != 0 || pipe(out) != 0) return false;
    s->pid = fork();
    if (s->pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        for (int fd = 3; fd < 64; fd++) close(fd);
        execlp("python3", "python3", getenv("WEFT_TEST_SERVER"), (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    FILE *f = fdopen(out[0], "r");
    bool ok = s->pid > 0 && f && fgets(line, sizeof line, f) && (s->port = atoi(line)) > 0;
    if (f) fclose(f);
    s->input = in[1];
    snprintf(s->base, sizeof s->base, "http://127.0.0.1:%d", s->port);
    return ok;
}

static inline void server_stop(test_server *s)
{
    close(s->input);
    waitpid(s->pid, NULL, 0);
}

#endif
