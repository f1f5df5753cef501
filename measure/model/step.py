"""The time of a training step under a remedy: the report's step, with its communication changed.

**What communication takes.** The net communication of today's step (without waiting for late ranks)
is compared with what the ring's closed form gives on the job's links. What is left over is what the
software of the carrier costs: partly for each message, partly for each byte. A remedy over the same
carrier (gloo) keeps both; a remedy over a switch has its own. The codec's time comes on top where
the ranks sum; behind a switch it runs beside the wire, so the slower of the two counts.

**What is exposed.** Let DDP's k buckets be alike and become ready at even intervals. Then what is
exposed of a communication of N seconds is max(N/k, N − O), where O is what hides behind computation
today: the last bucket can never hide, and what exceeds the backward pass cannot either. Waiting for
late ranks is added to N: no remedy shortens it. Where all of today's communication but the last
bucket hides, compression can only shorten that bucket. A DDP hook computes in the thread that
trains: that is exposed, whatever hides.

**The interval.** The same with pessimistic and optimistic values of what is not measured: the
codec's speed, whether the carrier's overhead goes with messages or with bytes, and whether
communication hides as well as it does today or only in proportion.
"""

from dataclasses import dataclass, replace

from wiresum.measure.model import collectives
from wiresum.measure.model.costs import VIEWS, Costs
from wiresum.measure.model.job import Job, Message
from wiresum.measure.model.links import NONE, Link, Protection
from wiresum.measure.remedies import PLAIN, REMEDIES, Carrier, Remedy
from wiresum.p4 import MAX_WORKERS

RATE_SHARE = 0.10
"""Of the time on the wire: how much of gloo's overhead goes with the bytes, at most, in the middle
view and on hosts with free cores; the rest goes with its messages. gloo reaches 90 % of a link or
more with large tensors (docs/performance.md). Where there are as many ranks as cores, all of it
does: then it is what the cores need to move the bytes."""

LEAST_SPREAD = 0.03
"""Of the step: no prediction is said to be nearer than this."""

_LEAST_SHARE = 1e-9
"""Of what the links need, below which a communication took no time."""

NCCL = "nccl"


@dataclass(frozen=True)
class Setting:
    """The network that is asked about. ``window_bytes``: lanes that a worker may have in flight."""

    link: Link
    mtu: int = collectives.MTU
    protection: Protection = NONE
    window_bytes: float = float("inf")
    hops: int = 1


@dataclass(frozen=True)
class Prediction:
    """Seconds per step: the middle, and the limits of the interval; bytes that a worker sends."""

    remedy: str
    step_s: float
    low_s: float
    high_s: float
    comm_s: float
    exposed_s: float
    sent_bytes: float
    measured: bool = False
    """Whether a trial has measured it, or it is predicted."""

    @property
    def exposed_share(self) -> float:
        """Of the step."""
        return self.exposed_s / self.step_s if self.step_s else 0.0


def why_not(job: Job, remedy: Remedy, protection: Protection = NONE) -> str | None:
    """Why a remedy cannot be used for a job; None if it can."""
    if remedy.name == PLAIN:
        return None
    if not job.gradients:
        return "the job all-reduces no gradients of all ranks, which is what remedies apply to"
    if remedy.carrier is not Carrier.GLOO:
        if job.device != "cpu" or any(each.carrier == NCCL for each in job.gradients):
            return "wiresum sums CPU tensors; CUDA tensors go over nccl"
        if job.workers > MAX_WORKERS:
            return f"wiresum sums for at most {MAX_WORKERS} workers, this job has {job.workers}"
    if remedy.carrier is Carrier.SWITCH and not protection.summable:
        return f"a switch cannot add what {protection.name} encrypts between the hosts"
    if remedy.density < 1 and job.device != "cpu":
        return "wiresum's codecs take CPU tensors"
    if remedy.hook and not any(each.dtype == "float32" for each in job.gradients):
        return "the gradients are in 16 bits already"
    return None


def predict(
    job: Job, remedy: Remedy, now: Setting, then: Setting | None = None, costs: Costs | None = None
) -> Prediction:
    """The step with a remedy, on the links as they are ``now``, or as they would be ``then``."""
    costs = costs or Costs()
    then = then or now
    steps = {}
    for view in VIEWS:
        hook = _hook_s(job, remedy, costs, view)
        sending = _communication(job, remedy, now, then, costs, view)
        comm = sending + hook
        exposed = exposed_s(job, sending, view) + hook
        if remedy.every > 1:  # it follows the optimizer's step, so that nothing hides it
            exposed = comm + job.waiting_s
        steps[view] = (max(0.0, job.step_s - job.exposed_s + exposed), comm, exposed)
    middle, comm, exposed = steps["middle"]
    least = LEAST_SPREAD * middle
    edges = [found[0] for found in steps.values()]
    down, up = _spread(job)
    return Prediction(
        remedy=remedy.name,
        step_s=middle,
        low_s=max(0.0, min(*edges, middle - least) - down),
        high_s=max(*edges, middle + least) + up,
        comm_s=comm + job.waiting_s,
        exposed_s=exposed,
        sent_bytes=_sent(job, remedy, then, costs),
    )


def _spread(job: Job) -> tuple[float, float]:
    """How far the ranks' steps lie from the median rank's, below and above."""
    low = job.step_s if job.lowest_s is None else job.lowest_s
    high = job.step_s if job.highest_s is None else job.highest_s
    return max(0.0, job.step_s - low), max(0.0, high - job.step_s)


def exposed_s(job: Job, net_s: float, view: str = "middle") -> float:
    """What is exposed of a net communication of ``net_s`` seconds; see the module."""
    whole = net_s + job.waiting_s
    buckets = max(1.0, job.buckets or sum(each.per_step for each in job.messages))
    last = min(job.exposed_s, job.net_s / buckets)
    share = net_s / job.net_s if job.net_s else 1.0
    found = max(last * share, whole - job.overlapped_s)
    if view == "low" and share < 1:
        found = max(found, job.exposed_s * share)
    return min(found, whole)


# ---- communication


def _communication(
    job: Job, remedy: Remedy, now: Setting, then: Setting, costs: Costs, view: str
) -> float:
    """Net seconds of communication per step."""
    if remedy.name == PLAIN and then == now:
        return job.net_s
    gloo = _fitted(job, now, view)
    crowded = max(1.0, job.crowding)
    setting = replace(
        then,
        link=Link(
            max(0.0, then.link.alpha_s + gloo.alpha_s - now.link.alpha_s),
            then.link.beta * gloo.beta / now.link.beta,
        ),
    )
    # Where the job was faster than its links as they are given, so will be a switch's worker.
    fast = Link(then.link.alpha_s, then.link.beta * max(1.0, gloo.beta / now.link.beta))
    others = sum(each.per_step * _plain_s(each, setting) for each in job.others)
    total = others
    for each in job.gradients:
        if remedy.carrier is Carrier.SWITCH:
            one = _switch_s(each, remedy, replace(then, link=fast), costs, view, crowded)
        elif remedy.carrier is Carrier.RANKS:
            one = _ranks_s(each, remedy, replace(then, link=fast), costs, view, crowded)
            one += _waits(job) * costs.call.at(view)
        else:
            one = _ring_s(each, remedy, setting, costs, view)
            one += _waits(job) * remedy.calls * costs.hook.at(view) if remedy.chooses else 0.0
        total += each.per_step * one / remedy.every
    if then.protection.in_software:
        total += _sent(job, remedy, then, costs) / costs.cipher.at(view)
    return total


def _waits(job: Job) -> float:
    """How many calls of other ranks a call waits for, until it has a core: none where each rank has
    two cores."""
    return max(0.0, job.crowding - 0.5)


def _hook_s(job: Job, remedy: Remedy, costs: Costs, view: str) -> float:
    """Seconds per step for which a DDP hook computes in the thread that trains.

    On a GPU, which needs next to nothing for it: none.
    """
    if job.device != "cpu":
        return 0.0
    if remedy.chooses:
        speed = costs.powersgd if remedy.field is None else costs.blocks
    elif remedy.hook and remedy.every == 1:
        speed = costs.fp16
    else:
        return 0.0
    full = sum(each.per_step * each.size for each in job.gradients if each.dtype == "float32")
    return max(1.0, job.crowding) * full / speed.at(view) / remedy.every


def _plain_s(message: Message, setting: Setting) -> float:
    return collectives.collective_s(
        message.kind, message.size, message.ranks, setting.link, setting.mtu, setting.protection
    )


def _fitted(job: Job, now: Setting, view: str) -> Link:
    """The link as today's carrier uses it: with it the closed forms give today's communication.

    Pessimistic: the carrier's overhead goes with messages, which compression leaves; half of it on
    hosts with as many ranks as cores.
    """
    wire = bare = 0.0
    messages = 0.0
    for each in job.messages:
        took = each.per_step * _plain_s(each, now)
        count = each.per_step * collectives.steps(each.kind, each.ranks)[0]
        messages += count
        bare += count * now.link.alpha_s
        wire += took - count * now.link.alpha_s
    over = job.net_s - bare - wire
    if wire <= 0:
        return now.link
    if over < 0 or not messages:
        # Faster than the links as they were given: the report is right.
        times = max(job.net_s / (bare + wire), _LEAST_SHARE)
        return Link(now.link.alpha_s * times, now.link.beta / times)
    crowded = min(1.0, job.crowding) * over
    middle = max(min(over, RATE_SHARE * wire), crowded)
    by_rate = {"low": crowded / 2, "middle": middle, "high": over}[view]
    alpha = now.link.alpha_s + (over - by_rate) / messages
    return Link(alpha, now.link.beta * wire / (wire + by_rate))


def _wire_share(remedy: Remedy, message: Message, costs: Costs, view: str) -> float:
    """Bytes of a message under a remedy, as a share of its bytes today, exponents left out."""
    width = 4 if message.dtype == "float32" else 2
    if remedy.field is None:
        return costs.powersgd_share.at(view)
    return remedy.density * remedy.field / (8 * width)


def _elements_bytes(message: Message) -> float:
    """Bytes of its elements in float32."""
    return message.size * (1 if message.dtype == "float32" else 2)


def _ranks_s(
    message: Message, remedy: Remedy, then: Setting, costs: Costs, view: str, crowded: float
) -> float:
    """An all-reduce over the ranks, with the codec; ``crowded``: ranks for each core, or 1."""
    assert remedy.field is not None
    ring = (message.ranks, then.link, then.mtu, then.protection)
    full = _elements_bytes(message)
    wire = collectives.ring_s(message.size * _wire_share(remedy, message, costs, view), *ring)
    ahead = collectives.maximum_s(collectives.exponents(full), *ring)
    codec = full / costs.encode[remedy.field].at(view) + full / costs.decode[remedy.field].at(view)
    return wire / costs.ranks.at(view) + ahead + crowded * codec


def _ring_s(message: Message, remedy: Remedy, setting: Setting, costs: Costs, view: str) -> float:
    """An all-reduce over gloo."""
    ring = (message.ranks, setting.link, setting.mtu, setting.protection)
    if remedy.hook and message.dtype != "float32":
        return collectives.ring_s(message.size, *ring)
    wire = collectives.ring_s(message.size * _wire_share(remedy, message, costs, view), *ring)
    if remedy.name == PLAIN:
        return collectives.ring_s(message.size, *ring)
    if remedy.density < 1:
        return wire + collectives.ring_s(collectives.exponents(_elements_bytes(message)), *ring)
    if remedy.field is None:
        # Tensors of rank 1 as they are, then P, then Q.
        return wire + (remedy.calls - 1) * 2 * (message.ranks - 1) * setting.link.alpha_s
    return wire


def _switch_s(
    message: Message, remedy: Remedy, then: Setting, costs: Costs, view: str, crowded: float
) -> float:
    """An all-reduce over a switch: the codec runs beside the wire."""
    assert remedy.field is not None
    full = _elements_bytes(message)
    link = Link(then.link.alpha_s, then.link.beta * costs.switch.at(view))
    wire = collectives.switch_s(
        full, link, remedy.field, then.mtu, then.protection, then.window_bytes, then.hops
    )
    codec = full / costs.encode[remedy.field].at(view)
    codec += full / costs.decode[remedy.field].at(view)
    return max(wire, crowded * codec)


def _sent(job: Job, remedy: Remedy, then: Setting, costs: Costs) -> float:
    """Bytes that one worker sends per step, without headers."""
    total = 0.0
    for each in job.others:
        total += each.per_step * each.size * collectives.steps(each.kind, each.ranks)[1]
    for each in job.gradients:
        share = _wire_share(remedy, each, costs, "middle")
        if remedy.has_exponents:
            share += collectives.exponents(_elements_bytes(each)) / each.size
        ring = collectives.steps("all_reduce", each.ranks)[1]
        sent = each.per_step * each.size * share * (1 if remedy.needs else ring)
        total += sent / remedy.every
    return total


def all_remedies(
    job: Job, now: Setting, then: Setting | None = None, costs: Costs | None = None
) -> tuple[list[Prediction], dict[str, str]]:
    """Predictions of all remedies that can be used, and why the others cannot.

    ``then``: the network on which they would run, if it is another one than ``now``.
    """
    then = then or now
    reasons = {
        name: reason
        for name, remedy in REMEDIES.items()
        if (reason := why_not(job, remedy, then.protection)) is not None
    }
    found = [
        predict(job, remedy, now, then, costs)
        for name, remedy in REMEDIES.items()
        if name not in reasons
    ]
    return found, reasons
