"""The thread that keeps a job alive: what it makes of answers, silence and refusals."""

import logging
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc
import pytest
from change_rig import LIMIT_S, eventually, unavailable

from wiresum.common import patience
from wiresum.controller.errors import ControllerError
from wiresum.controller.v1 import controller_pb2 as pb
from wiresum.host_agent.agent import control
from wiresum.host_agent.agent.control import Heartbeats

Answer = pb.HeartbeatResponse | ControllerError


def ready(change: int = 0) -> pb.HeartbeatResponse:
    return pb.HeartbeatResponse(state=pb.JOB_STATE_READY, epoch=3, change=change)


@dataclass
class Script:
    """Answers one after the other, then waits; notes the calls."""

    answers: list[Answer]
    heartbeat_s: float = 0.02
    expiry_s: float = LIMIT_S
    calls: list[tuple[float, int]] = field(default_factory=list)
    heard: list[int] = field(default_factory=list)
    lost: "queue.Queue[str]" = field(default_factory=queue.Queue)
    over: threading.Event = field(default_factory=threading.Event)

    def beat(self, wait_s: float, change: int) -> pb.HeartbeatResponse:
        self.calls.append((wait_s, change))
        if not self.answers:
            self.over.wait(LIMIT_S)
            raise ControllerError("CANCELLED", "closed")
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if isinstance(answer, ControllerError):
            raise answer
        return answer

    def take(self, answer: pb.HeartbeatResponse) -> str | None:
        self.heard.append(answer.change)
        return "enough" if answer.change == 99 else None

    def start(self, *, loud: bool = True) -> Heartbeats:
        return Heartbeats("mine", self.beat, lambda: self, self.take, self.lost.put, loud=loud)


@pytest.fixture
def ended() -> Iterator[list[tuple[Script, Heartbeats]]]:
    started: list[tuple[Script, Heartbeats]] = []
    yield started
    for script, heartbeats in started:
        heartbeats.stop()
        script.over.set()
        heartbeats.join(LIMIT_S)


def test_each_call_says_which_change_is_known(ended: list[tuple[Script, Heartbeats]]) -> None:
    script = Script([ready(), ready(2), ready(2), ready(99)])
    ended.append((script, script.start()))
    assert script.lost.get(timeout=LIMIT_S) == "enough"
    assert script.calls == [(0.02, 0), (0.02, 0), (0.02, 2), (0.02, 2)]
    assert script.heard == [0, 2, 2, 99]


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (pb.JOB_STATE_EVICTED, "job mine is evicted: because"),
        (pb.JOB_STATE_EXPIRED, "job mine is expired: because"),
        (pb.JOB_STATE_RELEASED, "job mine is released: because"),
    ],
)
def test_the_jobs_end_is_told_once_with_its_reason(
    ended: list[tuple[Script, Heartbeats]], state: pb.JobState, line: str
) -> None:
    over = pb.HeartbeatResponse(state=state, reason="because")
    script = Script([ready(), over])
    ended.append((script, script.start()))
    assert script.lost.get(timeout=LIMIT_S) == line
    ended[0][1].join(LIMIT_S)
    assert script.lost.empty()
    assert len(script.calls) == 2


GONE = ("NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED")


@pytest.mark.parametrize("code", GONE)
def test_an_answer_that_there_is_no_job_is_final(
    ended: list[tuple[Script, Heartbeats]], code: str
) -> None:
    script = Script([ControllerError(code, "there is no job")])
    ended.append((script, script.start()))
    assert script.lost.get(timeout=LIMIT_S) == "job mine is gone: there is no job"


@pytest.mark.parametrize(
    "code", [*sorted({code.name for code in grpc.StatusCode} - {"OK", *GONE}), "A_LATER_ONE"]
)
def test_no_other_error_says_that_the_job_is_gone(
    ended: list[tuple[Script, Heartbeats]], code: str
) -> None:
    script = Script([*[ControllerError(code, "trouble")] * 4, ready(), ready(99)])
    ended.append((script, script.start()))
    assert script.lost.get(timeout=LIMIT_S) == "enough"


def test_a_controller_that_says_later_has_not_been_silent(
    ended: list[tuple[Script, Heartbeats]],
) -> None:
    later = ControllerError("UNAVAILABLE", "the store is full", retry_after_s=0.01)
    script = Script([*[later] * 20, ready(99)], expiry_s=0.1)
    ended.append((script, script.start()))
    assert script.lost.get(timeout=LIMIT_S) == "enough"


def test_silence_is_final_once_the_lease_has_expired(
    ended: list[tuple[Script, Heartbeats]], caplog: pytest.LogCaptureFixture
) -> None:
    script = Script([unavailable()], expiry_s=0.3)
    with caplog.at_level(logging.WARNING, "wiresum"):
        ended.append((script, script.start()))
        line = script.lost.get(timeout=LIMIT_S)
    assert line == f"job mine has lost its lease: {unavailable()}"
    assert len(script.calls) > 3
    assert [record.message for record in caplog.records] == [
        f"wiresum: heartbeats are failing: {unavailable()}"
    ]


def test_a_process_that_stood_still_itself_asks_again_before_it_gives_up(
    ended: list[tuple[Script, Heartbeats]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that takes longer than it can shows that this process did not run."""
    monkeypatch.setattr(control, "CALL_S", 0.1)
    monkeypatch.setattr(patience, "LATE_S", 0.1)
    script = Script([ready(), unavailable(), ready(), ready(99)], expiry_s=1.0)
    beat = script.beat

    def stopped(wait_s: float, change: int) -> pb.HeartbeatResponse:
        if len(script.calls) == 1:
            threading.Event().wait(1.5)
        return beat(wait_s, change)

    script.beat = stopped  # type: ignore[method-assign]
    ended.append((script, script.start()))
    assert script.lost.get(timeout=LIMIT_S) == "enough"


def test_one_failure_is_no_news(
    ended: list[tuple[Script, Heartbeats]], caplog: pytest.LogCaptureFixture
) -> None:
    script = Script([unavailable(), ready(), unavailable(), ready(), ready(99)])
    with caplog.at_level(logging.WARNING, "wiresum"):
        ended.append((script, script.start()))
        assert script.lost.get(timeout=LIMIT_S) == "enough"
    assert caplog.records == []


def test_a_controller_that_answers_at_once_is_not_asked_without_end(
    ended: list[tuple[Script, Heartbeats]],
) -> None:
    script = Script([ready()])  # whatever `wait_s` says
    ended.append((script, script.start()))
    threading.Event().wait(1.0)
    assert len(script.calls) <= 25


def test_stopping_ends_it_without_a_word(ended: list[tuple[Script, Heartbeats]]) -> None:
    script = Script([])
    heartbeats = script.start()
    eventually(lambda: len(script.calls) == 1, "the first call")
    heartbeats.stop()
    script.over.set()  # as closing the client does
    heartbeats.join(LIMIT_S)
    assert script.lost.empty()
