"""The command ``wiresum run``. torch is imported only where it is used."""

import logging
import os
from pathlib import Path
from typing import Annotated

from wiresum.common import logs
from wiresum.common.command_line import Option, Rest
from wiresum.common.errors import WiresumError
from wiresum.common.places import expand
from wiresum.controller.client import OnFull
from wiresum.controller.client.requests import SlotRequest
from wiresum.host_agent import lines
from wiresum.host_agent.environment import LONGEST_S, Carrier, Transport
from wiresum.p4 import FIELDS


class UsageError(WiresumError):
    """An option's value makes no sense."""

    exit_code = 2


def _check_field(field: int) -> None:
    if field not in FIELDS:
        raise UsageError(lines.UNKNOWN_FIELD.of(field=field))


def _checked_seconds(option: str, seconds: float | None) -> float | None:
    if seconds is None:
        return None
    if not seconds > 0:
        raise UsageError(lines.NOT_SECONDS.of(option=option, seconds=seconds))
    return min(seconds, LONGEST_S)


def _check_tuned(tune: str, field: int) -> None:
    """Raises ``AgentError`` or :class:`UsageError`."""
    from wiresum.host_agent.agent.tuning.wish import parse

    parse(tune)
    if field != max(FIELDS):
        raise UsageError(lines.TUNE_STARTS_EXACT.of())


def _configure_log(option: str | None) -> None:
    """Without a wish of the user's, warnings come out as they are; the workers are left alone."""
    chosen = logs.log_format(option)
    if option or os.environ.get(logs.VARIABLE):
        level = logging.INFO if chosen == "json" else logging.WARNING
        logs.configure(chosen, level=level, text="%(message)s")
        os.environ[logs.VARIABLE] = chosen


def run(
    command: Annotated[list[str], Rest()],
    controller: Annotated[
        str | None,
        Option(
            metavar="HOST:PORT",
            envvar="WIRESUM_CONTROLLER",
            help="Controller to use; http://HOST:PORT if without TLS; with commas between several "
            "that share a store. Without one, a switch and a controller are started for this run "
            "alone.",
        ),
    ] = None,
    field: Annotated[
        int, Option(metavar="32|16|8", help="Bits of a quantized gradient element.")
    ] = 32,
    as_default: Annotated[
        bool,
        Option(
            "--as-default",
            help="Scripts that ask torch for gloo, or for no backend, get wiresum.",
        ),
    ] = False,
    name: Annotated[
        str,
        Option(
            help="Name of the job; launchers with the same name share it until the last one ends  "
            "[default: where the nodes of a torchrun meet, or the job's id]."
        ),
    ] = "",
    slots: Annotated[
        int,
        Option(help="Slots to ask for; 0: the default.", min=0, max=65535, envvar="WIRESUM_SLOTS"),
    ] = 0,
    min_slots: Annotated[
        int,
        Option(
            help="The fewest slots that the job can do with, now and when jobs of higher "
            "priority need room.",
            min=0,
            max=65535,
            envvar="WIRESUM_MIN_SLOTS",
        ),
    ] = 0,
    if_full: Annotated[
        OnFull,
        Option(
            help="When no switch has room: fail, wait in the queue before the start, take a "
            "smaller window, or start over the ranks and go to a switch when there is room "
            "(fallback).",
            envvar="WIRESUM_IF_FULL",
        ),
    ] = OnFull.FAIL,
    queue_timeout: Annotated[
        float | None,
        Option(
            metavar="S",
            help="Limit in seconds of the wait for room; without it, for ever.",
            envvar="WIRESUM_QUEUE_TIMEOUT",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="File with your token; workers do not get it  [default: WIRESUM_TOKEN, or this "
            "user's own controller's admin token]",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        Option(
            metavar="FILE", help="The authority of the controller's certificate (or WIRESUM_CA)."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        Option(
            metavar="S", help="Limit in seconds for the start, for joining and for a collective."
        ),
    ] = None,
    switch_timeout: Annotated[
        float | None,
        Option(
            metavar="S",
            help="Seconds that the switch may say nothing at all while a collective waits "
            "[default: WIRESUM_SWITCH_TIMEOUT, or 4 (10 with --carrier switch); at most the limit "
            "of a collective].",
        ),
    ] = None,
    carrier: Annotated[
        Carrier,
        Option(
            help="What sums: the switch, and the ranks themselves while it cannot be reached "
            "(auto); the switch alone, or the run ends (switch); the ranks, without a switch and a "
            "controller (ranks). Results have the same bits.",
            envvar="WIRESUM_CARRIER",
        ),
    ] = Carrier.AUTO,
    tune: Annotated[
        str,
        Option(
            metavar="LIMITS",
            help="Let the ranks choose field and carrier, and H of local steps, while they train, "
            "within these limits: within=1%,error=10%,steps=20,h=auto (docs/tuning.md).",
            envvar="WIRESUM_TUNE",
        ),
    ] = "",
    codec: Annotated[
        str,
        Option(
            metavar="NAME[:K=V,...]",
            help="Compress the gradients of the script's DDP models: top-k:k=0.1,bits=8 or "
            "block-float:bits=8 (docs/codecs.md has all; `wiresum codec list` compares).",
        ),
    ] = "",
    transport: Annotated[
        Transport,
        Option(
            help="How workers reach the switch: over UDP, or through memory that they share with a "
            "switch on their own host. auto: memory if the switch is started for this run, or "
            "WIRESUM_SHM names its socket.",
        ),
    ] = Transport.AUTO,
    log_format: Annotated[
        str | None,
        Option(
            metavar="text|json",
            help="How this command and wiresum in the workers log (or WIRESUM_LOG_FORMAT).",
        ),
    ] = None,
) -> int:
    """Run a training command whose all-reduces are summed by a switch: run -- torchrun ..."""
    from wiresum.controller.client.credentials import chosen_token
    from wiresum.host_agent.launcher.options import JobOptions
    from wiresum.host_agent.launcher.run import run as launch
    from wiresum.host_agent.remedies.spec import whole

    _configure_log(log_format)
    _check_field(field)
    if tune:
        _check_tuned(tune, field)
    options = JobOptions(
        controller=controller or None,
        field=field,
        name=name,
        slots=SlotRequest(
            slots, min_slots, if_full, _checked_seconds("--queue-timeout", queue_timeout)
        ),
        timeout_s=_checked_seconds("--timeout", timeout),
        token=chosen_token(controller, token_file, ca) if controller else None,
        ca=None if ca is None else str(expand(ca).absolute()),
        transport=transport,
        carrier=carrier,
        tune=tune,
        codec=whole(codec) if codec else "",
        switch_timeout_s=_checked_seconds("--switch-timeout", switch_timeout),
    )
    return launch(command, options, as_default=as_default)
