/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs a fuzz target on files, and on the files of folders, without libFuzzer: for compilers that
 * have none, for a debugger, and for the committed seeds as an ordinary test.
 */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define SIZE_LIMIT ((size_t)1 << 20)

static unsigned files;

static void run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *whole = malloc(SIZE_LIMIT), *data;
    size_t n;

    if (!file || !whole) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(2);
    }
    n = fread(whole, 1, SIZE_LIMIT, file);
    fclose(file);
    data = malloc(n ? n : 1); /* of exactly this size, so that a sanitizer sees its end */
    if (!data)
        exit(2);
    memcpy(data, whole, n);
    free(whole);
    LLVMFuzzerTestOneInput(data, n);
    free(data);
    files++;
}

static void run_path(const char *path)
{
    char inside[4096];
    struct dirent *entry;
    struct stat st;
    DIR *dir;

    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        run_file(path);
        return;
    }
    dir = opendir(path);
    while (dir && (entry = readdir(dir))) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(inside, sizeof(inside), "%s/%s", path, entry->d_name);
        run_file(inside);
    }
    if (dir)
        closedir(dir);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        run_path(argv[i]);
    printf("%u inputs\n", files);
    return files > 0 ? 0 : 2;
}
