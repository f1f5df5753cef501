"""The error lines of the worker's side. Codes A…; docs/operations.md has the cures."""

from wiresum.common.errors import Line

# ---- options and the environment

UNKNOWN_FIELD = Line("A001", "--field {field}: it must be 32, 16 or 8")
NOT_SECONDS = Line("A002", "{option} {seconds:g}: it must be a number of seconds above 0")
NOT_A_FIELD = Line("A003", "WIRESUM_FIELD is {field!r}; it must be 32, 16 or 8")
VARIABLE_NOT_SECONDS = Line("A004", "{name} is {text!r}; it must be a number of seconds above 0")
VARIABLE_NOT_SLOTS = Line("A005", "{name} is {text!r}; it must be a number of slots")
VARIABLE_NOT_IF_FULL = Line("A006", "WIRESUM_IF_FULL is {text!r}; it must be one of {names}")
NO_CONTROLLER = Line(
    "A011",
    "WIRESUM_CARRIER is 'switch', but WIRESUM_CONTROLLER is not set: start the training with "
    "`wiresum run`, or set it",
)
VARIABLE_NOT_CARRIER = Line("A012", "WIRESUM_CARRIER is {text!r}; it must be one of {names}")

# ---- wiresum run

NO_COMMAND = Line("A007", "no command: say `wiresum run -- torchrun ... train.py`")
COMMAND_NOT_FOUND = Line("A008", "command {name!r} not found")
NO_SHM_PORT = Line("A009", "--transport shm: {variable} must say where the switch's shm port is")
INTERRUPTED = Line("A010", "interrupted by {signal}")
