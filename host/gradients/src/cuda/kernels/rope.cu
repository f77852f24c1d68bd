// Rotation of the pairs of each head by the angles of the row's position.
#include "values.cuh"

// N pairs a thread. cos and sin [length, half]; count is rows * heads * half / N. sign -1 turns back.
template <typename T, int N>
__device__ void rope(const T* x, T* y, const float* cos, const float* sin, float sign, int heads, int half, int length,
                     int interleaved, int64_t count) {
    for (int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; at < count; at += (int64_t)gridDim.x * blockDim.x) {
        int pair = at % (half / N) * N;
        int64_t head = at / (half / N);
        int position = head / heads % length;
        const T* from = x + head * 2 * half;
        T* to = y + head * 2 * half;
        float c[N], s[N], a[N], b[N];
        load<N>(cos + (int64_t)position * half + pair, c);
        load<N>(sin + (int64_t)position * half + pair, s);
        if (interleaved) {
#pragma unroll
            for (int i = 0; i < N; i++) a[i] = widened(from[2 * (pair + i)]), b[i] = widened(from[2 * (pair + i) + 1]);
        } else {
            load<N>(from + pair, a);
            load<N>(from + half + pair, b);
        }
#pragma unroll
        for (int i = 0; i < N; i++) {
            float turned = a[i] * c[i] - b[i] * s[i] * sign;
            b[i] = a[i] * s[i] * sign + b[i] * c[i];
            a[i] = turned;
        }
        if (interleaved) {
#pragma unroll
            for (int i = 0; i < N; i++) narrow(a[i], to[2 * (pair + i)]), narrow(b[i], to[2 * (pair + i) + 1]);
        } else {
            store<N>(to + pair, a);
            store<N>(to + half + pair, b);
        }
    }
}

#define KERNELS(T, NAME, N)                                                                                            \
    extern "C" __global__ void rope_##NAME##_##N(const T* x, T* y, const float* cos, const float* sin, float sign,     \
                                                 int heads, int half, int length, int interleaved, int64_t count) {    \
        rope<T, N>(x, y, cos, sin, sign, heads, half, length, interleaved, count);                                     \
    }
FOR_EACH_TYPE(KERNELS)
