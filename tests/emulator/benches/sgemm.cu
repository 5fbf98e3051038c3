// y[m, n] = x[m, k] · w[k, n] in f32, without tensor cores: what most of an ordinary kernel's instructions
// look like. A block of 64 threads computes a tile of 64 by 64, each thread 8 by 8 of it. Sizes are multiples
// of 64 (k of 16). sgemm.ptx is made of it: nvcc -ptx -arch=sm_80 -O3 sgemm.cu

constexpr int TILE = 64, TILE_K = 16, THREADS = 64, EACH = 8;

extern "C" __global__ void __launch_bounds__(THREADS)
sgemm(float* __restrict__ y, const float* __restrict__ x, const float* __restrict__ w, int n, int k) {
    __shared__ __align__(16) float xs[TILE_K][TILE + 4];  // transposed: a column of x is a row here
    __shared__ __align__(16) float ws[TILE_K][TILE];
    const int t = threadIdx.x;
    const int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    const int row = t / 8 * EACH, column = t % 8 * 4;  // columns: 4 here and 4 half a tile on
    float acc[EACH][EACH] = {};
    for (int at = 0; at < k; at += TILE_K) {
        for (int i = 0; i < TILE_K / 4; i++) {
            const float4 v = *reinterpret_cast<const float4*>(x + size_t(first_row + t) * k + at + i * 4);
            xs[i * 4][t] = v.x, xs[i * 4 + 1][t] = v.y, xs[i * 4 + 2][t] = v.z, xs[i * 4 + 3][t] = v.w;
            const int r = t / 16 + i * 4, c = t % 16 * 4;
            *reinterpret_cast<float4*>(&ws[r][c]) =
                *reinterpret_cast<const float4*>(w + size_t(at + r) * n + first_column + c);
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < TILE_K; i++) {
            float a[EACH], b[EACH];
            *reinterpret_cast<float4*>(a) = *reinterpret_cast<const float4*>(&xs[i][row]);
            *reinterpret_cast<float4*>(a + 4) = *reinterpret_cast<const float4*>(&xs[i][row + 4]);
            *reinterpret_cast<float4*>(b) = *reinterpret_cast<const float4*>(&ws[i][column]);
            *reinterpret_cast<float4*>(b + 4) = *reinterpret_cast<const float4*>(&ws[i][column + TILE / 2]);
#pragma unroll
            for (int r = 0; r < EACH; r++) {
#pragma unroll
                for (int c = 0; c < EACH; c++) {
                    acc[r][c] += a[r] * b[c];
                }
            }
        }
        __syncthreads();
    }
    for (int r = 0; r < EACH; r++) {
        float* to = y + size_t(first_row + row + r) * n + first_column + column;
        *reinterpret_cast<float4*>(to) = make_float4(acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
        *reinterpret_cast<float4*>(to + TILE / 2) = make_float4(acc[r][4], acc[r][5], acc[r][6], acc[r][7]);
    }
}
