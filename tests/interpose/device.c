/* A device that fails: from the launch FLUXLINE_FAIL_FROM on, those of making ready counted, FLUXLINE_FAIL_COUNT launches are
 * answered with CL_OUT_OF_RESOURCES, or, with FLUXLINE_FAIL_HOW=hang, taken and not ended: they wait for an event that nobody
 * sets, or only after FLUXLINE_FAIL_MS. From program FLUXLINE_FAIL_BUILD on none builds; 0 is that of opening the device. Says
 * at the end how many launches failed. Preloaded by tests/device.rs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define QUEUE_CONTEXT 0x1090
int clGetCommandQueueInfo(void *queue, unsigned what, size_t bytes, void *value, size_t *used);
void *clCreateUserEvent(void *context, int *status);
int clSetUserEventStatus(void *event, int status);

static atomic_long calls, failed, builds;

static long number(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

static void *end_later(void *event)
{
    usleep(1000 * (useconds_t)number("FLUXLINE_FAIL_MS", 0));
    clSetUserEventStatus(event, 0);
    return NULL;
}

int clBuildProgram(void *program, unsigned devices, const void *list, const char *options, void *told, void *data)
{
    static int (*real)(void *, unsigned, const void *, const char *, void *, void *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clBuildProgram");
    long build = atomic_fetch_add(&builds, 1), from = number("FLUXLINE_FAIL_BUILD", -1);
    return from >= 0 && build >= from ? -11 : real(program, devices, list, options, told, data);
}

int clEnqueueNDRangeKernel(void *queue, void *kernel, unsigned dims, const size_t *offset, const size_t *global,
                           const size_t *local, unsigned events, const void *waits, void *event)
{
    static int (*real)(void *, void *, unsigned, const size_t *, const size_t *, const size_t *, unsigned, const void *,
                       void *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clEnqueueNDRangeKernel");
    long call = atomic_fetch_add(&calls, 1), from = number("FLUXLINE_FAIL_FROM", -1);
    if (from >= 0 && call >= from && call < from + number("FLUXLINE_FAIL_COUNT", 1)) {
        const char *how = getenv("FLUXLINE_FAIL_HOW");
        atomic_fetch_add(&failed, 1);
        if (!how || strcmp(how, "hang"))
            return -5;
        void *context = NULL;
        int status = clGetCommandQueueInfo(queue, QUEUE_CONTEXT, sizeof context, &context, NULL);
        void *never = status ? NULL : clCreateUserEvent(context, &status);
        pthread_t thread;
        if (!status && number("FLUXLINE_FAIL_MS", 0) && !pthread_create(&thread, NULL, end_later, never))
            pthread_detach(thread);
        return status ? status : real(queue, kernel, dims, offset, global, local, 1, &never, event);
    }
    return real(queue, kernel, dims, offset, global, local, events, waits, event);
}

__attribute__((destructor)) static void say(void)
{
    if (getenv("FLUXLINE_FAIL_FROM"))
        fprintf(stderr, "launches: %ld, failed: %ld\n", (long)calls, (long)failed);
}
