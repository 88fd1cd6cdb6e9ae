
/*
 * Copyright (C) ngx_http_llm_module authors
 *
 * Runs a fuzzer's function over files, and over those in folders: for
 * compilers without libFuzzer, and to see that a corpus still passes.
 */


#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static int
run_file(const char *name, size_t size)
{
    FILE     *f;
    size_t    n;
    uint8_t  *data;

    f = fopen(name, "rb");
    data = malloc(size);

    if (f == NULL || data == NULL) {
        perror(name);
        return 1;
    }

    n = fread(data, 1, size, f);
    fclose(f);

    /* a fault aborts: this says where */

    fprintf(stderr, "%s\n", name);
    (void) LLVMFuzzerTestOneInput(data, n);

    free(data);

    return 0;
}


static int
run(const char *name, int *count)
{
    DIR            *dir;
    int             rc;
    char            path[4096];
    struct stat     st;
    struct dirent  *de;

    if (stat(name, &st) != 0) {
        perror(name);
        return 1;
    }

    if (!S_ISDIR(st.st_mode)) {
        ++*count;
        return run_file(name, st.st_size);
    }

    dir = opendir(name);

    if (dir == NULL) {
        perror(name);
        return 1;
    }

    rc = 0;

    while ((de = readdir(dir)) != NULL) {

        if (de->d_name[0] != '.') {
            snprintf(path, sizeof(path), "%s/%s", name, de->d_name);
            rc |= run(path, count);
        }
    }

    closedir(dir);

    return rc;
}


int
main(int argc, char **argv)
{
    int  i, rc, count;

    rc = 0;
    count = 0;

    for (i = 1; i < argc; i++) {
        rc |= run(argv[i], &count);
    }

    printf("%d files\n", count);

    return rc || count == 0;
}
