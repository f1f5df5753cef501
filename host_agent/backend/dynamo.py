"""Keeps Dynamo out of methods that C++ calls back, without importing Dynamo for it.

A compiled DDP calls a group's methods from C++, while Dynamo looks at every Python frame. It must
not trace these. ``torch.compiler.disable`` says so, but imports Dynamo and sympy: seconds of CPU
time and tens of MiB in each worker, most of which never compile anything. So this waits until
somebody else imports Dynamo.
"""

import importlib.machinery
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any, TypeVar

_C = TypeVar("_C", bound=type)

_DYNAMO = "torch._dynamo"
_untraced: list[type] = []


def not_traced(cls: _C) -> _C:
    """Keep Dynamo out of all methods of a class."""
    if _DYNAMO in sys.modules:
        _disable(cls)
    else:
        if not _untraced:
            sys.meta_path.insert(0, _Watcher())
        _untraced.append(cls)
    return cls


def _disable(cls: type) -> None:
    import torch._dynamo

    for name, member in list(vars(cls).items()):
        if isinstance(member, FunctionType):
            setattr(cls, name, torch._dynamo.disable(member))  # type: ignore[no-untyped-call]


class _Watcher(MetaPathFinder):
    """Finds nothing itself; disables the classes once Dynamo has been loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _DYNAMO:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            load = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                while _untraced:
                    _disable(_untraced.pop())

            loader.exec_module = exec_module
        return spec
