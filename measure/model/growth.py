"""More workers: as many steps of the same size per worker, fewer of them in a run."""

from dataclasses import replace

from wiresum.measure.model.collectives import collective_s
from wiresum.measure.model.job import Job
from wiresum.measure.model.step import Prediction, Setting, exposed_s


def with_workers(job: Job, workers: int, setting: Setting) -> Job:
    """The job with more ranks in all its collectives, their time by the ring's closed form."""
    messages = tuple(
        replace(each, ranks=workers if each.ranks == job.workers else each.ranks)
        for each in job.messages
    )
    grown = replace(job, workers=workers, messages=messages)
    before, after = _total_s(job, setting), _total_s(grown, setting)
    net = job.net_s * (after / before if before else 1.0)
    exposed = exposed_s(job, net)
    step = job.step_s - job.exposed_s + exposed
    return replace(grown, step_s=step, comm_s=net + job.waiting_s, exposed_s=exposed)


def more_workers(job: Job, times: int, setting: Setting, base: Prediction) -> Prediction:
    """What a step of today's batch takes with ``times`` as many workers, each with its batch.

    Seconds of the larger job's step divided by ``times``: a run needs so many fewer of them.
    """
    grown = with_workers(job, job.workers * times, setting)
    longer = grown.step_s - job.step_s
    return replace(
        base,
        step_s=(base.step_s + longer) / times,
        low_s=(base.low_s + longer) / times,
        high_s=(base.high_s + longer) / times,
        comm_s=grown.comm_s / times,
        exposed_s=grown.exposed_s / times,
    )


def _total_s(job: Job, setting: Setting) -> float:
    return sum(
        each.per_step * collective_s(each.kind, each.size, each.ranks, setting.link, setting.mtu)
        for each in job.messages
    )
