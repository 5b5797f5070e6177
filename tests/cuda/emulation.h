// What `kernels.cu` takes from NVIDIA's compiler, so that a C++ compiler takes it: a block's threads are fibers that take turns,
// and change at barriers alone.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <setjmp.h>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__ static
#define __shared__ static

struct Index {
    unsigned x, y, z;
};
struct uint2 {
    unsigned x, y;
};
struct uint4 {
    unsigned x, y, z, w;
};
struct float2 {
    float x, y;
};

static Index blockIdx, threadIdx, blockDim, gridDim;

static uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static float2 make_float2(float x, float y) { return {x, y}; }
static unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }
static float __int_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
using std::min;

[[noreturn]] static void give_up(const char *what, const char *name = "") {
    fprintf(stderr, "emulated driver: %s%s\n", what, name);
    abort();
}

// A block whose threads wait for each other.
class Block {
    enum class State { Runs, AtWarp, AtBlock, Done };
    static constexpr size_t STACK = 64 * 1024;
    static constexpr unsigned LANES = 32;

    // Lives on from block to block: a context is made once, and left and entered by jumps, which need no system call.
    struct Fiber {
        jmp_buf place;
        std::unique_ptr<char[]> stack;
    };

    struct Thread {
        State state;
        Index index;
    };

    jmp_buf scheduler;
    std::vector<Fiber> fibers;
    std::vector<Thread> threads;
    std::function<void()> kernel;
    size_t current = 0;
    bool inside = false;
    uint64_t lanes[1024];
    bool any = false;

    static Block &instance() {
        static Block block;
        return block;
    }

    static void live() {
        Block &block = instance();
        for (;;) {
            block.leave(State::Done);
            block.kernel();
        }
    }

    /// Back to the scheduler, until it comes again.
    void leave(State state) {
        threads[current].state = state;
        if (_setjmp(fibers[current].place) == 0) _longjmp(scheduler, 1);
    }

    void enter() {
        if (_setjmp(scheduler) == 0) _longjmp(fibers[current].place, 1);
    }

    void begin_fiber() {
        fibers[current].stack.reset(new char[STACK]);
        ucontext_t context;
        getcontext(&context);
        context.uc_stack.ss_sp = fibers[current].stack.get();
        context.uc_stack.ss_size = STACK;
        context.uc_link = nullptr;
        makecontext(&context, live, 0);
        if (_setjmp(scheduler) == 0) setcontext(&context);
    }

    void wait(State at) {
        if (!inside) give_up("a kernel that was said not to wait waits");
        leave(at);
    }

    /// Lets those go on for which all of their group wait, and says whether there were any.
    bool release(size_t first, size_t end, State at) {
        auto waits = [&](Thread &thread) { return thread.state == at || thread.state == State::Done; };
        if (!std::all_of(&threads[first], &threads[0] + end, waits)) return false;
        bool found = false;
        for (size_t i = first; i < end; i++) {
            if (threads[i].state != at) continue;
            threads[i].state = State::Runs;
            found = true;
        }
        return found;
    }

    void run_all() {
        bool moved = true;
        while (moved) {
            moved = false;
            for (current = 0; current < threads.size(); current++) {
                if (threads[current].state != State::Runs) continue;
                threadIdx = threads[current].index;
                enter();
                moved = true;
            }
            for (size_t first = 0; first < threads.size(); first += LANES) {
                moved |= release(first, std::min(first + LANES, threads.size()), State::AtWarp);
            }
            moved |= release(0, threads.size(), State::AtBlock);
        }
        for (Thread &thread : threads) {
            if (thread.state != State::Done) give_up("a barrier that not all threads come to");
        }
    }

public:
    static void run(Index size, std::function<void()> kernel) {
        Block &block = instance();
        size_t count = size.x * size.y;
        block.kernel = std::move(kernel);
        block.threads.resize(count);
        for (; block.fibers.size() < count;) {
            block.current = block.fibers.size();
            block.fibers.emplace_back();
            block.begin_fiber();
        }
        for (size_t i = 0; i < count; i++) {
            block.threads[i] = {State::Runs, {(unsigned)(i % size.x), (unsigned)(i / size.x), 0}};
        }
        block.inside = true;
        block.any = false;
        block.run_all();
        block.inside = false;
    }

    static void barrier() { instance().wait(State::AtBlock); }

    static int barrier_or(int value) {
        Block &block = instance();
        block.any |= value != 0;
        barrier();
        int result = block.any;
        barrier();
        block.any = false;
        return result;
    }

    template <typename T> static T exchange(T value, int mask) {
        Block &block = instance();
        size_t own = block.current;
        memcpy(&block.lanes[own], &value, sizeof value);
        block.wait(State::AtWarp);
        memcpy(&value, &block.lanes[own ^ (size_t)mask], sizeof value);
        block.wait(State::AtWarp);
        return value;
    }
};

static void __syncthreads() { Block::barrier(); }
static int __syncthreads_or(int value) { return Block::barrier_or(value); }
template <typename T> static T __shfl_xor_sync(unsigned, T value, int mask) { return Block::exchange(value, mask); }
