// Attention of bf16 rows on tensor cores without the scores in memory (Dao 2023), and its gradients by two kernels, one
// for the queries and one for the keys and values: each sums in registers, so that a run repeats to the bit.
//
// Rows are [sequences * length, heads * d]. A block has 4 warps and 64 rows, 16 a warp; it walks over the other side in
// tiles that are loaded while the one before is used. D is d rounded up to what the tiles are made for; the surplus is
// zeros.
#include "tensor_core.cuh"

#define WARPS 4
#define BLOCK_ROWS (16 * WARPS)
#define LOG2_E 1.4426950408889634f

// Rows of a tile, so that two tiles of two matrices fit into 48 KiB.
template <int D>
struct alignas(16) Tile {
    static constexpr int rows = D <= 64 ? 64 : 32;
    static constexpr int stride = D + 8;  // the 8 spread the rows over the banks
    bf16 values[rows * stride];
};

struct Shape {
    int heads, kv_heads, d, length, causal;
    float scale;
};

// Rows first.. of a head into a tile; rows from the length on and values from d on are zeros.
template <int D>
__device__ __forceinline__ void load_tile(Tile<D>& tile, const bf16* head, int64_t row_stride, int first, const Shape& s) {
    for (int i = threadIdx.x; i < Tile<D>::rows * (D / 8); i += 32 * WARPS) {
        int row = i / (D / 8), column = i % (D / 8) * 8;
        bool valid = first + row < s.length && column < s.d;
        const bf16* from = valid ? head + (first + row) * row_stride + column : head;
        copy_or_zero(tile.values + row * Tile<D>::stride + column, from, valid);
    }
}

// Rows first.. of a head as left operands of the products, 16 rows by 16 values each.
template <int D>
__device__ __forceinline__ void load_operands(uint32_t (&to)[D / 16][4], const bf16* head, int64_t row_stride, int first,
                                              const Shape& s) {
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int step = 0; step < D / 16; step++) {
#pragma unroll
        for (int part = 0; part < 4; part++) {
            int row = first + lane / 4 + part % 2 * 8, column = step * 16 + lane % 4 * 2 + part / 2 * 8;
            bool valid = row < s.length && column < s.d;
            to[step][part] = valid ? *reinterpret_cast<const uint32_t*>(head + row * row_stride + column) : 0u;
        }
    }
}

// The products of 16 rows with 16 rows of a tile: two accumulators of 8 columns, one for each 8 rows of the tile.
template <int D>
__device__ __forceinline__ void rows_by_rows(float (&out)[2][4], const uint32_t (&a)[D / 16][4], const Tile<D>& tile,
                                             int first) {
    int lane = threadIdx.x & 31;
    const bf16* row = tile.values + (first + lane / 16 * 8 + lane % 8) * Tile<D>::stride + lane / 8 % 2 * 8;
#pragma unroll
    for (int i = 0; i < 4; i++) out[0][i] = 0.f, out[1][i] = 0.f;
#pragma unroll
    for (int step = 0; step < D / 16; step++) {
        uint32_t b[4];
        load_matrices(b, row + step * 16);
        multiply_add(out[0], a[step], b[0], b[1]);
        multiply_add(out[1], a[step], b[2], b[3]);
    }
}

// out[16 rows, D] += a[16 rows, 16] times 16 rows of a tile.
template <int D>
__device__ __forceinline__ void add_mixed_rows(float (&out)[D / 8][4], const uint32_t (&a)[4], const Tile<D>& tile,
                                               int first) {
    int lane = threadIdx.x & 31;
    const bf16* row = tile.values + (first + lane / 8 % 2 * 8 + lane % 8) * Tile<D>::stride + lane / 16 * 8;
#pragma unroll
    for (int step = 0; step < D / 16; step++) {
        uint32_t b[4];
        load_matrices_transposed(b, row + step * 16);
        multiply_add(out[2 * step], a, b[0], b[1]);
        multiply_add(out[2 * step + 1], a, b[2], b[3]);
    }
}

// The accumulators of 16 by 16 values as a left operand.
__device__ __forceinline__ void as_operand(uint32_t (&to)[4], const float (&a)[2][4]) {
    to[0] = packed(a[0][0], a[0][1]);
    to[1] = packed(a[0][2], a[0][3]);
    to[2] = packed(a[1][0], a[1][1]);
    to[3] = packed(a[1][2], a[1][3]);
}

// factor[0] for the rows lane / 4, factor[1] for those 8 below.
template <int D>
__device__ __forceinline__ void store_rows(bf16* head, int64_t row_stride, int first, const float (&from)[D / 8][4],
                                           const float (&factor)[2], const Shape& s) {
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = first + lane / 4 + half * 8;
        if (row >= s.length) continue;
#pragma unroll
        for (int i = 0; i < D / 8; i++) {
            int column = i * 8 + lane % 4 * 2;
            if (column < s.d) {
                *reinterpret_cast<uint32_t*>(head + row * row_stride + column) =
                    packed(from[i][2 * half] * factor[half], from[i][2 * half + 1] * factor[half]);
            }
        }
    }
}

// Over the 4 lanes that hold a row.
__device__ __forceinline__ float row_sum(float value) {
    value += __shfl_xor_sync(WHOLE_WARP, value, 1);
    return value + __shfl_xor_sync(WHOLE_WARP, value, 2);
}
__device__ __forceinline__ float row_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(WHOLE_WARP, value, 1));
    return fmaxf(value, __shfl_xor_sync(WHOLE_WARP, value, 2));
}

// out as q; logs [sequences, heads, length] are the base-2 logarithms of the sums of 2^(scale log2(e) score).
// Grid: (length / 64, heads, sequences).
template <int D>
__device__ void forward(const bf16* q, const bf16* k, const bf16* v, bf16* out, float* logs, Shape s) {
    __shared__ Tile<D> keys[2], values[2];
    constexpr int ROWS = Tile<D>::rows;
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    // The longest blocks of a causal mask first.
    int block = (gridDim.x - 1 - blockIdx.x) * BLOCK_ROWS, first = block + warp * 16;
    int head = blockIdx.y, kv_head = head / (s.heads / s.kv_heads);
    int64_t row_stride = (int64_t)s.heads * s.d, kv_stride = (int64_t)s.kv_heads * s.d;
    int64_t start = (int64_t)blockIdx.z * s.length;
    q += start * row_stride + head * s.d, out += start * row_stride + head * s.d;
    k += start * kv_stride + kv_head * s.d, v += start * kv_stride + kv_head * s.d;

    uint32_t queries[D / 16][4];
    load_operands<D>(queries, q, row_stride, first, s);
    float sums[D / 8][4];
#pragma unroll
    for (int i = 0; i < D / 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] = 0.f;
    float largest[2] = {-INFINITY, -INFINITY}, total[2] = {0.f, 0.f};
    float factor = s.scale * LOG2_E;

    int seen = s.causal ? min(s.length, block + BLOCK_ROWS) : s.length;
    int tiles = (seen + ROWS - 1) / ROWS;
    load_tile<D>(keys[0], k, kv_stride, 0, s);
    load_tile<D>(values[0], v, kv_stride, 0, s);
    end_group();
    for (int tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles) {
            load_tile<D>(keys[(tile + 1) & 1], k, kv_stride, (tile + 1) * ROWS, s);
            load_tile<D>(values[(tile + 1) & 1], v, kv_stride, (tile + 1) * ROWS, s);
        }
        end_group();
        wait_for_all_but_one();
        __syncthreads();
        // A warp whose rows all lie before this tile has nothing to do here.
        if (!s.causal || tile * ROWS <= first + 15) {
            float p[ROWS / 16][2][4], tile_largest[2] = {-INFINITY, -INFINITY}, old[2];
#pragma unroll
            for (int c = 0; c < ROWS / 16; c++) {
                rows_by_rows<D>(p[c], queries, keys[tile & 1], c * 16);
#pragma unroll
                for (int n = 0; n < 2; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        int key = tile * ROWS + c * 16 + n * 8 + lane % 4 * 2 + i % 2, row = first + lane / 4 + i / 2 * 8;
                        bool visible = key < s.length && (!s.causal || key <= row);
                        p[c][n][i] = visible ? p[c][n][i] * factor : -INFINITY;
                        tile_largest[i / 2] = fmaxf(tile_largest[i / 2], p[c][n][i]);
                    }
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float both = fmaxf(largest[half], row_max(tile_largest[half]));
                old[half] = exp2f(largest[half] - both);
                largest[half] = both;
                total[half] *= old[half];
            }
#pragma unroll
            for (int i = 0; i < D / 8; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sums[i][j] *= old[j / 2];
#pragma unroll
            for (int c = 0; c < ROWS / 16; c++) {
#pragma unroll
                for (int n = 0; n < 2; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        p[c][n][i] = exp2f(p[c][n][i] - largest[i / 2]);
                        total[i / 2] += p[c][n][i];
                    }
                uint32_t a[4];
                as_operand(a, p[c]);
                add_mixed_rows<D>(sums, a, values[tile & 1], c * 16);
            }
        }
        __syncthreads();
    }
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        total[half] = row_sum(total[half]);
        inverse[half] = 1.f / total[half];
        int row = first + lane / 4 + half * 8;
        if (lane % 4 == 0 && row < s.length)
            logs[((int64_t)blockIdx.z * s.heads + head) * s.length + row] = largest[half] + log2f(total[half]);
    }
    store_rows<D>(out, row_stride, first, sums, inverse, s);
}

// sums [sequences, heads, length] of out * dout over each head of each row; one warp each.
__device__ void output_dots(const bf16* out, const bf16* dout, float* dots, int heads, int d, int length, int64_t count) {
    int64_t at = warp_row();
    if (at >= count) return;
    int64_t row = at / heads;
    int head = at % heads;
    float sum = 0;
    for (int i = threadIdx.x & 31; i < d; i += 32) sum += widened(out[at * d + i]) * widened(dout[at * d + i]);
    sum = warp_sum(sum);
    if ((threadIdx.x & 31) == 0) dots[(row / length * heads + head) * length + row % length] = sum;
}

// Grid as forward's.
template <int D>
__device__ void backward_queries(const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float* logs,
                                 const float* dots, bf16* dq, Shape s) {
    __shared__ Tile<D> keys[2], values[2];
    constexpr int ROWS = Tile<D>::rows;
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    int block = (gridDim.x - 1 - blockIdx.x) * BLOCK_ROWS, first = block + warp * 16;
    int head = blockIdx.y, kv_head = head / (s.heads / s.kv_heads);
    int64_t row_stride = (int64_t)s.heads * s.d, kv_stride = (int64_t)s.kv_heads * s.d;
    int64_t start = (int64_t)blockIdx.z * s.length;
    q += start * row_stride + head * s.d, dout += start * row_stride + head * s.d, dq += start * row_stride + head * s.d;
    k += start * kv_stride + kv_head * s.d, v += start * kv_stride + kv_head * s.d;
    logs += ((int64_t)blockIdx.z * s.heads + head) * s.length, dots += ((int64_t)blockIdx.z * s.heads + head) * s.length;

    uint32_t queries[D / 16][4], incoming[D / 16][4];
    load_operands<D>(queries, q, row_stride, first, s);
    load_operands<D>(incoming, dout, row_stride, first, s);
    float sums[D / 8][4], log[2], dot[2];
#pragma unroll
    for (int i = 0; i < D / 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] = 0.f;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = first + lane / 4 + half * 8;
        log[half] = row < s.length ? logs[row] : 0.f;
        dot[half] = row < s.length ? dots[row] : 0.f;
    }
    float factor = s.scale * LOG2_E;

    int seen = s.causal ? min(s.length, block + BLOCK_ROWS) : s.length;
    int tiles = (seen + ROWS - 1) / ROWS;
    load_tile<D>(keys[0], k, kv_stride, 0, s);
    load_tile<D>(values[0], v, kv_stride, 0, s);
    end_group();
    for (int tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles) {
            load_tile<D>(keys[(tile + 1) & 1], k, kv_stride, (tile + 1) * ROWS, s);
            load_tile<D>(values[(tile + 1) & 1], v, kv_stride, (tile + 1) * ROWS, s);
        }
        end_group();
        wait_for_all_but_one();
        __syncthreads();
#pragma unroll
        for (int c = 0; c < ROWS / 16; c++) {
            if (s.causal && tile * ROWS + c * 16 > first + 15) continue;
            float p[2][4], dp[2][4];
            rows_by_rows<D>(p, queries, keys[tile & 1], c * 16);
            rows_by_rows<D>(dp, incoming, values[tile & 1], c * 16);
#pragma unroll
            for (int n = 0; n < 2; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int key = tile * ROWS + c * 16 + n * 8 + lane % 4 * 2 + i % 2, row = first + lane / 4 + i / 2 * 8;
                    bool visible = key < s.length && row < s.length && (!s.causal || key <= row);
                    dp[n][i] = visible ? exp2f(p[n][i] * factor - log[i / 2]) * (dp[n][i] - dot[i / 2]) : 0.f;
                }
            uint32_t a[4];
            as_operand(a, dp);
            add_mixed_rows<D>(sums, a, keys[tile & 1], c * 16);
        }
        __syncthreads();
    }
    float scales[2] = {s.scale, s.scale};
    store_rows<D>(dq, row_stride, first, sums, scales, s);
}

// Rows of the products are keys here and columns queries. Grid: (length / 64, kv_heads, sequences).
template <int D>
__device__ void backward_keys(const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float* logs,
                              const float* dots, bf16* dk, bf16* dv, Shape s) {
    __shared__ Tile<D> queries[2], incoming[2];
    constexpr int ROWS = Tile<D>::rows;
    int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    int block = blockIdx.x * BLOCK_ROWS, first = block + warp * 16;
    int group = s.heads / s.kv_heads, kv_head = blockIdx.y;
    int64_t row_stride = (int64_t)s.heads * s.d, kv_stride = (int64_t)s.kv_heads * s.d;
    int64_t start = (int64_t)blockIdx.z * s.length;
    q += start * row_stride + kv_head * group * s.d, dout += start * row_stride + kv_head * group * s.d;
    k += start * kv_stride + kv_head * s.d, v += start * kv_stride + kv_head * s.d;
    dk += start * kv_stride + kv_head * s.d, dv += start * kv_stride + kv_head * s.d;
    logs += ((int64_t)blockIdx.z * s.heads + kv_head * group) * s.length;
    dots += ((int64_t)blockIdx.z * s.heads + kv_head * group) * s.length;

    uint32_t keys[D / 16][4], values[D / 16][4];
    load_operands<D>(keys, k, kv_stride, first, s);
    load_operands<D>(values, v, kv_stride, first, s);
    float key_sums[D / 8][4], value_sums[D / 8][4];
#pragma unroll
    for (int i = 0; i < D / 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) key_sums[i][j] = 0.f, value_sums[i][j] = 0.f;
    float factor = s.scale * LOG2_E;

    // The tiles of all heads of the group, one after the other.
    int skipped = s.causal ? block / ROWS : 0, tiles = (s.length + ROWS - 1) / ROWS - skipped;
    load_tile<D>(queries[0], q, row_stride, skipped * ROWS, s);
    load_tile<D>(incoming[0], dout, row_stride, skipped * ROWS, s);
    end_group();
    for (int step = 0; step < tiles * group; step++) {
        if (step + 1 < tiles * group) {
            int head = (step + 1) / tiles, tile = skipped + (step + 1) % tiles;
            load_tile<D>(queries[(step + 1) & 1], q + head * s.d, row_stride, tile * ROWS, s);
            load_tile<D>(incoming[(step + 1) & 1], dout + head * s.d, row_stride, tile * ROWS, s);
        }
        end_group();
        wait_for_all_but_one();
        __syncthreads();
        int head = step / tiles, tile = skipped + step % tiles;
        const float *head_logs = logs + (int64_t)head * s.length, *head_dots = dots + (int64_t)head * s.length;
#pragma unroll
        for (int c = 0; c < ROWS / 16; c++) {
            // Queries before the warp's keys do not see them.
            if (s.causal && tile * ROWS + c * 16 + 15 < first) continue;
            float p[2][4], dp[2][4];
            rows_by_rows<D>(p, keys, queries[step & 1], c * 16);
            rows_by_rows<D>(dp, values, incoming[step & 1], c * 16);
#pragma unroll
            for (int n = 0; n < 2; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int row = tile * ROWS + c * 16 + n * 8 + lane % 4 * 2 + i % 2, key = first + lane / 4 + i / 2 * 8;
                    bool visible = key < s.length && row < s.length && (!s.causal || key <= row);
                    p[n][i] = visible ? exp2f(p[n][i] * factor - head_logs[row]) : 0.f;
                    dp[n][i] = visible ? p[n][i] * (dp[n][i] - head_dots[row]) : 0.f;
                }
            uint32_t a[4];
            as_operand(a, p);
            add_mixed_rows<D>(value_sums, a, incoming[step & 1], c * 16);
            as_operand(a, dp);
            add_mixed_rows<D>(key_sums, a, queries[step & 1], c * 16);
        }
        __syncthreads();
    }
    float ones[2] = {1.f, 1.f}, scales[2] = {s.scale, s.scale};
    store_rows<D>(dv, kv_stride, first, value_sums, ones, s);
    store_rows<D>(dk, kv_stride, first, key_sums, scales, s);
}

extern "C" __global__ void attention_dots(const bf16* out, const bf16* dout, float* dots, int heads, int d, int length,
                                          int64_t count) {
    output_dots(out, dout, dots, heads, d, length, count);
}

#define KERNELS(D)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(32 * WARPS)                                                           \
        attention_forward_##D(const bf16* q, const bf16* k, const bf16* v, bf16* out, float* logs, int heads,          \
                              int kv_heads, int d, int length, int causal, float scale) {                              \
        forward<D>(q, k, v, out, logs, Shape{heads, kv_heads, d, length, causal, scale});                              \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(32 * WARPS)                                                           \
        attention_queries_##D(const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float* logs,        \
                              const float* dots, bf16* dq, int heads, int kv_heads, int d, int length, int causal,     \
                              float scale) {                                                                           \
        backward_queries<D>(q, k, v, dout, logs, dots, dq, Shape{heads, kv_heads, d, length, causal, scale});          \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(32 * WARPS)                                                           \
        attention_keys_##D(const bf16* q, const bf16* k, const bf16* v, const bf16* dout, const float* logs,           \
                           const float* dots, bf16* dk, bf16* dv, int heads, int kv_heads, int d, int length,          \
                           int causal, float scale) {                                                                  \
        backward_keys<D>(q, k, v, dout, logs, dots, dk, dv, Shape{heads, kv_heads, d, length, causal, scale});         \
    }
KERNELS(32)
KERNELS(64)
KERNELS(96)
KERNELS(128)
