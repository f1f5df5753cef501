"""Which runtime a program was compiled against."""

from __future__ import annotations

import hashlib
from pathlib import Path

RUNTIME = Path(__file__).resolve().parent.parent / "runtime"


def abi_hash() -> str:
    """A hash over the runtime: headers, and the sources that every program is linked to.

    The extension module and every compiled program carry it; they work together only if it is the
    same.
    """
    digest = hashlib.sha256()
    for path in sorted(RUNTIME.glob("*.[ch]pp")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]
