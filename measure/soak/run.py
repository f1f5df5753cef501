"""``wiresum testbed soak``: jobs that train across a rack, faults, and the judgement."""

import contextlib
import importlib.util
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from wiresum.common.temporary import PrivateFolder
from wiresum.measure import lines
from wiresum.measure.demo.show import write_json
from wiresum.measure.soak import leaks
from wiresum.measure.soak.faults import Faults
from wiresum.measure.soak.jobs import SIZES, Job
from wiresum.measure.soak.judge import Judge, SoakFailed, Step
from wiresum.measure.soak.reference import undisturbed
from wiresum.measure.soak.schedule import (
    GAP_S,
    MAY_MEET,
    Fault,
    JobSpec,
    Kind,
    Recipe,
    Schedule,
    make,
)
from wiresum.measure.soak.show import Diary
from wiresum.testbed.errors import RackError
from wiresum.testbed.interrupts import Interrupts
from wiresum.testbed.options import RackOptions
from wiresum.testbed.rack import Rack

_LOOK_S = 0.05
_DUMPED_S = 2.0


@dataclass(frozen=True)
class SoakOptions:
    """One soak: how long its jobs train, how many of them at a time.

    ``limit_s``: of one step; see ``Judge``.
    """

    minutes: float
    seed: int
    jobs: int
    limit_s: float
    out: Path = Path("out")
    json_file: Path | None = None


def soak(rack_options: RackOptions, options: SoakOptions) -> None:
    """Run it. Raises ``WiresumError`` at the first difference, hang or leak."""
    if importlib.util.find_spec("torch") is None:
        raise RackError(lines.NEEDS_TORCH.of())
    rack_options.check()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RackError(lines.NO_FOLDER.of(folder=options.out, why=error.strerror)) from None
    schedule = make(options.seed, options.minutes * 60, options.jobs, rack_options.workers)
    name = secrets.token_hex(8)
    os.environ[leaks.MARK] = name
    diary = Diary(options.seed, rack_options.switch)
    try:
        with Interrupts(), PrivateFolder("soak") as private:
            _soak(rack_options, options, schedule, private.path, diary)
            leaks.none_left(lambda: leaks.after(rack_options.name, name))
        diary.clean = True
    finally:
        diary.summary()
        if options.json_file is not None:
            write_json(options.json_file, diary.as_json())


def _soak(
    rack_options: RackOptions,
    options: SoakOptions,
    schedule: Schedule,
    folder: Path,
    diary: Diary,
) -> None:
    size = SIZES[rack_options.switch]
    expected = {}
    for number, recipe in enumerate(schedule.recipes):
        log = options.out / f"soak-reference{number}.log"
        log.unlink(missing_ok=True)
        expected[recipe] = undisturbed(recipe, size, folder / f"reference{number}", log)
        diary.reference(recipe, len(expected[recipe]))
    with Rack(rack_options, durable=True) as rack:
        with Soak(rack, options, schedule, folder, expected, diary) as run:
            run.run()
        leaks.none_left(lambda: leaks.in_rack(rack))


class Soak:
    """The jobs of a rack that is up, and what is done to them. Use as a context manager."""

    def __init__(
        self,
        rack: Rack,
        options: SoakOptions,
        schedule: Schedule,
        folder: Path,
        expected: dict[Recipe, tuple[str, ...]],
        diary: Diary,
    ) -> None:
        self._rack = rack
        self._options = options
        self._schedule = schedule
        self._folder = folder
        self._expected = expected
        self._diary = diary
        self._judge = Judge(options.limit_s)
        diary.totals = self._judge.totals
        self._jobs: dict[str, Job] = {}
        self._faults = Faults(rack, self._jobs)
        self._began = time.monotonic()
        self._lag_s = 0.0  # how much later than planned the last fault came
        self._lasting: list[Fault] = []
        self._mended = self._began  # when the last fault ended
        self._fresh: float | None = None  # when all jobs went on after it; None: not yet

    def __enter__(self) -> "Soak":
        return self

    def __exit__(self, *_: object) -> None:
        self._faults.heal()
        with contextlib.ExitStack() as exits:
            for job in self._jobs.values():
                exits.callback(job.close)
            for job in self._jobs.values():
                job.let_go()  # all end at the same time, not one after the other

    def run(self) -> None:
        """Run the schedule for as long as there is time, then let all jobs end."""
        for spec in self._schedule.jobs:
            self._start(spec)
        starts_s = self._until_fresh()
        self._began = time.monotonic()
        self._diary.seen(0.0, self._judge.news(), starts_s)
        end = self._began + self._options.minutes * 60
        for fault in self._schedule.faults:
            if self._elapsed() + fault.lasts_s > self._options.minutes * 60:
                break
            self._wait_for(fault)
            self._cause(fault)
        while self._lasting:
            self._turn()
        self._recover()
        while time.monotonic() < end:
            self._turn()
        for name in list(self._judge.running):
            self._leave(name)
        while self._jobs:
            self._turn()
        self._diary.seen(self._elapsed(), "all jobs have ended, after a whole lap")

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    # ---- jobs

    def _start(self, spec: JobSpec) -> None:
        log = self._options.out / f"soak-{spec.name}.log"
        log.unlink(missing_ok=True)
        size = SIZES[self._rack.options.switch]
        expected = self._expected[spec.recipe]
        self._judge.begins(spec.name, expected, spec.recipe.workers, time.monotonic())
        limit_s = self._options.limit_s
        self._jobs[spec.name] = Job(self._rack, spec, size, limit_s, self._folder / spec.name, log)
        self._diary.jobs += 1

    def _leave(self, name: str) -> None:
        self._judge.leaves(name)
        self._jobs[name].leave()

    # ---- faults

    def _wait_for(self, fault: Fault) -> None:
        """Until it is time for the fault, and nothing lasts that it may not meet."""
        while self._elapsed() < fault.at_s + self._lag_s or not self._may_begin(fault):
            self._turn()
        if not self._lasting and not self._diary.recovered:
            self._recover()
            # TCP finds out late that the network is back: its pauses double.
            settled = time.monotonic() + GAP_S[0]
            while time.monotonic() < settled:
                self._turn()
        self._lag_s = max(self._lag_s, self._elapsed() - fault.at_s)

    def _may_begin(self, fault: Fault) -> bool:
        return all(frozenset({fault.kind, other.kind}) in MAY_MEET for other in self._lasting)

    def _cause(self, fault: Fault) -> None:
        self._diary.begins(self._elapsed(), fault, meets=self._lasting)
        if fault.kind == Kind.WORKER_KILLED:
            assert fault.job is not None
            self._judge.kills(fault.job.name, time.monotonic())
        self._fresh = None
        self._faults.begin(fault)
        self._lasting.append(fault)
        if fault.kind == Kind.JOB_JOINS:
            assert fault.job is not None
            self._start(fault.job)
        if fault.kind == Kind.JOB_LEAVES:
            assert fault.job is not None
            self._leave(fault.job.name)

    def _mend(self) -> None:
        """End the faults that have lasted long enough."""
        for fault in list(self._lasting):
            if self._elapsed() >= fault.ends_s + self._lag_s:
                self._faults.end(fault)
                self._lasting.remove(fault)
                self._mended = time.monotonic()

    def _until_fresh(self) -> float:
        """Until each rank of each job has done a step after the last fault; how long that took.

        Bounded by the judge's limits.
        """
        while self._fresh is None:
            self._turn()
        return self._fresh - self._mended

    def _recover(self) -> None:
        """Wait until all jobs go on after the last fault, and tell it once."""
        if not self._diary.recovered:
            waited_s = self._until_fresh()
            self._diary.seen(self._elapsed(), self._judge.news(), waited_s)

    # ---- looking

    def _turn(self) -> None:
        """Look at everything once. Raises ``WiresumError`` if something is wrong."""
        self._mend()
        news = self._rack.check()
        if news is not None:
            self._diary.seen(self._elapsed(), news)
        for name, job in list(self._jobs.items()):
            status = job.status()  # before the last steps are read
            for rank, step in job.steps():
                try:
                    self._judge.steps(name, rank, step, time.monotonic())
                except SoakFailed:
                    self._tell_others(job, step)
                    raise
            if status is None:
                job.check()
                continue
            self._judge.ends(name, status, job.why() if status else "", job.log)
            self._jobs.pop(name).close()
            self._diary.seen(self._elapsed(), f"{name} has ended")
        self._look()
        if self._fresh is None and not self._lasting:
            running = self._judge.running
            if all(self._judge.fresh(name, self._mended) for name in running):
                self._fresh = time.monotonic()
        time.sleep(_LOOK_S)

    def _tell_others(self, job: Job, wrong: Step) -> None:
        """What the other ranks have after the step of one that is wrong.

        Those that are not told had done the step before, as it must be.
        """
        time.sleep(_DUMPED_S)
        for rank, step in job.steps():
            if (step.lap, step.step) == (wrong.lap, wrong.step):
                text = f"rank {rank} of {job.spec.name} has {step.digest} there"
                self._diary.seen(self._elapsed(), text)

    def _look(self) -> None:
        try:
            self._judge.look(time.monotonic())
        except SoakFailed:
            for name, job in self._jobs.items():
                job.dump()
                self._diary.seen(self._elapsed(), f"{name}{job.why() or ': no error'}")
            time.sleep(_DUMPED_S)
            raise
