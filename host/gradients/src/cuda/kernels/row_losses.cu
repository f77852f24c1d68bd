// Cross entropy of rows of logits, and its gradient in their place; one block a row.
#include "values.cuh"

#define THREADS 512

// Largest value and sum of exp(x - largest) of two parts.
__device__ __forceinline__ void merge(float& largest, float& sum, float other_largest, float other_sum) {
    float both = fmaxf(largest, other_largest);
    if (both == -INFINITY) return;
    sum = sum * __expf(largest - both) + other_sum * __expf(other_largest - both);
    largest = both;
}

// weights may be null for ones; a row of weight 0 is not looked at. A target outside of the vocabulary gives NaN.
template <typename T, int N>
__device__ void row_loss(T* logits, const uint32_t* targets, const float* weights, float* losses, int vocabulary,
                         int with_gradient) {
    __shared__ float maxima[THREADS / 32], sums[THREADS / 32];
    int64_t row = blockIdx.x;
    logits += row * vocabulary;
    float weight = weights ? weights[row] : 1.f;
    uint32_t target = targets[row];
    if (weight == 0.f) {
        if (threadIdx.x == 0) losses[row] = 0.f;
        if (!with_gradient) return;
        float zeros[N];
#pragma unroll
        for (int i = 0; i < N; i++) zeros[i] = 0.f;
        for (int j = threadIdx.x * N; j < vocabulary; j += THREADS * N) store<N>(logits + j, zeros);
        return;
    }
    float at_target = target < (uint32_t)vocabulary ? widened(logits[target]) : NAN;
    float largest = -INFINITY, sum = 0;
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
    if (threadIdx.x == 0) losses[row] = weight * (logf(sum) + largest - at_target);
    if (!with_gradient) return;
    // Every thread has read the target's logit before the barrier above: now it may be overwritten.
    float factor = weight / sum;
    for (int j = threadIdx.x * N; j < vocabulary; j += THREADS * N) {
        float a[N];
        load<N>(logits + j, a);
#pragma unroll
        for (int i = 0; i < N; i++) a[i] = __expf(a[i] - largest) * factor - ((uint32_t)(j + i) == target ? weight : 0.f);
        store<N>(logits + j, a);
    }
}

#define KERNELS(T, NAME, N)                                                                                            \
    extern "C" __global__ void row_loss_##NAME##_##N(T* logits, const uint32_t* targets, const float* weights,         \
                                                     float* losses, int vocabulary, int with_gradient) {               \
        row_loss<T, N>(logits, targets, weights, losses, vocabulary, with_gradient);                                   \
    }
FOR_EACH_TYPE(KERNELS)
