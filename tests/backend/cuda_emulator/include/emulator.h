// Runs CUDA C++ kernels on the CPU, one fiber a thread, so that generated source can be checked without a GPU.
//
// Blocks run one after the other, so a __shared__ array is a static one. Threads of a block take turns and switch only
// where CUDA lets them wait for each other: at barriers and shuffles. That shows wrong indices, guards, missing
// shuffles and wrong launch parameters; it does not show missing barriers, nor anything about speed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

typedef _Float16 half;
typedef _Float16 __half;

struct int2 { int x, y; };
struct int4 { int x, y, z, w; };
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct longlong2 { long long x, y; };
struct half2 { half x, y; };
typedef half2 __half2;

inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline half2 make_half2(half x, half y) { return {x, y}; }

inline half __float2half_rn(float x) { return half(x); }
inline half __float2half(float x) { return half(x); }
inline float __half2float(half x) { return float(x); }
inline bool __hgt(half a, half b) { return a > b; }
inline bool __hlt(half a, half b) { return a < b; }
inline half hexp(half x) { return half(expf(float(x))); }
inline half htanh(half x) { return half(tanhf(float(x))); }
inline half herf(half x) { return half(erff(float(x))); }
inline half hsqrt(half x) { return half(sqrtf(float(x))); }
inline half hrsqrt(half x) { return half(1.0f / sqrtf(float(x))); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

inline float max(float a, float b) { return a > b ? a : b; }
inline float min(float a, float b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }

struct EmulatedIndex { unsigned x, y, z; };
extern "C" {
extern EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;
void emulator_barrier();
// Deposits a lane's value, waits for the others of its warp and returns what lane `source` deposited.
uint64_t emulator_exchange(uint64_t value, unsigned source);
unsigned emulator_lane();
}

inline void __syncthreads() { emulator_barrier(); }
inline void __syncwarp(unsigned = 0xffffffffu) { emulator_exchange(0, emulator_lane()); }
inline unsigned __activemask() { return 0xffffffffu; }

template <class T> T emulator_shuffle(T value, unsigned source) {
  static_assert(sizeof(T) <= 8, "a shuffle moves at most 64 bits");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = emulator_exchange(bits, source);
  memcpy(&value, &bits, sizeof(T));
  return value;
}
template <class T> T __shfl_sync(unsigned, T value, int source, int width = 32) {
  unsigned lane = emulator_lane();
  return emulator_shuffle(value, (lane & ~(width - 1u)) + (unsigned(source) & (width - 1u)));
}
template <class T> T __shfl_xor_sync(unsigned, T value, int mask, int width = 32) {
  unsigned lane = emulator_lane(), source = lane ^ unsigned(mask);
  return emulator_shuffle(value, (source & ~(width - 1u)) > (lane & ~(width - 1u)) ? lane : source);
}
template <class T> T __shfl_down_sync(unsigned, T value, unsigned delta, int width = 32) {
  unsigned lane = emulator_lane();
  return emulator_shuffle(value, (lane & (width - 1u)) + delta < unsigned(width) ? lane + delta : lane);
}
template <class T> T __shfl_up_sync(unsigned, T value, unsigned delta, int width = 32) {
  unsigned lane = emulator_lane();
  return emulator_shuffle(value, (lane & (width - 1u)) >= delta ? lane - delta : lane);
}

template <class... Args, size_t... Index>
void emulator_unpack(void (*kernel)(Args...), void** arguments, std::index_sequence<Index...>) {
  kernel(*static_cast<std::remove_reference_t<Args>*>(arguments[Index])...);
}
template <class... Args> void emulator_call(void (*kernel)(Args...), void** arguments) {
  emulator_unpack(kernel, arguments, std::index_sequence_for<Args...>{});
}
