"""``wiresum run --as-default``: scripts that ask for gloo, or for nothing, get wiresum.

Active in processes that have WIRESUM_AS_DEFAULT=1 in their environment, and nowhere else.
"""

import functools
import logging
import os
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

log = logging.getLogger("wiresum")

_FALLBACKS = {"cpu": ("gloo",), "cuda": ("gloo", "nccl")}
"""The backends that wiresum's own fallback is, by device."""


def replaces(backend: Any) -> bool:
    """Whether a script that asks ``init_process_group`` for ``backend`` gets wiresum.

    It does for gloo and for no backend, and for devices with backends in torch's form
    ``"cpu:gloo,cuda:nccl"``, in any order, as far as wiresum falls back to the same ones.
    """
    asked = _spelled(backend)
    if asked in ("undefined", "gloo"):
        return True
    pairs = [pair.partition(":") for pair in asked.split(",")]
    devices = [device for device, _, _ in pairs]
    return (
        "cpu" in devices
        and len(set(devices)) == len(devices)
        and all(named in _FALLBACKS.get(device, ()) for device, _, named in pairs)
    )


def _spelled(backend: Any) -> str:
    return "undefined" if backend is None else str(backend).lower().replace(" ", "")


def install() -> None:
    """Wrap ``init_process_group`` so that the default backends become ``wiresum``."""
    from torch.distributed import distributed_c10d

    original = distributed_c10d.init_process_group
    if hasattr(original, "_wiresum"):
        return

    @functools.wraps(original)
    def init_process_group(backend: Any = None, *args: Any, **kwargs: Any) -> Any:
        asked = _spelled(backend)
        first = _rank(*args, **kwargs) == 0
        if replaces(backend):
            if first:
                named = "no backend" if asked == "undefined" else f"backend {asked!r}"
                log.warning(
                    "wiresum: the script asks for %s and gets 'wiresum' (--as-default)", named
                )
            backend = "wiresum"
        elif asked != "wiresum" and first:
            log.warning(
                "wiresum: --as-default leaves backend %r as it is: "
                "only gloo and the default are replaced",
                asked,
            )
        return original(backend, *args, **kwargs)

    init_process_group._wiresum = True  # type: ignore[attr-defined]
    # `from … import init_process_group` inside torch itself has copied the name already.
    for name, module in list(sys.modules.items()):
        if name.startswith("torch.distributed") and (
            getattr(module, "init_process_group", None) is original
        ):
            module.init_process_group = init_process_group  # type: ignore[attr-defined]


def _rank(init_method: Any = None, *args: Any, rank: int = -1, **_: Any) -> int:
    """The rank that the arguments of ``init_process_group`` after the first say, or RANK does."""
    if len(args) > 2 and isinstance(args[2], int):  # timeout, world_size, rank
        rank = args[2]
    query = parse_qs(urlsplit(str(init_method or "")).query)
    for said in (rank, *query.get("rank", ()), os.environ.get("RANK", "")):
        if str(said).isdigit():
            return int(said)
    return 0
