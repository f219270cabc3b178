// Parallel-beam back-projection of filtered projections, linear interpolation (Kak & Slaney 1988, section 3.3).
//
// Build-time constants: TILE (points along i and j per work item), LANES (1: one row of a block, 16: all of it).
//
// 16 detector rows lie side by side, so that one float16 operation serves all of them; the places that the 16
// angles of a batch project a point to are computed together for the same reason.
//
// @param projections  f32 [16 angles][blocks][columns + 3][16 rows]; column 0 and the last two hold zeros: a point
//                     beyond the detector reads them
// @param cosines      f32 [16], sines f32 [16]: of the angles of the batch
// @param grid         x0, x per i, x per j, y0, y per i, y per j: the plane's points, pixels from the rotation axis
// @param ni, nj       points of the plane along i and j
// @param axis         column of the rotation axis, pixels from the centre of column 0
// @param columns      detector columns
// @param blocks       blocks of 16 rows in `projections`
// @param first_block  block of global id 2 = 0
// @param lane         with LANES 1: row within the block
// @param sums         f32 [block][nj][ni][LANES]: added to
__kernel void backprojector(
    __global const float16 *restrict projections,
    __global const float *restrict cosines,
    __global const float *restrict sines,
    const float x0, const float xi, const float xj,
    const float y0, const float yi, const float yj,
    const uint ni, const uint nj,
    const float axis,
    const uint columns, const uint blocks, const uint first_block, const uint lane,
    __global float *restrict sums)
{
    const uint block = get_global_id(2);
    const uint width = columns + 3;
    const float16 c = vload16(0, cosines);
    const float16 s = vload16(0, sines);
    __global const float16 *p = projections + (size_t)(first_block + block) * width;
    const size_t angle_step = (size_t)blocks * width;
    const uint i_end = min(ni, (uint)(get_global_id(0) + 1) * TILE);
    const uint j_end = min(nj, (uint)(get_global_id(1) + 1) * TILE);
    for (uint j = get_global_id(1) * TILE; j < j_end; j++) {
        for (uint i = get_global_id(0) * TILE; i < i_end; i++) {
            const float x = x0 + xi * i + xj * j;
            const float y = y0 + yi * i + yj * j;
            const float16 u = clamp(x * c + (y * s + axis), -1.0f, (float)columns);
            const float16 below = floor(u);
            float weight[16];
            int place[16];
            vstore16(u - below, 0, weight);
            vstore16(convert_int16(below) + 1, 0, place);
            float16 even = 0, odd = 0;
            for (int a = 0; a < 16; a += 2) {
                __global const float16 *q = p + a * angle_step + place[a];
                __global const float16 *r = p + (a + 1) * angle_step + place[a + 1];
                even += q[0] + weight[a] * (q[1] - q[0]);
                odd += r[0] + weight[a + 1] * (r[1] - r[0]);
            }
            const size_t point = ((size_t)block * nj + j) * ni + i;
#if LANES == 16
            vstore16(vload16(point, sums) + (even + odd), point, sums);
#else
            float rows[16];
            vstore16(even + odd, 0, rows);
            sums[point] += rows[lane];
#endif
        }
    }
}

// The same for a plane that lies anyhow: every point has a detector row of its own, bilinear between four pixels.
//
// @param z0, zi, zj   detector row of the plane's points: of the first, per i, per j
// @param rows         detector rows; a point above the first or below the last gets nothing
// @param sums         f32 [nj][ni]: added to
__kernel void backprojector_oblique(
    __global const float *restrict projections,
    __global const float *restrict cosines,
    __global const float *restrict sines,
    const float x0, const float xi, const float xj,
    const float y0, const float yi, const float yj,
    const float z0, const float zi, const float zj,
    const uint ni, const uint nj,
    const float axis,
    const uint columns, const uint blocks, const uint rows,
    __global float *restrict sums)
{
    const size_t width = columns + 3;
    const size_t angle_step = blocks * width * 16;
    const uint i_end = min(ni, (uint)(get_global_id(0) + 1) * TILE);
    const uint j_end = min(nj, (uint)(get_global_id(1) + 1) * TILE);
    for (uint j = get_global_id(1) * TILE; j < j_end; j++) {
        for (uint i = get_global_id(0) * TILE; i < i_end; i++) {
            const float x = x0 + xi * i + xj * j;
            const float y = y0 + yi * i + yj * j;
            const float z = z0 + zi * i + zj * j;
            if (!(z >= 0.0f && z <= rows - 1.0f))
                continue;
            const uint upper = (uint)z;
            const uint lower = min(upper + 1, rows - 1);
            const float down = z - upper;
            __global const float *p = projections + (upper / 16 * width * 16 + upper % 16);
            __global const float *q = projections + (lower / 16 * width * 16 + lower % 16);
            float sum = 0.0f;
            for (uint a = 0; a < 16; a++) {
                const float u = clamp(x * cosines[a] + (y * sines[a] + axis), -1.0f, (float)columns);
                const float below = floor(u);
                const float right = u - below;
                const size_t place = a * angle_step + (size_t)((int)below + 1) * 16;
                const float above = p[place] + right * (p[place + 16] - p[place]);
                const float beneath = q[place] + right * (q[place + 16] - q[place]);
                sum += above + down * (beneath - above);
            }
            sums[(size_t)j * ni + i] += sum;
        }
    }
}
