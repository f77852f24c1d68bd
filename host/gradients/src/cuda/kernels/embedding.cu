// Sums of the gradients of the rows that used a row of a table; one warp a row of the table, in the order of use.
#include "values.cuh"

// Uses of row i are order[starts[i]..starts[i + 1]].
template <typename T, int N>
__device__ void scattered(const T* gradient, const uint32_t* starts, const uint32_t* order, float* out, int width,
                          int vocabulary) {
    int64_t id = warp_row();
    if (id >= vocabulary) return;
    uint32_t first = starts[id], end = starts[id + 1];
    for (int j = (threadIdx.x & 31) * N; j < width; j += 32 * N) {
        float sum[N], a[N];
#pragma unroll
        for (int i = 0; i < N; i++) sum[i] = 0.f;
        for (uint32_t use = first; use < end; use++) {
            load<N>(gradient + (int64_t)order[use] * width + j, a);
#pragma unroll
            for (int i = 0; i < N; i++) sum[i] += a[i];
        }
        store<N>(out + id * width + j, sum);
    }
}

#define KERNELS(T, NAME, N)                                                                                            \
    extern "C" __global__ void scattered_##NAME##_##N(const T* gradient, const uint32_t* starts, const uint32_t* order, \
                                                      float* out, int width, int vocabulary) {                         \
        scattered<T, N>(gradient, starts, order, out, width, vocabulary);                                              \
    }
FOR_EACH_TYPE(KERNELS)
