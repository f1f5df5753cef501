"""The store's tables in PostgreSQL, as the steps that led to them.

The tables and their constraints are those of ``state/sqlite/schema.py``; whoever adds a step there
adds it here. Numbers are BIGINT and flags are 0 and 1, so that a write means the same in both.
"""

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

# Never edit a step that has been released: append one.
STEPS: tuple[str, ...] = (
    """
    CREATE FUNCTION must_lead(mine BIGINT) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        -- Whoever wants to lead waits for the end of this transaction.
        PERFORM 1 FROM store WHERE term = mine FOR SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'another controller leads' USING ERRCODE = 'WS001';
        END IF;
    END $$;

    CREATE TABLE tenants (
        id BIGINT PRIMARY KEY,
        name TEXT NOT NULL,
        token TEXT UNIQUE,
        slot_quota BIGINT NOT NULL DEFAULT 0 CHECK (slot_quota >= 0),
        max_jobs BIGINT NOT NULL DEFAULT 0 CHECK (max_jobs >= 0),
        priority BIGINT NOT NULL DEFAULT 0,
        served BIGINT NOT NULL DEFAULT 0,
        created DOUBLE PRECISION NOT NULL,
        removed DOUBLE PRECISION
    );
    CREATE UNIQUE INDEX tenant_names ON tenants (name) WHERE removed IS NULL;
    INSERT INTO tenants (id, name, created) VALUES (1, 'default', 0);

    CREATE TABLE admin (
        id BIGINT PRIMARY KEY CHECK (id = 1),
        token TEXT NOT NULL
    );

    -- The last epoch that was handed out, to any job on any switch.
    CREATE TABLE epochs (
        id BIGINT PRIMARY KEY CHECK (id = 1),
        last BIGINT NOT NULL CHECK (last BETWEEN 0 AND 4294967295)
    );
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
        name TEXT PRIMARY KEY,
        p4runtime TEXT NOT NULL,
        device_id BIGINT NOT NULL,
        ip TEXT NOT NULL,
        udp_port BIGINT NOT NULL,
        mac BIGINT NOT NULL,
        lanes BIGINT NOT NULL,
        slots BIGINT NOT NULL,
        shared_address BIGINT NOT NULL,
        added DOUBLE PRECISION NOT NULL,
        draining BIGINT NOT NULL DEFAULT 0,
        UNIQUE (p4runtime, device_id)
    );
    CREATE TABLE switch_hosts (
        switch TEXT NOT NULL REFERENCES switches (name) ON DELETE CASCADE,
        network TEXT NOT NULL,
        port BIGINT NOT NULL,
        PRIMARY KEY (switch, network)
    );

    -- A job in the queue is a job: without a lease, and with what it asks for.
    CREATE TABLE jobs (
        -- The order of arrival. SQLite gives every table such a number.
        rowid BIGINT NOT NULL UNIQUE,
        id TEXT PRIMARY KEY,
        tenant BIGINT NOT NULL REFERENCES tenants (id),
        name TEXT NOT NULL,
        state TEXT NOT NULL
            CHECK (state IN ('queued', 'waiting', 'ready', 'released', 'expired', 'evicted')),
        reason TEXT NOT NULL DEFAULT '',
        created DOUBLE PRECISION NOT NULL,
        heartbeat DOUBLE PRECISION NOT NULL,
        ended DOUBLE PRECISION,
        attempt BIGINT,
        epoch BIGINT NOT NULL DEFAULT 0,
        key BYTEA NOT NULL DEFAULT decode('0000000000000000', 'hex') CHECK (length(key) = 8),
        reply_key BYTEA NOT NULL DEFAULT decode('0000000000000000', 'hex')
            CHECK (length(reply_key) = 8),
        workers BIGINT NOT NULL DEFAULT 0,
        field BIGINT NOT NULL DEFAULT 0,
        events TEXT,
        target BIGINT NOT NULL,
        min_slots BIGINT NOT NULL,
        change BIGINT NOT NULL DEFAULT 0,
        last_change BIGINT NOT NULL DEFAULT 0,
        request TEXT NOT NULL DEFAULT '',
        on_full TEXT NOT NULL DEFAULT 'fail'
            CHECK (on_full IN ('fail', 'wait', 'smaller', 'fallback')),
        wanted_switch TEXT NOT NULL DEFAULT ''
    );
    CREATE UNIQUE INDEX live_job_names ON jobs (tenant, name)
        WHERE state IN ('queued', 'waiting', 'ready');
    CREATE UNIQUE INDEX job_epochs ON jobs (epoch) WHERE epoch > 0;
    CREATE UNIQUE INDEX job_requests ON jobs (tenant, request) WHERE request != '';
    CREATE INDEX jobs_by_tenant ON jobs (tenant, created);
    CREATE INDEX ended_jobs ON jobs (ended);

    CREATE TABLE job_tokens (
        token TEXT PRIMARY KEY,
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE
    );
    CREATE INDEX job_tokens_by_job ON job_tokens (job);

    CREATE TABLE leases (
        job TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
        switch TEXT NOT NULL,
        number BIGINT NOT NULL CHECK (number BETWEEN 1 AND 1023),
        base BIGINT NOT NULL CHECK (base >= 0),
        slots BIGINT NOT NULL CHECK (slots > 0),
        held BIGINT NOT NULL DEFAULT 1,
        counters_reset BIGINT NOT NULL DEFAULT 0
    );
    CREATE UNIQUE INDEX held_numbers ON leases (switch, number) WHERE held != 0;

    -- The leases that running jobs change over to.
    CREATE TABLE changes (
        job TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
        switch TEXT NOT NULL,
        number BIGINT NOT NULL CHECK (number > 0),
        base BIGINT NOT NULL CHECK (base >= 0),
        slots BIGINT NOT NULL CHECK (slots > 0),
        epoch BIGINT NOT NULL UNIQUE,
        key BYTEA NOT NULL CHECK (length(key) = 8),
        reply_key BYTEA NOT NULL DEFAULT decode('0000000000000000', 'hex')
            CHECK (length(reply_key) = 8),
        reason TEXT NOT NULL,
        announced DOUBLE PRECISION NOT NULL,
        boundary BIGINT
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
    CREATE TABLE members (
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        change BIGINT NOT NULL DEFAULT 0,
        rank BIGINT NOT NULL CHECK (rank BETWEEN 0 AND 63),
        ip BIGINT NOT NULL,
        udp_port BIGINT NOT NULL,
        mac BIGINT NOT NULL,
        port BIGINT NOT NULL,
        PRIMARY KEY (job, change, rank),
        UNIQUE (job, change, ip, udp_port)
    );
    CREATE INDEX member_macs ON members (mac);
    """,
)
