// Softmax of rows, plain and of attention scores; one warp a row.
#include "values.cuh"

// Softmax of scale * x over the first n of width values, zeros behind them. x and y may be the same.
template <typename T, int N>
__device__ void softmax_row(const T* x, T* y, float scale, int n, int width, int lane) {
    float largest = -INFINITY, sum = 0;
    for (int j = lane * N; j < n; j += 32 * N) {
        float a[N];
        load<N>(x + j, a);
#pragma unroll
        for (int i = 0; i < N; i++)
            if (j + i < n) largest = fmaxf(largest, a[i] * scale);
    }
    largest = warp_max(largest);
    for (int j = lane * N; j < n; j += 32 * N) {
        float a[N];
        load<N>(x + j, a);
#pragma unroll
        for (int i = 0; i < N; i++)
            if (j + i < n) sum += __expf(a[i] * scale - largest);
    }
    float inverse = 1.f / warp_sum(sum);
    for (int j = lane * N; j < width; j += 32 * N) {
        float a[N];
        load<N>(x + j, a);
#pragma unroll
        for (int i = 0; i < N; i++) a[i] = j + i < n ? __expf(a[i] * scale - largest) * inverse : 0.f;
        store<N>(y + j, a);
    }
}

// scale * p * (g - sum(p g)). g and out may be the same.
template <typename T, int N>
__device__ void softmax_row_backward(const T* p, const T* g, T* out, float scale, int width, int lane) {
    float dot = 0;
    for (int j = lane * N; j < width; j += 32 * N) {
        float a[N], b[N];
        load<N>(p + j, a);
        load<N>(g + j, b);
#pragma unroll
        for (int i = 0; i < N; i++) dot += a[i] * b[i];
    }
    dot = warp_sum(dot);
    for (int j = lane * N; j < width; j += 32 * N) {
        float a[N], b[N];
        load<N>(p + j, a);
        load<N>(g + j, b);
#pragma unroll
        for (int i = 0; i < N; i++) a[i] = scale * a[i] * (b[i] - dot);
        store<N>(out + j, a);
    }
}

// causal_from < 0: every row sees all keys; otherwise row i of each `group` rows sees causal_from + i + 1 of them.
#define KERNELS(T, NAME, N)                                                                                            \
    extern "C" __global__ void softmax_forward_##NAME##_##N(const T* x, T* y, float scale, int width, int rows,        \
                                                            int group, int causal_from) {                              \
        int64_t row = warp_row();                                                                                      \
        if (row >= rows) return;                                                                                       \
        int n = causal_from < 0 ? width : min(width, causal_from + (int)(row % group) + 1);                            \
        softmax_row<T, N>(x + row * width, y + row * width, scale, n, width, threadIdx.x & 31);                        \
    }                                                                                                                  \
    extern "C" __global__ void softmax_backward_##NAME##_##N(const T* p, const T* g, T* out, float scale, int width,   \
                                                             int rows) {                                               \
        int64_t row = warp_row();                                                                                      \
        if (row >= rows) return;                                                                                       \
        softmax_row_backward<T, N>(p + row * width, g + row * width, out + row * width, scale, width, threadIdx.x & 31); \
    }
FOR_EACH_TYPE(KERNELS)
