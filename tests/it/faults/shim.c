/* A disk that fails, for tests: preloaded into the program, it stands between SQLite and the system.
 *
 * FAULTS names a folder. While a file lies there, the call of its name fails for files whose name ends so:
 *
 *   sync-wal   sync-db   write-wal   write-db
 *
 * with the error whose number the file holds (5 is EIO, 30 is EROFS). The file is removed as the call fails, so that it fails once:
 * a disk that says "I could not" and then "all is well" is the one that may not be trusted. With "always" behind the number it stays.
 * FAULT_SLOW_US is how long every sync takes at least.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int ends(const char *text, const char *end) {
    size_t length = strlen(text), least = strlen(end);
    return length >= least && strcmp(text + length - least, end) == 0;
}

/* Whether the call fails for this file; errno says why then. */
static int fails(const char *call, int fd) {
    const char *folder = getenv("FAULTS");
    char link[64], name[4096], trigger[4096], said[32] = "";
    if (!folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0) return 0;
    name[length] = 0;
    const char *kind = ends(name, "-wal") ? "wal" : ends(name, ".db") ? "db" : NULL;
    if (!kind) return 0;
    snprintf(trigger, sizeof trigger, "%s/%s-%s", folder, call, kind);
    int file = open(trigger, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t read_bytes = read(file, said, sizeof said - 1);
    close(file);
    if (read_bytes <= 0) return 0;
    if (!strstr(said, "always")) unlink(trigger);
    errno = atoi(said);
    return 1;
}

static void slow(void) {
    const char *us = getenv("FAULT_SLOW_US");
    if (!us) return;
    long wait = atol(us);
    struct timespec time = {wait / 1000000, wait % 1000000 * 1000};
    nanosleep(&time, NULL);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    slow();
    return fails("sync", fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    slow();
    return fails("sync", fd) ? -1 : real(fd);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    return fails("write", fd) ? -1 : real(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
    return fails("write", fd) ? -1 : real(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    return fails("write", fd) ? -1 : real(fd, bytes, count, offset);
}
