// A pretended accelerator: tensors of device type SIM (CUDA or MPS) in memory of their own, that the host
// cannot read (PROT_NONE), every operation carried out by the CPU kernels. For CPU-only builds of torch.
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/view_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/detail/MPSHooksInterface.h>
#include <ATen/CPUGeneratorImpl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <map>
#include <mutex>
#ifndef SIM
#define SIM CUDA
#endif
#define STR_(x) #x
#define STR(x) STR_(x)
namespace {
constexpr auto TYPE = c10::DeviceType::SIM;
constexpr int DEVICES = 2;
thread_local int current = 0;

struct Guard final : public c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return TYPE; }
  c10::Device exchangeDevice(c10::Device d) const override { auto old = getDevice(); current = d.index(); return old; }
  c10::Device getDevice() const override { return c10::Device(TYPE, current); }
  void setDevice(c10::Device d) const override { current = d.index(); }
  void uncheckedSetDevice(c10::Device d) const noexcept override { current = d.index(); }
  c10::Stream getStream(c10::Device d) const override { return c10::Stream(c10::Stream::DEFAULT, c10::Device(TYPE, d.has_index() ? d.index() : current)); }
  c10::Stream getDefaultStream(c10::Device d) const override { return getStream(d); }
  c10::Stream getStreamFromGlobalPool(c10::Device d, bool) const override { return getStream(d); }
  c10::Stream getNewStream(c10::Device d, int) const override { return getStream(d); }
  c10::Stream exchangeStream(c10::Stream s) const override { return s; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
  c10::DeviceIndex deviceCount() const noexcept override { return DEVICES; }
};
C10_REGISTER_GUARD_IMPL(SIM, Guard)

std::mutex mutex;
size_t live_bytes = 0, peak_bytes = 0, total_bytes = 0, num_allocs = 0;
struct Block { char* host; size_t size; size_t asked; };
std::map<char*, Block> blocks;

void free_block(void* p) {
  if (!p) return;
  std::lock_guard<std::mutex> lock(mutex);
  auto it = blocks.find(static_cast<char*>(p));
  if (it == blocks.end()) return;
  live_bytes -= it->second.asked;
  munmap(it->second.host, it->second.size);
  munmap(it->first, it->second.size);
  blocks.erase(it);
}

struct Alloc final : public c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    c10::Device device(TYPE, current);
    if (n == 0) return {nullptr, nullptr, &free_block, device};
    size_t size = (n + 4095) / 4096 * 4096;
    int fd = memfd_create("simdev", 0);
    TORCH_CHECK(fd >= 0 && ftruncate(fd, size) == 0, "memfd");
    auto* dev = static_cast<char*>(mmap(nullptr, size, PROT_NONE, MAP_SHARED, fd, 0));
    auto* host = static_cast<char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    close(fd);
    TORCH_CHECK(dev != MAP_FAILED && host != MAP_FAILED, "mmap");
    std::lock_guard<std::mutex> lock(mutex);
    blocks[dev] = {host, size, n};
    live_bytes += n; total_bytes += n; num_allocs += 1;
    peak_bytes = std::max(peak_bytes, live_bytes);
    return {dev, dev, &free_block, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_block; }
  void copy_data(void*, const void*, std::size_t) const override { TORCH_CHECK(false, "copy_data"); }
};
Alloc alloc;
struct Register { Register() { c10::SetAllocator(TYPE, &alloc); } } register_;

char* host_of(const void* p) {
  std::lock_guard<std::mutex> lock(mutex);
  auto it = blocks.upper_bound(static_cast<char*>(const_cast<void*>(p)));
  TORCH_CHECK(it != blocks.begin(), "no device memory");
  --it;
  return it->second.host + (static_cast<const char*>(p) - it->first);
}

at::Tensor alias(const at::Tensor& t) {
  if (t.device().type() != TYPE) return t;
  if (t.numel() == 0) return at::empty_strided(t.sizes(), t.strides(), t.options().device(at::kCPU));
  auto r = at::from_blob(host_of(t.const_data_ptr()), t.sizes(), t.strides(), t.options().device(at::kCPU));
  if (t.is_conj()) r._set_conj(true);
  if (t.is_neg()) r._set_neg(true);
  return r;
}

void check_dtype(std::optional<at::ScalarType> dtype) {
#ifdef NO_FLOAT64
  // The words of MPS.
  if (c10::dtype_or_default(dtype) == at::kDouble)
    C10_THROW_ERROR(TypeError, "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. Please use float32 instead.");
#endif
}

at::Tensor empty_memory_format(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  check_dtype(dtype);
  c10::DeviceGuard guard(device.value_or(c10::Device(TYPE)).has_index() ? *device : c10::Device(TYPE, current));
  return at::detail::empty_generic(size, &alloc, c10::DispatchKeySet(c10::DispatchKey::SIM), c10::dtype_or_default(dtype), format);
}
at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  check_dtype(dtype);
  c10::DeviceGuard guard(device.value_or(c10::Device(TYPE)).has_index() ? *device : c10::Device(TYPE, current));
  return at::detail::empty_strided_generic(size, stride, &alloc, c10::DispatchKeySet(c10::DispatchKey::SIM), c10::dtype_or_default(dtype));
}
at::Tensor& copy_(at::Tensor& self, const at::Tensor& src, bool) {
  if (self.numel() == 0) return self;
  c10::impl::ExcludeDispatchKeyGuard no(c10::DispatchKeySet(c10::DispatchKey::SIM));
  alias(self).copy_(alias(src));
  return self;
}
at::Tensor copy_from(const at::Tensor& self, const at::Tensor& dst, bool) {
  at::Tensor d = dst;
  copy_(d, self, false);
  return d;
}
at::Tensor convolution(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias, c10::SymIntArrayRef stride, c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding, c10::SymInt groups) {
  auto b = bias && bias->defined() ? std::optional<at::Tensor>(alias(*bias)) : std::nullopt;
  auto out = at::convolution_symint(alias(input), alias(weight), b, stride, padding, dilation, transposed, output_padding, groups);
  return out.to(input.device());
}
const at::Tensor& resize_(const at::Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat> format) {
  auto fresh = empty_memory_format(size, c10::typeMetaToScalarType(self.dtype()), {}, self.device(), {}, format);
  auto n = std::min<size_t>(self.nbytes(), fresh.nbytes());
  if (n) memcpy(host_of(fresh.const_data_ptr()), host_of(self.const_data_ptr()), n);
  self.unsafeGetTensorImpl()->set_storage_and_dtype(fresh.storage(), self.dtype());
  self.unsafeGetTensorImpl()->set_sizes_and_strides(fresh.sizes(), fresh.strides());
  return self;
}
at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& dst) {
  if (self.sizes() != dst.sizes()) resize_(dst, self.sizes(), {});
  return copy_from(self, dst, false);
}
at::Tensor& set_storage(at::Tensor& self, at::Storage source, int64_t offset, at::IntArrayRef size, at::IntArrayRef stride) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(source);
  self.unsafeGetTensorImpl()->set_storage_offset(offset);
  if (stride.empty() && !size.empty()) self.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  else self.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride);
  return self;
}
at::Tensor& set_source_storage(at::Tensor& self, at::Storage source) {
  int64_t n = static_cast<int64_t>(source.nbytes() / self.dtype().itemsize());
  return set_storage(self, source, 0, n, {1});
}
}  // namespace
#define HOOKS_(A) A##Hooks
#define HOOKS(A) HOOKS_(A)
#define IFACE_(A) at::A##HooksInterface
#define IFACE(A) IFACE_(A)
#define ARGS_(A) at::A##HooksArgs
#define ARGS(A) ARGS_(A)
struct HOOKS(SIM) final : public IFACE(SIM) {
  HOOKS(SIM)(ARGS(SIM)) {}
  HOOKS(SIM)() {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return DEVICES; }
  c10::DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(c10::DeviceIndex d) const override { current = d; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex d) const override { auto o = current; current = d; return o; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex d) const override { return exchangeDevice(d); }
  bool isPinnedPtr(const void*) const override { return false; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetAllocator(c10::DeviceType::CPU); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override { static auto g = at::detail::createCPUGenerator(); return g; }
#ifdef IS_CUDA
  bool hasCUDA() const override { return true; }
  c10::DeviceIndex current_device() const override { return current; }
  int getNumGPUs() const override { return DEVICES; }
#else
  bool hasMPS() const override { return true; }
#endif
};
namespace at { 
#ifdef IS_CUDA
REGISTER_CUDA_HOOKS(CUDAHooks)
#else
REGISTER_MPS_HOOKS(MPSHooks)
#endif
}
namespace {
void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) { at::native::cpu_fallback(op, stack); }
}  // namespace

extern "C" {
size_t sim_live() { std::lock_guard<std::mutex> l(mutex); return live_bytes; }
size_t sim_peak() { std::lock_guard<std::mutex> l(mutex); return peak_bytes; }
size_t sim_total() { std::lock_guard<std::mutex> l(mutex); return total_bytes; }
size_t sim_allocs() { std::lock_guard<std::mutex> l(mutex); return num_allocs; }
void sim_reset() { std::lock_guard<std::mutex> l(mutex); peak_bytes = live_bytes; total_bytes = 0; num_allocs = 0; }
}
TORCH_LIBRARY_IMPL(_, SIM, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }
TORCH_LIBRARY_IMPL(aten, SIM, m) {
  m.impl("empty.memory_format", &empty_memory_format);
  m.impl("empty_strided", &empty_strided);
  m.impl("convolution_overrideable", &convolution);
  m.impl("copy_", &copy_);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("resize_", &resize_);
  m.impl("set_.source_Storage", &set_source_storage);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("as_strided", [](const at::Tensor& t, at::IntArrayRef a, at::IntArrayRef b, std::optional<int64_t> o) { return at::native::as_strided_tensorimpl(t, a, b, o); });
  m.impl("view", [](const at::Tensor& t, at::IntArrayRef a) { return at::native::view(t, a); });
  m.impl("_reshape_alias", [](const at::Tensor& t, at::IntArrayRef a, at::IntArrayRef b) { return at::native::_reshape_alias(t, a, b); });
}
