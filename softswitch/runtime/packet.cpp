#include "packet.hpp"

#include <unistd.h>

#include <utility>

namespace wiresum::softswitch {

std::string to_text(std::uint64_t value) { return std::to_string(value); }
std::string to_text(std::int64_t value) { return std::to_string(value); }

void log_line(std::string text) {
  text += '\n';
  [[maybe_unused]] const auto written = ::write(2, text.data(), text.size());
}

void log_texts(std::string_view format, std::span<const std::string> values) {
  std::string out;
  std::size_t next = 0;
  for (std::size_t i = 0; i < format.size(); ++i) {
    const bool here = format[i] == '{' && i + 1 < format.size() && format[i + 1] == '}';
    if (here && next < values.size()) {
      out += values[next++];
      ++i;
    } else {
      out += format[i];
    }
  }
  log_line(std::move(out));
}

}  // namespace wiresum::softswitch
