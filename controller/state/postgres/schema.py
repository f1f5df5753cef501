"""The store's tables in PostgreSQL, as the steps that led to them.

The tables and their constraints are those of ``state/sqlite/schema.py``; whoever adds a step there
adds it here. Numbers are BIGINT and flags are 0 and 1, so that a write means the same in both.
"""

import re

from wiresum.controller.state import tables
from wiresum.controller.state.postgres.session import SCHEMA

BEGINNING = f"""
    CREATE SCHEMA IF NOT EXISTS {SCHEMA};
    CREATE TABLE IF NOT EXISTS store (
        id BIGINT PRIMARY KEY CHECK (id = 1),
        steps BIGINT NOT NULL,
        -- Grows with every leadership: what an earlier leader writes is refused.
        term BIGINT NOT NULL,
        leader TEXT NOT NULL
    );
    INSERT INTO store (id, steps, term, leader) VALUES (1, 0, 0, '') ON CONFLICT DO NOTHING;
"""
"""What a database must have before any step; to carry it out again is harmless."""

TABLES = (
    "tenants",
    "admin",
    "epochs",
    "switches",
    "switch_hosts",
    "jobs",
    "job_tokens",
    "leases",
    "changes",
    "members",
)
"""Each behind those that it refers to."""

_WORDS = {
    r"\bINTEGER\b": "BIGINT",
    r"\bREAL\b": "DOUBLE PRECISION",
    r"\bBLOB\b": "BYTEA",
    r"\bx'(\w+)'": r"decode('\1', 'hex')",
}
"""What PostgreSQL calls otherwise than SQLite."""


def _translated(columns: str) -> str:
    for here, there in _WORDS.items():
        columns = re.sub(here, there, columns)
    return columns.strip()


# Never edit a step that has been released: append one.
STEPS: tuple[str, ...] = (
    f"""
    CREATE FUNCTION must_lead(mine BIGINT) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        -- Whoever wants to lead waits for the end of this transaction.
        PERFORM 1 FROM store WHERE term = mine FOR SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'another controller leads' USING ERRCODE = 'WS001';
        END IF;
    END $$;

    CREATE TABLE tenants ({_translated(tables.TENANTS)});
    CREATE UNIQUE INDEX tenant_names ON tenants (name) WHERE removed IS NULL;
    INSERT INTO tenants (id, name, created) VALUES (1, 'default', 0);

    CREATE TABLE admin ({_translated(tables.ADMIN)});

    -- The last epoch that was handed out, to any job on any switch.
    CREATE TABLE epochs ({_translated(tables.EPOCHS)});
    INSERT INTO epochs (id, last) VALUES (1, 0);
    CREATE FUNCTION epochs_grow() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.last <= OLD.last THEN
            RAISE integrity_constraint_violation
                USING MESSAGE = 'an epoch must never be used twice';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER epochs_grow BEFORE UPDATE ON epochs
        FOR EACH ROW EXECUTE FUNCTION epochs_grow();

    CREATE TABLE switches (
        {_translated(tables.SWITCHES)},
        draining BIGINT NOT NULL DEFAULT 0
    );
    CREATE TABLE switch_hosts ({_translated(tables.SWITCH_HOSTS)});

    -- A job in the queue is a job: without a lease, and with what it asks for.
    CREATE TABLE jobs (
        -- The order of arrival. SQLite gives every table such a number.
        rowid BIGINT NOT NULL UNIQUE,
        {_translated(tables.JOBS)}
    );
    CREATE UNIQUE INDEX live_job_names ON jobs (tenant, name)
        WHERE state IN ('queued', 'waiting', 'ready');
    CREATE UNIQUE INDEX job_epochs ON jobs (epoch) WHERE epoch > 0;
    CREATE UNIQUE INDEX job_requests ON jobs (tenant, request) WHERE request != '';
    CREATE INDEX jobs_by_tenant ON jobs (tenant, created);
    CREATE INDEX ended_jobs ON jobs (ended);

    CREATE TABLE job_tokens ({_translated(tables.JOB_TOKENS)});
    CREATE INDEX job_tokens_by_job ON job_tokens (job);

    CREATE TABLE leases ({_translated(tables.LEASES)});
    CREATE UNIQUE INDEX held_numbers ON leases (switch, number) WHERE held != 0;

    -- The leases that running jobs change over to.
    CREATE TABLE changes (
        {_translated(tables.CHANGES)},
        {_translated(tables.REPLY_KEY)}
    );
    CREATE VIEW held_ranges AS
        SELECT job, switch, base, slots FROM leases WHERE held != 0
        UNION ALL SELECT job, switch, base, slots FROM changes;
    CREATE FUNCTION slots_are_exclusive() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (
            SELECT 1 FROM held_ranges AS other
            WHERE other.switch = NEW.switch AND other.job != NEW.job
              AND other.base < NEW.base + NEW.slots AND NEW.base < other.base + other.slots
        ) THEN
            RAISE integrity_constraint_violation USING MESSAGE = 'two jobs must never share a slot';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER leases_are_exclusive BEFORE INSERT OR UPDATE OF switch, base, slots ON leases
        FOR EACH ROW EXECUTE FUNCTION slots_are_exclusive();
    CREATE TRIGGER changes_are_exclusive BEFORE INSERT ON changes
        FOR EACH ROW EXECUTE FUNCTION slots_are_exclusive();

    -- The ranks of each job's current attempt: those of its lease and those of its next one.
    CREATE TABLE members ({_translated(tables.MEMBERS)});
    CREATE INDEX member_macs ON members (mac);
    """,
    # A job may be a part of another, whose slots it shares.
    f"""
    ALTER TABLE jobs ADD COLUMN {_translated(tables.PARENT)};
    CREATE INDEX parts ON jobs (parent) WHERE parent != '' AND ended IS NULL;
    """,
    # A job may be parked: it lends its slots to others.
    f"""
    ALTER TABLE jobs ADD COLUMN {_translated(tables.PARKED)};
    ALTER TABLE jobs ADD COLUMN {_translated(tables.LENT)};
    """,
)
