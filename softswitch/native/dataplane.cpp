#include "dataplane.hpp"

#include <dlfcn.h>

#include <new>

namespace wiresum::softswitch {

Dataplane::Dataplane(const std::string& library) {
  handle_ = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle_ == nullptr) {
    const char* why = dlerror();
    throw LibraryError("cannot load the compiled program " + library + ": " +
                       (why != nullptr ? why : "unknown error"));
  }
  auto* create =
      reinterpret_cast<wiresum_program_create_t*>(dlsym(handle_, "wiresum_program_create"));
  try {
    if (create != nullptr) program_.reset(create(WIRESUM_ABI));
  } catch (const std::bad_alloc&) {
    dlclose(handle_);
    throw LibraryError("cannot load the compiled program " + library +
                       ": there is not enough memory for its registers and counters");
  }
  if (program_ == nullptr) {
    dlclose(handle_);
    throw LibraryError(library +
                       (create == nullptr
                            ? " is not a compiled switch program"
                            : " was compiled by another version of wiresum: compile it anew"));
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
  throw StatusError({Code::kNotFound, std::string("the program has no ") + kind + " " + name});
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
