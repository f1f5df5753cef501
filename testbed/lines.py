"""The error lines of testbeds. Codes T…; the runbook in docs/operations.md has the cures."""

from wiresum.common.errors import Line

# ---- racks

NOT_UP = Line("T001", "rack {name} is not up (on record: {known}): wiresum testbed up")
NO_NODE = Line("T002", "rack {name} has no node {node!r}; it has {nodes}")
NO_COMMAND = Line("T003", "no command: say `wiresum testbed exec {node} -- COMMAND`")
OTHER_NAMESPACE = Line("T004", "the namespace {namespace} is not that of rack {name} any more")
IS_UP = Line(
    "T005",
    "rack {name} is up (process {pid}): end it with `wiresum testbed down --name {name}`, or "
    "choose another --name",
)
NO_RECORD = Line("T006", "{folder}/rack.json is no record of a rack: {why}")
FOLDER_UNUSABLE = Line("T007", "cannot use {folder}: {why}")
NAMESPACE_LEFT = Line(
    "T008",
    "there is a network namespace {namespace} that no rack on record has: `ip netns del "
    "{namespace}` if nobody needs it",
)
SWITCH_DIES_AGAIN = Line("T009", "{last_words}, and so it did {times} times in a row")
INTERRUPTED = Line("T010", "ended by {signal}")
LINK_NOT_LIMITED = Line("T011", "cannot limit {interface} of {node}: {said}")
LOSS_IMPOSSIBLE = Line("T012", "--loss cannot be had here: {reasons}")
COMMAND_FAILED = Line("T013", "{command}: {why}")
CANNOT_LISTEN = Line("T014", "cannot listen at {host}:{port} in {namespace}: {why}")

# ---- what a rack needs

NEEDS_ROOT = Line("T015", "a rack needs root: it makes network namespaces")
NEEDS_COMMAND = Line("T016", "a rack needs the command {command}: {install}")
NEEDS_MININET = Line("T017", "a rack needs Mininet (looked in sys.path and {folder}): {install}")
NO_NAMESPACES = Line("T018", "this machine does not let root make network namespaces: {why}")
MININET_TOO_OLD = Line("T019", "this Mininet does not work with Python {major}.{minor}: {why}")
NEEDS_BMV2 = Line("T020", "--switch bmv2 needs {command} on PATH (p4lang/behavioral-model)")
NOT_ALL_HERE = Line("T048", "missing here: {names}; what each costs stands above")

# ---- options of racks

UNKNOWN_SWITCH_KIND = Line("T021", "--switch {kind}: it must be bmv2 or soft")
WORKERS_OUT_OF_RANGE = Line("T022", "--workers {workers}: it must be 1 to {most}")
RATE_OUT_OF_RANGE = Line("T023", "a rate of {mbit:g} Mbit/s is not 10kbit to 100gbit")
LOSS_OUT_OF_RANGE = Line("T024", "a loss of {loss:g} is not a probability below 1")
OFFLOADS_EXCLUDED = Line(
    "T025",
    "--offloads lets trains of segments cross as one frame: BMv2 cannot take them, and --loss "
    "would lose them whole",
)
NOT_A_RACK_NAME = Line(
    "T026", "--name {name!r}: 1 to 24 of a-z, 0-9 and '-', with a letter or digit at both ends"
)
NOT_A_RATE = Line("T027", "--rate {text!r}: say, for example, 100mbit or 1gbit")
NOT_A_LOSS = Line("T028", "--loss {text!r}: say, for example, 1% or 0.01")

# ---- conformance

BMV2_MISSING = Line("T029", "{binary} is not on PATH: install BMv2 (https://p4.org)")
BMV2_MISSING_TO_COMPARE = Line(
    "T030", "{binary} is not on PATH: install BMv2 (https://p4.org) to compare with it"
)
BMV2_REFUSES = Line("T031", "{binary} refused {program}: {why}{said}")
WRITE_FAILED = Line("T032", "{binary} failed at a table write: {why}")
NO_PROBE = Line("T033", "{binary}: no probe comes back")
BMV2_GONE = Line("T034", "{binary}: {why}{said}")
READ_FAILED = Line("T035", "{binary} failed at a read: {why}")
NOTHING_TO_COMPARE = Line("T036", "say what to compare: wiresum testbed conformance --fuzz")
SWITCHES_DIFFER = Line(
    "T037",
    "the switches differ in sequence {sequence} of seed {seed}; to repeat it: wiresum testbed "
    "conformance --fuzz --lanes {lanes} --seed {seed} --first {first} --sequences {count}",
)
VERSION_FAILED = Line("T038", "{binary} --version failed: {why}")
NOT_P4INFO = Line("T039", "{path} is not readable as P4Info: {why}")
AMBIGUOUS_NAME = Line("T040", "the program has {count} {kind}s named {name}")
TAKES_A_PAIR = Line("T041", "{table}: {field} takes a pair")
TAKES_ONE_VALUE = Line("T042", "{table}: {field} takes one value")
SETUP_REFUSED = Line("T043", "{switch} refuses the set-up of {scenario}")

# ---- captures

CAPTURE_UNREADABLE = Line("T044", "{path} cannot be read: {why}")
NO_CAPTURE = Line("T045", "{path} is not a capture (pcap or pcapng)")
CAPTURE_DAMAGED = Line("T046", "{path} is damaged behind packet {number} ({why})")
NEEDS_SCAPY = Line("T047", "wiresum's scapy layers need scapy: pip install 'wiresum[pcap]'")
