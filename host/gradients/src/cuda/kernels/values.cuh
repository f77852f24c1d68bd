// Values stored as float or bf16, loaded and stored as floats, N at a time (16 bytes or one value), and sums over warps.
#pragma once
#include <cuda_bf16.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

template <typename T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
    T values[N];
};

__device__ __forceinline__ float widened(float value) { return value; }
__device__ __forceinline__ float widened(bf16 value) { return __bfloat162float(value); }
__device__ __forceinline__ void narrow(float value, float& out) { out = value; }
__device__ __forceinline__ void narrow(float value, bf16& out) { out = __float2bfloat16(value); }

template <int N, typename T>
__device__ __forceinline__ void load(const T* from, float (&to)[N]) {
    Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
    for (int i = 0; i < N; i++) to[i] = widened(pack.values[i]);
}

template <int N, typename T>
__device__ __forceinline__ void store(T* to, const float (&from)[N]) {
    Pack<T, N> pack;
#pragma unroll
    for (int i = 0; i < N; i++) narrow(from[i], pack.values[i]);
    *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

#define WHOLE_WARP 0xffffffffu

__device__ __forceinline__ float warp_sum(float value) {
    for (int offset = 16; offset; offset >>= 1) value += __shfl_xor_sync(WHOLE_WARP, value, offset);
    return value;
}

__device__ __forceinline__ float warp_max(float value) {
    for (int offset = 16; offset; offset >>= 1) value = fmaxf(value, __shfl_xor_sync(WHOLE_WARP, value, offset));
    return value;
}

// The row of a warp, where each warp of the grid has one.
__device__ __forceinline__ int64_t warp_row() {
    return ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) >> 5;
}

// One kernel a type of values and number of values a load.
#define FOR_EACH_TYPE(KERNEL) KERNEL(float, f32, 1) KERNEL(float, f32, 4) KERNEL(bf16, bf16, 1) KERNEL(bf16, bf16, 8)
