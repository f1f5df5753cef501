"""Runs the training command inside a session and passes signals and its status on."""

import contextlib
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from wiresum.common.children import process
from wiresum.common.children.process import ProcessOptions
from wiresum.common.errors import WiresumError
from wiresum.common.logs import bind, say
from wiresum.controller.client import away
from wiresum.controller.client.requests import SlotRequest
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent import lines
from wiresum.host_agent.agent.control import NoRoom
from wiresum.host_agent.environment import (
    Carrier,
    Environment,
    without_secrets,
)
from wiresum.host_agent.launcher.later import Later
from wiresum.host_agent.launcher.options import JobOptions
from wiresum.host_agent.launcher.rendezvous import rendezvous
from wiresum.host_agent.launcher.session import Session, asked_of_workers
from wiresum.host_agent.launcher.signals import Signals
from wiresum.host_agent.launcher.summary import summary

log = logging.getLogger("wiresum")

_LOOK_S = 0.2


class LaunchError(WiresumError):
    """The command cannot be run."""

    exit_code = 127


class SeveralNodesError(WiresumError):
    """The command trains on several nodes, and each would have a switch of its own."""

    exit_code = 2


def resolve(command: Sequence[str]) -> list[str]:
    """The command to execute; ``torchrun`` is found even if the environment is not activated.

    Raises :class:`LaunchError` if there is no such command.
    """
    if not command:
        raise LaunchError(lines.NO_COMMAND.of())
    name, *arguments = command
    if shutil.which(name) is not None:
        return list(command)
    if name == "torchrun":
        return [*process.module("torch.distributed.run"), *arguments]
    raise LaunchError(lines.COMMAND_NOT_FOUND.of(name=name))


def execute(
    session: Session | Later | None,
    signals: Signals,
    command: Sequence[str],
    options: ProcessOptions,
    *,
    tick: Callable[[], None] | None = None,
) -> int:
    """Run ``command`` until it ends; returns its exit status as a shell would give it.

    ``tick`` is called every 0.2 s. Raises what ``session.check()`` raises, once the command and its
    children have been ended.
    """
    with signals.starting() as mask:
        child = process.start(command, supervised=True, options=replace(options, mask=mask))
        assert isinstance(child, process.Supervised)
        signals.child = child
    try:
        while True:
            try:
                status = child.wait(_LOOK_S)
                break
            except subprocess.TimeoutExpired:
                if session is not None and not signals.ending:
                    session.check()
            finally:
                if tick is not None:
                    tick()
    finally:
        process.end_supervised(child)
        signals.child = None
    return process.exit_status(status)


def run(command: Sequence[str], options: JobOptions, *, as_default: bool) -> int:
    """``wiresum run``: returns the exit status to end with. Raises ``WiresumError``.

    ``as_default``: scripts that ask torch for gloo, or for no backend, get wiresum.
    """
    resolved = resolve(command)
    if os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1") != "1":
        say(
            log,
            "TORCH_DEVICE_BACKEND_AUTOLOAD keeps torch from finding the backend: "
            "call wiresum.host_agent.autoload.register() in the script",
        )
    options = _shared(options, resolved)
    # In the process group of this process and with its stdin: the command may use a terminal.
    foreground = ProcessOptions(group=os.getpgrp(), keep=inherited())

    def train(session: Session | Later | None, env: Mapping[str, str]) -> int:
        with summary(as_default=as_default, carrier=options.carrier) as told:
            status = execute(session, signals, resolved, replace(foreground, env={**env, **told}))
        signals.over = True
        return status

    with Signals() as signals:
        if options.carrier is Carrier.RANKS:
            return train(None, _without_switch(as_default, options))
        try:
            session = Session(options)
        except (NoRoom, ControllerError) as error:
            none_yet = isinstance(error, NoRoom) or (options.controller and away(error))
            if options.carrier is Carrier.SWITCH or not none_yet:
                raise
            say(log, f"training begins over the ranks, until there is a switch: {error}")
            with Later(options, str(error)) as later:
                return train(later, later.variables(as_default=as_default))
        with session:
            job = session.job
            bind(job=job.id)
            say(
                log,
                f"job {job.name} on switch {job.switch} ({job.switch_ip}:{job.switch_udp_port}), "
                f"{job.slots} slots{_asked(job, options.slots)}, {options.field}-bit fields",
                job=job.id,
            )
            return train(session, session.variables(as_default=as_default))


def _shared(options: JobOptions, command: Sequence[str]) -> JobOptions:
    """``options`` with a name for the job that the nodes of one rendezvous share.

    Raises :class:`SeveralNodesError` where each node would start a switch for itself.
    """
    meeting = rendezvous(command, os.environ)
    if meeting is None or options.carrier is Carrier.RANKS:
        return options
    if options.controller is None:
        raise SeveralNodesError(
            lines.NODES_WITHOUT_CONTROLLER.of(count=meeting.count, place=meeting.place)
        )
    return replace(options, name=options.name or meeting.name)


def inherited() -> list[int]:
    """The descriptors beside the first three that this process has inherited.

    A shell's ``<(…)``, for one, is such a descriptor; Python makes its own ones not inheritable.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (names, not entries)
        with contextlib.suppress(OSError):
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def _asked(job: pb.Job, slots: SlotRequest) -> str:
    return f" (of {slots.slots} asked for)" if job.slots < slots.slots else ""


def _without_switch(as_default: bool, options: JobOptions) -> dict[str, str]:
    """The environment of workers that sum by themselves."""
    made = Environment(
        *("", None, "", options.field, options.timeout_s),
        carrier=Carrier.RANKS,
        tune=options.tune,
    )
    env = without_secrets(os.environ) | made.variables()
    env.pop("WIRESUM_CONTROLLER", None)
    return env | asked_of_workers(as_default=as_default, codec=options.codec)
