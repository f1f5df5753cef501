import sqlite3
import stat
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from controller_rig import grant
from hypothesis import given
from hypothesis import strategies as st

from wiresum.common import wall_clock
from wiresum.controller.client.trust import (
    default_ca_file,
    default_store_file,
    default_token_file,
)
from wiresum.controller.errors import StoreError
from wiresum.controller.on_full import OnFull
from wiresum.controller.state.epochs import next_epoch
from wiresum.controller.state.model import NO_LEASE, JobState, Member, SlotRange, Switch
from wiresum.controller.state.plan import (
    AddJobToken,
    AddMember,
    AnnounceChange,
    FinishChange,
    Plan,
    PutSwitch,
    SetReady,
    StartAttempt,
)
from wiresum.controller.state.sqlite import SqliteStore
from wiresum.controller.state.sqlite.schema import MIGRATIONS
from wiresum.controller.tokens import hashed

SINCE = wall_clock.EARLIEST.timestamp()
"""Where epochs begin: 0."""

SWITCH = Switch("s1", "h:1", 0, IPv4Address("10.0.0.1"), 22355, 1, 64, 4096, (), False)


def add(store: SqliteStore, job_id: str, number: int = 1, base: int = 0) -> None:
    grant(store, job_id, number=number, base=base)


Open = Callable[[], SqliteStore]


def test_a_store_keeps_its_content_when_it_is_opened_again(open_store: Open) -> None:
    store = open_store()
    store.commit(Plan(1.0, (PutSwitch(SWITCH),)))
    add(store, "j-1")
    member = Member(0, IPv4Address("10.0.0.9"), 4000, 2, 7)
    writes = (StartAttempt("j-1", 3, 1, 16), AddMember("j-1", member), SetReady("j-1"))
    store.commit(Plan(SINCE + 5, writes))
    with store._transaction() as transaction:
        keys = "UPDATE jobs SET key = ?, reply_key = ?"
        transaction._db.execute(keys, (b"\xff" * 8, b"\xff" * 7 + b"\xfe"))
    before = store.job("j-1")
    store.close()
    store = open_store()
    assert store.job("j-1") == before
    assert before is not None
    assert (before.state, before.epoch) == (JobState.READY, 5)
    assert (before.key, before.reply_key) == (2**64 - 1, 2**64 - 2)
    assert before.members == (member,)
    assert store.switches() == [SWITCH]
    store.close()


def test_a_failed_plan_leaves_nothing_behind(store: SqliteStore) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        store.commit(Plan(1.0, (PutSwitch(SWITCH), AddJobToken("no such job", "x"))))
    assert store.switches() == []
    assert store.trouble == ""


def test_the_store_itself_refuses_shared_slots_numbers_and_epochs(store: SqliteStore) -> None:
    add(store, "j-1")
    with pytest.raises(sqlite3.IntegrityError, match="share a slot"):
        add(store, "j-2", number=2, base=8)
    with pytest.raises(sqlite3.IntegrityError, match="leases"):
        add(store, "j-2", number=1, base=16)
    assert store.job("j-2") is None
    add(store, "j-3", number=2, base=16)
    store.commit(Plan(1.0, (StartAttempt("j-1", 0, 1, 32),)))
    job = store.job("j-1")
    assert job is not None
    assert 0 not in (job.epoch, job.key, job.reply_key)
    with pytest.raises(sqlite3.IntegrityError, match="epoch"):
        store._db.execute("UPDATE jobs SET epoch = ? WHERE id = 'j-3'", (job.epoch,))
    with pytest.raises(sqlite3.IntegrityError, match="epoch must never be used twice"):
        store._db.execute("UPDATE epochs SET last = ?", (job.epoch,))


@given(st.lists(st.integers(0, 2**33)))
def test_epochs_only_grow(floors: list[int]) -> None:
    last = 0
    for floor in floors:
        try:
            epoch = next_epoch(last, floor)
        except OverflowError:
            assert max(floor, last + 1) > 0xFFFFFFFF
            continue
        assert last < epoch <= 0xFFFFFFFF
        assert epoch >= floor
        last = epoch


def test_the_last_epoch_is_stored_with_the_job(store: SqliteStore) -> None:
    add(store, "j-1")
    for attempt in range(3):
        store.commit(Plan(SINCE + 5, (StartAttempt("j-1", attempt, 1, 32),)))
        job = store.job("j-1")
        assert job is not None
        assert job.epoch == store.last_epoch() == 5 + attempt


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.sqlite")
    add(store, "j-1")
    for path in tmp_path.glob("store.sqlite*"):
        if not path.name.endswith(".lock"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    store.close()


def test_one_controller_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    store = SqliteStore(path)
    with pytest.raises(StoreError, match=r"store.sqlite is in use by another controller"):
        SqliteStore(path)
    store.close()
    SqliteStore(path).close()


def test_a_later_schema_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    SqliteStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match=f"schema 99, .* knows up to {len(MIGRATIONS)}"):
        SqliteStore(path)


def test_not_a_store(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_text("hello, this is certainly not a database file")
    with pytest.raises(StoreError, match="cannot be opened: file is not a database"):
        SqliteStore(path)
    with pytest.raises(StoreError, match="cannot be opened"):
        SqliteStore(tmp_path)


def test_the_default_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_store_file() == tmp_path / "wiresum" / "controller.sqlite"
    assert default_token_file() == tmp_path / "wiresum" / "controller.sqlite.admin-token"
    assert default_ca_file() == tmp_path / "wiresum" / "tls" / "ca.pem"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_store_file().relative_to(Path.home()).as_posix().startswith(".local/state/")


def test_a_store_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript(MIGRATIONS[0] + "PRAGMA user_version = 1;")
        db.executescript(
            """
            UPDATE epochs SET last = 77;
            INSERT INTO switches VALUES ('s1', 'h:1', 0, '10.0.0.1', 22355, 1, 64, 4096, 0, 1.0);
            INSERT INTO switch_hosts VALUES ('s1', '10.0.0.0/8', 3);
            INSERT INTO jobs VALUES
                ('j-1', 1, 'old', 'secret', 'released', 'released', 1.0, 1.0, 2.0, 0, 76,
                 x'0000000000000001', 1, 32, '{"completed": 5}'),
                ('j-2', 1, 'demo', 'token of old', 'ready', '', 3.0, 3.0, NULL, 4, 77,
                 x'0000000000000002', 1, 16, NULL);
            INSERT INTO leases VALUES ('j-1', 's1', 1, 0, 64, 0, 1), ('j-2', 's1', 1, 0, 256, 1, 1);
            INSERT INTO members VALUES ('j-2', 0, 167772169, 4000, 2, 3);
            """
        )
    store = SqliteStore(path)
    old, job = store.job("j-1"), store.job("j-2")
    assert old is not None
    assert job is not None
    assert (old.state, old.events) == (JobState.RELEASED, {"completed": 5})
    assert (job.state, job.tenant, job.attempt, job.epoch, job.key) == (
        JobState.READY, "default", 4, 77, 2,
    )  # fmt: skip
    # It had none for replies.
    assert job.reply_key not in (0, job.key, old.reply_key)
    assert job.members == (Member(0, IPv4Address("10.0.0.9"), 4000, 2, 3),)
    assert (job.lease.range, job.target, job.min_slots) == (SlotRange(0, 256), 256, 256)
    # Its workers' token is good, and nobody can read it any more.
    assert store.job_of_token(hashed("token of old")) == "j-2"
    assert store.last_epoch() == 77
    assert [tenant.name for tenant in store.tenants()] == ["default"]
    assert store.draining() == set()
    with pytest.raises(sqlite3.IntegrityError, match="share a slot"):
        add(store, "j-3", number=2, base=240)
    add(store, "j-3", number=2, base=256)
    store.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert b"token of old" not in path.read_bytes()


def test_a_store_of_before_reply_keys_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with sqlite3.connect(path) as db:
        db.create_function("sha256", 1, hashed, deterministic=True)
        db.executescript("".join(MIGRATIONS[:2]) + "PRAGMA user_version = 2;")
        job = "INSERT INTO jobs (id, tenant, name, state, created, heartbeat, attempt, epoch, key,"
        job += " workers, field, target, min_slots) VALUES"
        db.executescript(
            f"""
            {job} ('j-1', 1, 'one', 'ready', 1, 1, 0, 7, x'0000000000000001', 1, 32, 16, 16);
            {job} ('j-2', 1, 'two', 'waiting', 1, 1, NULL, 0, x'0000000000000000', 0, 0, 16, 16);
            INSERT INTO leases VALUES ('j-1', 's1', 1, 0, 16, 1, 1), ('j-2', 's1', 2, 64, 16, 1, 1);
            INSERT INTO changes VALUES
                ('j-1', 's1', 1, 32, 16, 8, x'0000000000000002', 'to grow', 1.0, NULL);
            """
        )
    store = SqliteStore(path)
    one, two = store.job("j-1"), store.job("j-2")
    assert one is not None
    assert one.pending is not None
    assert two is not None
    assert (one.key, one.pending.key, two.reply_key) == (1, 2, 0)
    assert len({0, 1, 2, one.reply_key, one.pending.reply_key}) == 5
    store.close()
    assert SqliteStore(path).job("j-1") == one  # once is enough


def test_the_queue_of_before_becomes_jobs(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with sqlite3.connect(path) as db:
        db.create_function("sha256", 1, hashed, deterministic=True)
        db.create_function("secret", 1, lambda count: b"k" * count)
        db.executescript("".join(MIGRATIONS[:3]) + "PRAGMA user_version = 3;")
        db.executescript(
            """
            INSERT INTO tenants (id, name, priority, created) VALUES (2, 'acme', 7, 1);
            INSERT INTO jobs (id, tenant, name, state, created, heartbeat, attempt, epoch, key,
                              workers, field, target, min_slots, request) VALUES
                ('j-1', 1, 'one', 'ready', 1, 1, 0, 7, x'0000000000000001', 1, 32, 16, 16, 'r1');
            INSERT INTO job_tokens VALUES ('hash', 'j-1');
            INSERT INTO leases VALUES ('j-1', 's1', 1, 0, 16, 1, 1);
            INSERT INTO members VALUES ('j-1', 0, 0, 167772169, 4000, 2, 3);
            INSERT INTO changes (job, switch, number, base, slots, epoch, key, reason, announced)
                VALUES ('j-1', 's1', 1, 32, 16, 8, x'0000000000000002', 'to grow', 1.0);
            INSERT INTO queue VALUES
                (5, 'j-3', 2, 'large', 2048, 256, 's1', 'smaller', 'r3', 20.0),
                (4, 'j-2', 1, 'j-2', 512, 16, '', 'wait', '', 10.0);
            """
        )
    store = SqliteStore(path)
    one = store.job("j-1")
    assert one is not None
    assert one.state is JobState.READY
    assert (one.lease.range, one.request, len(one.members)) == (SlotRange(0, 16), "r1", 1)
    assert one.pending is not None
    assert store.job_of_token("hash") == "j-1"
    two, three = store.queue()
    assert (two.id, two.state, two.on_full, two.wanted_switch, two.sizes) == (
        "j-2", JobState.QUEUED, OnFull.WAIT, "", (512,),
    )  # fmt: skip
    assert (three.id, three.name, three.tenant, three.priority) == ("j-3", "large", "acme", 7)
    assert (three.created, three.sizes) == (20.0, (2048, 1024, 512, 256))
    assert (three.lease, three.wanted_switch) == (NO_LEASE, "s1")
    assert store.job_requested("acme", "r3") == three
    assert [job.id for job in store.jobs(live_only=True)] == ["j-1"]
    assert store.usage()["acme"].queued == 1
    store.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT name FROM sqlite_master WHERE name = 'queue'").fetchall() == []


def test_a_change_holds_its_slots_too(store: SqliteStore) -> None:
    add(store, "j-1")
    job = store.job("j-1")
    assert job is not None
    store.commit(Plan(1.0, (AnnounceChange("j-1", SlotRange(0, 32), "to grow"),)))
    with pytest.raises(sqlite3.IntegrityError, match="share a slot"):
        add(store, "j-2", number=2, base=16)
    add(store, "j-2", number=2, base=32)
    other = store.job("j-2")
    assert other is not None
    for base in (0, 16):
        with pytest.raises(sqlite3.IntegrityError, match="share a slot"):
            store.commit(Plan(1.0, (AnnounceChange("j-2", SlotRange(base, 16), "to move"),)))
    job = store.job("j-1")
    assert job is not None
    assert job.pending is not None
    assert job.ranges == [SlotRange(0, 16), SlotRange(0, 32)]
    change = job.pending
    store.commit(Plan(1.0, (FinishChange("j-1"),)))
    job = store.job("j-1")
    assert job is not None
    assert (job.lease.range, job.change) == (SlotRange(0, 32), 1)
    assert (job.epoch, job.key, job.reply_key) == (change.epoch, change.key, change.reply_key)
    assert job.pending is None
