"""``wiresum run --as-default``: scripts that ask for gloo, or for nothing, get wiresum.

Active in processes that have WIRESUM_AS_DEFAULT=1 in their environment, and nowhere else.
"""

import functools
import logging
import os
import sys
from typing import Any

log = logging.getLogger("wiresum")

REPLACED = ("undefined", "gloo", "cpu:gloo", "cpu:gloo,cuda:gloo", "cpu:gloo,cuda:nccl")


def install() -> None:
    """Wrap ``init_process_group`` so that the default backends become ``wiresum``."""
    from torch.distributed import distributed_c10d

    original = distributed_c10d.init_process_group
    if hasattr(original, "_wiresum"):
        return

    @functools.wraps(original)
    def init_process_group(backend: Any = None, *args: Any, **kwargs: Any) -> Any:
        asked = "undefined" if backend is None else str(backend).lower().replace(" ", "")
        first = os.environ.get("RANK", "0") == "0"
        if asked in REPLACED:
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
