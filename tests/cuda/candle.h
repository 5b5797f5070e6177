// The kernels of candle that training asks for, by what they compute: arguments are candle's.

#pragma once

#include "emulation.h"

/// A launch: its arguments, and its grid.
struct Launch {
    void **arguments;
    Index grid;
    template <typename T> T get(int i) const { return *(T *)arguments[i]; }
};

/// Shape and strides, as candle hands them over; none for what is contiguous.
struct Strided {
    const size_t *info;
    size_t rank;
    bool contiguous(int operand) const {
        size_t expected = 1;
        for (size_t d = rank; d-- > 0; expected *= info[d]) {
            if (info[d] > 1 && info[(1 + operand) * rank + d] != expected) return false;
        }
        return true;
    }
    size_t at(size_t i, int operand = 0) const {
        if (!info) return i;
        size_t place = 0;
        for (size_t d = rank; d-- > 0; i /= info[d]) place += i % info[d] * info[(1 + operand) * rank + d];
        return place;
    }
};

static Strided strided(const Launch &launch, int rank) {
    return {launch.get<const size_t *>(rank + 1), launch.get<size_t>(rank)};
}

template <typename T, typename O, typename F> static void binary(const Launch &launch, F function) {
    Strided shape = strided(launch, 1);
    const T *a = launch.get<const T *>(3), *b = launch.get<const T *>(4);
    O *out = launch.get<O *>(5);
    for (size_t i = 0; i < launch.get<size_t>(0); i++) out[i] = function(a[shape.at(i, 0)], b[shape.at(i, 1)]);
}

template <typename T, typename O, typename F> static void unary(const Launch &launch, F function) {
    Strided shape = strided(launch, 1);
    const T *in = launch.get<const T *>(3);
    O *out = launch.get<O *>(4);
    for (size_t i = 0; i < launch.get<size_t>(0); i++) out[i] = function(in[shape.at(i)]);
}

static void affine(const Launch &launch) {
    float factor = launch.get<float>(5), summand = launch.get<float>(6);
    unary<float, float>(launch, [=](float x) { return x * factor + summand; });
}

template <typename F> static void reduce(const Launch &launch, size_t outputs, float first, F function) {
    Strided shape = strided(launch, 2);
    size_t each = launch.get<size_t>(1);
    const float *in = launch.get<const float *>(4);
    float *out = launch.get<float *>(5);
    for (size_t i = 0; i < outputs; i++) {
        out[i] = first;
        for (size_t j = 0; j < each; j++) out[i] = function(out[i], in[shape.at(i * each + j)]);
    }
}

static void index_select(const Launch &launch) {
    // The shape is that of the ids; what is selected from is contiguous if they are.
    Strided shape = strided(launch, 1);
    const uint32_t *ids = launch.get<const uint32_t *>(3);
    const float *in = launch.get<const float *>(4);
    float *out = launch.get<float *>(5);
    size_t rows = launch.get<size_t>(7), count = launch.get<size_t>(8), width = launch.get<size_t>(9);
    if (!shape.contiguous(0)) give_up("an index_select by ids that are not contiguous");
    for (size_t i = 0; i < launch.get<size_t>(0); i++) {
        size_t left = i / (count * width);
        out[i] = in[(left * rows + ids[i / width % count]) * width + i % width];
    }
}

static void gather(const Launch &launch) {
    const uint32_t *ids = launch.get<const uint32_t *>(1);
    const float *in = launch.get<const float *>(2);
    float *out = launch.get<float *>(3);
    size_t rows = launch.get<size_t>(5), count = launch.get<size_t>(6), width = launch.get<size_t>(7);
    for (size_t i = 0; i < launch.get<size_t>(0); i++) {
        out[i] = in[(i / (width * count) * rows + ids[i]) * width + i % width];
    }
}

/// Both add rows of the input to those of the output that ids name: `scatter_add` has an id for each element, `index_add` for
/// each row.
static void add_rows(const Launch &launch, int first, bool each) {
    const uint32_t *ids = launch.get<const uint32_t *>(0);
    const float *in = launch.get<const float *>(first);
    float *out = launch.get<float *>(first + 1);
    size_t left = launch.get<size_t>(first + 2), rows = launch.get<size_t>(first + 3);
    size_t rows_out = launch.get<size_t>(first + 4), width = launch.get<size_t>(first + 5);
    for (size_t i = 0; i < left * rows * width; i++) {
        size_t row = i / width % rows, id = ids[each ? i : row];
        out[(i / (rows * width) * rows_out + id) * width + i % width] += in[i];
    }
}

template <typename T> static void copy2d(const Launch &launch) {
    const T *in = launch.get<const T *>(0);
    T *out = launch.get<T *>(1);
    size_t rows = launch.get<uint32_t>(2), width = launch.get<uint32_t>(3);
    size_t step_in = launch.get<uint32_t>(4), step_out = launch.get<uint32_t>(5);
    for (size_t row = 0; row < rows; row++) std::copy_n(in + row * step_in, width, out + row * step_out);
}

template <typename T> static void const_set(const Launch &launch) {
    Strided shape = strided(launch, 1);
    for (size_t i = 0; i < launch.get<size_t>(0); i++) launch.get<T *>(4)[shape.at(i)] = launch.get<T>(3);
}

static void im2col(const Launch &launch) {
    size_t height_out = launch.get<size_t>(1), width_out = launch.get<size_t>(2), kernel_y = launch.get<size_t>(3);
    size_t kernel_x = launch.get<size_t>(4), stride = launch.get<size_t>(5), padding = launch.get<size_t>(6);
    size_t dilation = launch.get<size_t>(7);
    const size_t *dims = launch.get<const size_t *>(8), *strides = dims + 4;
    const float *in = launch.get<const float *>(9);
    float *out = launch.get<float *>(10);
    for (size_t i = 0; i < launch.get<size_t>(0); i++) {
        size_t rest = i, x = rest % kernel_x, y = (rest /= kernel_x) % kernel_y, channel = (rest /= kernel_y) % dims[1];
        size_t column = (rest /= dims[1]) % width_out, row = (rest /= width_out) % height_out, image = rest / height_out;
        // What is left of the image or above it wraps to a large number.
        y = row * stride + y * dilation - padding;
        x = column * stride + x * dilation - padding;
        bool within = y < dims[2] && x < dims[3];
        size_t place = image * strides[0] + channel * strides[1] + y * strides[2] + x * strides[3];
        out[i] = within ? in[place] : 0.0f;
    }
}

static void conv_transpose2d(const Launch &launch) {
    size_t width_out = launch.get<size_t>(1), height_out = launch.get<size_t>(2), stride = launch.get<size_t>(3);
    size_t padding = launch.get<size_t>(4), dilation = launch.get<size_t>(6);
    const size_t *dims = launch.get<const size_t *>(7), *strides = dims + 4, *kernel = dims + 8, *steps = dims + 12;
    const float *in = launch.get<const float *>(8), *weights = launch.get<const float *>(9);
    float *out = launch.get<float *>(10);
    std::fill_n(out, dims[0] * kernel[1] * height_out * width_out, 0.0f);
    for (size_t image = 0; image < dims[0]; image++)
        for (size_t from = 0; from < dims[1]; from++)
            for (size_t to = 0; to < kernel[1]; to++)
                for (size_t y = 0; y < dims[2]; y++)
                    for (size_t x = 0; x < dims[3]; x++)
                        for (size_t ky = 0; ky < kernel[2]; ky++)
                            for (size_t kx = 0; kx < kernel[3]; kx++) {
                                size_t row = y * stride + ky * dilation - padding;
                                size_t column = x * stride + kx * dilation - padding;
                                if (row >= height_out || column >= width_out) continue;
                                out[((image * kernel[1] + to) * height_out + row) * width_out + column] +=
                                    in[image * strides[0] + from * strides[1] + y * strides[2] + x * strides[3]] *
                                    weights[from * steps[0] + to * steps[1] + ky * steps[2] + kx * steps[3]];
                            }
}

/// To the nearest, ties to even.
static uint16_t to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return 0x7FFF;
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static float from_bf16(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
