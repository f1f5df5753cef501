// Error lines of native code: declared once, with a code and a template, as in common/errors.py.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>

namespace wiresum {

// A filled line, and its code in the runbook.
struct LineText {
  std::string code;
  std::string text;
};

// A string literal as a template argument.
template <std::size_t N>
struct Literal {
  consteval Literal(const char (&text)[N]) { std::copy_n(text, N, characters); }
  constexpr std::string_view view() const { return {characters, N - 1}; }
  char characters[N];
};

// The declaration of a line: `form` has a {name} for each value, and `of` fills them in order.
template <Literal code, Literal form>
struct Line {
  template <typename... Values>
  LineText of(const Values&... values) const {
    constexpr std::string_view all = form.view();
    static_assert(std::size_t(std::ranges::count(all, '{')) == sizeof...(values),
                  "a value for each field");
    std::string text;
    std::string_view rest = all;
    (fill(text, rest, values), ...);
    return {std::string(code.view()), text.append(rest)};
  }

 private:
  static void fill(std::string& text, std::string_view& rest, std::string_view value) {
    text.append(rest.substr(0, rest.find('{'))).append(value);
    rest.remove_prefix(rest.find('}') + 1);
  }
  static void fill(std::string& text, std::string_view& rest, std::integral auto value) {
    fill(text, rest, std::to_string(value));
  }
};

}  // namespace wiresum
