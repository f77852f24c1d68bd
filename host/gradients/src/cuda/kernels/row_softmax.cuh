// What softmax over a row needs, where one block has one row.
#pragma once
#include "values.cuh"

#define THREADS 512

// Largest value and sum of exp(x - largest) of two parts.
__device__ __forceinline__ void merge(float& largest, float& sum, float other_largest, float other_sum) {
    float both = fmaxf(largest, other_largest);
    if (both == -INFINITY) return;
    sum = sum * __expf(largest - both) + other_sum * __expf(other_largest - both);
    largest = both;
}

// Of a row, the same for every thread of the block. All threads call it; there is a barrier inside, and whoever calls it
// twice puts one between.
template <int N, typename T>
__device__ void largest_and_sum(const T* logits, int vocabulary, float& largest, float& sum) {
    __shared__ float maxima[THREADS / 32], sums[THREADS / 32];
    largest = -INFINITY, sum = 0;
    for (int j = threadIdx.x * N; j < vocabulary; j += THREADS * N) {
        float a[N];
        load<N>(logits + j, a);
        float here = a[0], part = 0;
#pragma unroll
        for (int i = 1; i < N; i++) here = fmaxf(here, a[i]);
#pragma unroll
        for (int i = 0; i < N; i++) part += __expf(a[i] - here);
        merge(largest, sum, here, part);
    }
    for (int offset = 16; offset; offset >>= 1) {
        float other_largest = __shfl_xor_sync(WHOLE_WARP, largest, offset);
        float other_sum = __shfl_xor_sync(WHOLE_WARP, sum, offset);
        merge(largest, sum, other_largest, other_sum);
    }
    if ((threadIdx.x & 31) == 0) maxima[threadIdx.x >> 5] = largest, sums[threadIdx.x >> 5] = sum;
    __syncthreads();
    largest = -INFINITY, sum = 0;
    for (int i = 0; i < THREADS / 32; i++) merge(largest, sum, maxima[i], sums[i]);
}

// Zeros in all of a row.
template <int N, typename T>
__device__ void clear(T* logits, int vocabulary) {
    float zeros[N];
#pragma unroll
    for (int i = 0; i < N; i++) zeros[i] = 0.f;
    for (int j = threadIdx.x * N; j < vocabulary; j += THREADS * N) store<N>(logits + j, zeros);
}
