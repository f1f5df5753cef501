"""The error lines of the embedded switch. Codes S…; docs/operations.md has the cures.

The translator's are in ``translate/lines.py``. What a P4Runtime client is answered has no code: it
is the message of a status, which the client quotes in a line of its own.
"""

from wiresum.common.errors import Line

# ---- the command

TLS_PAIR = Line(
    "S001",
    "a certificate and its key belong together: give --p4runtime-tls-cert and --p4runtime-tls-key",
)
LANES_AND_PROGRAM = Line("S002", "--lanes and --program exclude each other")
P4INFO_WITHOUT_PROGRAM = Line("S003", "--p4info belongs to --program")
CANNOT_READ = Line("S004", "cannot read {path}: {why}")
NOT_P4INFO = Line("S005", "{path} is not a P4Info: {why}")
PROGRAM_REFUSED = Line("S006", "{program}: {why}")

# ---- where it listens

SOCKET_NEEDS_NO_TLS = Line(
    "S007",
    "{address} is a Unix socket, which needs no certificates: leave the --p4runtime-tls-… "
    "options out, or give HOST:PORT",
)
CANNOT_LISTEN = Line("S008", "cannot listen for P4Runtime on {endpoint}")
CANNOT_LISTEN_WHY = Line("S052", "cannot listen for P4Runtime on {endpoint}: {why}")
SOCKET_NO_FOLDER = Line("S009", "cannot listen on {address}: {folder} is not a directory")
SOCKET_IN_USE = Line("S010", "cannot listen on {address}: the path is in use")
SOCKET_FAILED = Line("S011", "cannot listen on {address}: check the path and its rights")

# ---- ports

NOT_A_PORT = Line(
    "S012",
    "--port {text!r} must be N=udp:HOST:PORT, N=raw:INTERFACE or N=shm:PATH, N from 0 to {most}",
)
NOT_AN_INTERFACE = Line("S013", "--port {text!r}: {name!r} cannot be the name of an interface")
SOCKET_PATH = Line("S014", "--port {text!r}: the path of the socket must have 1 to {most} bytes")
UNKNOWN_PORT_KIND = Line("S015", "--port {text!r}: there are udp, raw and shm ports, no {kind!r}")
NOT_IPV4 = Line("S016", "--port {text!r}: {host!r} is not an IPv4 address")
PORT_OPTIONS = Line("S017", "--port {text!r}: {why}")
UNKNOWN_PORT_OPTION = Line("S018", "--port {text!r}: the options are {known}, not {name!r}")
NOT_A_LOSS = Line("S019", "--port {text!r}: loss is a probability from 0 to 1")
NOT_A_SEED = Line("S020", "--port {text!r}: seed is a number from 0 to 2^64 - 1")
NOT_A_NETWORK = Line("S021", "--port {text!r}: net is a network from /{widest} to /{narrowest}")
NOT_A_MODE = Line("S022", "--port {text!r}: mode is a file mode from 0 to 777")
CANNOT_OPEN = Line("S023", "cannot open {port}: {why}")
NOT_A_CPU_PORT = Line("S024", "the CPU port {number} is not from 0 to {most}")
PORT_TWICE = Line("S025", "port {number} is given twice")
NO_CPU_PORT = Line("S026", "this switch has no CPU port: start it with --cpu-port")
TOO_MANY_PACKET_OUTS = Line("S027", "too many packets from the controller are waiting")

# ---- programs and their compiler

CANNOT_READ_PROGRAM = Line("S028", "cannot read the program {program}: {why}")
COMPILER_MISSING = Line("S029", "the C++ compiler that CXX names is not there: {compiler}")
NO_COMPILER = Line(
    "S030",
    "this program must be compiled first, and there is no C++ compiler on PATH: install g++ or "
    "clang++, or set CXX",
)
COMPILER_FAILS = Line("S031", "the C++ compiler {compiler} cannot be run: {why}")
COMPILER_TOO_SLOW = Line("S032", "{compiler} did not finish {source} within {limit_s} s")
CANNOT_COMPILE = Line(
    "S033", "{compiler} cannot compile the translated program: {first} (all of it: {log})"
)
CACHE_NOT_WRITTEN = Line("S034", "cannot write the program cache {folder}: {why}")
NO_CACHE_FOLDER = Line(
    "S035",
    "there is no folder to keep compiled programs in: this user has no home; set "
    "XDG_CACHE_HOME to a folder of its own",
)
CACHE_OF_ANOTHER = Line(
    "S036",
    "the program cache {folder} is not used: {part} belongs to another user or is no folder; "
    "set XDG_CACHE_HOME to a folder of your own",
)
CACHE_WRITABLE = Line(
    "S037",
    "the program cache {folder} is not used: others can write to {part}; look at what is in "
    "it, and run chmod go-w on it, or set XDG_CACHE_HOME to another folder",
)
CACHE_REPLACEABLE = Line(
    "S038",
    "the program cache {folder} is not used: through {part} others can put another in its "
    "place; set XDG_CACHE_HOME to a folder of your own",
)

# ---- the switch in programs of your own

PROGRAM_OR_LANES = Line("S039", "a switch takes either a program or a number of lanes")
NO_ENTRY = Line("S040", "table {table}: there is no entry with this key")
AMBIGUOUS_NAME = Line("S041", "the program has several {kind}s {name}: {found}")
UNKNOWN_NAME = Line("S042", "the program has no {kind} {name}; it has: {known}")
NO_TABLE = Line("S043", "the program has no table {table}")
NEGATIVE_INDEX = Line("S044", "{name}[{index}]: an index is not negative")
NEITHER_NUMBER_NOR_BYTES = Line("S045", "{name}: {value!r} is neither a number from 0 on nor bytes")
UNKNOWN_KEY_FIELD = Line("S046", "table {table} has no key field {field}; it has: {known}")
FIELD_NEEDED = Line("S047", "{field} must be given: it is matched exactly")
FIELD_TAKES_ONE_VALUE = Line("S048", "{field} takes one value: its match kind is {kind}")
NOT_A_PREFIX = Line("S049", "{field}: a prefix length is a number from 0 on")
PARAMETER_NEEDED = Line("S050", "action {action} needs the parameter {parameter}")
UNKNOWN_PARAMETER = Line("S051", "action {action} has no parameter {parameter}")
