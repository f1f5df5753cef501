"""Runs the training command inside a session and passes signals and its status on."""

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import IO, Self

from wiresum.common.errors import WiresumError
from wiresum.common.logs import bind, say
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent.control import NoRoom
from wiresum.host_agent.environment import FALLBACK, SlotRequest, Transport, without_secrets
from wiresum.host_agent.launcher import process
from wiresum.host_agent.launcher.session import Session

log = logging.getLogger("wiresum")

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_S = 0.2


class LaunchError(WiresumError):
    """The command cannot be run."""

    exit_code = 127


class Interrupted(WiresumError):
    """A signal came while there was no child to pass it on to."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class Signals:
    """While active, signals go to the child; before there is one, they end the launcher."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in FORWARDED:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.child is None:
            raise Interrupted(number)
        process.pass_on(self.child, number)


def resolve(command: Sequence[str]) -> list[str]:
    """The command to execute; ``torchrun`` is found even if the environment is not activated.

    Raises :class:`LaunchError` if there is no such command.
    """
    if not command:
        raise LaunchError("no command: say `wiresum run -- torchrun ... train.py`")
    name, *arguments = command
    if shutil.which(name) is not None:
        return list(command)
    if name == "torchrun":
        return [sys.executable, "-m", "torch.distributed.run", *arguments]
    raise LaunchError(f"command {name!r} not found")


def execute(
    session: Session | None,
    signals: Signals,
    command: Sequence[str],
    env: Mapping[str, str],
    *,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    tick: Callable[[], None] | None = None,
) -> int:
    """Run ``command`` until it ends; returns its exit status as a shell would give it.

    ``tick`` is called every 0.2 s. Raises what ``session.check()`` raises, once the command and
    its children have been ended.
    """
    child = process.start(command, supervised=True, env=env, stdout=stdout, stderr=stderr)
    signals.child = child
    try:
        while True:
            try:
                status = child.wait(_LOOK_S)
                break
            except subprocess.TimeoutExpired:
                if session is not None:
                    session.check()
            finally:
                if tick is not None:
                    tick()
    finally:
        process.end_supervised(child)
        signals.child = None
    return process.exit_status(status)


def run(
    command: Sequence[str],
    *,
    controller: str | None,
    field: int,
    as_default: bool,
    name: str,
    slots: SlotRequest,
    timeout_s: float | None,
    token: str | None,
    ca: str | None,
    transport: Transport = Transport.AUTO,
) -> int:
    """``wiresum run``: returns the exit status to end with. Raises ``WiresumError``."""
    resolved = resolve(command)
    if os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1") != "1":
        say(
            log,
            "TORCH_DEVICE_BACKEND_AUTOLOAD keeps torch from finding the backend: "
            "call wiresum.host_agent.autoload.register() in the script",
        )
    with Signals() as signals:
        try:
            session = Session(
                controller,
                field=field,
                name=name,
                slots=slots,
                timeout_s=timeout_s,
                token=token,
                ca=ca,
                transport=transport,
            )
        except NoRoom as full:
            say(log, f"training goes on over gloo, without a switch: {full}")
            return execute(None, signals, resolved, _without_switch(str(full), as_default))
        with session:
            job = session.job
            bind(job=job.id)
            say(
                log,
                f"job {job.name} on switch {job.switch} ({job.switch_ip}:{job.switch_udp_port}), "
                f"{job.slots} slots{_asked(job, slots)}, {field}-bit fields",
                job=job.id,
            )
            return execute(session, signals, resolved, session.variables(as_default=as_default))


def _asked(job: pb.Job, slots: SlotRequest) -> str:
    return f" (of {slots.slots} asked for)" if job.slots < slots.slots else ""


def _without_switch(why: str, as_default: bool) -> dict[str, str]:
    env = without_secrets(os.environ) | {FALLBACK: why}
    env.pop("WIRESUM_CONTROLLER", None)
    if as_default:
        env["WIRESUM_AS_DEFAULT"] = "1"
    return env
