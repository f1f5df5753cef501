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
NODES_WITHOUT_CONTROLLER = Line(
    "A049",
    "this run is one of {count} at {place}, and a switch of its own would serve this host alone: "
    "start a switch and a controller and give all --controller HOST:PORT (docs/many-hosts.md), or "
    "give all --carrier ranks",
)
SUMMED = Line(
    "A050",
    "{ranks}: {switch} over the switch, {by_ranks} over the ranks, {fallback} over the fallback",
)
SWITCH_NOT_USED = Line(
    "A051",
    "nothing used the switch; {ranks}: {by_ranks} over the ranks, {fallback} over the fallback",
)
NO_GROUP = Line(
    "A052",
    "nothing used the switch: no process of the command made a group with the backend 'wiresum'; "
    "{cure}, and start more than one process",
)
ONE_RANK = Line(
    "A053",
    "nothing had to be summed: the group has one rank; start more, as torchrun --nproc-per-node 2",
)
FORK_OF_CLIENT = Line(
    "A055",
    "this process is a fork of one that is connected to a controller, and gRPC does not survive "
    "fork(): start the workers with torchrun or by 'spawn', or start their parent (a notebook's "
    "server, for one) with `wiresum run`",
)
SLOW_START = Line("A056", "{why}; --timeout (from Python: timeout_s) allows it more")

# ---- joining a job

JOB_TAKEN = Line(
    "A013",
    "job {job} belongs to another process group of this run{on}: start each in a `wiresum run` of "
    "its own if both shall use the switch",
)
RANK_0_COULD_NOT_JOIN = Line("A014", "rank 0 could not join: {why}")
RANK_0_NOT_JOINED = Line(
    "A015",
    "rank 0 has not joined within {seconds:g} s{there}: has it called init_process_group, can it "
    "reach controller {controller}, and does it use the same environment?",
)
STORE_FAILED = Line("A016", "the store through which the ranks meet has failed: {why}")
NO_SOCKET = Line("A017", "no socket towards switch {switch} at {ip}:{port}: {why}")
ANOTHER_VERSION = Line(
    "A018",
    "rank {rank} runs wiresum {ours}, the controller {controller} {theirs}: install the same "
    "version on both",
)
RANK_0_SILENT = Line(
    "A048",
    "rank 0 has not been heard of within {seconds:g} s: has it called init_process_group, and do "
    "all ranks use the same store?",
)
OTHER_CONTROLLER = Line(
    "A054",
    "controller {controller} does not know the job of rank 0 ({why}): give `wiresum run` the same "
    "--controller on all hosts",
)
NO_WHOLE = Line(
    "A140", "the job of all ranks has no lease on the switch of which a part can be had"
)
NOT_BEGUN = Line(
    "A141",
    "after the timeout of {seconds:g} s {missing} had begun no collective of {group}, in which "
    "other ranks wait",
)
GROUP_NOT_BEGUN = Line("A142", "{group} cannot begin: {why}")
NO_JOB_YET = Line("A047", "the launcher has no job for this run yet")
SHM_OF_ANOTHER_SWITCH = Line("A019", "the switch at {path} is {there}, the job's is {wanted}")

# ---- the job and its lease

JOB_OVER = Line("A020", "job {job} is {state}: {reason}")
JOB_GONE = Line("A021", "job {job} is gone: {why}")
LEASE_LOST = Line("A022", "job {job} has lost its lease: {why}")
SUPERSEDED = Line(
    "A023",
    "job {job} is in epoch {present}: a later attempt has replaced this worker (rank {rank}, epoch "
    "{epoch})",
)
CHANGE_FAILED = Line("A024", "change {number} of the lease has failed: {why}")
CHANGE_CANCELLED = Line("A025", "the controller has cancelled it")
WORKER_LEAVES = Line("A026", "this worker leaves")
CARRIER_CHANGED = Line("A027", "the carrier has changed")

# ---- the engine and the carriers

NO_MORE_WORK = Line("A028", "the engine takes no more work")
NO_MORE_WORK_SINCE = Line("A029", "the engine takes no more work: {why}")
CLOSED_BY_OWNER = Line("A030", "the engine was closed by its owner")
NO_LINK = Line("A031", "{why} (and there is no link to all other ranks)")
NO_TAKE_OVER = Line("A032", "{why}; the ranks could not take over: {line}")
NO_RETURN = Line("A059", "the ranks could not go back to the switch: {line}")
RANKS_CANNOT_SUM = Line("A033", "the ranks cannot sum any more: {why}")

RANKS_NOT_ALIKE = Line(
    "A046",
    "the ranks cannot sum together: they differ in the version of wiresum, in WIRESUM_FIELD (rank "
    "{rank} has {field}), or in having a WIRESUM_CONTROLLER or a WIRESUM_TUNE; start all with the "
    "same installation and environment",
)

# ---- what the ranks find out about each other

NOT_TOGETHER = Line(
    "A034",
    "the ranks have issued different collectives: what they would sum does not belong together; "
    "all ranks must issue the same collectives in the same order",
)
OTHER_COLLECTIVES = Line(
    "A035",
    "{its} of {one} disagrees with {others} of {other}; all ranks must issue the same collectives "
    "in the same order",
)
RESULT_LOST = Line(
    "A036",
    "the switch has lost the result of {stream} chunk {chunk}, which {having} has received and "
    "{rank} has not: it was restarted, or its memory was cleared, in between; restart the training "
    "from its last checkpoint",
)
RANK_DIED = Line(
    "A037", "{who} has ended without leaving the group: it was killed, or has crashed{waits}"
)
RANK_LEFT = Line("A038", "{who} has left the group after {collectives} collectives{waits}")

# ---- the process group

SHUT_DOWN = Line("A039", "this process group has been shut down")
FORKED = Line(
    "A040",
    "this process is a fork of rank {rank}, and process groups do not survive fork(): start it by "
    "'spawn' or 'forkserver', or let it make a group of its own",
)
# A limit is called a timeout: scripts tell gloo's errors by this word.
LATE = Line(
    "A041",
    "a collective over {name} did not end within the timeout of {seconds:g} s on rank {rank}",
)
CALLBACK_LATE = Line(
    "A042",
    "{label} of a future's callback did not end within the timeout of {seconds:g} s{missing}",
)
NO_AGREEMENT = Line("A043", "the ranks cannot agree on callbacks: {why}")
DETECTED_MISMATCH = Line(
    "A044",
    "Detected mismatch between collectives on ranks. Rank {rank} is running {mine}, but rank "
    "{other} is running {theirs}",
)
METRICS_PORT_TOO_HIGH = Line(
    "A045", "{variable} is {text!r}: with local rank {number} the port would be {port}"
)

# ---- a field that is chosen while a job trains

NOT_A_WISH = Line("A110", "tune {text!r}: it must be like within=1%,error=10%,steps=20")
TUNE_TOO_LATE = Line("A111", "wiresum.tune must be called before init_process_group")
TUNE_STARTS_EXACT = Line("A112", "a run that is tuned starts with 32 bits: give no other field")

# ---- fewer synchronizations

WRAPPED_MODEL = Line(
    "A090",
    "the model is wrapped in DistributedDataParallel, which synchronizes at every step: give the "
    "model itself",
)
NOTHING_TO_SYNCHRONIZE = Line("A091", "the model has no parameter that is trained")
SHARDED_MODEL = Line(
    "A092", "the model's parameters are sharded over the ranks, so that no rank can train by itself"
)
OTHER_PARAMETERS = Line("A093", "{what} lacks {count} of the model's parameters that are trained")
NO_INTERVAL = Line("A094", "sync_every is {given!r}; it must be a number of steps, 1 or more")
NO_DRIFT = Line("A095", "{given}: target must be above 0, and 1 <= least <= first <= most")
ENTERED_TWICE = Line("A096", "this {name} is active: leave its `with` block before entering again")
NO_FRAGMENTS = Line("A097", "fragments is {given!r}; it must be from 1 to {most}")
DRIFT_OF_FRAGMENTS = Line("A098", "sync_every adapts to the drift with one fragment only")
NO_DELAY = Line("A099", "delay is {given!r}; it must be from 0 to {most} steps")
NO_MIX = Line("A100", "mix is {given!r}; it must be from 0 to 1")
NOT_A_STATE = Line("A101", "this is not a state of {name} for this model")
PACE_OF_FRAGMENTS = Line("A102", "steps by each rank's pace need one fragment: fragments=1")
NO_PACE = Line("A103", "{given}: 1 <= least <= sync_every <= most is needed")
NO_WEIGHT = Line("A104", "weight is {given!r}; it must be a finite number above 0, or 'steps'")
SLOTS_IN_USE = Line(
    "A155",
    "release_slots needs one fragment and no delay: in parts, sums are on their way all the time",
)
NO_STALENESS = Line("A105", "staleness is {given!r}; it must be a number of steps, 0 or more")
HAS_A_HOOK = Line(
    "A106",
    "this DistributedDataParallel model has a communication hook: delayed gradients need their own",
)
NO_CLOSURE = Line("A107", "delayed gradients take an optimizer's step() without a closure")
REDUCE_FIRST = Line(
    "A108",
    "with a GradScaler, call reduce() of DelayedGradients between backward() and the scaler's step",
)
FEEDBACK_OF_SUMS = Line(
    "A109",
    "votes with feedback need the sums of a step before the next one: give Vote(feedback=False), "
    "or staleness=0",
)
RANKS_DIFFER = Line("A161", "{what} differs between the ranks: {given}; give all ranks the same")

# ---- codecs that a script or a run chooses

NO_SHARE = Line("A120", "k is {given:g}; it must be above 0, and 1 at most")
NOT_A_RULE = Line("A121", "the rule {text!r} is neither exact nor like k=0.05,bits=8")
NOT_A_PATTERN = Line("A122", "the pattern {pattern!r} of a policy must be like 1d, <2048 or *.bias")
NO_POLICY_FILE = Line("A123", "the policy {path} cannot be read: {why}")
NOT_FOR_A_CODEC = Line(
    "A124",
    "the parameter {name} is {dtype} on {device}: codecs take float32, float16 and bfloat16 in the "
    "host's memory",
)
NOT_ATTACHED = Line(
    "A125", "this state of {name} was unpickled and has no model yet: call its attach(model)"
)
NO_BITS = Line("A126", "bits is {given!r}; it must be 32, 16, 8 or 4")
NO_CODEC = Line("A127", "there is no codec {name!r}; there are {names}")
NO_CODEC_OPTION = Line("A128", "{name} cannot be given {part!r}; its options: {names}")
NO_DECAY = Line("A129", "decay is {given:g}; it must be from 0 to 1")
OTHER_MODELS_CODEC = Line(
    "A130", "the codec was made for another model or group: make it for this one"
)
OTHER_CODECS = Line(
    "A131",
    "the codecs of the ranks differ in k, bits, feedback, decay or policy: give all ranks the same",
)
NO_THRESHOLD = Line("A132", "threshold is {given:g}; it must be from 0 to 1")
NO_ROUNDING = Line("A133", "rounding is {given!r}; it must be nearest or stochastic")
NO_MOMENTUM = Line("A134", "momentum is {given:g}; it must be from 0 to below 1")
MOMENTUM_WITHOUT_FEEDBACK = Line(
    "A135", "momentum needs feedback: it is that of what is kept for later steps"
)
NO_WARMUP = Line("A136", "warmup is {given!r}; it must be a number of steps, 0 or more")
NO_SEED = Line("A137", "seed is {given!r}; it must be a number from 0 to 2^32 - 1")
THC_OF_FEW_BITS = Line("A138", "thc has fields of 16, 8 or 4 bits, not {given}: say bits=8")
NOT_SHARDED = Line(
    "A139",
    "no module of the model is sharded: call fully_shard, or FullyShardedDataParallel, first",
)
OTHER_SHARDS = Line("A143", "{name} is not sharded along its first dimension: codecs cannot sum it")
VOTE_OF_SHARDS = Line(
    "A144", "votes over shards have no feedback: say feedback=False, or take another codec"
)
NO_MEAN_OF_SHARDS = Line(
    "A145", "FSDP asks for {op} of its shards: codecs have sums and means; leave its divide factors"
)
NOT_ALL_GRADIENTS = Line(
    "A146",
    "some of {names} have no gradient in this step: codecs for FSDP need all of a sharded module",
)
NOT_A_STRATEGY = Line(
    "A163",
    "FullyShardedDataParallel with {name} has no codecs: take FULL_SHARD or SHARD_GRAD_OP, or "
    "DistributedDataParallel",
)
HAS_ANOTHER_HOOK = Line(
    "A164", "the sharded model has a communication hook of its own: leave it out, or the codec"
)
OTHER_FSDP = Line(
    "A165",
    "FSDP of torch {version} is built in another way than codecs know: {why}; install the torch of "
    "constraints.txt, or leave the codec out",
)

# ---- tensors on GPUs

DEVICE_LATE = Line("A160", "{what} did not end within {seconds:g} s")
SEVERAL_DEVICES = Line(
    "A162",
    "{collective} on rank {rank} has tensors on {devices}: all tensors of a collective must be on "
    "one device",
)
