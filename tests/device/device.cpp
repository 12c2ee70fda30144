// A device of its own for tests: PyTorch's PrivateUse1, whose memory is the host's and whose kernels are the CPU's.
//
// Every operator on it goes through the dispatcher as on any accelerator. It is stricter than one in three ways. An
// operator whose arguments are on several devices is an error, but for a number in a CPU tensor without dimensions.
// So is, while `forbid(true)`, all that makes the host wait: a copy to the CPU, a look at a value, a shape that depends
// on values. And fresh memory is filled with 0xFF bytes, which as a float is NaN.

#include <ATen/EmptyTensor.h>
#include <ATen/core/enum_tag.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_copy_from_and_resize_native.h>
#include <ATen/ops/_local_scalar_dense_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

#include <atomic>
#include <cstring>

namespace {

using at::Tensor;
constexpr auto KIND = c10::DeviceType::PrivateUse1;

std::atomic<bool> forbidden{false};
std::atomic<int64_t> operators{0};

struct Guard final : c10::impl::NoOpDeviceGuardImpl<KIND> {
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  c10::Device getDevice() const override { return {KIND, 0}; }
  c10::Device exchangeDevice(c10::Device) const override { return {KIND, 0}; }
  c10::Stream getStream(c10::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, {KIND, 0}); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, {KIND, 0}); }
  // Everything is done when the call returns, so that an event is nothing.
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* data = c10::alloc_cpu(bytes);
    if (bytes) {
      std::memset(data, 0xFF, bytes);
    }
    return {data, data, &c10::free_cpu, c10::Device(KIND, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &c10::free_cpu; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};
Memory memory;
REGISTER_ALLOCATOR(KIND, &memory)

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
};
Hooks hooks;

Tensor on_host(const Tensor& x) {
  if (!x.is_privateuseone()) {
    return x;
  }
  return at::from_blob(x.data_ptr(), x.sizes(), x.strides(), [x](void*) {}, x.options().device(at::kCPU), at::kCPU);
}

void look(bool looks, const c10::OperatorName& op) {
  TORCH_CHECK(!(looks && forbidden), op, ": makes the host wait for the device, and this was forbidden");
}

Tensor empty(
    c10::IntArrayRef size,
    std::optional<at::ScalarType> type,
    std::optional<at::Layout>,
    std::optional<at::Device>,
    std::optional<bool>,
    std::optional<at::MemoryFormat> format) {
  const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_generic(size, &memory, keys, c10::dtype_or_default(type), format);
}

Tensor empty_strided(
    c10::IntArrayRef size,
    c10::IntArrayRef stride,
    std::optional<at::ScalarType> type,
    std::optional<at::Layout>,
    std::optional<at::Device>,
    std::optional<bool>) {
  const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_strided_generic(size, stride, &memory, keys, c10::dtype_or_default(type));
}

Tensor copy_from(const Tensor& from, const Tensor& to, bool) {
  look(from.is_privateuseone() && !to.is_privateuseone(), {"copy to the CPU", ""});
  on_host(to).copy_(on_host(from));
  return to;
}

Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  at::native::resize_(to, from.sizes());
  return copy_from(from, to, false);
}

c10::Scalar local_scalar(const Tensor& x) {
  look(true, {"item", ""});
  return at::native::_local_scalar_dense_cpu(on_host(x));
}

Tensor as_strided(const Tensor& x, c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(x, size, stride, offset);
}

Tensor& set_storage(Tensor& x, at::Storage from, int64_t offset, c10::IntArrayRef size, c10::IntArrayRef stride) {
  return at::native::set_storage_cpu_(x, from, offset, size, stride);
}

void check(const c10::OperatorHandle& op, const Tensor& x) {
  TORCH_CHECK(
      !x.defined() || x.is_privateuseone() || x.dim() == 0,
      op.schema().operator_name(),
      ": expected tensors on one device, got one on the CPU beside others");
}

void on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  bool shaped = op.hasTag(at::Tag::data_dependent_output) || op.hasTag(at::Tag::dynamic_output_shape);
  for (const auto& value : torch::jit::last(*stack, op.schema().arguments().size())) {
    if (value.isTensor()) {
      check(op, value.toTensor());
    } else if (value.isTensorList()) {
      for (const Tensor& x : value.toTensorVector()) {
        check(op, x);
      }
    } else if (value.isOptionalTensorList()) {
      shaped = false;  // indexing: by a mask only
      for (const std::optional<Tensor>& x : value.toOptionalTensorVector()) {
        check(op, x.value_or(Tensor()));
        shaped |= x && x->defined() && (x->scalar_type() == at::kBool || x->scalar_type() == at::kByte);
      }
    }
  }
  look(shaped, op.schema().operator_name());
  operators++;
  const bool before = forbidden.exchange(false);  // the fallback's own copies are no wait of the program's
  try {
    at::native::cpu_fallback(op, stack, /*error_on_views=*/true);
  } catch (...) {
    forbidden = before;
    throw;
  }
  forbidden = before;
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_cpu>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("as_strided", &as_strided);
  m.impl("view", &at::native::view);
  m.impl("unfold", &at::native::unfold);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("resize_", &at::native::resize_);
  m.impl("set_.source_Storage", static_cast<Tensor& (*)(Tensor&, at::Storage)>(&at::native::set_));
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar);
}

TORCH_LIBRARY(test_device, m) {
  m.def("register", [] { at::RegisterPrivateUse1HooksInterface(&hooks); });
  m.def("forbid", [](bool on) { forbidden = on; });
  m.def("operators", [] { return operators.load(); });
}

}  // namespace
