"""The command ``wiresum``: all commands of all packages, each imported when it is used."""

import os

from wiresum.common import command_line
from wiresum.common.command_line import Command, Group
from wiresum.controller.commands import table as controller

RUN = Command(
    "wiresum.host_agent.cli:run",
    "Run a training command whose all-reduces are summed by a switch: run -- torchrun ...",
)

MEASURE = Command(
    "wiresum.measure.live.cli:measure",
    "How much a job communicates, and how long it waits for that: measure -- torchrun ...",
)

ADVISE = Command(
    "wiresum.measure.advise.cli:advise",
    "Stop here, change the software, or invest: what a job's report says, with the evidence.",
)

PLAN = Command(
    "wiresum.measure.plan.cli:plan",
    "Racks, slots and uplinks for a set of jobs, and what collisions of their phases cost.",
)

TRIAL = Command(
    "wiresum.measure.trial.cli:trial",
    "Try the remedies on your own script for some steps: trial -- torchrun ... train.py",
)

DEMO = Command(
    "wiresum.measure.demo.cli:demo",
    "Train a small transformer over gloo and over the switch, and compare.",
)

PCAP = Command(
    "wiresum.testbed.conformance.cli:pcap",
    "Print wiresum's packets of a capture (needs scapy: the extra `pcap`).",
)

SWITCH = Group(
    "Switches: run the embedded one; tell the controller of others.",
    {
        "serve": Command(
            "wiresum.softswitch.cli:serve", "Run the embedded switch until SIGTERM or SIGINT."
        ),
        **controller.SWITCH.commands,
    },
)

CODEC = Group(
    "Codecs: how gradients become fewer bytes.",
    {
        "list": Command(
            "wiresum.host_agent.hooks.commands:list_",
            "The codecs that `run --codec` takes: bytes per element, L, error bound, needs.",
        ),
    },
)

TESTBED = Group(
    "Testbeds: racks of workers and a switch in network namespaces (needs root).",
    {
        "up": Command(
            "wiresum.testbed.cli:up",
            "Bring up a rack and hold it until Ctrl-C; prints its facts as one line of JSON.",
        ),
        "down": Command(
            "wiresum.testbed.cli:down",
            "Remove a rack, also one that has crashed: everything on record, and nothing else.",
        ),
        "doctor": Command(
            "wiresum.testbed.doctor:doctor",
            "What racks and BMv2 need, what is missing here, and what that costs.",
        ),
        "exec": Command(
            "wiresum.testbed.cli:exec_", "Run a command on a node of a rack: exec w0 -- COMMAND."
        ),
        "train": Command(
            "wiresum.measure.demo.cli:train",
            "Train across a rack of its own; fails unless the switch's counters account for it "
            "all.",
        ),
        "soak": Command(
            "wiresum.measure.soak.cli:soak",
            "Train across a rack while random things fail; fails at the first wrong bit, hang or "
            "leak.",
        ),
        "conformance": Command(
            "wiresum.testbed.conformance.cli:conformance",
            "Compare the embedded switch with BMv2: each output byte, each counter. Needs no root.",
        ),
    },
)

BENCH = Group(
    "Benchmarks: ratios, measured in one run on the same links (needs root).",
    {
        "allreduce": Command(
            "wiresum.measure.bench.cli:allreduce",
            "Time of an all-reduce over the embedded switch and over gloo, on the same limited "
            "links.",
        ),
        "collectives": Command(
            "wiresum.measure.bench.cli:collectives",
            "Time and bytes of every collective, over the embedded switch, the ranks and gloo.",
        ),
        "train": Command(
            "wiresum.measure.bench.cli:train",
            "Time to the same loss with each method, across the same limited links.",
        ),
        "fsdp": Command(
            "wiresum.measure.bench.cli:fsdp",
            "What communication costs a step of a transformer under FSDP2, beside gloo's.",
        ),
        "flood": Command(
            "wiresum.measure.attack.cli:flood",
            "How much longer an all-reduce takes while a host floods at the rate of its link.",
        ),
        "switch": Command(
            "wiresum.measure.bench.cli:switch",
            "Chunks per second of the embedded switch: in memory, over sockets, and beside BMv2.",
        ),
        "engine": Command(
            "wiresum.measure.bench.cli:engine",
            "Speed of the codecs on one core, beside memcpy of the same bytes.",
        ),
        "advise": Command(
            "wiresum.measure.validation.cli:validate",
            "Predict steps with `advise`, then measure them on a rack: how far off it is "
            "(needs root).",
        ),
        "accuracy": Command(
            "wiresum.measure.accuracy.cli:accuracy",
            "The loss of a small training under each codec; n workers played by one process.",
        ),
        "report": Command(
            "wiresum.measure.report.cli:report",
            "Tables and a plot from the benchmarks' JSON; without options, the tables on stdout.",
        ),
    },
)

ROOT = Group(
    "In-network aggregation for distributed deep learning.",
    {
        "run": RUN,
        "demo": DEMO,
        "measure": MEASURE,
        "advise": ADVISE,
        "plan": PLAN,
        "trial": TRIAL,
        "codec": CODEC,
        "slots": controller.SLOTS,
        "top": controller.TOP,
        "pcap": PCAP,
        "controller": controller.CONTROLLER,
        "switch": SWITCH,
        "job": controller.JOB,
        "tenant": controller.TENANT,
        "testbed": TESTBED,
        "bench": BENCH,
    },
)
"""All commands, in the order of the help."""


def _version() -> str:
    from wiresum.common.version import package_version

    return f"wiresum {package_version()}"


def main() -> None:
    """Entry point of the command ``wiresum``."""
    # gRPC's C core logs beside our one line, for instance when a port is in use.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    command_line.main(ROOT, version=_version)


if __name__ == "__main__":
    main()
