// Projection along rays with linear interpolation between pixels (Joseph 1982, IEEE Trans. Med. Imaging 1, 192), and its
// exact transpose. A ray meets every row (or column, whichever it crosses more steeply) of the slice once, between two
// pixels; a pixel therefore gives to rays less than c = max(|cos|, |sin|) away, weighted (1 - distance / c) / c.
//
// 16 slices lie side by side: images are f32 [y][x][16], sinograms f32 [angle][column][16].
//
// @param cosines, sines  f32 [angle]
// @param axis            column of the rotation axis, pixels from the centre of column 0
// @param columns         detector columns; slices have as many each way, the axis in their middle
// @param angles          projections

// Line integrals of an image, by which `measured` is compared.
//
// @param ray_weights  f32 [angle][column]
// @param measured     sinogram
// @param mode         0: out = A image; 1: out = ray_weights (measured - A image)
__kernel void project(
    __global const float16 *restrict image,
    __global const float *restrict cosines,
    __global const float *restrict sines,
    const float axis, const uint columns, const uint angles, const uint mode,
    __global const float *restrict ray_weights,
    __global const float16 *restrict measured,
    __global float16 *restrict out)
{
    const uint column = get_global_id(0);
    const uint angle = get_global_id(1);
    if (column >= columns || angle >= angles)
        return;
    const float c = cosines[angle];
    const float s = sines[angle];
    const bool steep = fabs(c) >= fabs(s);
    const float across = steep ? c : s;
    const float along = steep ? s : c;
    const float middle = 0.5f * (columns - 1.0f);
    const float t = column - axis;
    const size_t line_step = steep ? columns : 1;
    const size_t point_step = steep ? 1 : columns;
    const int last = (int)columns - 1;
    float16 sum = 0.0f;
    for (uint line = 0; line < columns; line++) {
        const float place = (t - (line - middle) * along) / across + middle;
        if (!(place > -1.0f && place < (float)columns))
            continue;
        const float below = floor(place);
        const float share = place - below;
        const int first = (int)below;
        __global const float16 *p = image + line * line_step;
        if (first >= 0)
            sum += (1.0f - share) * p[first * point_step];
        if (first < last)
            sum += share * p[(first + 1) * point_step];
    }
    const size_t ray = (size_t)angle * columns + column;
    sum /= fabs(across);
    out[ray] = mode ? ray_weights[ray] * (measured[ray] - sum) : sum;
}

// The transpose.
//
// @param pixel_weights  f32 [y][x]
// @param mode           0: image = A' rays; 1: image += pixel_weights A' rays; 2: the same, and nothing below 0
__kernel void spread(
    __global const float16 *restrict rays,
    __global const float *restrict cosines,
    __global const float *restrict sines,
    const float axis, const uint columns, const uint angles, const uint mode,
    __global const float *restrict pixel_weights,
    __global float16 *restrict image)
{
    const uint i = get_global_id(0);
    const uint j = get_global_id(1);
    if (i >= columns || j >= columns)
        return;
    const float middle = 0.5f * (columns - 1.0f);
    const float x = i - middle;
    const float y = j - middle;
    float16 sum = 0.0f;
    for (uint angle = 0; angle < angles; angle++) {
        const float c = cosines[angle];
        const float s = sines[angle];
        const float reach = fmax(fabs(c), fabs(s));
        const float u = x * c + y * s + axis;
        if (!(u > -1.0f && u < (float)columns))
            continue;
        const int from = max((int)ceil(u - reach), 0);
        const int to = min((int)floor(u + reach), (int)columns - 1);
        float16 part = 0.0f;
        for (int column = from; column <= to; column++)
            part += fmax(1.0f - fabs(column - u) / reach, 0.0f) * rays[(size_t)angle * columns + column];
        sum += part / reach;
    }
    const size_t pixel = (size_t)j * columns + i;
    if (mode == 0) {
        image[pixel] = sum;
        return;
    }
    sum = image[pixel] + pixel_weights[pixel] * sum;
    image[pixel] = mode == 2 ? fmax(sum, 0.0f) : sum;
}

// a = factor_a a + factor_b b, each slice with its own factors.
//
// @param factors  f32 [2][16]: of a, of b
// @param count    points
__kernel void combine(
    __global float16 *restrict a,
    __global const float16 *restrict b,
    __global const float *restrict factors,
    const uint count)
{
    const uint point = get_global_id(0);
    if (point < count)
        a[point] = vload16(0, factors) * a[point] + vload16(1, factors) * b[point];
}

// Weighted sums of squares, line by line: the host adds them up.
//
// @param weights  f32 [line][width], or anything where `weighted` is 0
// @param out      f32 [line][16]
__kernel void squares(
    __global const float16 *restrict values,
    __global const float *restrict weights,
    const uint weighted, const uint width, const uint lines,
    __global float16 *restrict out)
{
    const uint line = get_global_id(0);
    if (line >= lines)
        return;
    float16 sum = 0.0f;
    for (uint k = 0; k < width; k++) {
        const size_t place = (size_t)line * width + k;
        const float16 value = values[place];
        sum += (weighted ? weights[place] : 1.0f) * value * value;
    }
    out[line] = sum;
}
