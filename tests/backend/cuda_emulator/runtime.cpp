// A stand-in for libcudart.so.13: one device whose memory is the host's and whose streams do everything at once.
#include <cstdlib>
#include <cstring>

extern "C" {

int cudaGetDeviceCount(int* count) { *count = 1; return 0; }
int cudaGetDevice(int* device) { *device = 0; return 0; }
int cudaSetDevice(int) { return 0; }
int cudaDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {
    case 1: *value = 1024; break;        // cudaDevAttrMaxThreadsPerBlock
    case 8: *value = 48 * 1024; break;   // cudaDevAttrMaxSharedMemoryPerBlock
    case 10: *value = 32; break;         // cudaDevAttrWarpSize
    case 75: *value = 9; break;          // cudaDevAttrComputeCapabilityMajor
    case 76: *value = 0; break;          // cudaDevAttrComputeCapabilityMinor
    default: *value = 0;
  }
  return 0;
}
int cudaGetDeviceProperties(void*, int) { return 801; }

int cudaMalloc(void** pointer, size_t size) { *pointer = aligned_alloc(256, (size + 255) / 256 * 256); return 0; }
int cudaFree(void* pointer) { free(pointer); return 0; }
int cudaMallocHost(void** pointer, size_t size) { return cudaMalloc(pointer, size); }
int cudaFreeHost(void* pointer) { return cudaFree(pointer); }
int cudaMemGetInfo(size_t* available, size_t* total) { *available = *total = size_t(1) << 33; return 0; }
int cudaMemcpyAsync(void* to, const void* from, size_t size, int, void*) { memmove(to, from, size); return 0; }
int cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t size, void*) { memmove(to, from, size); return 0; }

int cudaStreamCreate(void** stream) { *stream = nullptr; return 0; }
int cudaStreamCreateWithFlags(void** stream, unsigned) { *stream = nullptr; return 0; }
int cudaStreamDestroy(void*) { return 0; }
int cudaStreamSynchronize(void*) { return 0; }
int cudaStreamWaitEvent(void*, void*, unsigned) { return 0; }
int cudaStreamBeginCapture(void*, int) { return 801; }
int cudaStreamEndCapture(void*, void**) { return 801; }
int cudaEventCreate(void** event) { *event = nullptr; return 0; }
int cudaEventDestroy(void*) { return 0; }
int cudaEventRecord(void*, void*) { return 0; }
int cudaEventSynchronize(void*) { return 0; }
int cudaEventElapsedTime(float* milliseconds, void*, void*) { *milliseconds = 0; return 0; }
int cudaGraphInstantiate(void**, void*, unsigned long long) { return 801; }
int cudaGraphLaunch(void*, void*) { return 801; }
int cudaGraphDestroy(void*) { return 0; }
int cudaGraphExecDestroy(void*) { return 0; }

int cudaGetLastError() { return 0; }
int cudaPeekAtLastError() { return 0; }
const char* cudaGetErrorName(int) { return "emulated error"; }
const char* cudaGetErrorString(int) { return "emulated error"; }

}  // extern "C"
