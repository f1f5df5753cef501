"""The store's tables, as the steps that led to them; ``user_version`` counts the steps taken."""

from wiresum.controller.state import tables

# Never edit a step that has been released: append one.
MIGRATIONS: tuple[str, ...] = (
    f"""
    CREATE TABLE tenants (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created REAL NOT NULL
    ) STRICT;
    INSERT INTO tenants (id, name, created) VALUES (1, 'default', 0);

    -- The last epoch that was handed out, to any job on any switch.
    CREATE TABLE epochs ({tables.EPOCHS}) STRICT;
    INSERT INTO epochs (id, last) VALUES (1, 0);
    CREATE TRIGGER epochs_grow BEFORE UPDATE ON epochs WHEN NEW.last <= OLD.last
    BEGIN SELECT RAISE(ABORT, 'an epoch must never be used twice'); END;

    CREATE TABLE switches ({tables.SWITCHES}) STRICT;
    CREATE TABLE switch_hosts ({tables.SWITCH_HOSTS}) STRICT;

    CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        tenant INTEGER NOT NULL REFERENCES tenants (id),
        name TEXT NOT NULL,
        token TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'ready', 'released', 'expired')),
        reason TEXT NOT NULL DEFAULT '',
        created REAL NOT NULL,
        heartbeat REAL NOT NULL,
        ended REAL,
        attempt INTEGER,
        epoch INTEGER NOT NULL DEFAULT 0,
        key BLOB NOT NULL DEFAULT x'0000000000000000' CHECK (length(key) = 8),
        workers INTEGER NOT NULL DEFAULT 0,
        field INTEGER NOT NULL DEFAULT 0,
        events TEXT
    ) STRICT;
    CREATE UNIQUE INDEX live_job_names ON jobs (tenant, name)
        WHERE state IN ('waiting', 'ready');
    CREATE UNIQUE INDEX job_epochs ON jobs (epoch) WHERE epoch > 0;

    CREATE TABLE leases ({tables.LEASES}) STRICT;
    CREATE UNIQUE INDEX held_numbers ON leases (switch, number) WHERE held;
    CREATE TRIGGER slots_are_exclusive BEFORE INSERT ON leases
    WHEN EXISTS (
        SELECT 1 FROM leases
        WHERE held AND switch = NEW.switch
          AND base < NEW.base + NEW.slots AND NEW.base < base + slots
    )
    BEGIN SELECT RAISE(ABORT, 'two jobs must never share a slot'); END;

    -- The ranks of each job's current attempt.
    CREATE TABLE members (
        job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        rank INTEGER NOT NULL CHECK (rank BETWEEN 0 AND 63),
        ip INTEGER NOT NULL,
        udp_port INTEGER NOT NULL,
        mac INTEGER NOT NULL,
        port INTEGER NOT NULL,
        PRIMARY KEY (job, rank),
        UNIQUE (job, ip, udp_port)
    ) STRICT;
    CREATE INDEX member_macs ON members (mac);
    """,
    # Tenants with tokens and limits; tokens as hashes (``sha256`` is the store's own function);
    # leases that change while a job runs; a queue.
    f"""
    CREATE TABLE new_tenants ({tables.TENANTS}) STRICT;
    INSERT INTO new_tenants (id, name, created) SELECT id, name, created FROM tenants;
    DROP TABLE tenants;
    ALTER TABLE new_tenants RENAME TO tenants;
    CREATE UNIQUE INDEX tenant_names ON tenants (name) WHERE removed IS NULL;

    CREATE TABLE admin ({tables.ADMIN}) STRICT;

    ALTER TABLE switches ADD COLUMN draining INTEGER NOT NULL DEFAULT 0;

    CREATE TABLE job_tokens ({tables.JOB_TOKENS}) STRICT;
    CREATE INDEX job_tokens_by_job ON job_tokens (job);
    INSERT INTO job_tokens (token, job) SELECT sha256(token), id FROM jobs;

    CREATE TABLE new_jobs (
        id TEXT PRIMARY KEY,
        tenant INTEGER NOT NULL REFERENCES tenants (id),
        name TEXT NOT NULL,
        state TEXT NOT NULL
            CHECK (state IN ('waiting', 'ready', 'released', 'expired', 'evicted')),
        reason TEXT NOT NULL DEFAULT '',
        created REAL NOT NULL,
        heartbeat REAL NOT NULL,
        ended REAL,
        attempt INTEGER,
        epoch INTEGER NOT NULL DEFAULT 0,
        key BLOB NOT NULL DEFAULT x'0000000000000000' CHECK (length(key) = 8),
        workers INTEGER NOT NULL DEFAULT 0,
        field INTEGER NOT NULL DEFAULT 0,
        events TEXT,
        target INTEGER NOT NULL,
        min_slots INTEGER NOT NULL,
        change INTEGER NOT NULL DEFAULT 0,
        last_change INTEGER NOT NULL DEFAULT 0,
        request TEXT NOT NULL DEFAULT ''
    ) STRICT;
    -- What an older controller admitted is never shrunk: its agents could not follow.
    INSERT INTO new_jobs (id, tenant, name, state, reason, created, heartbeat, ended, attempt,
                          epoch, key, workers, field, events, target, min_slots)
        SELECT id, tenant, name, state, reason, created, heartbeat, ended, attempt,
               epoch, key, workers, field, events, leases.slots, leases.slots
        FROM jobs JOIN leases ON leases.job = jobs.id ORDER BY jobs.rowid;
    DROP TABLE jobs;
    ALTER TABLE new_jobs RENAME TO jobs;
    CREATE UNIQUE INDEX live_job_names ON jobs (tenant, name)
        WHERE state IN ('waiting', 'ready');
    CREATE UNIQUE INDEX job_epochs ON jobs (epoch) WHERE epoch > 0;
    CREATE UNIQUE INDEX job_requests ON jobs (tenant, request) WHERE request != '';
    CREATE INDEX live_jobs ON jobs (heartbeat) WHERE ended IS NULL;

    -- The leases that running jobs change over to.
    CREATE TABLE changes ({tables.CHANGES}) STRICT;
    CREATE VIEW held_ranges AS
        SELECT job, switch, base, slots FROM leases WHERE held
        UNION ALL SELECT job, switch, base, slots FROM changes;
    DROP TRIGGER slots_are_exclusive;
    CREATE TRIGGER leases_are_exclusive_insert BEFORE INSERT ON leases
    WHEN EXISTS (
        SELECT 1 FROM held_ranges AS other
        WHERE other.switch = NEW.switch AND other.job != NEW.job
          AND other.base < NEW.base + NEW.slots AND NEW.base < other.base + other.slots
    )
    BEGIN SELECT RAISE(ABORT, 'two jobs must never share a slot'); END;
    CREATE TRIGGER leases_are_exclusive_update BEFORE UPDATE OF switch, base, slots ON leases
    WHEN EXISTS (
        SELECT 1 FROM held_ranges AS other
        WHERE other.switch = NEW.switch AND other.job != NEW.job
          AND other.base < NEW.base + NEW.slots AND NEW.base < other.base + other.slots
    )
    BEGIN SELECT RAISE(ABORT, 'two jobs must never share a slot'); END;
    CREATE TRIGGER changes_are_exclusive_insert BEFORE INSERT ON changes
    WHEN EXISTS (
        SELECT 1 FROM held_ranges AS other
        WHERE other.switch = NEW.switch AND other.job != NEW.job
          AND other.base < NEW.base + NEW.slots AND NEW.base < other.base + other.slots
    )
    BEGIN SELECT RAISE(ABORT, 'two jobs must never share a slot'); END;

    -- The ranks of each job's current attempt: those of its lease and those of its next one.
    CREATE TABLE new_members ({tables.MEMBERS}) STRICT;
    INSERT INTO new_members (job, rank, ip, udp_port, mac, port)
        SELECT job, rank, ip, udp_port, mac, port FROM members;
    DROP TABLE members;
    ALTER TABLE new_members RENAME TO members;
    CREATE INDEX member_macs ON members (mac);

    -- The jobs that wait for room, each with the id that it will have.
    CREATE TABLE queue (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        tenant INTEGER NOT NULL REFERENCES tenants (id),
        name TEXT NOT NULL,
        slots INTEGER NOT NULL,
        min_slots INTEGER NOT NULL,
        switch TEXT NOT NULL,
        on_full TEXT NOT NULL CHECK (on_full IN ('fail', 'wait', 'smaller', 'fallback')),
        request TEXT NOT NULL,
        arrived REAL NOT NULL,
        UNIQUE (tenant, name)
    ) STRICT;
    CREATE UNIQUE INDEX queue_requests ON queue (tenant, request) WHERE request != '';
    """,
    # Replies carry a secret of their own. (``secret`` is the store's own function.) Workers of a
    # version before know none, nor what the switch now sends: they join again.
    f"""
    ALTER TABLE jobs ADD COLUMN {tables.REPLY_KEY};
    UPDATE jobs SET reply_key = secret(8) WHERE epoch > 0;
    ALTER TABLE changes ADD COLUMN {tables.REPLY_KEY};
    UPDATE changes SET reply_key = secret(8);
    """,
    # A job in the queue is a job: without a lease, and with what it asks for.
    f"""
    CREATE TABLE new_jobs ({tables.JOBS}) STRICT;
    INSERT INTO new_jobs (id, tenant, name, state, reason, created, heartbeat, ended, attempt,
                          epoch, key, reply_key, workers, field, events, target, min_slots,
                          change, last_change, request)
        SELECT id, tenant, name, state, reason, created, heartbeat, ended, attempt,
               epoch, key, reply_key, workers, field, events, target, min_slots,
               change, last_change, request
        FROM jobs ORDER BY jobs.rowid;
    INSERT INTO new_jobs (id, tenant, name, state, created, heartbeat, target, min_slots,
                          request, on_full, wanted_switch)
        SELECT id, tenant, name, 'queued', arrived, arrived, slots, min_slots,
               request, on_full, switch
        FROM queue ORDER BY sequence;
    DROP TABLE queue;
    DROP TABLE jobs;
    ALTER TABLE new_jobs RENAME TO jobs;
    CREATE UNIQUE INDEX live_job_names ON jobs (tenant, name)
        WHERE state IN ('queued', 'waiting', 'ready');
    CREATE UNIQUE INDEX job_epochs ON jobs (epoch) WHERE epoch > 0;
    CREATE UNIQUE INDEX job_requests ON jobs (tenant, request) WHERE request != '';
    CREATE INDEX live_jobs ON jobs (heartbeat) WHERE state IN ('waiting', 'ready');
    CREATE INDEX queued_jobs ON jobs (tenant) WHERE state = 'queued';
    """,
    # A job may be a part of another, whose slots it shares.
    f"""
    ALTER TABLE jobs ADD COLUMN {tables.PARENT};
    CREATE INDEX parts ON jobs (parent) WHERE parent != '' AND ended IS NULL;
    """,
    # A job may be parked: it lends its slots to others.
    f"""
    ALTER TABLE jobs ADD COLUMN {tables.PARKED};
    ALTER TABLE jobs ADD COLUMN {tables.LENT};
    """,
)

INDEXES: tuple[str, ...] = (
    "CREATE INDEX IF NOT EXISTS jobs_by_tenant ON jobs (tenant, created)",
    "CREATE INDEX IF NOT EXISTS jobs_by_name ON jobs (name)",
    "CREATE INDEX IF NOT EXISTS held_leases ON leases (switch) WHERE held",
)
"""Made at every opening where they are missing: the time of one tenant's question must not grow
with other tenants' rows. They hold no data, so they need no version of the schema."""
