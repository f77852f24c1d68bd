// Activations, sums and factors of values; count is of packs of N values.
#include "values.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + __expf(-x)); }
__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }
__device__ __forceinline__ float silu_slope(float x) {
    float s = sigmoid(x);
    return s * (1.f + x * (1.f - s));
}

#define SQRT_2_OVER_PI 0.7978845608028654f
#define CUBIC 0.044715f
__device__ __forceinline__ float gelu(float x) {
    return 0.5f * x * (1.f + tanhf(SQRT_2_OVER_PI * x * (1.f + CUBIC * x * x)));
}
__device__ __forceinline__ float gelu_slope(float x) {
    float t = tanhf(SQRT_2_OVER_PI * x * (1.f + CUBIC * x * x));
    return 0.5f * (1.f + t) + 0.5f * x * (1.f - t * t) * SQRT_2_OVER_PI * (1.f + 3.f * CUBIC * x * x);
}

#define FOR_EACH_PACK                                                                                                  \
    for (int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; at < count; at += (int64_t)gridDim.x * blockDim.x)

#define UNARY(T, NAME, N, OP, FORMULA)                                                                                 \
    extern "C" __global__ void OP##_##NAME##_##N(const T* x, T* y, int64_t count) {                                    \
        FOR_EACH_PACK {                                                                                                \
            float a[N];                                                                                                \
            load<N>(x + at * N, a);                                                                                    \
            _Pragma("unroll") for (int i = 0; i < N; i++) a[i] = FORMULA;                                              \
            store<N>(y + at * N, a);                                                                                   \
        }                                                                                                              \
    }

#define BINARY(T, NAME, N, OP, FORMULA)                                                                                \
    extern "C" __global__ void OP##_##NAME##_##N(const T* x, const T* y, T* out, int64_t count) {                      \
        FOR_EACH_PACK {                                                                                                \
            float a[N], b[N];                                                                                          \
            load<N>(x + at * N, a);                                                                                    \
            load<N>(y + at * N, b);                                                                                    \
            _Pragma("unroll") for (int i = 0; i < N; i++) a[i] = FORMULA;                                              \
            store<N>(out + at * N, a);                                                                                 \
        }                                                                                                              \
    }

// The factor is one float, by value or on the device.
#define KERNELS(T, NAME, N)                                                                                            \
    UNARY(T, NAME, N, silu, silu(a[i]))                                                                                \
    UNARY(T, NAME, N, gelu, gelu(a[i]))                                                                                \
    BINARY(T, NAME, N, silu_backward, b[i] * silu_slope(a[i]))                                                         \
    BINARY(T, NAME, N, gelu_backward, b[i] * gelu_slope(a[i]))                                                         \
    BINARY(T, NAME, N, silu_mul, silu(a[i]) * b[i])                                                                    \
    BINARY(T, NAME, N, sum, a[i] + b[i])                                                                               \
    extern "C" __global__ void silu_mul_backward_##NAME##_##N(const T* gate, const T* up, const T* dy, T* dgate,       \
                                                              T* dup, int64_t count) {                                 \
        FOR_EACH_PACK {                                                                                                \
            float a[N], b[N], g[N];                                                                                    \
            load<N>(gate + at * N, a);                                                                                 \
            load<N>(up + at * N, b);                                                                                   \
            load<N>(dy + at * N, g);                                                                                   \
            _Pragma("unroll") for (int i = 0; i < N; i++) {                                                            \
                b[i] *= g[i] * silu_slope(a[i]);                                                                       \
                g[i] *= silu(a[i]);                                                                                    \
            }                                                                                                          \
            store<N>(dgate + at * N, b);                                                                               \
            store<N>(dup + at * N, g);                                                                                 \
        }                                                                                                              \
    }                                                                                                                  \
    extern "C" __global__ void scaled_##NAME##_##N(const T* x, const float* factor, float by, T* y, int64_t count) {   \
        float f = factor ? *factor : by;                                                                               \
        FOR_EACH_PACK {                                                                                                \
            float a[N];                                                                                                \
            load<N>(x + at * N, a);                                                                                    \
            _Pragma("unroll") for (int i = 0; i < N; i++) a[i] *= f;                                                   \
            store<N>(y + at * N, a);                                                                                   \
        }                                                                                                              \
    }
FOR_EACH_TYPE(KERNELS)
