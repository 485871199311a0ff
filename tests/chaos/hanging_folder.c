/* Preloaded into a process, makes files hang as those of a dead network disk or driver do: while the
 * file HANG_FILE exists, every thread that opens, reads, writes or flushes a file below the folder
 * HANG_FOLDER waits, and with HANG_STAT every one that asks for a file's status too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const useconds_t POLL_US = 20000;

static int active(void)
{
    const char *file = getenv("HANG_FILE");
    return file != NULL && access(file, F_OK) == 0;
}

static void wait_for_path(const char *path)
{
    int error = errno;
    const char *folder = getenv("HANG_FOLDER");
    if (folder != NULL && path != NULL && strncmp(path, folder, strlen(folder)) == 0)
        while (active())
            usleep(POLL_US);
    errno = error;
}

static void wait_for_file(int number)
{
    int error = errno;
    if (active()) {
        char name[32], path[PATH_MAX];
        snprintf(name, sizeof name, "/proc/self/fd/%d", number);
        ssize_t length = readlink(name, path, sizeof path - 1);
        if (length > 0) {
            path[length] = '\0';
            wait_for_path(path);
        }
    }
    errno = error;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                       \
    int name(const char *path, int flags, ...)           \
    {                                                    \
        va_list more;                                    \
        va_start(more, flags);                           \
        mode_t mode = va_arg(more, mode_t);              \
        va_end(more);                                    \
        wait_for_path(path);                             \
        return REAL(name)(path, flags, mode);            \
    }

#define ON_FILE(type, name, parameters, arguments)       \
    type name parameters                                 \
    {                                                    \
        wait_for_file(file);                             \
        return REAL(name) arguments;                     \
    }

#define STAT(name)                                       \
    int name(const char *path, struct name *status)      \
    {                                                    \
        if (getenv("HANG_STAT") != NULL)                 \
            wait_for_path(path);                         \
        return REAL(name)(path, status);                 \
    }

STAT(stat)
STAT(stat64)
OPEN(open)
OPEN(open64)
ON_FILE(ssize_t, read, (int file, void *data, size_t size), (file, data, size))
ON_FILE(ssize_t, write, (int file, const void *data, size_t size), (file, data, size))
ON_FILE(ssize_t, pread64, (int file, void *data, size_t size, off64_t at), (file, data, size, at))
ON_FILE(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at),
        (file, data, size, at))
ON_FILE(int, fsync, (int file), (file))
ON_FILE(int, fdatasync, (int file), (file))
ON_FILE(int, ftruncate64, (int file, off64_t length), (file, length))
