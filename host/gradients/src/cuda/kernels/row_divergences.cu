// Divergence of rows of logits from a teacher's, and its gradient in their place; one block a row.
#include "row_softmax.cuh"

// sum of p (log p - log q) of each row, p of the teacher and q of `logits`, times the row's weight; a row of weight 0 is
// not looked at.
template <int N>
__device__ void row_divergence(float* logits, const float* teacher, const float* weights, float* divergences,
                               int vocabulary, int with_gradient) {
    __shared__ float parts[THREADS / 32];
    int64_t row = blockIdx.x;
    logits += row * vocabulary;
    teacher += row * vocabulary;
    float weight = weights[row];
    if (weight == 0.f) {
        if (threadIdx.x == 0) divergences[row] = 0.f;
        if (with_gradient) clear<N>(logits, vocabulary);
        return;
    }
    float largest, sum, teacher_largest, teacher_sum;
    largest_and_sum<N>(logits, vocabulary, largest, sum);
    __syncthreads();
    largest_and_sum<N>(teacher, vocabulary, teacher_largest, teacher_sum);
    float log_sum = logf(sum) + largest, teacher_log_sum = logf(teacher_sum) + teacher_largest;
    float divergence = 0;
    for (int j = threadIdx.x * N; j < vocabulary; j += THREADS * N) {
        float a[N], b[N];
        load<N>(logits + j, a);
        load<N>(teacher + j, b);
#pragma unroll
        for (int i = 0; i < N; i++) {
            float log_q = a[i] - log_sum, log_p = b[i] - teacher_log_sum, p = __expf(log_p);
            divergence += p * (log_p - log_q);
            a[i] = weight * (__expf(log_q) - p);
        }
        if (with_gradient) store<N>(logits + j, a);
    }
    divergence = warp_sum(divergence);
    if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = divergence;
    __syncthreads();
    if (threadIdx.x != 0) return;
    float whole = 0;
    for (int i = 0; i < THREADS / 32; i++) whole += parts[i];
    divergences[row] = weight * whole;
}

#define KERNELS(N)                                                                                                     \
    extern "C" __global__ void row_divergence_f32_##N(float* logits, const float* teacher, const float* weights,       \
                                                      float* divergences, int vocabulary, int with_gradient) {         \
        row_divergence<N>(logits, teacher, weights, divergences, vocabulary, with_gradient);                           \
    }
KERNELS(1)
KERNELS(4)
