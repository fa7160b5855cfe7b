// Instance norm, residual and leaky ReLU of channels-last float16, in two passes over the memory.
//
// A sample is `voxels` rows of `channels` halves (channels % 8 == 0, at most 8 * THREADS); blockIdx.y
// is the sample. A thread keeps to the same eight channels, 16 bytes, and walks over the rows:
// neighbouring threads read neighbouring memory, and scale and shift stay in registers.
//
// No #include: NVRTC then needs no path to headers, and a host compiler can stand in for it by
// defining HOST with its own conversions.

#define THREADS 256
#define COMBINE_THREADS 128

typedef long long Index;  // a batch of large windows has more than 2^31 values

// Mirrored field by field by Arguments in norm.py.
struct Arguments {
    uint4* x;               // (samples, voxels, channels), overwritten
    const uint4* residual;  // as x, or null
    uint4* also;            // a second place for the result, or null
    const float* weight;    // (channels)
    const float* bias;      // (channels)
    float* partial;         // (samples, blocks, 2, channels): mean, sum of squared deviations
    float* factors;         // (samples, 2, channels): scale, shift
    Index voxels;
    Index rows;             // rows per block of `moments`
    Index also_row;         // uint4s from one row of `also` to the next
    Index also_sample;      // uint4s from one sample of `also` to the next
    int channels;
    int blocks;             // blocks of `moments` per sample
    float eps;
    float slope;            // of negative values; 1: no activation
};

#ifndef HOST
__device__ inline float to_float(unsigned int half) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"((unsigned short)half));
    return value;
}

__device__ inline unsigned int to_half(float value) {
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
}
#endif

__device__ inline void unpack(uint4 packed, float* values) {
    const unsigned int words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        values[2 * i] = to_float(words[i] & 0xffffu);
        values[2 * i + 1] = to_float(words[i] >> 16);
    }
}

__device__ inline uint4 pack(const float* values) {
    unsigned int words[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        words[i] = to_half(values[2 * i]) | to_half(values[2 * i + 1]) << 16;
    uint4 packed;
    packed.x = words[0];
    packed.y = words[1];
    packed.z = words[2];
    packed.w = words[3];
    return packed;
}

// Chan, Golub and LeVeque (1983): the moments of two parts from the moments of each. Unlike sums of
// squares it does not cancel where the mean is large.
template <typename Real>
__device__ inline void merge(Real& count, Real& mean, Real& squares, Real other_count,
                             Real other_mean, Real other_squares) {
    if (other_count == 0) return;
    const Real total = count + other_count, difference = other_mean - mean;
    const Real share = other_count / total;
    mean += difference * share;
    squares += other_squares + difference * difference * count * share;
    count = total;
}

// Grid (blocks, samples), THREADS threads: mean and squared deviations of `rows` rows.
extern "C" __global__ void moments(Arguments a) {
    // Value k of thread t at [k * THREADS + t]: neighbours in different banks.
    __shared__ float means[8 * THREADS], squares[8 * THREADS], counts[THREADS];
    const int lanes = a.channels / 8, lane = threadIdx.x % lanes;
    const int first = threadIdx.x / lanes, step = THREADS / lanes;
    const Index begin = (Index)blockIdx.x * a.rows;
    const Index end = begin + a.rows < a.voxels ? begin + a.rows : a.voxels;
    const uint4* x = a.x + (Index)blockIdx.y * a.voxels * lanes;

    // Welford (1962); the division is the same for all eight channels.
    float mean[8] = {0}, square[8] = {0}, count = 0;
    if (first < step) {
#pragma unroll 4
        for (Index row = begin + first; row < end; row += step) {
            float values[8];
            unpack(x[row * lanes + lane], values);
            count += 1;
            const float share = 1.0f / count;
#pragma unroll
            for (int k = 0; k < 8; k++) {
                const float difference = values[k] - mean[k];
                mean[k] = fmaf(difference, share, mean[k]);
                square[k] = fmaf(difference, values[k] - mean[k], square[k]);
            }
        }
    }
    counts[threadIdx.x] = count;
#pragma unroll
    for (int k = 0; k < 8; k++) {
        means[k * THREADS + threadIdx.x] = mean[k];
        squares[k * THREADS + threadIdx.x] = square[k];
    }

    // The threads of a lane as a tree: always in the same order, so always the same bits.
    int width = 1;
    while (width < step) width *= 2;
    for (width /= 2; width > 0; width /= 2) {
        __syncthreads();
        if (first < width && first + width < step) {
            const int other = threadIdx.x + width * lanes;
            float total = 0;
            for (int k = 0; k < 8; k++) {
                const int here = k * THREADS + threadIdx.x, there = k * THREADS + other;
                total = counts[threadIdx.x];
                merge(total, means[here], squares[here], counts[other], means[there],
                      squares[there]);
            }
            counts[threadIdx.x] = total;
        }
    }
    if (first == 0) {
        float* out = a.partial + ((Index)blockIdx.y * a.blocks + blockIdx.x) * 2 * a.channels;
        for (int k = 0; k < 8; k++) {
            out[lane * 8 + k] = means[k * THREADS + threadIdx.x];
            out[a.channels + lane * 8 + k] = squares[k * THREADS + threadIdx.x];
        }
    }
}

// Grid (channels, samples), COMBINE_THREADS threads: what `apply` multiplies by and adds.
extern "C" __global__ void combine(Arguments a) {
    __shared__ double counts[COMBINE_THREADS], means[COMBINE_THREADS], squares[COMBINE_THREADS];
    const int channel = blockIdx.x, thread = threadIdx.x;
    double count = 0, mean = 0, square = 0;
    for (int block = thread; block < a.blocks; block += COMBINE_THREADS) {
        const float* part = a.partial + ((Index)blockIdx.y * a.blocks + block) * 2 * a.channels;
        // From the sizes, not from memory: as a float it would be inexact from 2^24 rows.
        const Index left = a.voxels - block * a.rows;
        merge(count, mean, square, (double)(left < a.rows ? left : a.rows), (double)part[channel],
              (double)part[a.channels + channel]);
    }
    counts[thread] = count;
    means[thread] = mean;
    squares[thread] = square;
    for (int width = COMBINE_THREADS / 2; width > 0; width /= 2) {
        __syncthreads();
        if (thread < width)
            merge(counts[thread], means[thread], squares[thread], counts[thread + width],
                  means[thread + width], squares[thread + width]);
    }
    if (thread == 0) {
        const double scale = a.weight[channel] / sqrt(squares[0] / a.voxels + a.eps);
        float* out = a.factors + (Index)blockIdx.y * 2 * a.channels;
        out[channel] = (float)scale;
        out[a.channels + channel] = (float)(a.bias[channel] - means[0] * scale);
    }
}

// Grid (any, samples), THREADS threads: x * scale + shift + residual, then the leaky ReLU.
extern "C" __global__ void apply(Arguments a) {
    const int lanes = a.channels / 8, lane = threadIdx.x % lanes;
    const int first = threadIdx.x / lanes, step = THREADS / lanes;
    if (first >= step) return;
    const Index offset = (Index)blockIdx.y * a.voxels * lanes;
    const float* factors = a.factors + (Index)blockIdx.y * 2 * a.channels + lane * 8;
    float scale[8], shift[8];
#pragma unroll
    for (int k = 0; k < 8; k++) {
        scale[k] = factors[k];
        shift[k] = factors[a.channels + k];
    }
    for (Index row = (Index)blockIdx.x * step + first; row < a.voxels;
         row += (Index)gridDim.x * step) {
        const Index here = offset + row * lanes + lane;
        float values[8], added[8] = {0};
        unpack(a.x[here], values);
        if (a.residual) unpack(a.residual[here], added);
#pragma unroll
        for (int k = 0; k < 8; k++) {
            const float value = fmaf(values[k], scale[k], shift[k]) + added[k];
            values[k] = value < 0 ? value * a.slope : value;
        }
        const uint4 packed = pack(values);
        a.x[here] = packed;
        if (a.also) a.also[blockIdx.y * a.also_sample + row * a.also_row + lane] = packed;
    }
}
