// The global norm of gradients, and the update of AdamW.
#include "values.cuh"

#define THREADS 256

template <typename T>
__device__ T block_sum(T value) {
    __shared__ T shared[THREADS];
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = THREADS / 2; half; half >>= 1) {
        if ((int)threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    return shared[0];
}

// One partial sum of squares a block: the same for every run, since nothing is added in the order of arrival.
extern "C" __global__ void squares(const float* values, float* partials, int64_t count) {
    float sum = 0;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS)
        sum += values[i] * values[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

extern "C" __global__ void root_of_sum(const float* partials, float* norm, int count) {
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += (double)partials[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *norm = (float)sqrt(sum);
}

// Nothing happens where the norm is not finite. clip 0 is none.
extern "C" __global__ void adamw(float* weights, float* m, float* v, const float* gradient, const float* norm,
                                 float learning_rate, float beta1, float beta2, float eps, float keep, float correct_m,
                                 float correct_v, float clip, int64_t count) {
    float size = *norm;
    if (!isfinite(size)) return;
    float factor = clip > 0.f ? fminf(1.f, clip / (size + 1e-6f)) : 1.f;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS) {
        float g = gradient[i] * factor;
        float mean = beta1 * m[i] + (1.f - beta1) * g;
        float square = beta2 * v[i] + (1.f - beta2) * g * g;
        m[i] = mean, v[i] = square;
        weights[i] = weights[i] * keep - learning_rate * (mean * correct_m) / (sqrtf(square * correct_v) + eps);
    }
}
