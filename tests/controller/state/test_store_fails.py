"""A store that cannot be written, of a controller that is a process: full disk, locked, read-only.

Running jobs do not notice; all else is refused in a way that says "later", and works later.
"""

import contextlib
import resource
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from controller_process import LIMIT_S, Serving, join, serving, store_argument, switch_spec, until

from wiresum.controller.client.requests import SlotRequest
from wiresum.controller.errors import ControllerError, StoreFailed
from wiresum.controller.on_full import OnFull
from wiresum.controller.state.plan import AddJobToken, Plan, SetAdminToken
from wiresum.controller.state.sqlite import SqliteStore
from wiresum.controller.v1 import controller_pb2 as pb

EXPIRY_S = 4.0
NOWHERE = switch_spec("127.0.0.1:1")


@contextlib.contextmanager
def full_disk(child: Serving, _store: Path) -> Iterator[None]:
    """No file of the controller's can grow."""
    pid, no = child.process.pid, resource.RLIM_INFINITY
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1024, no))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (no, no))


@contextlib.contextmanager
def locked(_child: Serving, store: Path) -> Iterator[None]:
    """Somebody else has a transaction of its own, and takes its time."""
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


TROUBLES = [full_disk, locked]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_store_that_cannot_be_written_keeps_running_jobs(trouble: Any, tmp_path: Path) -> None:
    arguments = [*store_argument(tmp_path), "--switch", NOWHERE, "--expiry", str(EXPIRY_S)]
    with serving(*arguments) as child, child.client() as client:
        jobs = [client.create_job(f"j{number}", SlotRequest(16)) for number in range(3)]
        leaving = client.create_job("leaving", SlotRequest(16))
        with trouble(child, tmp_path / "store.sqlite"):
            began = time.monotonic()
            while time.monotonic() < began + 1.5 * EXPIRY_S:
                for job in jobs:
                    answer = client.heartbeat(job.id, job.token)
                    assert answer.state == pb.JOB_STATE_WAITING
                time.sleep(0.2)
            # What has to be written is refused, in one line, and nothing has happened.
            for call in (
                lambda: client.create_job("new", SlotRequest(16)),
                lambda: client.release_job(leaving.id, leaving.token),
                lambda: client.add_tenant("acme"),
                lambda: client.evict_job(jobs[0].id),
            ):
                with pytest.raises(ControllerError, match="store cannot be used") as caught:
                    call()
                assert caught.value.code == "UNAVAILABLE"
                assert caught.value.retry_after_s is not None
            names = {job.name for job in client.list_jobs(live_only=True)}
            assert names >= {"j0", "j1", "j2"}
        # Afterwards everything is as if nothing had been: who has left is gone, who comes comes.
        deadline = time.monotonic() + LIMIT_S
        while client.get_job(leaving.id).state != pb.JOB_STATE_EXPIRED:
            assert time.monotonic() < deadline
            for job in jobs:
                client.heartbeat(job.id, job.token)
            time.sleep(0.1)
        assert client.create_job("new", SlotRequest(16)).state == pb.JOB_STATE_WAITING
        states = {job.name: job.state for job in client.list_jobs(live_only=True)}
        assert states == dict.fromkeys(("j0", "j1", "j2", "new"), pb.JOB_STATE_WAITING)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_rank_that_gave_up_has_not_joined(trouble: Any, tmp_path: Path) -> None:
    arguments = [*store_argument(tmp_path), "--switch", NOWHERE]
    with (
        serving(*arguments) as child,
        child.client() as client,
        ThreadPoolExecutor(1) as threads,
    ):
        job = client.create_job("demo", SlotRequest(16))
        call = threads.submit(join, child.address, job, 0, 3.0)
        until(lambda: client.get_job(job.id).joined == [0])
        with trouble(child, tmp_path / "store.sqlite"):
            error = call.exception(LIMIT_S)
            assert isinstance(error, ControllerError)
            assert error.code == "DEADLINE_EXCEEDED"
            assert "rank 1 of 2 workers did not join" in str(error)
        until(lambda: client.get_job(job.id).joined == [])


@pytest.mark.parametrize("trouble", TROUBLES)
def test_queued_jobs_wait_on_while_the_store_fails(trouble: Any, tmp_path: Path) -> None:
    arguments = [*store_argument(tmp_path), "--switch", NOWHERE]
    with (
        serving(*arguments) as child,
        child.client() as client,
        child.client() as other,
        ThreadPoolExecutor(1) as threads,
    ):
        first = client.create_job("first", SlotRequest(4096))
        waiting = threads.submit(
            lambda: other.create_job("second", SlotRequest(4096, on_full=OnFull.WAIT))
        )
        until(lambda: client.list_tenants()[0].queued == 1)
        with trouble(child, tmp_path / "store.sqlite"):
            with pytest.raises(ControllerError, match="store cannot be used"):
                client.release_job(first.id, first.token)
            time.sleep(1.5)  # a sweep or two
            assert not waiting.done()
        client.release_job(first.id, first.token)
        assert waiting.result(LIMIT_S).slots == 4096


ADMIN = Plan(1.0, (SetAdminToken("x"),))


def test_a_failure_says_that_it_is_the_file_and_leaves_no_transaction_open(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.sqlite"
    with contextlib.closing(SqliteStore(path)) as store:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for _ in range(2):
                with pytest.raises(StoreFailed, match="database is locked"):
                    store.commit(ADMIN)
            assert "locked" in store.trouble
            assert store.admin_token() is None  # it can be read
            with pytest.raises(StoreFailed):
                store.probe()
        store.probe()
        assert store.trouble == ""
        store.commit(ADMIN)
        # An error of ours is not one of the file.
        with pytest.raises(sqlite3.IntegrityError):
            store.commit(Plan(1.0, (AddJobToken("no such job", "x"),)))
        assert store.trouble == ""
        assert store.admin_token() == "x"


def test_a_file_that_is_no_store_any_more_ends_no_job(tmp_path: Path) -> None:
    """Questions fail, too: the answer is "later", and not "there is no job"."""
    path = tmp_path / "store.sqlite"
    with contextlib.closing(SqliteStore(path)) as store:
        store.commit(ADMIN)
        store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        path.write_bytes(b"\xff" * path.stat().st_size)
        with contextlib.closing(SqliteStore.__new__(SqliteStore)) as broken:
            broken._lock, broken.trouble = None, ""
            broken._db = sqlite3.connect(path, factory=type(store._db))
            for ask in (broken.admin_token, broken.tenants, lambda: broken.job("j-0123456789ab")):
                with pytest.raises(StoreFailed, match="not a database"):
                    ask()
