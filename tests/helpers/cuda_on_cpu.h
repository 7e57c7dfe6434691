// The part of CUDA that kernels.cu needs, for a C++20 compiler. The threads of a block are called one after the other; if they
// wait for each other, they run as threads. Included before kernels.cu.

#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

using namespace std;

#define __global__
#define __device__ static
#define __shared__ static

struct Index {
    unsigned x;
};
static thread_local Index threadIdx, blockIdx;
static Index blockDim, gridDim;
static std::barrier<>* meeting;

static void __syncthreads() {
    if (!meeting) abort();
    meeting->arrive_and_wait();
}

static float __int_as_float(int bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

template <class Kernel>
static void launch(unsigned blocks, unsigned threads, bool together, Kernel kernel) {
    gridDim = {blocks}, blockDim = {threads};
    for (unsigned block = 0; block < blocks; block++) {
        auto work = [&](unsigned thread) {
            blockIdx = {block}, threadIdx = {thread};
            kernel();
        };
        if (!together) {
            for (unsigned thread = 0; thread < threads; thread++) work(thread);
            continue;
        }
        std::barrier<> all(threads);
        meeting = &all;
        std::vector<std::thread> running;
        for (unsigned thread = 0; thread < threads; thread++) running.emplace_back(work, thread);
        for (auto& one : running) one.join();
        meeting = nullptr;
    }
}
