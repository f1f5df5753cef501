"""The store's tables, as the steps that led to them; ``user_version`` counts the steps taken."""

# Never edit a step that has been released: append one.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE tenants (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created REAL NOT NULL
    ) STRICT;
    INSERT INTO tenants (id, name, created) VALUES (1, 'default', 0);

    -- The last epoch that was handed out, to any job on any switch.
    CREATE TABLE epochs (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        last INTEGER NOT NULL CHECK (last BETWEEN 0 AND 4294967295)
    ) STRICT;
    INSERT INTO epochs (id, last) VALUES (1, 0);
    CREATE TRIGGER epochs_grow BEFORE UPDATE ON epochs WHEN NEW.last <= OLD.last
    BEGIN SELECT RAISE(ABORT, 'an epoch must never be used twice'); END;

    CREATE TABLE switches (
        name TEXT PRIMARY KEY,
        p4runtime TEXT NOT NULL,
        device_id INTEGER NOT NULL,
        ip TEXT NOT NULL,
        udp_port INTEGER NOT NULL,
        mac INTEGER NOT NULL,
        lanes INTEGER NOT NULL,
        slots INTEGER NOT NULL,
        shared_address INTEGER NOT NULL,
        added REAL NOT NULL,
        UNIQUE (p4runtime, device_id)
    ) STRICT;
    CREATE TABLE switch_hosts (
        switch TEXT NOT NULL REFERENCES switches (name) ON DELETE CASCADE,
        network TEXT NOT NULL,
        port INTEGER NOT NULL,
        PRIMARY KEY (switch, network)
    ) STRICT;

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

    CREATE TABLE leases (
        job TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
        switch TEXT NOT NULL,
        number INTEGER NOT NULL CHECK (number BETWEEN 1 AND 1023),
        base INTEGER NOT NULL CHECK (base >= 0),
        slots INTEGER NOT NULL CHECK (slots > 0),
        held INTEGER NOT NULL DEFAULT 1,
        counters_reset INTEGER NOT NULL DEFAULT 0
    ) STRICT;
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
)
