
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * The command line: which command, with which options, on which directory,
 * and the end by a signal.
 */


#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "llm_cache.h"


#define LLM_CACHE_TTL  3600


/* options, a bit each */

enum {
    LLM_CACHE_JSON = 0x01,
    LLM_CACHE_TEXT = 0x02,
    LLM_CACHE_MODEL = 0x04,
    LLM_CACHE_SCOPE = 0x08,
    LLM_CACHE_TIME = 0x10,
    LLM_CACHE_ALL = 0x20,
    LLM_CACHE_MAP = 0x40
};


typedef struct {
    const char            *name;
    int                  (*run)(llm_cache_t *c);
    int                    least;      /* of its arguments */
    int                    most;
    int                    options;    /* that it takes */
    llm_uint_t             how;        /* LLM_CACHE_READ, ... */
} llm_cache_command_t;


static int llm_cache_options(llm_cache_t *c, int argc, char **argv,
    int *given);
static int llm_cache_option(llm_cache_t *c, int opt, int *given);
static int llm_cache_unit(const char *text, const char *units,
    const uint64_t *factors, uint64_t *n);
static int llm_cache_run(llm_cache_t *c, const llm_cache_command_t *cmd);
static void llm_cache_signals(void);
static void llm_cache_handler(int signo);
static int llm_cache_usage(FILE *f);


volatile sig_atomic_t  llm_cache_signal;


static const llm_cache_command_t  llm_cache_commands[] = {
    { "stat", llm_cache_stat, 0, 0, LLM_CACHE_JSON, LLM_CACHE_READ },
    { "list", llm_cache_list, 0, 0,
      LLM_CACHE_JSON|LLM_CACHE_MODEL|LLM_CACHE_SCOPE, LLM_CACHE_READ },
    { "get", llm_cache_get, 1, 1, LLM_CACHE_TEXT, LLM_CACHE_READ },
    { "purge", llm_cache_purge, 1, 2, 0, LLM_CACHE_WRITE },
    { "export", llm_cache_export, 0, 1, 0, LLM_CACHE_READ },
    { "import", llm_cache_import, 0, 1,
      LLM_CACHE_TIME|LLM_CACHE_ALL|LLM_CACHE_MAP, LLM_CACHE_CREATE },
    { NULL, NULL, 0, 0, 0, 0 }
};


static const struct option  llm_cache_long[] = {
    { "dir", required_argument, NULL, 'd' },
    { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, 'V' },
    { "json", no_argument, NULL, 'j' },
    { "text", no_argument, NULL, 't' },
    { "model", required_argument, NULL, 'm' },
    { "scope", required_argument, NULL, 's' },
    { "ttl", required_argument, NULL, 'T' },
    { "all", no_argument, NULL, 'a' },
    { "size", required_argument, NULL, 'S' },
    { NULL, 0, NULL, 0 }
};


int
main(int argc, char **argv)
{
    int                         rc, given;
    const char                 *name;
    llm_cache_t                 c;
    const llm_cache_command_t  *cmd;

    memset(&c, 0, sizeof(llm_cache_t));

    c.dir = getenv("LLM_CACHE");
    c.ttl = LLM_CACHE_TTL;

    rc = llm_cache_options(&c, argc, argv, &given);

    if (rc != -1) {
        return rc;
    }

    if (c.nargs == 0) {
        return llm_cache_usage(stderr);
    }

    name = c.args[0];
    c.args++;
    c.nargs--;

    for (cmd = llm_cache_commands; cmd->name; cmd++) {
        if (strcmp(cmd->name, name) == 0) {
            break;
        }
    }

    if (cmd->name == NULL) {
        llm_cache_error("unknown command \"%s\", see --help", name);
        return LLM_CACHE_USAGE;
    }

    if (c.nargs < cmd->least || c.nargs > cmd->most
        || (given & ~cmd->options))
    {
        llm_cache_error("%s for \"%s\", see --help",
                        (given & ~cmd->options) ? "no such option"
                        : c.nargs < cmd->least ? "too few arguments"
                                               : "too many arguments",
                        name);
        return LLM_CACHE_USAGE;
    }

    if (c.dir == NULL || *c.dir == '\0') {
        llm_cache_error("which directory?  Give it by -d or in $LLM_CACHE");
        return LLM_CACHE_USAGE;
    }

    return llm_cache_run(&c, cmd);
}


/* -1: go on, else the exit code */

static int
llm_cache_options(llm_cache_t *c, int argc, char **argv, int *given)
{
    int  opt, rc;

    *given = 0;
    opterr = 0;

    while ((opt = getopt_long(argc, argv, ":d:hV", llm_cache_long, NULL))
           != -1)
    {
        switch (opt) {

        case 'h':
            (void) llm_cache_usage(stdout);
            return LLM_CACHE_OK;

        case 'V':
            printf("llm-cache %s\n", LLM_CACHE_VERSION);
            return LLM_CACHE_OK;

        case ':':
            llm_cache_error("\"%s\" needs a value", argv[optind - 1]);
            return LLM_CACHE_USAGE;

        case '?':
            llm_cache_error("unknown option \"%s\", see --help",
                            argv[optind - 1]);
            return LLM_CACHE_USAGE;
        }

        rc = llm_cache_option(c, opt, given);

        if (rc != LLM_CACHE_OK) {
            return rc;
        }
    }

    c->args = argv + optind;
    c->nargs = argc - optind;

    return -1;
}


static int
llm_cache_option(llm_cache_t *c, int opt, int *given)
{
    static const uint64_t  seconds[] = { 1, 60, 3600, 86400 };
    static const uint64_t  bytes[] = { 1024, 1024 * 1024, 1024 * 1024 * 1024 };

    switch (opt) {

    case 'd':
        c->dir = optarg;
        break;

    case 'j':
        c->json = 1;
        *given |= LLM_CACHE_JSON;
        break;

    case 't':
        c->text = 1;
        *given |= LLM_CACHE_TEXT;
        break;

    case 'm':
        c->model = optarg;
        *given |= LLM_CACHE_MODEL;
        break;

    case 's':
        c->scope = optarg;
        *given |= LLM_CACHE_SCOPE;
        break;

    case 'a':
        c->all = 1;
        *given |= LLM_CACHE_ALL;
        break;

    case 'T':
        *given |= LLM_CACHE_TIME;

        if (llm_cache_unit(optarg, "smhd", seconds, &c->ttl) != LLM_CACHE_OK
            || c->ttl > UINT32_MAX)
        {
            llm_cache_error("invalid time \"%s\"", optarg);
            return LLM_CACHE_USAGE;
        }

        break;

    default:
        *given |= LLM_CACHE_MAP;

        if (llm_cache_unit(optarg, "kmg", bytes, &c->size) != LLM_CACHE_OK
            || c->size < LLM_STORE_MIN || c->size > INT64_MAX)
        {
            llm_cache_error("invalid size \"%s\", the least is 4m", optarg);
            return LLM_CACHE_USAGE;
        }
    }

    return LLM_CACHE_OK;
}


/* a number, and perhaps one of the units */

static int
llm_cache_unit(const char *text, const char *units, const uint64_t *factors,
    uint64_t *n)
{
    char        *end;
    const char  *unit;

    if (*text < '0' || *text > '9') {
        return LLM_CACHE_USAGE;
    }

    *n = strtoull(text, &end, 10);

    if (*end == '\0') {
        return *n > UINT64_MAX / 2 ? LLM_CACHE_USAGE : LLM_CACHE_OK;
    }

    unit = strchr(units, *end | 0x20);

    if (unit == NULL || end[1] != '\0'
        || *n > UINT64_MAX / factors[unit - units])
    {
        return LLM_CACHE_USAGE;
    }

    *n *= factors[unit - units];

    return LLM_CACHE_OK;
}


static int
llm_cache_run(llm_cache_t *c, const llm_cache_command_t *cmd)
{
    int          rc, waits;
    const char  *in, *out;

    in = (cmd->run == llm_cache_import && c->nargs) ? c->args[0] : NULL;
    out = (cmd->run == llm_cache_export && c->nargs) ? c->args[0] : NULL;

    llm_cache_signals();

    if (llm_cache_files(c, in, out) != LLM_CACHE_OK) {
        return LLM_CACHE_ERROR;
    }

    rc = llm_cache_drop(c, &waits);

    if (waits) {
        return llm_cache_files_end(c, rc);
    }

    if (rc == LLM_CACHE_OK) {
        rc = llm_cache_open(c, cmd->how);
    }

    if (rc == LLM_CACHE_OK) {
        rc = cmd->run(c);
        llm_cache_close(c);
    }

    if (llm_cache_signal) {
        rc = 128 + llm_cache_signal;
    }

    return llm_cache_files_end(c, rc);
}


static void
llm_cache_signals(void)
{
    struct sigaction  sa;

    memset(&sa, 0, sizeof(struct sigaction));

    sigemptyset(&sa.sa_mask);

    /* who does not want to wait for the end of a transaction asks twice */

    sa.sa_handler = llm_cache_handler;
    sa.sa_flags = SA_RESETHAND;

    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);

    sa.sa_handler = SIG_IGN;
    sa.sa_flags = 0;

    sigaction(SIGPIPE, &sa, NULL);
}


static void
llm_cache_handler(int signo)
{
    llm_cache_signal = signo;
}


static int
llm_cache_usage(FILE *f)
{
    fputs("usage: llm-cache [-d DIR] COMMAND\n"
          "\n"
          "  stat [--json]             how full it is\n"
          "  list [--json] [--model NAME] [--scope TEXT]\n"
          "                            its entries, one a line\n"
          "  get ID                    an entry as JSON; ID is what "
          "X-LLM-Cache-Key says\n"
          "  get --text ID             only its answer, of two forms the plain "
          "one\n"
          "  purge all | scope TEXT | model NAME | id ID\n"
          "  export [FILE]             all entries as JSON Lines\n"
          "  import [--ttl TIME] [--all] [--size SIZE] [FILE]\n"
          "                            entries of an export, or answers "
          "written by hand\n"
          "\n"
          "  -d, --dir DIR   the cache's directory, $LLM_CACHE by default\n"
          "  --ttl TIME      of lines that have none: 1h by default\n"
          "  --all           lines whose time is over, too\n"
          "  --size SIZE     how large the file may get: as it is by default, "
          "a new one 1g\n"
          "  -h, --help\n"
          "  -V, --version\n", f);

    return LLM_CACHE_USAGE;
}
