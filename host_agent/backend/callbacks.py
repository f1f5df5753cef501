"""Names the collectives that callbacks of futures issue, alike on all ranks.

torch runs a callback on the thread that completes the future, or at once in the thread that adds
the callback if the future is complete already. So ranks run the same callbacks on other threads and
in another order, and nothing about the thread says which callback it is. What all ranks have in
common is where a callback comes from: the future that it was added to, and how many were added
before it.

``watch_callbacks`` wraps torch's ``then`` and ``add_done_callback``, in Python, so that every
callback runs inside a :class:`Scope` with such a name. Futures of collectives are named by
:func:`name_future`; a future that a callback returns is named after the callback; any other future
(of ``torch.futures.collect_all``, or one that the script has made) by what its thread has issued so
far.
"""

import functools
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_here = threading.local()
_then = torch._C.Future.then
_add_done_callback = torch._C.Future.add_done_callback


class Scope:
    """A name that is the same on all ranks, and counters for the names that derive from it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.callbacks = itertools.count()
        self.futures = itertools.count()
        self.collectives = itertools.count()

    def next_callback(self) -> str:
        """The name of the next callback that is added to the future of this scope."""
        return f"{self.name}.{next(self.callbacks)}"

    def next_future(self) -> str:
        """The name of the next future without a name to which this scope adds a callback."""
        return f"{self.name}~{next(self.futures)}"

    def next_collective(self) -> str:
        """The name of the next collective that is issued inside this scope."""
        return f"{self.name}#{next(self.collectives)}"


_scopes: "weakref.WeakKeyDictionary[Any, Scope]" = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def current_scope() -> Scope | None:
    """The callback that the calling thread is in, if it is in one."""
    return getattr(_here, "scope", None)


def name_future(future: Any, name: str) -> None:
    """Name the callbacks of ``future`` after ``name``, which is the same on all ranks."""
    with _lock:
        _scopes[future] = Scope(name)


def note_issued(name: str) -> None:
    """Note that the calling thread has issued the collective ``name``, outside of any callback."""
    _here.root = name  # of a scope, which is made once a callback needs it


def watch_callbacks() -> None:
    """Run every callback of a torch future, from now on, inside its :class:`Scope`."""
    torch._C.Future.then = _named_then  # type: ignore[method-assign]
    torch._C.Future.add_done_callback = _named_add  # type: ignore[method-assign]


def chain(future: Any, callback: Callable[[Any], Any]) -> Any:
    """``future.then(callback)`` for callbacks of wiresum's own, which issue nothing."""
    return _then(future, callback)


def when_done(future: Any, callback: Callable[[Any], None]) -> None:
    """``future.add_done_callback(callback)`` for callbacks of wiresum's own."""
    _add_done_callback(future, callback)


@functools.wraps(_then)
def _named_then(self: Any, callback: Callable[[Any], Any]) -> Any:
    name = _name_callback(self)
    child = _then(self, _inside(name, callback))
    name_future(child, name)
    return child


@functools.wraps(_add_done_callback)
def _named_add(self: Any, callback: Callable[[Any], Any]) -> None:
    _add_done_callback(self, _inside(_name_callback(self), callback))


def _name_callback(future: Any) -> str:
    with _lock:
        scope = _scopes.get(future)
        if scope is None:
            scope = _scopes[future] = Scope((current_scope() or _root()).next_future())
    return scope.next_callback()


def _root() -> Scope:
    """The scope of this thread outside of callbacks, since the last collective that it issued."""
    root: Scope | str = getattr(_here, "root", "")
    if not isinstance(root, Scope):
        root = _here.root = Scope(f"{_role()}/{root}" if root else _role())
    return root


def _inside(name: str, callback: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(callback, assigned=("__doc__",), updated=())
    def run(future: Any) -> Any:
        with _entered(Scope(name)):
            return callback(future)

    return run


@contextmanager
def _entered(scope: Scope) -> Iterator[None]:
    before = current_scope()
    _here.scope = scope
    try:
        yield
    finally:
        _here.scope = before


def _role() -> str:
    """A name of this thread that is the same on all ranks."""
    thread = threading.current_thread()
    # The threads of autograd's engine are known to Python by number only.
    if thread is threading.main_thread() or isinstance(thread, threading._DummyThread):
        return "main"
    return thread.name
