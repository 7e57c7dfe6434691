// CUDA kernels for batch-last, C-contiguous arrays, (C, H, W, N), so that neighbouring threads read neighbouring images.
// Compiled with -Dreal=float or -Dreal=double. Each processes `count` elements in a grid-stride loop, and computes the same as
// the function of its name in reference.py. Reductions take one block per channel.

typedef long long int64;

#define INFINITE ((real)__int_as_float(0x7f800000))  // NVRTC has no INFINITY

#define FOR_EACH(i, count) \
    for (int64 i = blockIdx.x * (int64)blockDim.x + threadIdx.x; i < (count); i += (int64)gridDim.x * blockDim.x)

// --- convolution -------------------------------------------------------------------------------------------------------

// columns (C KH KW, (bottom - top) OW N): row (c, i, j), column (oh, ow, n) holds x[c, oh SH + i - PH, ow SW + j - PW, n].
extern "C" __global__ void im2col(const real* x, real* columns, int64 count, int H, int W, int N, int KH, int KW, int SH, int SW,
                                  int PH, int PW, int top, int bottom, int OW) {
    FOR_EACH(k, count) {
        int64 rest = k / N;
        const int n = k % N, ow = rest % OW;
        rest /= OW;
        const int oh = top + rest % (bottom - top);
        rest /= bottom - top;
        const int j = rest % KW;
        rest /= KW;
        const int i = rest % KH;
        const int64 c = rest / KH;
        const int h = oh * SH + i - PH, w = ow * SW + j - PW;
        const bool inside = h >= 0 && h < H && w >= 0 && w < W;
        columns[k] = inside ? x[((c * H + h) * W + w) * N + n] : (real)0;
    }
}

// The adjoint of im2col: add these columns to dx (C, H, W, N). One thread collects the sum of one pixel, without atomics.
extern "C" __global__ void col2im(const real* columns, real* dx, int64 count, int H, int W, int N, int KH, int KW, int SH, int SW,
                                  int PH, int PW, int top, int bottom, int OW) {
    FOR_EACH(k, count) {
        int64 rest = k / N;
        const int n = k % N, w = rest % W;
        rest /= W;
        const int h = rest % H;
        const int64 c = rest / H;
        real sum = 0;
        for (int i = 0; i < KH; i++) {
            const int above = h + PH - i, oh = above / SH;
            if (above < 0 || above % SH || oh < top || oh >= bottom) continue;
            for (int j = 0; j < KW; j++) {
                const int left = w + PW - j, ow = left / SW;
                if (left < 0 || left % SW || ow >= OW) continue;
                const int64 row = (c * KH + i) * KW + j;
                sum += columns[((row * (bottom - top) + oh - top) * OW + ow) * N + n];
            }
        }
        dx[k] += sum;
    }
}

// y (O, total)[:, start : start + length] = product (O, length) + bias (O,), or without bias if that is null.
extern "C" __global__ void place(const real* product, const real* bias, real* y, int64 count, int64 length, int64 start,
                                 int64 total) {
    FOR_EACH(k, count) {
        const int64 o = k / length;
        y[o * total + start + k % length] = product[k] + (bias ? bias[o] : (real)0);
    }
}

// x (C, H, W, N) in tiles of size x size pixels, every m pixels from -PH and -PW on, zero outside x:
// tiles (size^2, C, rows, columns, N).
extern "C" __global__ void read_tiles(const real* x, real* tiles, int64 count, int C, int H, int W, int N, int size, int m, int PH,
                                      int PW, int rows, int columns) {
    FOR_EACH(k, count) {
        int64 rest = k / N;
        const int n = k % N, column = rest % columns;
        rest /= columns;
        const int row = rest % rows;
        rest /= rows;
        const int64 c = rest % C;
        const int place = rest / C;
        const int h = row * m - PH + place / size, w = column * m - PW + place % size;
        const bool inside = h >= 0 && h < H && w >= 0 && w < W;
        tiles[k] = inside ? x[((c * H + h) * W + w) * N + n] : (real)0;
    }
}

// The adjoint of read_tiles, plus a bias (C,) if that is not null: each pixel of x is the sum over all tiles that contain it.
extern "C" __global__ void add_tiles(const real* tiles, const real* bias, real* x, int64 count, int C, int H, int W, int N,
                                     int size, int m, int PH, int PW, int rows, int columns) {
    FOR_EACH(k, count) {
        int64 rest = k / N;
        const int n = k % N, w = rest % W;
        rest /= W;
        const int h = rest % H;
        const int64 c = rest / H;
        real sum = bias ? bias[c] : (real)0;
        const int last_row = min((h + PH) / m, rows - 1), last_column = min((w + PW) / m, columns - 1);
        for (int row = last_row; row >= 0 && h + PH - row * m < size; row--)
            for (int column = last_column; column >= 0 && w + PW - column * m < size; column--) {
                const int64 place = (int64)(h + PH - row * m) * size + (w + PW - column * m);
                sum += tiles[(((place * C + c) * rows + row) * columns + column) * N + n];
            }
        x[k] = sum;
    }
}

// --- pooling -----------------------------------------------------------------------------------------------------------

extern "C" __global__ void max_pool2d(const real* x, real* y, unsigned short* argmax, int64 count, int H, int W, int N, int KH,
                                      int KW, int SH, int SW, int top, int left, int OH, int OW) {
    FOR_EACH(k, count) {
        int64 rest = k / N;
        const int n = k % N, ow = rest % OW;
        rest /= OW;
        const int oh = rest % OH;
        const int64 c = rest / OH;
        real best = -INFINITE;
        int place = -1;  // none yet; padding is never the maximum
        for (int i = 0; i < KH; i++)
            for (int j = 0; j < KW; j++) {
                const int h = oh * SH + i - top, w = ow * SW + j - left;
                if (h < 0 || h >= H || w < 0 || w >= W) continue;
                const real value = x[((c * H + h) * W + w) * N + n];
                if (place < 0 || value > best || isnan(value)) {
                    best = value;
                    place = i * KW + j;
                }
            }
        y[k] = best;
        if (argmax) argmax[k] = place;
    }
}

// dx (C, H, W, N): each pixel is the sum over the windows whose maximum it was.
extern "C" __global__ void max_pool2d_backward(const real* grad, const unsigned short* argmax, real* dx, int64 count, int H, int W,
                                               int N, int KH, int KW, int SH, int SW, int top, int left, int OH, int OW) {
    FOR_EACH(k, count) {
        int64 rest = k / N;
        const int n = k % N, w = rest % W;
        rest /= W;
        const int h = rest % H;
        const int64 c = rest / H;
        real sum = 0;
        for (int oh = min((h + top) / SH, OH - 1); oh >= 0 && h + top - oh * SH < KH; oh--)
            for (int ow = min((w + left) / SW, OW - 1); ow >= 0 && w + left - ow * SW < KW; ow--) {
                const int64 at = ((c * OH + oh) * OW + ow) * N + n;
                if (argmax[at] == (h + top - oh * SH) * KW + (w + left - ow * SW)) sum += grad[at];
            }
        dx[k] = sum;
    }
}

// --- normalisation -----------------------------------------------------------------------------------------------------

// The sum over the threads of a block, returned to all of them. blockDim.x is a power of two, at most 256.
__device__ double block_sum(double value) {
    __shared__ double sums[256];
    __syncthreads();  // the sums of an earlier call have been read
    sums[threadIdx.x] = value;
    for (unsigned int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    __syncthreads();
    return sums[0];
}

extern "C" __global__ void channel_statistics(const real* x, double* mean, double* M2, int64 length) {
    const real* row = x + blockIdx.x * length;
    double sum = 0, squares = 0;
    for (int64 i = threadIdx.x; i < length; i += blockDim.x) sum += row[i];
    const double centre = length ? block_sum(sum) / length : 0;
    for (int64 i = threadIdx.x; i < length; i += blockDim.x) squares += (row[i] - centre) * (row[i] - centre);
    squares = block_sum(squares);
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = centre;
        M2[blockIdx.x] = squares;
    }
}

extern "C" __global__ void scale_and_shift(const real* x, const real* scale, const real* shift, real* y, int64 count,
                                           int64 length) {
    FOR_EACH(k, count) {
        const int64 c = k / length;
        y[k] = x[k] * scale[c] + shift[c];
    }
}

extern "C" __global__ void batch_norm_sums(const real* grad, const real* x, const real* mean, const real* inverse_std, real* plain,
                                           real* weighted, int64 length) {
    const int64 start = blockIdx.x * length;
    double sum = 0, product = 0;
    for (int64 i = start + threadIdx.x; i < start + length; i += blockDim.x) {
        sum += grad[i];
        product += (double)grad[i] * (x[i] - mean[blockIdx.x]);
    }
    sum = block_sum(sum);
    product = block_sum(product);
    if (threadIdx.x == 0) {
        plain[blockIdx.x] = sum;
        weighted[blockIdx.x] = product * inverse_std[blockIdx.x];
    }
}

extern "C" __global__ void batch_norm_backward(const real* grad, const real* x, const real* mean, const real* inverse_std,
                                               const real* scale, const real* mean_grad, const real* mean_weighted, real* dx,
                                               int64 count, int64 length) {
    FOR_EACH(k, count) {
        const int64 c = k / length;
        dx[k] = scale[c] * (grad[k] - mean_grad[c] - (x[k] - mean[c]) * inverse_std[c] * mean_weighted[c]);
    }
}

__device__ real inverse_power(real s, real beta) {
    return beta == (real)0.75 ? 1 / (sqrt(s) * sqrt(sqrt(s))) : pow(s, -beta);
}

extern "C" __global__ void local_response_norm(const real* x, real* y, real* s, int64 count, int64 length, int of_group,
                                               int before, int after, real alpha, real beta, real k) {
    FOR_EACH(i, count) {
        const int c = i / length, first = c - c % of_group;  // the first channel of the group
        real total = 0;
        for (int j = max(c - before, first); j <= min(c + after, first + of_group - 1); j++) {
            const real value = x[i + (j - c) * length];
            total += value * value;
        }
        s[i] = k + alpha * total;
        y[i] = x[i] * inverse_power(s[i], beta);
    }
}

extern "C" __global__ void local_response_norm_backward(const real* grad, const real* x, const real* s, real* dx, int64 count,
                                                        int64 length, int of_group, int before, int after, real alpha,
                                                        real beta) {
    FOR_EACH(i, count) {
        const int c = i / length, first = c - c % of_group;
        real through = 0;
        for (int j = max(c - after, first); j <= min(c + before, first + of_group - 1); j++) {
            const int64 other = i + (j - c) * length;
            through += grad[other] * x[other] * inverse_power(s[other], beta) / s[other];
        }
        dx[i] = grad[i] * inverse_power(s[i], beta) - 2 * alpha * beta * x[i] * through;
    }
}

// --- the rest ----------------------------------------------------------------------------------------------------------

extern "C" __global__ void channel_sums(const real* x, real* sums, int64 length) {
    double sum = 0;
    for (int64 i = threadIdx.x; i < length; i += blockDim.x) sum += x[blockIdx.x * length + i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" __global__ void relu(const real* x, real* y, int64 count) {
    FOR_EACH(i, count) y[i] = x[i] > 0 || isnan(x[i]) ? x[i] : (real)0;
}

extern "C" __global__ void relu_backward(const real* grad, const real* y, real* dx, int64 count) {
    FOR_EACH(i, count) dx[i] = y[i] <= 0 ? (real)0 : grad[i];
}

// Ten rounds of Philox4x32, see minidl/random.py; c is the counter, and then the four words.
__device__ void philox4x32(unsigned int* c, unsigned int k0, unsigned int k1) {
    for (int round = 0; round < 10; round++) {
        const unsigned long long left = c[0] * 0xD2511F53ull, right = c[2] * 0xCD9E8D57ull;
        c[0] = (unsigned int)(right >> 32) ^ c[1] ^ k0;
        c[1] = (unsigned int)right;
        c[2] = (unsigned int)(left >> 32) ^ c[3] ^ k1;
        c[3] = (unsigned int)left;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

// mask (features, N): a thread draws four features of a sample. threshold: p 2^32.
// The first feature is the one after `skipped` words of first_block.
extern "C" __global__ void dropout_mask(real* mask, int64 count, int64 features, int N, unsigned long long threshold, real scale,
                                        unsigned int seed_low, unsigned int seed_high, unsigned int stream, unsigned int time,
                                        unsigned int first, unsigned int first_block, int skipped) {
    FOR_EACH(k, count) {
        const unsigned int block = k / N, n = k % N;
        unsigned int words[4] = {first_block + block, stream, first + n, time};
        philox4x32(words, seed_low, seed_high);
        for (int lane = 0; lane < 4; lane++) {
            const int64 feature = (int64)block * 4 + lane - skipped;
            if (feature >= 0 && feature < features) mask[feature * N + n] = words[lane] >= threshold ? scale : (real)0;
        }
    }
}

// picked (N,) = rows (classes, N) at the labels; NaN where a label is out of range.
extern "C" __global__ void at_labels(const real* rows, const long long* labels, real* picked, int64 count, int classes) {
    FOR_EACH(n, count) {
        const long long label = labels[n];
        picked[n] = label >= 0 && label < classes ? rows[label * count + n] : (real)nan("");
    }
}

extern "C" __global__ void subtract_at_labels(real* rows, const long long* labels, int64 count, int classes, real value) {
    FOR_EACH(n, count) {
        const long long label = labels[n];
        if (label >= 0 && label < classes) rows[label * count + n] -= value;
    }
}

extern "C" __global__ void sgd_update(real* weight, const real* grad, real* velocity, int64 count, real lr, real momentum,
                                      real weight_decay, int nesterov, const double* loss) {
    if (loss && !isfinite(*loss)) return;
    FOR_EACH(i, count) {
        const real step = grad[i] + weight_decay * weight[i];
        velocity[i] = momentum * velocity[i] + step;
        weight[i] -= lr * (nesterov ? step + momentum * velocity[i] : velocity[i]);
    }
}

// Increases the step count, unless the loss is not finite. correction: 1 - beta1^t and sqrt(1 - beta2^t) of this step t.
extern "C" __global__ void adam_correction(double* step, double* correction, int64 count, double beta1, double beta2,
                                           const double* loss) {
    if (loss && !isfinite(*loss)) return;
    FOR_EACH(i, count) {
        step[i] += 1;
        correction[0] = 1 - pow(beta1, step[i]);
        correction[1] = sqrt(1 - pow(beta2, step[i]));
    }
}

extern "C" __global__ void adam_update(real* weight, const real* grad, real* exp_avg, real* exp_avg_sq, const double* correction,
                                       int64 count, double lr, double beta1, double beta2, real eps, real weight_decay,
                                       const double* loss) {
    if (loss && !isfinite(*loss)) return;
    const real rate = lr / correction[0], root = correction[1];
    FOR_EACH(i, count) {
        const real step = grad[i] + weight_decay * weight[i];
        exp_avg[i] = (real)beta1 * exp_avg[i] + (real)(1 - beta1) * step;
        exp_avg_sq[i] = (real)beta2 * exp_avg_sq[i] + (real)(1 - beta2) * step * step;
        weight[i] -= rate * exp_avg[i] / (sqrt(exp_avg_sq[i]) / root + eps);
    }
}
