/* Where runs live: $WEFT_HOME/runs/<id>. The list of runs is that directory; ids begin with the
 * time, so the newest run is the last by name among those that weft named, and by modification time
 * in general. */
#include "agent/commands.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

weft_status print_json(cJSON *value, weft_error *err)
{
    weft_buffer text = WEFT_BUFFER_INIT;
    if (value) weft_json_compact(value, &text);
    weft_status status =
        value ? weft_buffer_ok(&text, err) : weft_fail(err, WEFT_E_MEMORY, "out of memory");
    if (!status) printf("%s\n", weft_buffer_str(&text));
    weft_buffer_free(&text);
    cJSON_Delete(value);
    return status;
}

weft_status runs_dir(char **out, weft_error *err)
{
    char *home = weft_home();
    if (!home) return weft_fail(err, WEFT_E_CONFIG, "no directory for runs: set WEFT_HOME or HOME");
    char *dir = weft_path_join(home, "runs");
    free(home);
    if (!dir) return weft_fail(err, WEFT_E_MEMORY, "out of memory");
    *out = dir;
    return WEFT_OK;
}

static char *newest_run(const char *dir)
{
    DIR *d = opendir(dir);
    char *best = NULL;
    struct timespec best_time = {0, 0};
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        char *run = e->d_name[0] == '.' ? NULL : weft_path_join(dir, e->d_name);
        char *db = run ? weft_path_join(run, "trace.db") : NULL;
        if (db && stat(db, &st) == 0 && stat(run, &st) == 0 &&
            (st.st_mtim.tv_sec > best_time.tv_sec ||
             (st.st_mtim.tv_sec == best_time.tv_sec && st.st_mtim.tv_nsec > best_time.tv_nsec))) {
            best_time = st.st_mtim;
            free(best);
            best = run;
            run = NULL;
        }
        free(db);
        free(run);
    }
    if (d) closedir(d);
    return best;
}

weft_status find_run(const char *name, bool last, char **out, weft_error *err)
{
    char *dir = NULL, *run = NULL;
    weft_status status = runs_dir(&dir, err);
    if (status) return status;
    if (last || !name) {
        run = last ? newest_run(dir) : NULL;
        if (!run)
            status =
                last ? weft_fail(err, WEFT_E_NOT_FOUND,
                                 "there is no run in %s yet: begin with weft run", dir)
                     : weft_fail(err, WEFT_E_USAGE, "name a run, or --last: see weft trace list");
    } else {
        /* an id first: a file of that name in the current directory must not hide a run */
        run = weft_path_join(dir, name);
        if (run && (strchr(name, '/') || !weft_file_exists(run))) {
            free(run);
            run = strdup(name);
        }
        if (!run)
            status = weft_fail(err, WEFT_E_MEMORY, "out of memory");
        else if (!weft_file_exists(run))
            status = weft_fail(err, WEFT_E_NOT_FOUND, "there is no run \"%s\": see weft trace list",
                               name);
    }
    free(dir);
    if (status)
        free(run);
    else
        *out = run;
    return status;
}
