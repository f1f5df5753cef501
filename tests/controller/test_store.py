import sqlite3
import stat
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wiresum.controller.connection import default_ca_file, default_store_file, default_token_file
from wiresum.controller.errors import StoreError
from wiresum.controller.model import JobState, Member, Switch
from wiresum.controller.schema import MIGRATIONS
from wiresum.controller.slots import SlotRange
from wiresum.controller.store import MEMORY, Store

SWITCH = Switch("s1", "h:1", 0, IPv4Address("10.0.0.1"), 22355, 1, 64, 4096, (), False)


def add(store: Store, job_id: str, number: int = 1, base: int = 0) -> None:
    with store.transaction() as transaction:
        transaction.add_job(
            job_id,
            tenant="default",
            name=job_id,
            token=f"hash of {job_id}'s",
            now=1.0,
            switch="s1",
            number=number,
            slots=SlotRange(base, 16),
        )


def test_what_is_written_is_there_after_opening_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "store.sqlite"
    store = Store(path)
    with store.transaction() as transaction:
        transaction.put_switch(SWITCH, 1.0)
    add(store, "j-1")
    member = Member(0, IPv4Address("10.0.0.9"), 4000, 2, 7)
    with store.transaction() as transaction:
        epoch = transaction.new_epoch(5)
        transaction.start_attempt("j-1", attempt=3, epoch=epoch, key=2**64 - 1, workers=1, field=16)
        transaction.add_member("j-1", member)
        transaction.set_ready("j-1")
    before = store.job("j-1")
    store.close()
    store = Store(path)
    assert store.job("j-1") == before
    assert before is not None
    assert (before.state, before.epoch, before.key) == (JobState.READY, 5, 2**64 - 1)
    assert before.members == (member,)
    assert store.switches() == [SWITCH]
    store.close()


def test_a_failed_transaction_leaves_nothing_behind() -> None:
    store = Store(MEMORY)

    def fail() -> None:
        with store.transaction() as transaction:
            transaction.put_switch(SWITCH, 1.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.switches() == []


def test_the_store_itself_refuses_shared_slots_numbers_and_epochs() -> None:
    store = Store(MEMORY)
    add(store, "j-1")
    with pytest.raises(sqlite3.IntegrityError, match="share a slot"):
        add(store, "j-2", number=2, base=8)
    with pytest.raises(sqlite3.IntegrityError, match="leases"):
        add(store, "j-2", number=1, base=16)
    assert store.job("j-2") is None
    add(store, "j-3", number=2, base=16)
    with store.transaction() as transaction:
        epoch = transaction.new_epoch(1)
        transaction.start_attempt("j-1", attempt=0, epoch=epoch, key=1, workers=1, field=32)
    with pytest.raises(sqlite3.IntegrityError, match="epoch"), store.transaction() as transaction:
        transaction.start_attempt("j-3", attempt=0, epoch=epoch, key=1, workers=1, field=32)


@given(st.lists(st.integers(0, 2**33)))
def test_epochs_only_grow(floors: list[int]) -> None:
    store = Store(MEMORY)
    last = 0
    for floor in floors:
        try:
            with store.transaction() as transaction:
                epoch = transaction.new_epoch(floor)
        except OverflowError:
            assert max(floor, last + 1) > 0xFFFFFFFF
            continue
        assert last < epoch <= 0xFFFFFFFF
        assert epoch >= floor
        last = epoch
    assert store.last_epoch() == last


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")
    add(store, "j-1")
    for path in tmp_path.glob("store.sqlite*"):
        if not path.name.endswith(".lock"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    store.close()


def test_one_controller_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    store = Store(path)
    with pytest.raises(StoreError, match=r"store.sqlite is in use by another controller"):
        Store(path)
    store.close()
    Store(path).close()


def test_a_later_schema_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match=f"schema 99, .* knows up to {len(MIGRATIONS)}"):
        Store(path)


def test_not_a_store(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_text("hello, this is certainly not a database file")
    with pytest.raises(StoreError, match="cannot be opened: file is not a database"):
        Store(path)
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path)


def test_the_default_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_store_file() == tmp_path / "wiresum" / "controller.sqlite"
    assert default_token_file() == tmp_path / "wiresum" / "controller.sqlite.admin-token"
    assert default_ca_file() == tmp_path / "wiresum" / "tls" / "ca.pem"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_store_file().relative_to(Path.home()).as_posix().startswith(".local/state/")
