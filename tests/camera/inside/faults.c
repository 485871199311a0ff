/* Preloaded into programs that use the virtual camera: memory for its images, the frame rate of a
 * sensor, a lock between processes, and faults on command. For tests only.
 *
 * libcamera's virtual pipeline fills a buffer as soon as one is queued, in its own thread, which
 * maps the buffer first. A frame is held back in that mapping. The command is read from the file
 * named by CAMERA_COMMAND, again for each frame:
 *
 *   run FPS   frames at that rate
 *   silent    no frames; stopping the camera works, as when a sensor's cable is loose
 *   wedged    no frames, and stopping the camera does not return, as when a driver hangs
 *   broken    the camera takes no requests and does not start, as when its device is gone
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <link.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static const char HEAP[] = "/dev/dma_heap/linux,cma";
static atomic_int stopping;
static int lock_fd = -1;

struct command {
    char word[16];
    double fps;
};

static struct command command(void)
{
    struct command now = { "run", 30 };
    const char *path = getenv("CAMERA_COMMAND");
    FILE *file = path ? fopen(path, "re") : NULL;
    if (file) {
        if (fscanf(file, "%15s %lf", now.word, &now.fps) < 1)
            strcpy(now.word, "run");
        fclose(file);
    }
    return now;
}

static int commanded(const char *word)
{
    struct command now = command();
    return !strcmp(now.word, word);
}

static int is_libcamera(struct dl_phdr_info *library, size_t size, void *handle)
{
    (void)size;
    if (!strstr(library->dlpi_name, "/libcamera.so."))
        return 0;
    *(void **)handle = dlopen(library->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
    return 1;
}

/* Python loads libcamera so that RTLD_NEXT does not find it. */
static void *libcameras(const char *name)
{
    void *handle = NULL;
    dl_iterate_phdr(is_libcamera, &handle);
    void *function = handle ? dlsym(handle, name) : NULL;
    if (!function) {
        fprintf(stderr, "camera faults: no %s in libcamera\n", name);
        abort();
    }
    return function;
}

/* A process has one camera here; libcamera's Python module calls these for it. */

EXPORT int _ZN9libcamera6Camera7acquireEv(void *camera)
{
    int (*real)(void *) = libcameras("_ZN9libcamera6Camera7acquireEv");
    const char *path = getenv("CAMERA_LOCK");
    /* The kernel's media devices are locked in this way between processes. */
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666) : -1;
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB)) {
        close(fd);
        return -EBUSY;
    }
    int result = real(camera);
    if (result && fd >= 0)
        close(fd);
    else
        lock_fd = fd;
    return result;
}

EXPORT int _ZN9libcamera6Camera7releaseEv(void *camera)
{
    int (*real)(void *) = libcameras("_ZN9libcamera6Camera7releaseEv");
    int result = real(camera);
    if (!result && lock_fd >= 0) {
        close(lock_fd);
        lock_fd = -1;
    }
    return result;
}

EXPORT int _ZN9libcamera6Camera5startEPKNS_11ControlListE(void *camera, const void *controls)
{
    int (*real)(void *, const void *) = libcameras("_ZN9libcamera6Camera5startEPKNS_11ControlListE");
    stopping = 0;
    return commanded("broken") ? -EIO : real(camera, controls);
}

EXPORT int _ZN9libcamera6Camera12queueRequestEPNS_7RequestE(void *camera, void *request)
{
    int (*real)(void *, void *) = libcameras("_ZN9libcamera6Camera12queueRequestEPNS_7RequestE");
    if (!commanded("broken"))
        return real(camera, request);
    /* Python frees the request then, which the camera's thread may not have let go of yet. */
    nanosleep(&(struct timespec){ 0, 100 * 1000 * 1000 }, NULL);
    return -ENODEV;
}

EXPORT int _ZN9libcamera6Camera4stopEv(void *camera)
{
    int (*real)(void *) = libcameras("_ZN9libcamera6Camera4stopEv");
    stopping = 1;
    return real(camera);
}

static void hold_back(void)
{
    static struct timespec due;
    const struct timespec step = { 0, 10 * 1000 * 1000 };
    struct timespec now;
    struct command fault;

    for (;;) {
        fault = command();
        int wedged = !strcmp(fault.word, "wedged");
        int silent = wedged || !strcmp(fault.word, "silent");
        if (!silent || (stopping && !wedged))
            break;
        nanosleep(&step, NULL);
    }
    if (stopping || fault.fps <= 0)
        return;
    clock_gettime(CLOCK_MONOTONIC, &now);
    due.tv_nsec += (long)(1e9 / fault.fps);
    due.tv_sec += due.tv_nsec / 1000000000L;
    due.tv_nsec %= 1000000000L;
    if (due.tv_sec < now.tv_sec || (due.tv_sec == now.tv_sec && due.tv_nsec < now.tv_nsec))
        due = now;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

static void *map(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    char thread[16] = "";
    struct stat file;

    if (fd >= 0 && (flags & MAP_SHARED)) {
        prctl(PR_GET_NAME, thread);
        /* A buffer's luma is mapped before its chroma, which ends where the file ends. */
        if (!strcmp(thread, "VirtualCamera") && !fstat(fd, &file) && (off_t)length < file.st_size)
            hold_back();
    }
    return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}

EXPORT void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    return map(at, length, protection, flags, fd, offset);
}

EXPORT void *mmap64(void *at, size_t length, int protection, int flags, int fd, off64_t offset)
{
    return map(at, length, protection, flags, fd, offset);
}

/* A dma-heap of ordinary memory, for kernels that have none. */

EXPORT int open64(const char *path, int flags, ...)
{
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
    mode_t mode = 0;

    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    return real(strcmp(path, HEAP) ? path : "/dev/null", flags, mode);
}

EXPORT int __open64_2(const char *path, int flags)
{
    return open64(path, flags);
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);

    /* Python hands the number over with its sign extended. */
    switch ((unsigned int)request) {
    case (unsigned int)DMA_HEAP_IOCTL_ALLOC: {
        struct dma_heap_allocation_data *wish = argument;
        int memory = memfd_create("dmabuf", MFD_CLOEXEC);
        if (memory < 0 || ftruncate(memory, (off_t)wish->len))
            return -1;
        wish->fd = (unsigned int)memory;
        return 0;
    }
    case (unsigned int)DMA_BUF_IOCTL_SYNC:
    case (unsigned int)DMA_BUF_SET_NAME_A:
    case (unsigned int)DMA_BUF_SET_NAME_B:
        return 0;
    default:
        return (int)syscall(SYS_ioctl, fd, request, argument);
    }
}
