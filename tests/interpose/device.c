/* A device that fails: from the launch FLUXLINE_FAIL_FROM on, those of making ready counted, FLUXLINE_FAIL_COUNT launches are
 * answered with CL_OUT_OF_RESOURCES, or, with FLUXLINE_FAIL_HOW=hang, taken and never ended: they wait for an event that nobody
 * sets. Says at the end how many that were. Preloaded by tests/device.rs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_CONTEXT 0x1090
int clGetCommandQueueInfo(void *queue, unsigned what, size_t bytes, void *value, size_t *used);
void *clCreateUserEvent(void *context, int *status);

static atomic_long calls, failed;

static long number(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
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
        return status ? status : real(queue, kernel, dims, offset, global, local, 1, &never, event);
    }
    return real(queue, kernel, dims, offset, global, local, events, waits, event);
}

__attribute__((destructor)) static void say(void)
{
    if (getenv("FLUXLINE_FAIL_FROM"))
        fprintf(stderr, "launches: %ld, failed: %ld\n", (long)calls, (long)failed);
}
