// CUDA kernels over contiguous buffers, in f32 where nothing else is said. Compiled at run time, without a header; the file of this
// folder that launches one says what it takes.

typedef unsigned int u32;
typedef unsigned long long u64;

#define WARP 32
#define ALL 0xFFFFFFFFu

/// How one element of a stream of random numbers is judged: kept and scaled, or dropped. A threshold of 0 drops nothing.
struct Dropout {
    u32 seed0, seed1, purpose, step0, step1, threshold;
    float scale;
};

/// The four numbers at `counter`: Philox4x32-10, as in philox.rs.
__device__ uint4 philox(uint4 counter, uint2 key) {
    for (int round = 0; round < 10; round++) {
        u32 high0 = __umulhi(0xD2511F53u, counter.x), low0 = 0xD2511F53u * counter.x;
        u32 high1 = __umulhi(0xCD9E8D57u, counter.z), low1 = 0xCD9E8D57u * counter.z;
        counter = make_uint4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
        key.x += 0x9E3779B9u;
        key.y += 0xBB67AE85u;
    }
    return counter;
}

/// What element `i` is multiplied by.
__device__ float factor(Dropout dropout, u64 i) {
    if (dropout.threshold == 0) return dropout.scale;
    uint4 counter = make_uint4((u32)(i / 4), dropout.purpose, dropout.step0, dropout.step1);
    uint4 drawn = philox(counter, make_uint2(dropout.seed0, dropout.seed1));
    u32 word = (u32)i & 3;
    u32 number = word == 0 ? drawn.x : word == 1 ? drawn.y : word == 2 ? drawn.z : drawn.w;
    return number >= dropout.threshold ? dropout.scale : 0.0f;
}

__device__ u64 thread() {
    return (u64)blockIdx.x * blockDim.x + threadIdx.x;
}

/// For all threads of a warp.
template <typename T>
__device__ T warp_sum(T value) {
    for (int offset = WARP / 2; offset; offset /= 2) value += __shfl_xor_sync(ALL, value, offset);
    return value;
}

__device__ float warp_max(float value) {
    for (int offset = WARP / 2; offset; offset /= 2) value = fmaxf(value, __shfl_xor_sync(ALL, value, offset));
    return value;
}

/// For all threads of a block of whole warps.
template <typename T>
__device__ T block_sum(T value) {
    __shared__ T parts[WARP];
    value = warp_sum(value);
    __syncthreads();
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = value;
    __syncthreads();
    T sum = 0;
    for (u32 warp = 0; warp < blockDim.x / WARP; warp++) sum += parts[warp];
    return sum;
}

extern "C" __global__ void dropout(const float *x, float *y, u64 count, Dropout dropout) {
    u64 i = thread();
    if (i < count) y[i] = x[i] * factor(dropout, i);
}

extern "C" __global__ void gelu(const float *x, float *y, u64 count) {
    u64 i = thread();
    if (i < count) y[i] = x[i] * normcdff(x[i]);
}

/// d/dx x Φ(x) = Φ(x) + x φ(x).
extern "C" __global__ void gelu_gradient(const float *x, const float *g, float *out, u64 count) {
    u64 i = thread();
    if (i < count) out[i] = g[i] * (normcdff(x[i]) + x[i] * (0.3989422804f * expf(-0.5f * x[i] * x[i])));
}

extern "C" __global__ void add_bias(float *y, const float *bias, u64 count, u32 width) {
    u64 i = thread();
    if (i < count) y[i] += bias[i % width];
}

/// Sums of `part` rows each, a column a thread: blocks of 32 × 8 threads, `out: [parts, width]`.
extern "C" __global__ void column_sums(const float *x, float *out, u64 rows, u32 width, u32 part) {
    __shared__ float sums[8][WARP];
    u32 column = blockIdx.x * WARP + threadIdx.x;
    u64 first = (u64)blockIdx.y * part, end = min(first + part, rows);
    float sum = 0.0f;
    if (column < width) {
        for (u64 row = first + threadIdx.y; row < end; row += 8) sum += x[row * width + column];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < width) {
        for (int i = 1; i < 8; i++) sum += sums[i][threadIdx.x];
        out[(u64)blockIdx.y * width + column] = sum;
    }
}

/// A row a block.
extern "C" __global__ void embedding(const float *table, const u32 *ids, float *y, u32 width) {
    table += (u64)ids[blockIdx.x] * width;
    y += (u64)blockIdx.x * width;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) y[i] = table[i];
}

/// A row of the table a block: the sum over the positions from `starts[block]` on.
extern "C" __global__ void embedding_gradient(
    const float *g, const u32 *numbers, const u32 *starts, const u32 *positions, float *out, u32 width
) {
    u32 first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    out += (u64)numbers[blockIdx.x] * width;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        float sum = 0.0f;
        for (u32 place = first; place < end; place++) sum += g[(u64)positions[place] * width + i];
        out[i] = sum;
    }
}

/// A row a block.
extern "C" __global__ void layer_norm(const float *x, const float *weight, const float *bias, float *y, u32 width, float eps) {
    x += (u64)blockIdx.x * width;
    y += (u64)blockIdx.x * width;
    float sum = 0.0f, squares = 0.0f;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) sum += x[i];
    float mean = block_sum(sum) / width;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) squares += (x[i] - mean) * (x[i] - mean);
    float scale = 1.0f / sqrtf(block_sum(squares) / width + eps);
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

/// A row a block. `out: [2, rows, width]`: the gradient of x, and what the gradient of the weight is the column sums of.
extern "C" __global__ void layer_norm_gradient(
    const float *x, const float *weight, const float *g, float *out, u64 count, u32 width, float eps
) {
    u64 row = (u64)blockIdx.x * width;
    x += row;
    g += row;
    float *by_weight = out + count + row;
    out += row;
    float sum = 0.0f, squares = 0.0f;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) sum += x[i];
    float mean = block_sum(sum) / width;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) squares += (x[i] - mean) * (x[i] - mean);
    float scale = 1.0f / sqrtf(block_sum(squares) / width + eps);
    float inner = 0.0f, along = 0.0f;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        float weighted = g[i] * weight[i];
        inner += weighted;
        along += weighted * ((x[i] - mean) * scale);
    }
    inner = block_sum(inner) / width;
    along = block_sum(along) / width;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        float normal = (x[i] - mean) * scale;
        out[i] = scale * (g[i] * weight[i] - inner - normal * along);
        by_weight[i] = g[i] * normal;
    }
}

/// exp(scale · score − largest) of a key, 0 of one that is masked, and of all where the largest is −∞.
__device__ float exponential(const float *scores, const float *mask, u32 i, float scale, float largest) {
    if (largest == __int_as_float(0xFF800000) || (mask && mask[i] == 0.0f)) return 0.0f;
    return expf(scale * scores[i] - largest);
}

/// The largest of a row's scaled scores, and the sum of its exponentials. A row a warp.
__device__ float2 softmax_terms(const float *scores, const float *mask, u32 length, float scale) {
    float largest = __int_as_float(0xFF800000), sum = 0.0f;
    for (u32 i = threadIdx.x; i < length; i += WARP) {
        if (!mask || mask[i] != 0.0f) largest = fmaxf(largest, scale * scores[i]);
    }
    largest = warp_max(largest);
    for (u32 i = threadIdx.x; i < length; i += WARP) sum += exponential(scores, mask, i, scale, largest);
    return make_float2(largest, warp_sum(sum));
}

/// A row a warp: blocks of 32 × 4 threads. `scores: [rows, length]`, `mask: [rows / rows_of_mask, length]` or null.
extern "C" __global__ void attention_probabilities(
    const float *scores, const float *mask, float *y, u64 rows, u32 length, u64 rows_of_mask, float scale, Dropout dropout
) {
    u64 row = (u64)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    u64 first = row * length;
    scores += first;
    if (mask) mask += row / rows_of_mask * length;
    float2 terms = softmax_terms(scores, mask, length, scale);
    for (u32 i = threadIdx.x; i < length; i += WARP) {
        float e = exponential(scores, mask, i, scale, terms.x);
        y[first + i] = e == 0.0f ? 0.0f : e / terms.y * factor(dropout, first + i);
    }
}

/// The gradient of the scores, from that of what `attention_probabilities` gave.
extern "C" __global__ void attention_gradient(
    const float *scores, const float *mask, const float *g, float *out, u64 rows, u32 length, u64 rows_of_mask, float scale,
    Dropout dropout
) {
    u64 row = (u64)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    u64 first = row * length;
    scores += first;
    if (mask) mask += row / rows_of_mask * length;
    float2 terms = softmax_terms(scores, mask, length, scale);
    float along = 0.0f;
    for (u32 i = threadIdx.x; i < length; i += WARP) {
        float e = exponential(scores, mask, i, scale, terms.x);
        if (e != 0.0f) along += e / terms.y * (g[first + i] * factor(dropout, first + i));
    }
    along = warp_sum(along);
    for (u32 i = threadIdx.x; i < length; i += WARP) {
        float e = exponential(scores, mask, i, scale, terms.x);
        float kept = g[first + i] * factor(dropout, first + i);
        out[first + i] = e == 0.0f ? 0.0f : scale * (e / terms.y) * (kept - along);
    }
}

/// `mask` may be null.
extern "C" __global__ void adamw(
    float *p, const float *g, float *m, float *v, const float *mask, u64 count, float gradient, float decay, float beta1,
    float beta1_rest, float beta2, float beta2_rest, float root, float eps, float rate
) {
    u64 i = thread();
    if (i >= count) return;
    float scaled = gradient * g[i];
    float first = beta1 * m[i] + beta1_rest * scaled;
    float second = beta2 * v[i] + beta2_rest * (scaled * scaled);
    float updated = decay * p[i] - rate * (first / (sqrtf(second) * root + eps));
    m[i] = first;
    v[i] = second;
    p[i] = mask ? updated * mask[i] : updated;
}

/// Σ x² of each block's share in f64, so that the sum of `out: [blocks]` is that of all.
extern "C" __global__ void squares(const float *x, double *out, u64 count) {
    double sum = 0.0;
    for (u64 i = thread(); i < count; i += (u64)gridDim.x * blockDim.x) sum += (double)x[i] * x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

/// Within the two bounds; NaN stays.
__device__ float held(float x, float low, float high) {
    return x < low ? low : x > high ? high : x;
}

/// The integer nearest to the quotient, ties to even.
__device__ float nearest(float x, float scale) {
    return rintf(held(x / scale, -1048576.0f, 1048576.0f));
}

/// The scale of element `i`: its row's where there are `scales`, else `scale`.
__device__ float scale_of(const float *scales, float scale, u64 i, u64 width) {
    return scales ? scales[i / width] : scale;
}

/// `levels`, which may be null, has what stands for each integer from −127 on.
extern "C" __global__ void fake_quantize(
    const float *x, const float *scales, const float *levels, float *y, u64 count, u64 width, float scale, float zero,
    float low, float high
) {
    u64 i = thread();
    if (i >= count) return;
    float step = scale_of(scales, scale, i, width);
    float q = held(nearest(x[i], step) + zero, low, high);
    if (levels && q == q) q = levels[(int)q + 127];
    y[i] = (q - zero) * step;
}

/// The gradient passes where nothing was clipped.
extern "C" __global__ void fake_quantize_gradient(
    const float *x, const float *scales, const float *g, float *out, u64 count, u64 width, float scale, float zero, float low,
    float high
) {
    u64 i = thread();
    if (i >= count) return;
    float q = nearest(x[i], scale_of(scales, scale, i, width)) + zero;
    out[i] = q >= low && q <= high ? g[i] : 0.0f;
}

/// For all threads of a block of whole warps.
__device__ float block_max(float value) {
    __shared__ float parts[WARP];
    value = warp_max(value);
    __syncthreads();
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = value;
    __syncthreads();
    float largest = parts[0];
    for (u32 warp = 1; warp < blockDim.x / WARP; warp++) largest = fmaxf(largest, parts[warp]);
    return largest;
}

/// A row a block: its largest magnitude over `limit`, 1 for a row of zeros.
extern "C" __global__ void row_scales(const float *x, float *out, u64 width, float limit) {
    x += blockIdx.x * width;
    float largest = 0.0f;
    for (u64 i = threadIdx.x; i < width; i += blockDim.x) largest = fmaxf(largest, fabsf(x[i]));
    largest = block_max(largest);
    if (threadIdx.x == 0) out[blockIdx.x] = largest == 0.0f ? 1.0f : largest / limit;
}

/// The least and the largest element of each block's share, `out: [blocks, 2]`; NaN where it has one.
extern "C" __global__ void ranges(const float *x, float *out, u64 count) {
    float low = __int_as_float(0x7F800000), high = -low;
    int bad = 0;
    for (u64 i = thread(); i < count; i += (u64)gridDim.x * blockDim.x) {
        bad |= x[i] != x[i];
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    low = -block_max(-low);
    high = block_max(high);
    bad = __syncthreads_or(bad);
    if (threadIdx.x == 0) {
        out[2 * blockIdx.x] = bad ? __int_as_float(0x7FC00000) : low;
        out[2 * blockIdx.x + 1] = high;
    }
}

/// Where the element `i` of a channel, of fewer than 2³², is, counted over all images: `[batch, channels, plane]`.
__device__ u64 place_of(u32 i, u32 channel, u32 channels, u32 plane) {
    return ((u64)(i / plane) * channels + channel) * plane + i % plane;
}

/// A channel a block: its mean and its biased variance, `out: [2, channels]`.
extern "C" __global__ void moments(const float *x, float *out, u32 batch, u32 channels, u32 plane) {
    u32 channel = blockIdx.x, count = batch * plane;
    float sum = 0.0f, squares = 0.0f;
    for (u64 i = threadIdx.x; i < count; i += blockDim.x) sum += x[place_of(i, channel, channels, plane)];
    float mean = block_sum(sum) / count;
    for (u64 i = threadIdx.x; i < count; i += blockDim.x) {
        float centred = x[place_of(i, channel, channels, plane)] - mean;
        squares += centred * centred;
    }
    squares = block_sum(squares);
    if (threadIdx.x == 0) {
        out[channel] = mean;
        out[channels + channel] = squares / count;
    }
}

/// A normalized element of a channel, by `moments: [2, channels]`.
__device__ float normal_of(float x, const float *moments, u32 channel, u32 channels, float eps) {
    return (x - moments[channel]) * (1.0f / sqrtf(moments[channels + channel] + eps));
}

extern "C" __global__ void batch_norm(
    const float *x, const float *moments, const float *weight, const float *bias, float *y, u64 count, u32 channels, u32 plane,
    float eps, u32 rectified
) {
    u64 i = thread();
    if (i >= count) return;
    u32 channel = i / plane % channels;
    float out = normal_of(x[i], moments, channel, channels, eps) * weight[channel] + bias[channel];
    y[i] = rectified && out < 0.0f ? 0.0f : out;
}

/// The gradient behind the rectifier, if there is one.
__device__ float through_rectifier(float g, float normal, float weight, float bias, u32 rectified) {
    return rectified && !(normal * weight + bias > 0.0f) ? 0.0f : g;
}

/// A channel a block: Σ g and Σ g · normal, `out: [2, channels]`, the gradients of bias and weight.
extern "C" __global__ void batch_norm_sums(
    const float *x, const float *moments, const float *weight, const float *bias, const float *g, float *out, u32 batch,
    u32 channels, u32 plane, float eps, u32 rectified
) {
    u32 channel = blockIdx.x, count = batch * plane;
    float sum = 0.0f, along = 0.0f;
    for (u64 i = threadIdx.x; i < count; i += blockDim.x) {
        u64 place = place_of(i, channel, channels, plane);
        float normal = normal_of(x[place], moments, channel, channels, eps);
        float gradient = through_rectifier(g[place], normal, weight[channel], bias[channel], rectified);
        sum += gradient;
        along += gradient * normal;
    }
    sum = block_sum(sum);
    along = block_sum(along);
    if (threadIdx.x == 0) {
        out[channel] = sum;
        out[channels + channel] = along;
    }
}

/// `sums` are those of `batch_norm_sums`, `of_each` the number of elements of a channel.
extern "C" __global__ void batch_norm_gradient(
    const float *x, const float *moments, const float *weight, const float *bias, const float *sums, const float *g, float *out,
    u64 count, u32 channels, u32 plane, float of_each, float eps, u32 rectified
) {
    u64 i = thread();
    if (i >= count) return;
    u32 channel = i / plane % channels;
    float normal = normal_of(x[i], moments, channel, channels, eps);
    float gradient = through_rectifier(g[i], normal, weight[channel], bias[channel], rectified);
    float scale = weight[channel] / sqrtf(moments[channels + channel] + eps);
    out[i] = scale * (gradient - sums[channel] / of_each - normal * (sums[channels + channel] / of_each));
}

/// The sizes of a pooling: of a plane in, of a plane out, and of its windows.
struct Pooling {
    u32 height, width, rows, columns, kernel, stride;
};

/// Where the largest element of a window is in its plane: the first of equal ones, and NaN above all.
__device__ u32 largest_of(const float *plane, Pooling p, u32 row, u32 column) {
    u32 corner = row * p.stride * p.width + column * p.stride, best = corner;
    for (u32 y = 0; y < p.kernel; y++) {
        for (u32 x = 0; x < p.kernel; x++) {
            u32 place = corner + y * p.width + x;
            float v = plane[place], largest = plane[best];
            if (v > largest || (v != v && largest == largest)) best = place;
        }
    }
    return best;
}

/// An element of the output a thread.
extern "C" __global__ void max_pool(const float *x, float *y, u64 count, Pooling p) {
    u64 i = thread();
    if (i >= count) return;
    u32 place = i % (p.rows * p.columns);
    const float *plane = x + i / (p.rows * p.columns) * ((u64)p.height * p.width);
    y[i] = plane[largest_of(plane, p, place / p.columns, place % p.columns)];
}

/// An element of the input a thread: the sum over the windows in which it is the largest.
extern "C" __global__ void max_pool_gradient(const float *x, const float *g, float *out, u64 count, Pooling p) {
    u64 i = thread();
    if (i >= count) return;
    u32 place = i % (p.height * p.width), row = place / p.width, column = place % p.width;
    u64 plane = i / (p.height * p.width);
    x += plane * ((u64)p.height * p.width);
    g += plane * ((u64)p.rows * p.columns);
    u32 first_row = row < p.kernel ? 0 : (row - p.kernel) / p.stride + 1;
    u32 first_column = column < p.kernel ? 0 : (column - p.kernel) / p.stride + 1;
    float sum = 0.0f;
    for (u32 r = first_row; r <= row / p.stride && r < p.rows; r++) {
        for (u32 c = first_column; c <= column / p.stride && c < p.columns; c++) {
            if (largest_of(x, p, r, c) == place) sum += g[r * p.columns + c];
        }
    }
    out[i] = sum;
}
