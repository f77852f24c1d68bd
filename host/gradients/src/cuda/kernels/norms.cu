// RMS and layer norms of rows; one warp a row.
#include "values.cuh"

template <typename T, int N>
__device__ void rms_forward(const T* x, const float* weight, T* y, float eps, int width, int rows) {
    int64_t row = warp_row();
    if (row >= rows) return;
    int lane = threadIdx.x & 31;
    x += row * width, y += row * width;
    float squares = 0;
    for (int j = lane * N; j < width; j += 32 * N) {
        float a[N];
        load<N>(x + j, a);
#pragma unroll
        for (int i = 0; i < N; i++) squares += a[i] * a[i];
    }
    float inverse = rsqrtf(warp_sum(squares) / width + eps);
    for (int j = lane * N; j < width; j += 32 * N) {
        float a[N], w[N];
        load<N>(x + j, a);
        load<N>(weight + j, w);
#pragma unroll
        for (int i = 0; i < N; i++) a[i] *= inverse * w[i];
        store<N>(y + j, a);
    }
}

// dx, or none if it is null; 1 / rms of each row, or none if it is null.
template <typename T, int N>
__device__ void rms_backward(const T* x, const float* weight, const T* dy, T* dx, float* inverses, float eps, int width,
                             int rows) {
    int64_t row = warp_row();
    if (row >= rows) return;
    int lane = threadIdx.x & 31;
    x += row * width, dy += row * width;
    float squares = 0, dot = 0;
    for (int j = lane * N; j < width; j += 32 * N) {
        float a[N], w[N], g[N];
        load<N>(x + j, a);
        load<N>(weight + j, w);
        load<N>(dy + j, g);
#pragma unroll
        for (int i = 0; i < N; i++) squares += a[i] * a[i], dot += a[i] * w[i] * g[i];
    }
    float inverse = rsqrtf(warp_sum(squares) / width + eps);
    float pull = warp_sum(dot) * inverse * inverse * inverse / width;
    if (inverses && lane == 0) inverses[row] = inverse;
    if (!dx) return;
    dx += row * width;
    for (int j = lane * N; j < width; j += 32 * N) {
        float a[N], w[N], g[N];
        load<N>(x + j, a);
        load<N>(weight + j, w);
        load<N>(dy + j, g);
#pragma unroll
        for (int i = 0; i < N; i++) a[i] = g[i] * w[i] * inverse - a[i] * pull;
        store<N>(dx + j, a);
    }
}

template <typename T, int N>
__device__ void moments(const T* x, float eps, int width, int lane, float& mean, float& inverse) {
    float sum = 0, squares = 0;
    for (int j = lane * N; j < width; j += 32 * N) {
        float a[N];
        load<N>(x + j, a);
#pragma unroll
        for (int i = 0; i < N; i++) sum += a[i];
    }
    mean = warp_sum(sum) / width;
    for (int j = lane * N; j < width; j += 32 * N) {
        float a[N];
        load<N>(x + j, a);
#pragma unroll
        for (int i = 0; i < N; i++) squares += (a[i] - mean) * (a[i] - mean);
    }
    inverse = rsqrtf(warp_sum(squares) / width + eps);
}

template <typename T, int N>
__device__ void layer_forward(const T* x, const float* weight, const float* bias, T* y, float eps, int width, int rows) {
    int64_t row = warp_row();
    if (row >= rows) return;
    int lane = threadIdx.x & 31;
    x += row * width, y += row * width;
    float mean, inverse;
    moments<T, N>(x, eps, width, lane, mean, inverse);
    for (int j = lane * N; j < width; j += 32 * N) {
        float a[N], w[N], b[N];
        load<N>(x + j, a);
        load<N>(weight + j, w);
        load<N>(bias + j, b);
#pragma unroll
        for (int i = 0; i < N; i++) a[i] = (a[i] - mean) * inverse * w[i] + b[i];
        store<N>(y + j, a);
    }
}

// dx, or none if it is null; mean and 1 / deviation of each row, or none if they are null.
template <typename T, int N>
__device__ void layer_backward(const T* x, const float* weight, const T* dy, T* dx, float* means, float* inverses,
                               float eps, int width, int rows) {
    int64_t row = warp_row();
    if (row >= rows) return;
    int lane = threadIdx.x & 31;
    x += row * width, dy += row * width;
    float mean, inverse, sum = 0, dot = 0;
    moments<T, N>(x, eps, width, lane, mean, inverse);
    if (inverses && lane == 0) means[row] = mean, inverses[row] = inverse;
    if (!dx) return;
    dx += row * width;
    for (int j = lane * N; j < width; j += 32 * N) {
        float a[N], w[N], g[N];
        load<N>(x + j, a);
        load<N>(weight + j, w);
        load<N>(dy + j, g);
#pragma unroll
        for (int i = 0; i < N; i++) sum += w[i] * g[i], dot += w[i] * g[i] * (a[i] - mean) * inverse;
    }
    sum = warp_sum(sum) / width, dot = warp_sum(dot) / width;
    for (int j = lane * N; j < width; j += 32 * N) {
        float a[N], w[N], g[N];
        load<N>(x + j, a);
        load<N>(weight + j, w);
        load<N>(dy + j, g);
#pragma unroll
        for (int i = 0; i < N; i++) a[i] = inverse * (w[i] * g[i] - sum - (a[i] - mean) * inverse * dot);
        store<N>(dx + j, a);
    }
}

// Sums of dy * (x - mean) * inverse, and of dy, over the rows of a chunk: block (32, 8), grid (width / 32, chunks).
// means is null for zeros, dbias null for none. The same sums on every run: no atomics.
template <typename T>
__device__ void weight_partials(const T* x, const T* dy, const float* means, const float* inverses, float* dweight,
                                float* dbias, int width, int rows, int chunk) {
    __shared__ float shared[2][8][33];
    int column = blockIdx.x * 32 + threadIdx.x;
    int first = blockIdx.y * chunk, end = min(first + chunk, rows);
    float weights = 0, biases = 0;
    if (column < width) {
        for (int row = first + (int)threadIdx.y; row < end; row += 8) {
            int64_t at = (int64_t)row * width + column;
            float g = widened(dy[at]), centred = widened(x[at]) - (means ? means[row] : 0.f);
            weights += g * centred * inverses[row];
            biases += g;
        }
    }
    shared[0][threadIdx.y][threadIdx.x] = weights;
    shared[1][threadIdx.y][threadIdx.x] = biases;
    __syncthreads();
    if (threadIdx.y == 0 && column < width) {
        weights = 0, biases = 0;
        for (int i = 0; i < 8; i++) weights += shared[0][i][threadIdx.x], biases += shared[1][i][threadIdx.x];
        dweight[(int64_t)blockIdx.y * width + column] = weights;
        if (dbias) dbias[(int64_t)blockIdx.y * width + column] = biases;
    }
}

#define KERNELS(T, NAME, N)                                                                                            \
    extern "C" __global__ void rms_forward_##NAME##_##N(const T* x, const float* w, T* y, float e, int width, int rows) { \
        rms_forward<T, N>(x, w, y, e, width, rows);                                                                    \
    }                                                                                                                  \
    extern "C" __global__ void rms_backward_##NAME##_##N(const T* x, const float* w, const T* dy, T* dx, float* inverses, \
                                                         float e, int width, int rows) {                              \
        rms_backward<T, N>(x, w, dy, dx, inverses, e, width, rows);                                                    \
    }                                                                                                                  \
    extern "C" __global__ void layer_forward_##NAME##_##N(const T* x, const float* w, const float* b, T* y, float e,   \
                                                          int width, int rows) {                                       \
        layer_forward<T, N>(x, w, b, y, e, width, rows);                                                               \
    }                                                                                                                  \
    extern "C" __global__ void layer_backward_##NAME##_##N(const T* x, const float* w, const T* dy, T* dx, float* means, \
                                                           float* inverses, float e, int width, int rows) {            \
        layer_backward<T, N>(x, w, dy, dx, means, inverses, e, width, rows);                                           \
    }
FOR_EACH_TYPE(KERNELS)

#define PARTIALS(T, NAME)                                                                                              \
    extern "C" __global__ void weight_partials_##NAME(const T* x, const T* dy, const float* means, const float* inverses, \
                                                      float* dweight, float* dbias, int width, int rows, int chunk) {  \
        weight_partials<T>(x, dy, means, inverses, dweight, dbias, width, rows, chunk);                                \
    }
PARTIALS(float, f32)
PARTIALS(bf16, bf16)

// The sums of the columns of partials [chunks, width].
extern "C" __global__ void sum_partials(const float* partials, float* out, int width, int chunks) {
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    float sum = 0;
    for (int i = 0; i < chunks; i++) sum += partials[(int64_t)i * width + column];
    out[column] = sum;
}
