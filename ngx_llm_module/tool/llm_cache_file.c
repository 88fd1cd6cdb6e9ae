
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Whose the files are.  What a command is given to read or to write belongs
 * to who calls it; what is in the cache's directory belongs to the directory's
 * owner, who is most often the workers' user.  So root opens the former, and
 * then takes the rights of the latter.
 */


#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "llm_cache.h"


#define LLM_CACHE_PATH   4096
#define LLM_CACHE_SIZE   (1024 * 1024 * 1024)  /* as llm_adapter_cache_path */


static int llm_cache_out_file(llm_cache_t *c, const char *name);
static int llm_cache_become(const struct stat *st);
static int llm_cache_wait(pid_t pid);
static void llm_cache_pass_on(int signo);
static int llm_cache_look(llm_cache_t *c, llm_uint_t how);
static void llm_cache_log(void *ctx, llm_uint_t level, int err,
    const char *text);


static volatile sig_atomic_t  llm_cache_child;


int
llm_cache_files(llm_cache_t *c, const char *in, const char *out)
{
    c->in = stdin;
    c->out = stdout;

    if (in && strcmp(in, "-") != 0) {
        c->in = fopen(in, "re");

        if (c->in == NULL) {
            llm_cache_error("\"%s\": %s", in, strerror(errno));
            return LLM_CACHE_ERROR;
        }
    }

    if (out && strcmp(out, "-") != 0) {
        return llm_cache_out_file(c, out);
    }

    return LLM_CACHE_OK;
}


static int
llm_cache_out_file(llm_cache_t *c, const char *name)
{
    int     fd;
    size_t  size;

    size = strlen(name) + sizeof(".tmp");

    c->name = name;
    c->tmp = malloc(size);

    if (c->tmp == NULL) {
        llm_cache_error("no memory");
        return LLM_CACHE_ERROR;
    }

    snprintf(c->tmp, size, "%s.tmp", name);

    /* not into what somebody has put there */

    unlink(c->tmp);

    fd = open(c->tmp, O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600);

    if (fd != -1) {
        c->out = fdopen(fd, "w");
    }

    if (fd == -1 || c->out == NULL) {
        llm_cache_error("\"%s\": %s", c->tmp, strerror(errno));

        free(c->tmp);
        c->tmp = NULL;

        return LLM_CACHE_ERROR;
    }

    return LLM_CACHE_OK;
}


int
llm_cache_drop(llm_cache_t *c, int *waits)
{
    pid_t        pid;
    struct stat  st;

    *waits = 0;

    if (stat(c->dir, &st) != 0) {
        llm_cache_error("the directory \"%s\": %s", c->dir, strerror(errno));
        return LLM_CACHE_ERROR;
    }

    if (!S_ISDIR(st.st_mode)) {
        llm_cache_error("\"%s\" is no directory", c->dir);
        return LLM_CACHE_ERROR;
    }

    umask(077);

    if (geteuid() != 0 || (st.st_uid == 0 && st.st_gid == 0)) {
        return LLM_CACHE_OK;
    }

    if (c->tmp) {

        /* to rename it takes the rights of now */

        pid = fork();

        if (pid == -1) {
            llm_cache_error("fork() failed: %s", strerror(errno));
            return LLM_CACHE_ERROR;
        }

        if (pid) {
            *waits = 1;
            return llm_cache_wait(pid);
        }

        free(c->tmp);
        c->tmp = NULL;
    }

    return llm_cache_become(&st);
}


static int
llm_cache_become(const struct stat *st)
{
    gid_t  gid;

    gid = st->st_gid;

    if (setgroups(1, &gid) != 0 || setgid(gid) != 0
        || setuid(st->st_uid) != 0)
    {
        llm_cache_error("taking the rights of the directory's owner failed: "
                        "%s", strerror(errno));
        return LLM_CACHE_ERROR;
    }

    return LLM_CACHE_OK;
}


static int
llm_cache_wait(pid_t pid)
{
    int               i, status;
    struct sigaction  sa;
    static const int  signals[] = { SIGINT, SIGTERM, SIGHUP };

    llm_cache_child = pid;

    memset(&sa, 0, sizeof(struct sigaction));
    sa.sa_handler = llm_cache_pass_on;
    sigemptyset(&sa.sa_mask);

    for (i = 0; i < 3; i++) {
        sigaction(signals[i], &sa, NULL);
    }

    if (llm_cache_signal) {
        kill(pid, llm_cache_signal);
    }

    while (waitpid(pid, &status, 0) == -1) {
        if (errno != EINTR) {
            llm_cache_error("waitpid() failed: %s", strerror(errno));
            return LLM_CACHE_ERROR;
        }
    }

    return WIFEXITED(status) ? WEXITSTATUS(status)
                             : 128 + WTERMSIG(status);
}


static void
llm_cache_pass_on(int signo)
{
    kill(llm_cache_child, signo);
}


int
llm_cache_files_end(llm_cache_t *c, int code)
{
    if (fflush(c->out) != 0 || ferror(c->out)) {

        if (code == LLM_CACHE_OK) {
            llm_cache_error("writing failed: %m");
            code = LLM_CACHE_ERROR;
        }
    }

    if (c->tmp == NULL) {
        return code;
    }

    if (code == LLM_CACHE_OK
        && (fsync(fileno(c->out)) != 0 || rename(c->tmp, c->name) != 0))
    {
        llm_cache_error("\"%s\": %s", c->name, strerror(errno));
        code = LLM_CACHE_ERROR;
    }

    if (code != LLM_CACHE_OK) {
        unlink(c->tmp);
    }

    fclose(c->out);
    free(c->tmp);

    c->out = NULL;
    c->tmp = NULL;

    return code;
}


int
llm_cache_open(llm_cache_t *c, llm_uint_t how)
{
    if (llm_cache_look(c, how) != LLM_CACHE_OK) {
        return LLM_CACHE_ERROR;
    }

    c->conf.path = c->dir;
    c->conf.shared = &c->shared;
    c->conf.log = llm_cache_log;
    c->conf.readonly = (how == LLM_CACHE_READ);

    c->store = llm_store_create(&c->conf);

    if (c->store == NULL) {
        llm_cache_error("no memory");
        return LLM_CACHE_ERROR;
    }

    /* why not has been said by the log */

    if (llm_store_open(c->store) != LLM_OK) {
        llm_store_free(c->store);
        c->store = NULL;
        return LLM_CACHE_ERROR;
    }

    return LLM_CACHE_OK;
}


static int
llm_cache_look(llm_cache_t *c, llm_uint_t how)
{
    int                fd, n, err;
    char               path[LLM_CACHE_PATH];

    c->conf.size = c->size;

    n = snprintf(path, sizeof(path), "%s/data.mdb", c->dir);

    if (n >= (int) sizeof(path)) {
        llm_cache_error("the path \"%s\" is too long", c->dir);
        return LLM_CACHE_ERROR;
    }

    fd = open(path, O_RDONLY|O_CLOEXEC);

    if (fd == -1) {
        err = errno;

        if (err == ENOENT && how == LLM_CACHE_CREATE) {
            c->conf.size = c->size ? c->size : LLM_CACHE_SIZE;
            return LLM_CACHE_OK;
        }

        if (err == ENOENT) {
            llm_cache_error("there is no cache in \"%s\"", c->dir);

        } else {
            llm_cache_error("\"%s\": %s", path, strerror(err));
        }

        return LLM_CACHE_ERROR;
    }

    close(fd);

    return LLM_CACHE_OK;
}


void
llm_cache_close(llm_cache_t *c)
{
    if (c->store) {
        llm_store_close(c->store);
        llm_store_free(c->store);
        c->store = NULL;
    }
}


static void
llm_cache_log(void *ctx, llm_uint_t level, int err, const char *text)
{
    (void) ctx;

    if (level > LLM_LOG_WARN) {
        return;
    }

    if (err) {
        llm_cache_error("%s: %s", text, strerror(err));

    } else {
        llm_cache_error("%s", text);
    }
}
