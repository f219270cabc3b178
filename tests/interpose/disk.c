/* A disk that fails as it is told, and that writes down what it was asked for.
 *
 * FLUXLINE_DISK holds rules "CALL PART FROM COUNT WHAT", divided by ';'.
 *
 * CALL   write (pwrite, pwritev) or sync (fsync, fdatasync)
 * PART   part of the file's path
 * FROM   the first call of this rule that fails, counted from 1; COUNT: how many do (0: all that follow)
 * WHAT   an errno, or "ms" and a number of milliseconds that the call takes longer
 *
 * FLUXLINE_DISK_TRACE names a file that gets two lines of every call, in the order in which they happened:
 * "begin CALL OFFSET BYTES PATH" before it and "end ..." after it, if it succeeded; CALL may be "rename", too, whose PATH is
 * the new name.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct rule {
    char call[8], part[128];
    long from, count, error, ms, seen;
};
static struct rule rules[16];
static int rule_count, trace = -1;

__attribute__((constructor)) static void begin(void)
{
    char *text = getenv("FLUXLINE_DISK"), *rest = NULL, copy[2048];
    char *to = getenv("FLUXLINE_DISK_TRACE");
    if (to)
        trace = open(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (!text)
        return;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *one = strtok_r(copy, ";", &rest); one && rule_count < 16; one = strtok_r(NULL, ";", &rest)) {
        struct rule *r = &rules[rule_count];
        char what[32];
        if (sscanf(one, "%7s %127s %ld %ld %31s", r->call, r->part, &r->from, &r->count, what) != 5)
            continue;
        if (strncmp(what, "ms", 2) == 0)
            r->ms = atol(what + 2);
        else
            r->error = atol(what);
        rule_count++;
    }
}

/* The path of an open file; empty where it has none. */
static void path_of(int fd, char path[512])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 511);
    path[length < 0 ? 0 : length] = 0;
}

/* One write of a whole line at the end of the file: threads do not mix, and the lines have an order. */
static void note(const char *when, const char *call, long long at, long long bytes, const char *path)
{
    char line[700];
    int length = snprintf(line, sizeof line, "%s %s %lld %lld %s\n", when, call, at, bytes, path);
    if (length > 0 && write(trace, line, (size_t)length) != length)
        abort();
}

static void trace_call(const char *when, const char *call, int fd, long long at, long long bytes)
{
    char path[512];
    int kept = errno;
    if (trace < 0)
        return;
    path_of(fd, path);
    note(when, call, at, bytes, path);
    errno = kept;
}

/* The errno that this call fails with; 0: it goes on. */
static int verdict(const char *call, int fd)
{
    char path[512];
    if (rule_count == 0)
        return 0;
    path_of(fd, path);
    if (!path[0])
        return 0;
    for (int i = 0; i < rule_count; i++) {
        struct rule *r = &rules[i];
        if (strcmp(r->call, call) != 0 || !strstr(path, r->part))
            continue;
        long n = __atomic_add_fetch(&r->seen, 1, __ATOMIC_SEQ_CST);
        if (n < r->from || (r->count > 0 && n >= r->from + r->count))
            continue;
        if (r->ms > 0) {
            struct timespec wait = {r->ms / 1000, (r->ms % 1000) * 1000000};
            nanosleep(&wait, NULL);
            continue;
        }
        fprintf(stderr, "disk.c: %s %s fails with %ld\n", call, path, r->error);
        return (int)r->error;
    }
    return 0;
}

#define NEXT(type, name) ((type)dlsym(RTLD_NEXT, name))

ssize_t pwrite64(int fd, const void *from, size_t bytes, off64_t at)
{
    int error = verdict("write", fd);
    if (error) {
        errno = error;
        return -1;
    }
    trace_call("begin", "write", fd, at, (long long)bytes);
    ssize_t done = NEXT(ssize_t(*)(int, const void *, size_t, off64_t), "pwrite64")(fd, from, bytes, at);
    if (done >= 0)
        trace_call("end", "write", fd, at, done);
    return done;
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    int error = verdict("write", fd);
    if (error) {
        errno = error;
        return -1;
    }
    trace_call("begin", "write", fd, at, 0);
    ssize_t done = NEXT(ssize_t(*)(int, const struct iovec *, int, off_t), "pwritev")(fd, parts, count, at);
    if (done >= 0)
        trace_call("end", "write", fd, at, done);
    return done;
}

static int sync_by(const char *name, int fd)
{
    int error = verdict("sync", fd);
    if (error) {
        errno = error;
        return -1;
    }
    trace_call("begin", "sync", fd, 0, 0);
    int done = NEXT(int (*)(int), name)(fd);
    if (done == 0)
        trace_call("end", "sync", fd, 0, 0);
    return done;
}

int fsync(int fd)
{
    return sync_by("fsync", fd);
}

int fdatasync(int fd)
{
    return sync_by("fdatasync", fd);
}

int rename(const char *from, const char *to)
{
    if (trace >= 0)
        note("begin", "rename", 0, 0, to);
    int done = NEXT(int (*)(const char *, const char *), "rename")(from, to);
    if (done == 0 && trace >= 0)
        note("end", "rename", 0, 0, to);
    return done;
}
