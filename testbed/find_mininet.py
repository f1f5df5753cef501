"""Finds Mininet, which Debian installs for its own Python only.

Mininet is Python without dependencies: its package can be used by any interpreter. Only that
package is taken from the system, not the others in its folder.
"""

import importlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from wiresum.common.errors import LineText
from wiresum.testbed import lines
from wiresum.testbed.errors import RackError

SYSTEM_PACKAGES = Path("/usr/lib/python3/dist-packages")
COMMANDS = ("mnexec", "ifconfig", "ip", "tc", "ethtool", "sysctl")
INSTALL = "apt install mininet iproute2 ethtool nftables"
_PROBE_S = 20.0


def why_not() -> LineText | None:
    """Why no rack can be built here, in one line; None if nothing is missing."""
    if os.geteuid() != 0:
        return lines.NEEDS_ROOT.of()
    reason = not_installed()
    if reason is not None:
        return reason
    # Root in a container may still not be allowed to, and Mininet would wait for its shell.
    probe = subprocess.run(
        ["mnexec", "-n", "true"], capture_output=True, text=True, timeout=_PROBE_S, check=False
    )
    if probe.returncode != 0:
        said = " ".join(probe.stderr.split()) or f"status {probe.returncode}"
        return lines.NO_NAMESPACES.of(why=said)
    return None


def not_installed() -> LineText | None:
    """Which part of Mininet is not here; None if all is."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        return lines.NEEDS_COMMAND.of(command=missing[0], install=INSTALL)
    if _find() is None:
        return lines.NEEDS_MININET.of(folder=SYSTEM_PACKAGES, install=INSTALL)
    return None


def bring_mininet() -> None:
    """Make ``import mininet`` work, and keep it from changing other loggers and limits.

    Raises :class:`RackError`, which says what to install.
    """
    reason = why_not()
    if reason is not None:
        raise RackError(reason)
    if "mininet" not in sys.modules:
        spec: Any = _find()
        module = importlib.util.module_from_spec(spec)
        sys.modules["mininet"] = module
        spec.loader.exec_module(module)
    before = logging.getLoggerClass()
    try:
        net = importlib.import_module("mininet.net")
    except ImportError as error:
        raise RackError(
            lines.MININET_TOO_OLD.of(
                major=sys.version_info.major, minor=sys.version_info.minor, why=error
            )
        ) from error
    finally:
        # Mininet would have every logger made from now on be one of its own.
        logging.setLoggerClass(before)
    # It would also raise limits of the whole machine (sysctl), for racks larger than ours.
    net.Mininet.inited = True


def _find() -> Any:
    if "mininet" in sys.modules:
        return sys.modules["mininet"].__spec__
    spec = importlib.util.find_spec("mininet")
    if spec is not None:
        return spec
    folder = SYSTEM_PACKAGES / "mininet"
    init = folder / "__init__.py"
    if not init.exists():
        return None
    return importlib.util.spec_from_file_location(
        "mininet", init, submodule_search_locations=[str(folder)]
    )
