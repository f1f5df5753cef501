"""Figures for people."""


def ms(seconds: float) -> str:
    """Milliseconds, in three digits."""
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def percent(share: float) -> str:
    """A share."""
    return f"{100 * share:.1f} %"


def money(amount: float, currency: str) -> str:
    """An amount."""
    digits = 0 if abs(amount) >= 100 else 2
    return f"{amount:,.{digits}f} {currency}"
