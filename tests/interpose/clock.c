/* A wall clock that a test turns: FLUXLINE_WALL_CLOCK names a file with the seconds by which it is wrong. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t which, struct timespec *time)
{
    static int (*next)(clockid_t, struct timespec *);
    if (!next)
        next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = next(which, time);
    const char *path = getenv("FLUXLINE_WALL_CLOCK");
    if (result || which != CLOCK_REALTIME || !path)
        return result;
    char text[32] = {0};
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return result;
    if (read(file, text, sizeof text - 1) > 0)
        time->tv_sec += atol(text);
    close(file);
    return result;
}
