// An emulation of NVIDIA's driver and libraries, for tests of the CUDA ops on machines without a GPU (`.ci/cuda`). The device's
// memory is the process's own, calls return when their work is done, and kernels run on the CPU, one block after the other.
//
// It shows whether arguments, arithmetic and barriers are right. It does not show races between blocks, nor how fast anything
// is.

#include "candle.h"
#include "emulation.h"

#include "../../crates/kernels/src/cuda/kernels.cu"

#include <map>
#include <mutex>
#include <string>

using Run = std::function<void(const Launch &, Index block)>;

template <typename... A, size_t... I>
static void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*(A *)arguments[I]...);
}

/// A kernel of ours, whose threads wait for each other, or do not.
template <typename... A> static Run ours(void (*kernel)(A...), bool waits) {
    return [=](const Launch &launch, Index block) {
        auto one = [&] { call(kernel, launch.arguments, std::index_sequence_for<A...>()); };
        gridDim = launch.grid;
        blockDim = block;
        for (unsigned y = 0; y < launch.grid.y; y++) {
            for (unsigned x = 0; x < launch.grid.x; x++) {
                blockIdx = {x, y, 0};
                if (waits) {
                    Block::run(block, one);
                    continue;
                }
                for (unsigned i = 0; i < block.x * block.y; i++) {
                    threadIdx = {i % block.x, i / block.x, 0};
                    one();
                }
            }
        }
    };
}

#define ALONE(name) {#name, ours(name, false)}
#define TOGETHER(name) {#name, ours(name, true)}
#define UNARY(name, in, out, value) {name, [](const Launch &l, Index) { unary<in, out>(l, [](in x) -> out { return value; }); }}
#define BINARY(name, out, value) \
    {name, [](const Launch &l, Index) { binary<float, out>(l, [](float x, float y) -> out { return value; }); }}
#define CALL(name, ...) {name, [](const Launch &l, Index) { __VA_ARGS__; }}

static const std::map<std::string, Run> KERNELS = {
    ALONE(dropout),
    ALONE(gelu),
    ALONE(gelu_gradient),
    ALONE(add_bias),
    TOGETHER(column_sums),
    ALONE(embedding),
    ALONE(embedding_gradient),
    TOGETHER(layer_norm),
    TOGETHER(layer_norm_gradient),
    TOGETHER(attention_probabilities),
    TOGETHER(attention_gradient),
    ALONE(adamw),
    TOGETHER(squares),
    ALONE(fake_quantize),
    ALONE(fake_quantize_gradient),
    TOGETHER(row_scales),
    TOGETHER(ranges),
    TOGETHER(moments),
    ALONE(batch_norm),
    TOGETHER(batch_norm_sums),
    ALONE(batch_norm_gradient),
    ALONE(max_pool),
    ALONE(max_pool_gradient),

    BINARY("badd_f32", float, x + y),
    BINARY("bsub_f32", float, x - y),
    BINARY("bmul_f32", float, x * y),
    BINARY("bdiv_f32", float, x / y),
    BINARY("bmaximum_f32", float, x < y ? y : x),
    BINARY("bminimum_f32", float, x < y ? x : y),
    BINARY("eq_f32", uint8_t, x == y),
    BINARY("ne_f32", uint8_t, x != y),
    BINARY("lt_f32", uint8_t, x < y),
    BINARY("le_f32", uint8_t, x <= y),
    BINARY("gt_f32", uint8_t, x > y),
    BINARY("ge_f32", uint8_t, x >= y),
    UNARY("ucopy_f32", float, float, x),
    UNARY("ucopy_u32", uint32_t, uint32_t, x),
    UNARY("ucopy_u8", uint8_t, uint8_t, x),
    UNARY("uneg_f32", float, float, -x),
    UNARY("urecip_f32", float, float, 1.0f / x),
    UNARY("uexp_f32", float, float, expf(x)),
    UNARY("ulog_f32", float, float, logf(x)),
    UNARY("usqr_f32", float, float, x * x),
    UNARY("usqrt_f32", float, float, sqrtf(x)),
    UNARY("urelu_f32", float, float, x < 0.0f ? 0.0f : x),
    UNARY("utanh_f32", float, float, tanhf(x)),
    UNARY("uerf_f32", float, float, erff(x)),
    UNARY("uabs_f32", float, float, fabsf(x)),
    UNARY("ufloor_f32", float, float, floorf(x)),
    UNARY("cast_f32_bf16", float, uint16_t, to_bf16(x)),
    UNARY("cast_bf16_f32", uint16_t, float, from_bf16(x)),
    UNARY("cast_u8_f32", uint8_t, float, x),
    UNARY("cast_u8_u32", uint8_t, uint32_t, x),
    UNARY("cast_u32_f32", uint32_t, float, x),
    UNARY("cast_f32_u32", float, uint32_t, (uint32_t)x),
    UNARY("cast_f32_u8", float, uint8_t, (uint8_t)x),
    UNARY("cast_f32_f64", float, double, x),
    CALL("affine_f32", affine(l)),
    CALL("fast_sum_f32", reduce(l, l.grid.x, 0.0f, [](float a, float b) { return a + b; })),
    CALL("fast_sum_small_f32", reduce(l, l.get<size_t>(0), 0.0f, [](float a, float b) { return a + b; })),
    CALL("fast_max_f32", reduce(l, l.grid.x, -INFINITY, [](float a, float b) { return a < b ? b : a; })),
    CALL("fast_min_f32", reduce(l, l.grid.x, INFINITY, [](float a, float b) { return b < a ? b : a; })),
    CALL("is_u32_f32", index_select(l)),
    CALL("gather_u32_f32", gather(l)),
    CALL("sa_u32_f32", add_rows(l, 1, true)),
    CALL("ia_u32_f32", add_rows(l, 2, false)),
    CALL("copy2d_f32", copy2d<float>(l)),
    CALL("copy2d_u32", copy2d<uint32_t>(l)),
    CALL("const_set_f32", const_set<float>(l)),
    CALL("const_set_u32", const_set<uint32_t>(l)),
    CALL("im2col_f32", im2col(l)),
    CALL("conv_transpose2d_f32", conv_transpose2d(l)),
};

/// An element of an operand of a product: f32 or bf16.
static float element(const void *operand, int type, size_t i) {
    const int F32 = 0, BF16 = 14;
    if (type == F32) return ((const float *)operand)[i];
    if (type != BF16) give_up("a product of another type than f32 and bf16");
    return from_bf16(((const uint16_t *)operand)[i]);
}

/// Something that no call looks into.
static char HANDLE;

enum { SUCCESS = 0, INVALID = 1, MISSING = 500 };

#define NOTHING(name) \
    int name() { return SUCCESS; }
#define GIVES(name) \
    int name(void **out) { \
        *out = &HANDLE; \
        return SUCCESS; \
    }
#define UNUSED(name) \
    int name() { give_up("not emulated: ", #name); }

extern "C" {
NOTHING(cuInit)
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, SUCCESS; }
int cuDeviceGetAttribute(int *value, int, int) { return *value = 1, SUCCESS; }
GIVES(cuDevicePrimaryCtxRetain)
NOTHING(cuDevicePrimaryCtxRelease_v2)
GIVES(cuCtxGetCurrent)
NOTHING(cuCtxSetCurrent)
NOTHING(cuCtxDestroy_v2)
GIVES(cuEventCreate)
NOTHING(cuEventRecord)
NOTHING(cuEventDestroy_v2)
NOTHING(cuStreamWaitEvent)
NOTHING(cuStreamSynchronize)
NOTHING(cuStreamDestroy_v2)
int cuStreamIsCapturing(void *, int *status) { return *status = 0, SUCCESS; }
int cuGetErrorString(int error, const char **text) {
    *text = error == MISSING ? "no such kernel is emulated" : "refused by the emulated driver";
    return SUCCESS;
}

// Memory that nothing has written holds NaN.
int cuMemAlloc_v2(char **start, size_t size) {
    *start = (char *)malloc(std::max<size_t>(size, 1));
    memset(*start, 0xFF, size);
    return SUCCESS;
}
int cuMemAllocAsync(char **start, size_t size, void *) { return cuMemAlloc_v2(start, size); }
int cuMemFree_v2(void *start) { return free(start), SUCCESS; }
int cuMemFreeAsync(void *start, void *) { return free(start), SUCCESS; }
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t size, void *) { return memcpy(to, from, size), SUCCESS; }
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t size, void *) { return memcpy(to, from, size), SUCCESS; }
int cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t size, void *) { return memmove(to, from, size), SUCCESS; }
UNUSED(cuMemcpyPeerAsync)
int cuMemsetD8Async(void *to, unsigned char value, size_t size, void *) { return memset(to, value, size), SUCCESS; }

GIVES(cuModuleLoadData)
GIVES(cuModuleLoad)
NOTHING(cuModuleUnload)
int cuModuleGetFunction(const Run **function, void *, const char *name) {
    auto found = KERNELS.find(name);
    if (found == KERNELS.end()) {
        fprintf(stderr, "emulated driver: there is no kernel %s\n", name);
        return MISSING;
    }
    *function = &found->second;
    return SUCCESS;
}
int cuLaunchKernel(
    const Run *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
    unsigned block_z, unsigned, void *, void **arguments, void **
) {
    static std::mutex one_at_a_time;
    std::lock_guard<std::mutex> lock(one_at_a_time);
    unsigned threads = block_x * block_y * block_z;
    if (grid_x * grid_y * grid_z == 0 || grid_y > 65535 || grid_z != 1 || threads == 0 || threads > 1024) return INVALID;
    (*function)({arguments, {grid_x, grid_y, grid_z}}, {block_x, block_y, block_z});
    return SUCCESS;
}

GIVES(cublasCreate_v2)
NOTHING(cublasDestroy_v2)
NOTHING(cublasSetStream_v2)
UNUSED(cublasDgemmStridedBatched)
int cublasGemmStridedBatchedEx(
    void *, int a_transposed, int b_transposed, int m, int n, int k, const float *alpha, const void *a, int a_type, int a_rows,
    long long a_stride, const void *b, int b_type, int b_rows, long long b_stride, const float *beta, float *c, int c_type,
    int c_rows, long long c_stride, int batch, int, int
) {
    bool fits = a_rows >= (a_transposed ? k : m) && b_rows >= (b_transposed ? n : k) && c_rows >= m;
    if (!fits || c_type != 0 || *alpha != 1.0f || *beta != 0.0f) return INVALID;
    for (int i = 0; i < batch; i++)
        for (int column = 0; column < n; column++)
            for (int row = 0; row < m; row++) {
                double sum = 0.0;
                for (int j = 0; j < k; j++) {
                    size_t in_a = a_transposed ? (size_t)row * a_rows + j : (size_t)j * a_rows + row;
                    size_t in_b = b_transposed ? (size_t)j * b_rows + column : (size_t)column * b_rows + j;
                    sum += (double)element(a, a_type, i * a_stride + in_a) * element(b, b_type, i * b_stride + in_b);
                }
                c[i * c_stride + (size_t)column * c_rows + row] = (float)sum;
            }
    return SUCCESS;
}

GIVES(curandCreateGenerator)
NOTHING(curandDestroyGenerator)
NOTHING(curandSetPseudoRandomGeneratorSeed)
NOTHING(curandSetStream)

// What is compiled is looked up by name.
GIVES(nvrtcCreateProgram)
NOTHING(nvrtcCompileProgram)
NOTHING(nvrtcDestroyProgram)
int nvrtcGetPTXSize(void *, size_t *size) { return *size = 1, SUCCESS; }
int nvrtcGetPTX(void *, char *text) { return *text = 0, SUCCESS; }
int nvrtcGetProgramLogSize(void *, size_t *size) { return *size = 1, SUCCESS; }
int nvrtcGetProgramLog(void *, char *text) { return *text = 0, SUCCESS; }

// Of the run-time library candle's kernels for mixtures of experts ask, which nothing here launches.
void *__cudaRegisterFatBinary() { return &HANDLE; }
NOTHING(__cudaRegisterFatBinaryEnd)
NOTHING(__cudaUnregisterFatBinary)
NOTHING(__cudaRegisterFunction)
NOTHING(__cudaRegisterVar)
UNUSED(__cudaGetKernel)
UNUSED(__cudaLaunchKernel_ptsz)
UNUSED(__cudaPushCallConfiguration)
UNUSED(__cudaPopCallConfiguration)
UNUSED(cudaFuncSetAttribute)
UNUSED(cudaGetDevice)
}
