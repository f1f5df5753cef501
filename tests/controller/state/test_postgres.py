"""What is special about the store in PostgreSQL: its own constraints, its sessions, who leads."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from controller_rig import grant

from support.postgres import Postgres, Proxy, lead, led, patient, rows
from wiresum.controller.errors import NotLeading, StoreError, StoreFailed
from wiresum.controller.state.model import SlotRange
from wiresum.controller.state.plan import (
    AnnounceChange,
    Enqueue,
    Park,
    Plan,
    SetAdminToken,
    StartAttempt,
)
from wiresum.controller.state.sqlite import SqliteStore

psycopg = pytest.importorskip("psycopg", reason="pip install 'wiresum[postgres]'")

from wiresum.controller.state.postgres.election import Candidate  # noqa: E402
from wiresum.controller.state.postgres.schema import STEPS, TABLES  # noqa: E402
from wiresum.controller.state.postgres.session import shown  # noqa: E402

ADMIN = Plan(1.0, (SetAdminToken("x"),))
SILENCE_S = 1.5


@pytest.fixture
def proxy(postgres_server: Postgres) -> Iterator[Proxy]:
    with closing(Proxy(postgres_server)) as proxy:
        yield proxy


def test_the_tables_are_those_of_sqlite(postgres_server: Postgres, postgres_url: str) -> None:
    lead(postgres_url).close()
    kinds = {"INTEGER": "bigint", "REAL": "double precision", "TEXT": "text", "BLOB": "bytea"}
    query = (
        "SELECT column_name, data_type, is_nullable = 'NO' FROM information_schema.columns "
        "WHERE table_schema = 'wiresum' AND table_name = %s"
    )
    with closing(SqliteStore()) as store, postgres_server.connect() as db:
        tables = store._db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        )
        assert {row["name"] for row in tables} == set(TABLES)
        for table in TABLES:
            info = store._db.execute(f"PRAGMA table_info({table})").fetchall()
            expected = {(each["name"], kinds[each["type"]]) for each in info}
            found = {(name, kind) for name, kind, _ in db.execute(query, (table,))}
            assert found - {("rowid", "bigint")} == expected, table
            required = {each["name"] for each in info if each["notnull"] or each["pk"]}
            found = {name for name, _, needed in db.execute(query, (table,)) if needed}
            assert found - {"rowid"} == required, table


def test_postgresql_itself_refuses_what_must_never_be(
    postgres_server: Postgres, postgres_url: str
) -> None:
    with closing(lead(postgres_url)) as store, postgres_server.connect() as db:
        grant(store, "j-1")
        grant(store, "j-2", number=2, base=32)
        store.commit(Plan(1.0, (StartAttempt("j-1", 0, 1, 32),)))
        store.commit(Plan(1.0, (AnnounceChange("j-2", SlotRange(64, 16), "to move"),)))
        epoch = store.last_epoch()
        for statement, words in (
            ("UPDATE leases SET base = 40 WHERE job = 'j-1'", "share a slot"),
            ("UPDATE leases SET base = 72 WHERE job = 'j-1'", "share a slot"),
            ("UPDATE leases SET number = 2 WHERE job = 'j-1'", "held_numbers"),
            (f"UPDATE jobs SET epoch = {epoch - 1} WHERE id = 'j-2'", "job_epochs"),
            (f"UPDATE epochs SET last = {epoch}", "epoch must never be used twice"),
            ("UPDATE jobs SET name = 'j-1' WHERE id = 'j-2'", "live_job_names"),
            ("INSERT INTO job_tokens VALUES ('x', 'no such job')", "foreign key"),
            ("UPDATE jobs SET key = 'short'", "jobs_key_check"),
        ):
            with pytest.raises(psycopg.IntegrityError, match=words):
                db.execute(statement)


def test_what_postgresql_refuses_has_not_happened_in_memory_either(
    postgres_server: Postgres, postgres_url: str
) -> None:
    with closing(lead(postgres_url)) as store, postgres_server.connect() as db:
        grant(store, "j-1")
        before = rows(store)
        db.execute("ALTER TABLE jobs ADD CONSTRAINT no_more CHECK (id = 'j-1')")
        with pytest.raises(psycopg.IntegrityError, match="no_more"):
            grant(store, "j-2", number=2, base=16)
        with pytest.raises(sqlite3.IntegrityError, match="share a slot"):
            grant(store, "j-3", number=2)
        # A text that PostgreSQL cannot hold.
        with pytest.raises(psycopg.DataError):
            grant(store, "j\0", number=2, base=16)
        assert rows(store) == before
        assert store.term.holds()
        db.execute("ALTER TABLE jobs DROP CONSTRAINT no_more")
        grant(store, "j-2", number=2, base=16)
        before = rows(store)
    with closing(lead(postgres_url)) as store:
        assert rows(store) == before


def test_one_leads_and_the_others_know_who(postgres_url: str) -> None:
    store, second = led(patient(postgres_url, "a:1")), patient(postgres_url, "b:2")
    assert second.run() is None
    assert second.leader == "a:1"
    store.commit(ADMIN)
    store.close()
    later = led(second)
    assert second.leader == "b:2"
    assert later.admin_token() == "x"
    assert later.term.number == store.term.number + 1
    later.close()


def test_a_follower_whose_session_was_ended_begins_another(
    postgres_server: Postgres, postgres_url: str
) -> None:
    follower = patient(postgres_url, "b:2")
    with closing(lead(postgres_url)):
        assert follower.run() is None
        postgres_server.hang_up()
    with closing(lead(postgres_url)):
        assert follower.run() is None
    follower.close()


def test_a_leader_that_is_silent_in_the_middle_of_a_transaction_is_replaced(
    postgres_url: str,
) -> None:
    """PostgreSQL does not take it for idle: the rest of its pipeline may come."""
    old = lead(postgres_url)
    # From now on its term lasts that long; the server's own limits for idle sessions are longer.
    old.term._session.silence_s = SILENCE_S
    old.term.confirm()
    wire = old.term._session._db.pgconn
    wire.enter_pipeline_mode()
    wire.send_query_params(b"BEGIN", [])
    wire.send_query_params(b"INSERT INTO wiresum.admin VALUES (1, 'x')", [])
    wire.send_flush_request()
    wire.flush()
    new = led(Candidate(postgres_url, "b:2", SILENCE_S))
    assert not old.term.holds()
    assert new.admin_token() is None
    new.close()


def test_a_session_that_was_ended_leads_no_more(
    postgres_server: Postgres, postgres_url: str
) -> None:
    old, new = lead(postgres_url), patient(postgres_url, "b:2")
    postgres_server.hang_up()
    with pytest.raises(NotLeading, match="does not lead any more"):
        old.commit(ADMIN)
    for ask in (old.snapshot, lambda: old.commit(ADMIN)):
        with pytest.raises(NotLeading):
            ask()
    assert not old.term.confirm()
    store = led(new)
    assert store.admin_token() is None
    store.close()


def test_a_leader_whose_lock_is_gone_is_fenced_off(
    postgres_server: Postgres, postgres_url: str
) -> None:
    """Its session goes on: a pooler may have given it to another."""
    old = lead(postgres_url)
    old.term._session.ask("SELECT pg_advisory_unlock_all()")
    new = lead(postgres_url)
    for write in (lambda: old.commit(ADMIN), old.snapshot):
        with pytest.raises(NotLeading, match="another controller leads"):
            write()
    assert new.admin_token() is None
    new.commit(ADMIN)
    new.close()


def test_a_silent_leader_knows_that_it_leads_no_more(postgres_url: str) -> None:
    """As one that stood still, or whose machine slept."""
    old = led(Candidate(postgres_url, "a:1", SILENCE_S))
    new = led(Candidate(postgres_url, "b:2", SILENCE_S))
    assert not old.term.holds()
    with pytest.raises(NotLeading):
        old.commit(ADMIN)
    assert new.admin_token() is None
    new.close()


def test_a_leadership_that_postgresql_refuses_to_confirm_ends_with_its_words(
    postgres_url: str,
) -> None:
    with closing(lead(postgres_url)) as store:
        store.term._session.ask("SET default_transaction_read_only = on")
        assert store.term.confirm()
        store.term._until = 0.0  # as if its time were over
        with pytest.raises(NotLeading, match=r"not confirmed .* read-only transaction"):
            store.commit(ADMIN)


def test_a_leader_that_is_cut_off_cannot_commit_and_does_not_wait(
    postgres_server: Postgres, postgres_url: str, proxy: Proxy
) -> None:
    old = led(Candidate(proxy.url, "a:1", SILENCE_S))
    proxy.freeze()
    began = time.monotonic()
    with pytest.raises(NotLeading, match=r"does not answer|has not confirmed"):
        old.commit(ADMIN)
    assert time.monotonic() - began < SILENCE_S + 20.0
    new = led(Candidate(postgres_url, "b:2"))
    # What it sent at last arrives, and nobody is there to take it.
    proxy.thaw()
    time.sleep(0.2)
    with postgres_server.connect() as db:
        assert db.execute("SELECT token FROM admin").fetchall() == []
    assert new.admin_token() is None
    new.close()


def test_a_store_that_waits_for_a_lock_is_one_that_fails_for_now(
    postgres_server: Postgres, postgres_url: str
) -> None:
    with closing(lead(postgres_url)) as store:
        with postgres_server.connect() as db, db.transaction():
            db.execute("LOCK TABLE admin")
            with pytest.raises(StoreFailed, match=r"cannot be written .*lock timeout") as caught:
                store.commit(ADMIN)
            assert not isinstance(caught.value, NotLeading)
            assert store.admin_token() is None
            assert "lock timeout" in store.trouble
        store.probe()
        assert store.trouble == ""
        store.commit(ADMIN)
        assert store.term.holds()


def test_a_later_schema_is_left_alone(postgres_server: Postgres, postgres_url: str) -> None:
    lead(postgres_url).close()
    with postgres_server.connect() as db:
        db.execute("UPDATE store SET steps = 99")
    with pytest.raises(StoreError, match=f"schema 99, .* knows up to {len(STEPS)}"):
        Candidate(postgres_url, "a:1").run()


def test_a_store_of_before_parts_and_parked_jobs_is_taken_over(
    postgres_server: Postgres, postgres_url: str
) -> None:
    with closing(lead(postgres_url)) as store:
        grant(store, "j-1")
        store.commit(Plan(1.0, (StartAttempt("j-1", 0, 1, 32),)))
        before = rows(store)
    with postgres_server.connect() as db:
        for column in ("parent", "parked", "lent"):
            db.execute(f"ALTER TABLE jobs DROP COLUMN {column} CASCADE")
        db.execute("UPDATE store SET steps = 1")
    with closing(lead(postgres_url)) as store:
        assert rows(store) == before
        store.commit(Plan(2.0, (Park("j-1", 1792000000.25),)))
    with closing(lead(postgres_url)) as store:
        job = store.job("j-1")
        assert job is not None
        assert (job.parent, job.parked, job.lent) == ("", True, 1792000000.25)


def test_a_store_that_cannot_be_reached_is_named_without_its_password() -> None:
    url = "postgresql://me:secret@127.0.0.1:1/sums"
    with pytest.raises(StoreFailed, match=r"//127.0.0.1:1/sums cannot be reached") as e:
        Candidate(url, "a:1").run()
    assert "secret" not in str(e.value)
    assert "\n" not in str(e.value)
    assert shown("postgresql://%zz") == "postgresql://…"
    with pytest.raises(StoreError, match="special characters as %XX") as wrong:
        Candidate("postgresql://me:secret%zz@h/sums", "a:1").run()
    assert "secret" not in str(wrong.value)


def test_a_thousand_jobs_are_read_by_the_next_leader(postgres_url: str) -> None:
    with closing(lead(postgres_url)) as store:
        for number in range(20):
            grant(store, f"j-{number}", number=number + 1, base=16 * number)
        job = store.job("j-0")
        assert job is not None
        queue = [replace(job, id=f"q-{number}", name=f"q-{number}") for number in range(1000)]
        store.commit(Plan(2.0, tuple(Enqueue(each) for each in queue)))
        before = rows(store)
    with closing(lead(postgres_url)) as store:
        assert rows(store) == before
        assert [waiting.id for waiting in store.queue()] == [each.id for each in queue]
