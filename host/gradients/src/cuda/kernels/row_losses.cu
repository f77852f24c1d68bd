// Cross entropy of rows of logits, and its gradient in their place; one block a row.
#include "row_softmax.cuh"

// weights may be null for ones; a row of weight 0 is not looked at. A target outside of the vocabulary gives NaN.
template <typename T, int N>
__device__ void row_loss(T* logits, const uint32_t* targets, const float* weights, float* losses, int vocabulary,
                         int with_gradient) {
    int64_t row = blockIdx.x;
    logits += row * vocabulary;
    float weight = weights ? weights[row] : 1.f;
    uint32_t target = targets[row];
    if (weight == 0.f) {
        if (threadIdx.x == 0) losses[row] = 0.f;
        if (!with_gradient) return;
        clear<N>(logits, vocabulary);
        return;
    }
    float at_target = target < (uint32_t)vocabulary ? widened(logits[target]) : NAN;
    float largest, sum;
    largest_and_sum<N>(logits, vocabulary, largest, sum);
    if (threadIdx.x == 0) losses[row] = weight * (logf(sum) + largest - at_target);
    if (!with_gradient) return;
    // Every thread has read the target's logit before the barrier of the sum: now it may be overwritten.
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
