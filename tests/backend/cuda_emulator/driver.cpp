// A stand-in for libcuda.so.1: "loads" a cubin by opening the same kernels compiled for the host, and runs launches.
//
// EMULATED_KERNELS names that library. For each kernel K it exports K_entry(void** arguments) and K_waits, which says
// whether its threads ever wait for each other and so need fibers.
#include <dlfcn.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

struct EmulatedIndex { unsigned x, y, z; };

extern "C" {
EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

// The head of CUlaunchConfig in cuda.h.
struct LaunchConfig { unsigned grid[3], block[3], shared_bytes; void* stream; };
}

namespace {

constexpr unsigned kWarp = 32;
constexpr size_t kStackBytes = 64 * 1024;

struct Meeting { unsigned generation = 0, arrived = 0, members = 0; };

struct Fiber {
  ucontext_t context;
  EmulatedIndex index;
  unsigned lane, warp;
  bool done;
};

ucontext_t scheduler;
std::vector<Fiber> fibers;
std::vector<char> stacks;
std::vector<Meeting> warps;
std::vector<uint64_t> deposits;
Meeting block_meeting;
Fiber* current = nullptr;
void (*entry)(void**) = nullptr;
void** entry_arguments = nullptr;

void yield() { swapcontext(&current->context, &scheduler); }

// Waits until every member that is still running has arrived.
void meet(Meeting& meeting) {
  unsigned generation = meeting.generation;
  ++meeting.arrived;
  while (meeting.generation == generation) {
    if (meeting.arrived >= meeting.members) {
      meeting.arrived = 0;
      ++meeting.generation;
      return;
    }
    yield();
  }
}

void run_thread() {
  entry(entry_arguments);
  current->done = true;
  --block_meeting.members;
  --warps[current->warp].members;
  yield();
}

void run_block_with_fibers(unsigned threads) {
  fibers.resize(threads);
  stacks.resize(threads * kStackBytes);
  deposits.assign(threads + kWarp, 0);
  warps.assign((threads + kWarp - 1) / kWarp, Meeting());
  block_meeting = Meeting();
  block_meeting.members = threads;
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
    fiber.lane = i % kWarp;
    fiber.warp = i / kWarp;
    fiber.done = false;
    ++warps[fiber.warp].members;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stacks.data() + i * kStackBytes;
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_thread, 0);
  }
  for (unsigned left = threads; left > 0;) {
    for (Fiber& fiber : fibers) {
      if (fiber.done) continue;
      current = &fiber;
      threadIdx = fiber.index;
      swapcontext(&scheduler, &fiber.context);
      if (fiber.done) --left;
    }
  }
}

void run_block_plainly() {
  for (threadIdx.z = 0; threadIdx.z < blockDim.z; ++threadIdx.z)
    for (threadIdx.y = 0; threadIdx.y < blockDim.y; ++threadIdx.y)
      for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x) entry(entry_arguments);
}

struct Function { void (*entry)(void**); bool waits; };

}  // namespace

extern "C" {

unsigned emulator_lane() { return current->lane; }

void emulator_barrier() { meet(block_meeting); }

uint64_t emulator_exchange(uint64_t value, unsigned source) {
  unsigned base = current->warp * kWarp;
  deposits[base + current->lane] = value;
  meet(warps[current->warp]);
  uint64_t result = deposits[base + source % kWarp];
  meet(warps[current->warp]);
  return result;
}

int cuModuleLoadData(void** module, const void* image) {
  const unsigned char* bytes = static_cast<const unsigned char*>(image);
  if (memcmp(bytes, "\x7f" "ELF", 4) != 0) return 200;  // CUDA_ERROR_INVALID_IMAGE: not a cubin
  const char* path = getenv("EMULATED_KERNELS");
  *module = path ? dlopen(path, RTLD_NOW) : nullptr;
  if (*module == nullptr) fprintf(stderr, "emulator: %s\n", path ? dlerror() : "EMULATED_KERNELS is not set");
  return *module ? 0 : 301;
}

int cuModuleUnload(void*) { return 0; }

int cuModuleGetFunction(void** function, void* module, const char* name) {
  char symbol[512];
  snprintf(symbol, sizeof symbol, "%s_entry", name);
  void* address = dlsym(module, symbol);
  snprintf(symbol, sizeof symbol, "%s_waits", name);
  void* waits = dlsym(module, symbol);
  if (address == nullptr || waits == nullptr) return 500;  // CUDA_ERROR_NOT_FOUND
  *function = new Function{reinterpret_cast<void (*)(void**)>(address), *static_cast<bool*>(waits)};
  return 0;
}

int cuLaunchKernelEx(const LaunchConfig* config, void* handle, void** arguments, void**) {
  const Function* function = static_cast<Function*>(handle);
  blockDim = {config->block[0], config->block[1], config->block[2]};
  gridDim = {config->grid[0], config->grid[1], config->grid[2]};
  unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  if (threads == 0 || threads > 1024 || gridDim.x == 0 || gridDim.y == 0 || gridDim.z == 0) return 1;
  if (gridDim.y > 65535 || gridDim.z > 65535 || config->shared_bytes != 0) return 1;  // dynamic memory: not emulated
  entry = function->entry;
  entry_arguments = arguments;
  for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) {
        if (function->waits) run_block_with_fibers(threads);
        else run_block_plainly();
      }
  return 0;
}

int cuFuncSetAttribute(void*, int, int) { return 0; }
int cuDeviceGetName(char* name, int size, int) { snprintf(name, size, "emulated"); return 0; }
int cuGetErrorName(int, const char** name) { *name = "emulated error"; return 0; }
int cuGetErrorString(int, const char** text) { *text = "emulated error"; return 0; }
int cuTensorMapEncodeTiled() { return 801; }  // CUDA_ERROR_NOT_SUPPORTED

}  // extern "C"
