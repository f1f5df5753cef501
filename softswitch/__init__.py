"""The embedded switch: runs what p4c makes of a v1model program, compiled to native code."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compiler import load_program as load_program
    from .switch import Counter as Counter
    from .switch import Entry as Entry
    from .switch import Switch as Switch

_WHERE = {"Switch": "switch", "Entry": "switch", "Counter": "switch", "load_program": "compiler"}


def __getattr__(name: str) -> Any:
    # On first use only: the P4Runtime server and the errors can be imported without the native
    # module.
    if name in _WHERE:
        return getattr(import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
