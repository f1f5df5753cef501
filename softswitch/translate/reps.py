"""The C++ types that expressions compute in, and conversions between them."""

from __future__ import annotations

from dataclasses import dataclass

from .layout import storage


@dataclass(frozen=True)
class Rep:
    """A C++ type to compute in. ``words`` > 0: Wide<words>, two's complement."""

    ctype: str
    bits: int
    words: int = 0

    @property
    def wide(self) -> bool:
        """Whether this is a Wide."""
        return self.words > 0


U32 = Rep("std::uint32_t", 32)
U64 = Rep("std::uint64_t", 64)
I64 = Rep("std::int64_t", 64)

Interval = tuple[int, int]


def wide(words: int) -> Rep:
    """Wide<words>."""
    return Rep(f"Wide<{words}>", 64 * words, words)


def low_rep(bits: int) -> Rep:
    """The type in which to compute modulo 2^bits."""
    if bits <= 32:
        return U32
    return U64 if bits <= 64 else wide((bits + 63) // 64)


def exact_rep(interval: Interval) -> Rep:
    """The smallest type that holds every number of the interval."""
    lo, hi = interval
    if lo >= 0 and hi < 1 << 32:
        return U32
    if lo >= 0 and hi < 1 << 64:
        return U64
    if lo >= -(1 << 63) and hi < 1 << 63:
        return I64
    bits = max(hi.bit_length(), (-lo - 1).bit_length() if lo < 0 else 0) + 1
    return wide((bits + 63) // 64)


def literal(value: int, rep: Rep) -> str:
    """A constant, modulo 2^rep.bits."""
    if rep == I64:
        return "INT64_MIN" if value == -(1 << 63) else f"INT64_C({value})"
    value &= (1 << rep.bits) - 1
    if rep == U32:
        return f"UINT32_C({_digits(value)})"
    if rep == U64:
        return f"UINT64_C({_digits(value)})"
    words = [f"UINT64_C({_digits(value >> (64 * i) & (1 << 64) - 1)})" for i in range(rep.words)]
    return f"{rep.ctype}{{{{{', '.join(words)}}}}}"


def _digits(value: int) -> str:
    return str(value) if value < 4096 else hex(value)


def convert(code: str, have: Rep, want: Rep) -> str:
    """Converts between types; sign-extends where ``have`` is signed."""
    if have == want:
        return code
    if want.wide:
        if have.wide:
            return f"{code}.resize<{want.words}>()"
        maker = "from_i64" if have == I64 else "from_u64"
        return f"{want.ctype}::{maker}({code})"
    if have.wide:
        return f"static_cast<{want.ctype}>({code}.w[0])"
    return f"static_cast<{want.ctype}>({code})"


def widen(code: str, bits: int, signed: bool, want: Rep, have: Rep | None = None) -> str:
    """A stored value of ``bits`` bits → ``want``, sign-extended if ``signed``."""
    if bits > 64:
        words = (bits + 63) // 64
        if signed and want.bits > bits:
            if want.words > words:
                return f"{code}.resize<{want.words}>().sign_extend({bits})"
            return convert(f"{code}.sign_extend({bits})", wide(words), want)
        if want.wide:
            return code if want.words == words else f"{code}.zext<{want.words}>()"
        return f"static_cast<{want.ctype}>({code}.w[0])"
    if signed and bits < want.bits:
        return convert(f"sign_extend<{bits}>({code})", I64, want)
    if want.wide:
        return f"{want.ctype}::from_u64({code})"
    if have == want or (have is None and storage(bits) == want.ctype):
        return code
    return f"static_cast<{want.ctype}>({code})"
