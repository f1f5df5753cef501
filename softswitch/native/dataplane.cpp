#include "dataplane.hpp"

#include <dlfcn.h>

#include <new>

#include "lines.hpp"

namespace wiresum::softswitch {

Dataplane::Dataplane(const std::string& library) {
  handle_ = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle_ == nullptr) {
    const char* why = dlerror();
    throw LibraryError(lines::kCannotLoad.of(library, why != nullptr ? why : "unknown error"));
  }
  auto* create =
      reinterpret_cast<wiresum_program_create_t*>(dlsym(handle_, "wiresum_program_create"));
  try {
    if (create != nullptr) program_.reset(create(WIRESUM_ABI));
  } catch (const std::bad_alloc&) {
    dlclose(handle_);
    throw LibraryError(lines::kNoMemory.of(library));
  }
  if (program_ == nullptr) {
    dlclose(handle_);
    throw LibraryError(create == nullptr ? lines::kNotAProgram.of(library)
                                         : lines::kOtherVersion.of(library));
  }
}

Dataplane::~Dataplane() {
  program_.reset();
  dlclose(handle_);
}

namespace {

template <typename T>
T& named(std::span<T* const> all, const std::string& name, const char* kind) {
  if (T* found = find_by_name(all, name)) return *found;
  throw StatusError(Code::kNotFound, lines::kUnknownName.of(kind, name));
}

}  // namespace

Table& Dataplane::table(const std::string& name) {
  return named(program_->tables(), name, "table");
}
Counter& Dataplane::counter(const std::string& name) {
  return named(program_->counters(), name, "counter");
}
Register& Dataplane::reg(const std::string& name) {
  return named(program_->registers(), name, "register");
}

}  // namespace wiresum::softswitch
