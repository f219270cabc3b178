/* A device that fails: from the launch FLUXLINE_FAIL_FROM on, those of making ready counted, FLUXLINE_FAIL_COUNT launches are
 * answered with CL_OUT_OF_RESOURCES, or, with FLUXLINE_FAIL_HOW=hang, taken and not ended: they wait for an event that nobody
 * sets, or only after FLUXLINE_FAIL_MS. With FLUXLINE_FAIL_HOW=lost only launches in the first one's context are meant: whoever
 * opens the device anew has it back. From program FLUXLINE_FAIL_BUILD on FLUXLINE_FAIL_BUILDS programs, or all, do not build; 0
 * is that of opening the device. Says at the end how many launches failed. Preloaded by tests/device.rs. */
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
static void *_Atomic lost;

static long number(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

static void *context_of(void *queue)
{
    void *context = NULL;
    return clGetCommandQueueInfo(queue, QUEUE_CONTEXT, sizeof context, &context, NULL) ? NULL : context;
}

/* Whether a launch is one of those that fail in the lost context, which is that of the first. */
static int meant(void *queue, const char *how)
{
    if (!how || strcmp(how, "lost"))
        return 1;
    void *none = NULL, *context = context_of(queue);
    return atomic_compare_exchange_strong(&lost, &none, context) || none == context;
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
    long count = number("FLUXLINE_FAIL_BUILDS", 1L << 30);
    if (from >= 0 && build >= from && build < from + count)
        return -11;
    return real(program, devices, list, options, told, data);
}

int clEnqueueNDRangeKernel(void *queue, void *kernel, unsigned dims, const size_t *offset, const size_t *global,
                           const size_t *local, unsigned events, const void *waits, void *event)
{
    static int (*real)(void *, void *, unsigned, const size_t *, const size_t *, const size_t *, unsigned, const void *,
                       void *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clEnqueueNDRangeKernel");
    long call = atomic_fetch_add(&calls, 1), from = number("FLUXLINE_FAIL_FROM", -1);
    const char *how = getenv("FLUXLINE_FAIL_HOW");
    if (from >= 0 && call >= from && call < from + number("FLUXLINE_FAIL_COUNT", 1) && meant(queue, how)) {
        atomic_fetch_add(&failed, 1);
        if (!how || strcmp(how, "hang"))
            return -5;
        int status = 0;
        void *never = clCreateUserEvent(context_of(queue), &status);
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
