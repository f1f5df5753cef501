"""The benchmarks' commands; the root command mounts them as ``wiresum bench …``."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from wiresum.common.command_line import Option
from wiresum.measure import lines
from wiresum.testbed.errors import RackError, RackUsageError

if TYPE_CHECKING:
    from wiresum.measure.bench import cases
    from wiresum.measure.bench.collectives import options as collective_options

_Workers = Annotated[str, Option(metavar="N,…", help="Numbers of workers.")]
_Rates = Annotated[
    str,
    Option(
        metavar="RATE,…", help="Rates of each link, in each direction: 100mbit; none: no limit."
    ),
]
_Carriers = Annotated[str, Option(metavar="switch|ranks,…", help="What sums wiresum's lanes.")]


@dataclass(frozen=True)
class _LinkArguments:
    """What the benchmarks on limited links have in common."""

    workers: _Workers = "4"
    rate: _Rates = "1gbit"
    field: Annotated[str, Option(metavar="32|16|8,…", help="Bits of a quantized element.")] = (
        "32,16,8"
    )
    carrier: _Carriers = "switch,ranks"
    against: Annotated[str, Option(metavar="gloo|none", help="What to compare with.")] = "gloo"
    tcp: Annotated[
        str,
        Option(
            metavar="NAME,…",
            help="Congestion control of gloo's connections, such as cubic; of several, the fastest "
            "in each case counts  [default: this machine's]",
        ),
    ] = ""
    repeat: Annotated[int, Option(min=1, help="Rounds; the sides take turns.")] = 5
    lanes: Annotated[int, Option(help="Lanes of the switch program.")] = 256
    slots: Annotated[int, Option(min=0, help="Slots to lease for each field; 0: the default.")] = 0
    mtu: Annotated[int, Option(min=576, max=65535, help="MTU of the links, in bytes.")] = 1500
    name: Annotated[
        str, Option(help="Name of the benchmark's network; several can exist side by side.")
    ] = "bench"
    spoil: Annotated[
        bool,
        Option("--spoil", hidden=True, help="A control: a wrong result; it must fail."),
    ] = False

    def _ways(self) -> tuple[str, ...]:
        """Those of gloo's TCP; none without gloo. Raises :class:`RackUsageError`."""
        from wiresum.measure.bench import cases

        if self.against not in ("gloo", "none"):
            raise RackUsageError(lines.COMPARE_WITH_GLOO.of(against=self.against))
        return cases.parse_tcp(self.tcp) if self.against == "gloo" else ()


@dataclass(frozen=True)
class AllReduceArguments(_LinkArguments):
    """What ``bench allreduce`` measures, as its options say it."""

    workers: _Workers = "2,4,8"
    rate: _Rates = "100mbit,1gbit,none"
    carrier: _Carriers = "switch"
    sizes: Annotated[
        str, Option(metavar="SIZE,…", help="Sizes of the tensors, in bytes of float32 elements.")
    ] = "64KiB,1MiB,4MiB,25MiB,100MiB"
    loss: Annotated[
        str,
        Option(
            metavar="SHARE,…",
            help="Loss of frames on each link, in each direction: none,0,0.1%. With none, trains "
            "of frames cross whole; a share, 0 too, has them cut before the receiver.",
        ),
    ] = "none"
    transport: Annotated[
        str, Option(metavar="udp|shm,…", help="How frames come to the switch.")
    ] = "udp"

    def options(self) -> "cases.Options":
        """The cases and sides. Raises :class:`RackUsageError`."""
        from wiresum.measure.bench import cases

        return cases.Options(
            workers=cases.parse_workers(self.workers),
            sizes=cases.parse_sizes(self.sizes),
            rates=cases.parse_rates(self.rate),
            losses=cases.parse_losses(self.loss),
            fields=cases.parse_fields(self.field),
            tcp=self._ways(),
            repeat=self.repeat,
            lanes=self.lanes,
            slots=self.slots,
            mtu=self.mtu,
            transports=cases.parse_transports(self.transport),
            carriers=cases.parse_carriers(self.carrier),
            name=self.name,
            spoil=self.spoil,
        ).check()


def allreduce(
    arguments: AllReduceArguments,
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Write the numbers as JSON.")
    ] = None,
    append: Annotated[
        bool, Option("--append", help="Add the rounds to those in the JSON file.")
    ] = False,
    quiet: Annotated[bool, Option("--quiet", help="Only the table.")] = False,
) -> None:
    """Time of an all-reduce over the embedded switch and over gloo, on the same limited links."""
    from wiresum.measure.bench.record import need

    options = arguments.options()
    need("numpy", *(["torch"] if options.tcp or options.ranks_sides else []))
    from wiresum.measure.bench.measure import measure

    measure(options, json_file, append, quiet)


@dataclass(frozen=True)
class CollectivesArguments(_LinkArguments):
    """What ``bench collectives`` measures, as its options say it."""

    collectives: Annotated[
        str,
        Option(
            metavar="NAME,…",
            help="Collectives, as torch names them; both: a reduce-scatter beside an all-gather. "
            "[all; with --latency all_reduce,broadcast,barrier]",
        ),
    ] = ""
    sizes: Annotated[
        str,
        Option(
            metavar="SIZE,…",
            help="Sizes of a rank's largest buffer, in bytes of float32 elements. "
            "[64KiB,1MiB,25MiB; with --latency 8B,1KiB,8KiB,64KiB]",
        ),
    ] = ""
    latency: Annotated[
        bool, Option("--latency", help="Latency of single collectives: p50 and p99.")
    ] = False
    ops: Annotated[
        int,
        Option(
            min=0,
            help="Collectives of a sample; 0: as many as it takes, with --latency 200.",
        ),
    ] = 0

    def options(self) -> "collective_options.Options":
        """The cases and sides. Raises :class:`RackUsageError`."""
        from wiresum.measure.bench import cases
        from wiresum.measure.bench.collectives import options
        from wiresum.measure.bench.collectives.kinds import KINDS

        names = ",".join(options.LATENCY_KINDS if self.latency else KINDS)
        sizes = options.LATENCY_SIZES if self.latency else options.SIZES
        return options.Options(
            workers=cases.parse_workers(self.workers),
            collectives=options.parse_kinds(self.collectives or names),
            sizes=cases.parse_sizes(self.sizes or sizes),
            rates=cases.parse_rates(self.rate),
            fields=cases.parse_fields(self.field),
            carriers=cases.parse_carriers(self.carrier),
            tcp=self._ways(),
            repeat=self.repeat,
            latency=self.latency,
            ops=self.ops,
            lanes=self.lanes,
            slots=self.slots,
            mtu=self.mtu,
            name=self.name,
            spoil=self.spoil,
        ).check()


def collectives(
    arguments: CollectivesArguments,
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Write the numbers as JSON.")
    ] = None,
    quiet: Annotated[bool, Option("--quiet", help="Only the table.")] = False,
) -> None:
    """Time and bytes of every collective, over the embedded switch, the ranks and gloo."""
    from wiresum.measure.bench.record import need

    options = arguments.options()
    need("numpy", "torch")
    from wiresum.measure.bench.collectives.run import measure

    measure(options, json_file, quiet)


def train(
    rate: Annotated[str, Option(metavar="RATE,…", help="Rates of the links.")] = "100mbit,1gbit",
    workers: _Workers = "4",
    methods: Annotated[
        str, Option(metavar="NAME,…", help="Methods to compare with gloo  [default: all]")
    ] = "",
    rounds: Annotated[
        int, Option(min=1, max=20, help="Trainings of each method, each with a seed of its own.")
    ] = 3,
    target: Annotated[float, Option(min=0.1, help="The loss that is trained to.")] = 2.4,
    limit: Annotated[
        float, Option(min=1, max=3600, help="Seconds that a training may take, at most.")
    ] = 60.0,
    patience: Annotated[
        float, Option(min=1, max=100, help="And as many times gloo's time, of the same round.")
    ] = 2.0,
    json_file: Annotated[
        Path | None,
        Option("--json", metavar="FILE", help="Write the numbers as JSON, after each training."),
    ] = None,
    append: Annotated[
        bool, Option("--append", help="Do only the trainings that the JSON file does not have.")
    ] = False,
    table_only: Annotated[
        bool, Option("--table-only", help="Measure nothing: the tables of what the JSON file has.")
    ] = False,
    markdown: Annotated[
        Path | None,
        Option(metavar="FILE", help="A page: the tables are put between two marks in it."),
    ] = None,
    name: Annotated[str, Option(help="Name of the rack.")] = "train",
) -> None:
    """Time to the same loss with each method, across the same limited links."""
    from wiresum.measure.bench import cases, train_results
    from wiresum.measure.bench.train import Options, bench
    from wiresum.measure.bench.train_methods import parse_methods
    from wiresum.measure.page import put

    if table_only and json_file is None:
        raise RackError(lines.TABLE_OF_WHAT.of())
    options = Options(
        cases.parse_limits(rate), cases.parse_workers(workers), parse_methods(methods), rounds,
        target, limit, patience, name=name,
    )  # fmt: skip
    made = train_results.page(bench(options, json_file, append, table_only))
    if markdown is not None:
        put(markdown, made, "Time to the same loss", train_results.BEGIN)
    print(made)


def fsdp(
    workers: Annotated[int, Option(min=2, max=64, help="Workers.")] = 4,
    rate: Annotated[
        str, Option(metavar="RATE", help="Rate of each link, in each direction; none: no limit.")
    ] = "1gbit",
    field: Annotated[str, Option(metavar="32|16|8,…", help="Bits of a quantized element.")] = (
        "32,16"
    ),
    repeat: Annotated[int, Option(min=1, help="Rounds; the sides take turns.")] = 5,
    name: Annotated[
        str, Option(help="Name of the benchmark's network; several can exist side by side.")
    ] = "bench",
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Write the numbers as JSON.")
    ] = None,
    quiet: Annotated[bool, Option("--quiet", help="Only the table.")] = False,
) -> None:
    """What communication costs a step of a transformer under FSDP2, beside gloo's."""
    arguments = CollectivesArguments(
        workers=str(workers), rate=rate, field=field, carrier="switch", repeat=repeat, name=name
    )
    options = arguments.options()
    if len(options.rates) != 1:
        raise RackUsageError(lines.ONE_RATE.of(rate=rate))
    from wiresum.measure.bench.record import need

    need("numpy", "torch")
    from wiresum.measure.bench.collectives.fsdp import measure

    measure(options, json_file, quiet)


def switch(
    against: Annotated[
        str,
        Option(
            metavar="auto|bmv2|soft|none",
            help="The switch to compare with, on racks alike; auto: BMv2 where it can run; soft: a "
            "control, whose ratio must be near 1.",
        ),
    ] = "auto",
    lanes: Annotated[int, Option(help="Lanes of the switch program.")] = 256,
    workers: Annotated[int, Option(min=1, max=64, help="Workers of the job.")] = 4,
    repeat: Annotated[int, Option(min=1, help="Rounds; the switches take turns.")] = 5,
    seconds: Annotated[
        float, Option(min=0.1, max=60, help="Approximate length of a sample.")
    ] = 1.0,
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Write the numbers as JSON.")
    ] = None,
) -> None:
    """Chunks per second of the embedded switch: in memory, over sockets, and beside BMv2."""
    from wiresum.measure.bench.racks import OTHERS, why_not
    from wiresum.measure.bench.switch import bench
    from wiresum.p4 import program

    if against not in ("auto", "none", *OTHERS):
        raise RackUsageError(lines.COMPARE_WITH_SWITCH.of(against=against))
    program(lanes)
    other = None if against == "none" else against
    if against in OTHERS:
        reason = why_not(against)
        if reason is not None:
            raise RackError(reason)
    if against == "auto":
        reason = why_not("bmv2")
        other = "bmv2" if reason is None else None
        if reason is not None:
            print(f"without BMv2: {reason}", file=sys.stderr)
    bench(other, lanes, workers, repeat, seconds, json_file)


def engine(
    field: Annotated[
        str, Option(metavar="32|16|8,…", help="Bits of a quantized element.")
    ] = "32,16,8",
    isa: Annotated[
        str,
        Option(metavar="NAME,…", help="Instruction sets; all that the machine has.  [all]"),
    ] = "",
    workers: Annotated[int, Option(min=1, help="Workers that share a field.")] = 4,
    size: Annotated[str, Option(help="Bytes of the tensor.")] = "25MiB",
    repeat: Annotated[int, Option(min=1, help="Rounds; codec and memcpy take turns.")] = 15,
    codec: Annotated[
        str,
        Option(
            metavar="all|none|NAME;…",
            help="Codecs of gradients, as `run --codec` takes them. They need torch.",
        ),
    ] = "none",
    json_file: Annotated[
        Path | None, Option("--json", metavar="FILE", help="Write the numbers as JSON.")
    ] = None,
) -> None:
    """Speed of the codecs on one core, beside memcpy of the same bytes."""
    from wiresum.measure.bench import cases, codecs, record
    from wiresum.measure.bench.engine import bench

    sizes = cases.parse_sizes(size)
    if len(sizes) != 1:
        raise RackUsageError(lines.ONE_SIZE.of(size=size))
    isas = [name.strip() for name in isa.split(",")] if isa else []
    of_gradients: list[str] = []
    if codec != "none":
        record.need("torch")
        of_gradients = codecs.chosen(codec, workers)
    fields = cases.parse_fields(field)
    bench(fields, isas, workers, sizes[0], repeat, json_file, of_gradients)
