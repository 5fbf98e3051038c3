/* Loaded before the C library: writes down what is flushed to the disk and what is renamed, in order, to $DG_SYNCS. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void note(const char *what, const char *path)
{
    int log = open(getenv("DG_SYNCS"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    dprintf(log, "%s %s\n", what, path);
    close(log);
}

static int flushed(int fd, const char *function)
{
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, function);
    char link[64], path[PATH_MAX];
    int result = next(fd);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (result == 0 && length > 0) {
        path[length] = 0;
        note("flush", path);
    }
    return result;
}

int fsync(int fd)
{
    return flushed(fd, "fsync");
}

int fdatasync(int fd)
{
    return flushed(fd, "fdatasync");
}

int rename(const char *from, const char *to)
{
    int (*next)(const char *, const char *) = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    int result = next(from, to);
    if (result == 0) {
        note("from", from);
        note("to", to);
    }
    return result;
}
