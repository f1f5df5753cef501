"""The columns of the tables, which a store in SQLite and one in PostgreSQL have alike.

They are written with the types of SQLite; ``postgres/schema.py`` translates these. All of them are
parts of steps that have been released: never edit one, append a step to both schemas.
"""

TENANTS = """
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    token TEXT UNIQUE,
    slot_quota INTEGER NOT NULL DEFAULT 0 CHECK (slot_quota >= 0),
    max_jobs INTEGER NOT NULL DEFAULT 0 CHECK (max_jobs >= 0),
    priority INTEGER NOT NULL DEFAULT 0,
    served INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    removed REAL
"""

ADMIN = """
    id INTEGER PRIMARY KEY CHECK (id = 1),
    token TEXT NOT NULL
"""

EPOCHS = """
    id INTEGER PRIMARY KEY CHECK (id = 1),
    last INTEGER NOT NULL CHECK (last BETWEEN 0 AND 4294967295)
"""

SWITCHES = """
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
"""

SWITCH_HOSTS = """
    switch TEXT NOT NULL REFERENCES switches (name) ON DELETE CASCADE,
    network TEXT NOT NULL,
    port INTEGER NOT NULL,
    PRIMARY KEY (switch, network)
"""

JOBS = """
    id TEXT PRIMARY KEY,
    tenant INTEGER NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('queued', 'waiting', 'ready', 'released', 'expired', 'evicted')),
    reason TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL,
    heartbeat REAL NOT NULL,
    ended REAL,
    attempt INTEGER,
    epoch INTEGER NOT NULL DEFAULT 0,
    key BLOB NOT NULL DEFAULT x'0000000000000000' CHECK (length(key) = 8),
    reply_key BLOB NOT NULL DEFAULT x'0000000000000000' CHECK (length(reply_key) = 8),
    workers INTEGER NOT NULL DEFAULT 0,
    field INTEGER NOT NULL DEFAULT 0,
    events TEXT,
    target INTEGER NOT NULL,
    min_slots INTEGER NOT NULL,
    change INTEGER NOT NULL DEFAULT 0,
    last_change INTEGER NOT NULL DEFAULT 0,
    request TEXT NOT NULL DEFAULT '',
    on_full TEXT NOT NULL DEFAULT 'fail'
        CHECK (on_full IN ('fail', 'wait', 'smaller', 'fallback')),
    wanted_switch TEXT NOT NULL DEFAULT ''
"""

JOB_TOKENS = """
    token TEXT PRIMARY KEY,
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE
"""

LEASES = """
    job TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    switch TEXT NOT NULL,
    number INTEGER NOT NULL CHECK (number BETWEEN 1 AND 1023),
    base INTEGER NOT NULL CHECK (base >= 0),
    slots INTEGER NOT NULL CHECK (slots > 0),
    held INTEGER NOT NULL DEFAULT 1,
    counters_reset INTEGER NOT NULL DEFAULT 0
"""

CHANGES = """
    job TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    switch TEXT NOT NULL,
    number INTEGER NOT NULL CHECK (number > 0),
    base INTEGER NOT NULL CHECK (base >= 0),
    slots INTEGER NOT NULL CHECK (slots > 0),
    epoch INTEGER NOT NULL UNIQUE,
    key BLOB NOT NULL CHECK (length(key) = 8),
    reason TEXT NOT NULL,
    announced REAL NOT NULL,
    boundary INTEGER
"""

REPLY_KEY = """
    reply_key BLOB NOT NULL DEFAULT x'0000000000000000' CHECK (length(reply_key) = 8)
"""
"""A column that ``jobs`` and ``changes`` got in a later step."""

PARENT = """
    parent TEXT NOT NULL DEFAULT ''
"""
"""A column that ``jobs`` got in a later step: the id of the job that a job is a part of."""

PARKED = "parked INTEGER NOT NULL DEFAULT 0"
LENT = "lent REAL NOT NULL DEFAULT 0"
"""Columns that ``jobs`` got in a later step."""

MEMBERS = """
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    change INTEGER NOT NULL DEFAULT 0,
    rank INTEGER NOT NULL CHECK (rank BETWEEN 0 AND 63),
    ip INTEGER NOT NULL,
    udp_port INTEGER NOT NULL,
    mac INTEGER NOT NULL,
    port INTEGER NOT NULL,
    PRIMARY KEY (job, change, rank),
    UNIQUE (job, change, ip, udp_port)
"""
