/* Where and what a device reads: shows zero copy instead of claiming it. */

/* @param data   bytes in host memory, [count]
 * @param count  number of bytes
 * @param seen   [0] address of data as the device sees it, [1] sum of its bytes */
__kernel void probe_sum(__global const uchar *data, const uint count, __global ulong *seen)
{
    ulong sum = 0;
    for (uint i = 0; i < count; i++)
        sum += data[i];
    seen[0] = (ulong)(uintptr_t)data;
    seen[1] = sum;
}

/* One work item per frame.
 * @param frames   base of the batch
 * @param offsets  where each frame starts, bytes, [frames]
 * @param first    number of the first frame of this launch
 * @param seen     address that each frame is read at, [frames] */
__kernel void probe_addresses(__global const uchar *frames, __global const ulong *offsets, const uint first,
                              __global ulong *seen)
{
    const uint frame = first + (uint)get_global_id(0);
    seen[frame] = (ulong)(uintptr_t)(frames + offsets[frame]);
}
