"""The error lines of benchmarks, traces, the demo. Codes M…; docs/operations.md has the cures."""

from wiresum.common.errors import Line

# ---- files

CANNOT_WRITE = Line("M001", "cannot write {path}: {why}")
CANNOT_READ = Line("M002", "cannot read {path}: {why}")
NO_FOLDER = Line("M003", "cannot make the folder {folder}: {why}")

# ---- benchmarks

NEEDS_ROOT = Line("M004", "the benchmark makes network namespaces and links: it must run as root")
NEEDS_MODULES = Line("M005", "the benchmark needs {modules}: pip install 'wiresum[torch]'")
NEEDS_NUMPY = Line("M006", "the benchmark checks its sums with numpy: pip install 'wiresum[torch]'")
NO_NATIVE_PART = Line(
    "M007", "this wiresum was built without its benchmarks' native part (WIRESUM_PARTS: bench)"
)
NOT_BY_HAND = Line("M008", "this is a part of `wiresum bench`: it is not run by hand")
LINKS_NOT_LIMITED = Line(
    "M009",
    "{case}, {side}: {size:.0f} bytes crossed a link in {took_ms:.3f} ms; its rate allows that "
    "in {least_ms:.3f} ms: the links are not limited as they should be",
)
WRONG_IN_CASE = Line("M010", "{case}, {side}: {why}")
RANKS_DIFFER = Line("M011", "{case}, {side}: ranks 0 and {rank} have different results")
WRONG_ELEMENT = Line(
    "M012",
    "element {at} of {size} is {found!r}: it must be {expected!r}, give or take {bound:.3g} "
    "({count} such elements in this part)",
)
CARRIERS_DIFFER = Line(
    "M101", "{case}: with F = {field} the switch and the ranks have different results"
)
NOT_OVER_SWITCH = Line(
    "M102",
    "{case}, {side}: not all of it went over the switch: this measures something else "
    "(was the switch slow to answer?)",
)
WRONG_SUM = Line("M013", "rank {rank}: the switch returned a wrong sum")
NO_RESULT_AT = Line("M014", "rank {rank}: no result of the all-reduce in {limit_s:g} s")
NO_RESULT = Line("M015", "no result of an all-reduce in {limit_s:g} s")
OTHER_WORK = Line(
    "M016",
    "of {wanted} contributions the switch has summed {claimed}, completed {completed} chunks "
    "and sent {left} frames: this measures something else",
)
SOCKETS_FAILED = Line("M017", "{switch} over sockets: {why}")
PART_SILENT = Line("M018", "{part} has not answered within {limit_s:g} s")
PART_ENDED = Line("M065", "{part} has ended (status {status}): {last_words}")
PART_FAILED = Line("M019", "{part}: {why}")
NO_ANSWER = Line("M020", "{process} of the benchmark does not answer")
PROCESS_FAILED = Line("M021", "{process} of the benchmark: {why}")
WORKER_RUNS_ON = Line("M022", "a worker of the benchmark has not ended in {limit_s:g} s")
WORKER_FAILED = Line("M023", "worker {rank} of the benchmark: {why}")
NOTHING_TO_PREFER = Line("M024", "there is nothing to prefer below a rate of {mbit:g} Mbit/s")
NO_BPF = Line("M025", "--loss: no bpf(2) is known on {machine}")
NO_XDP = Line("M026", "--loss needs a kernel that runs XDP programs: {why}")
NAMESPACE_CLOSED = Line("M027", "--loss: cannot enter {namespace}: {why}")

# ---- options of benchmarks

UNKNOWN_KIND = Line("M028", "--kinds {kind}: it must be of {kinds}")
NO_KIND = Line("M029", "--kinds is empty: say, for example, wrong-key")
NO_RATE = Line("M030", "--rate {text!r}: links need a limit here, such as 100mbit")
SHM_HAS_NO_RATE = Line(
    "M031", "--transport shm: memory has neither a rate nor loss; say --rate none"
)
NO_VALUE = Line("M032", "{option} {text!r}: say one value, or several with commas")
VALUE_TWICE = Line("M033", "{option} {text!r}: a value comes twice")
WORKERS_OUT_OF_RANGE = Line("M034", "--workers {text!r}: each must be a number from 2 to {most}")
NOT_A_SIZE = Line(
    "M035", "--sizes {text!r}: say, for example, 64KiB or 25MiB (4B to 4GiB, whole float32s)"
)
NOT_A_RATE = Line("M036", "--rate {text!r}: it must be 100kbit to 100gbit, or none")
UNKNOWN_FIELDS = Line("M037", "--field {text!r}: fields have 32, 16 or 8 bits")
UNKNOWN_TRANSPORT = Line("M038", "--transport {text!r}: it must be {transports}")
OTHER_LOSS = Line("M104", "{side}: the loss is {loss:.4f}, and gloo's {gloo:.4f}")
ONE_RATE = Line("M105", "--rate {rate!r}: say one rate")
NOTHING_TO_MEASURE = Line(
    "M103",
    "without a switch {kind} is gloo's own, and --against none leaves that out: nothing is left "
    "to measure",
)
UNKNOWN_CARRIER = Line("M066", "--carrier {text!r}: it must be {carriers}")
UNKNOWN_TCP = Line("M039", "--tcp {text!r}: this kernel has {known}")
COMPARE_WITH_GLOO = Line("M040", "--against {against}: it must be gloo or none")
COMPARE_WITH_SWITCH = Line("M041", "--against {against}: it must be auto, bmv2, soft or none")
ONE_SIZE = Line("M042", "--size {size!r}: one size")
UNKNOWN_ISA = Line("M043", "--isa {isa}: this machine has {known}")
OTHER_RUN = Line("M044", "--append: {path} is from a run with other options, or elsewhere")
NOT_FROM_ALLREDUCE = Line("M045", "--append: {path} is not from `wiresum bench allreduce`")

# ---- reports

NOT_A_RESULT = Line("M046", "{path} is not from `wiresum bench … --json`: {why!r}")
CASE_TWICE = Line("M047", "{case} is in {first} and in {path}: leave one of them out")
NO_MARKS = Line("M048", "{path} has no line {begin!r} with a line {end!r} after it")
PLOT_NEEDS_MATPLOTLIB = Line("M049", "--plot needs matplotlib: pip install 'wiresum[demo]'")
NOTHING_TO_PLOT = Line("M050", "--plot: none of the files is from `wiresum bench allreduce`")

# ---- the demo and trainings in racks

UNKNOWN_FIELD = Line("M051", "--field {field}: it must be 32, 16 or 8")
TOO_FEW_WORKERS = Line("M052", "--workers 1: a training across a rack needs at least 2")
DEMO_NEEDS_MODULE = Line("M053", "the demo needs {module}: pip install 'wiresum[demo]'")
TRAINING_FAILED = Line(
    "M054", "the training over {backend} ended with status {status}{reason}; its output is in {log}"
)
NEEDS_TORCH = Line("M055", "a training needs torch: pip install 'wiresum[torch]'")
WORKER_ENDED = Line(
    "M056", "worker {rank} ended with status {status}{reason}; its output is in {log}"
)
NO_REPORT = Line("M057", "rank {rank} of the {backend} training left no report: {why}")
SWITCH_NOT_USED = Line("M058", "{count} of {workers} workers used the switch")
CHUNKS_DIFFER = Line(
    "M059", "rank {rank} sent {sent} chunks and got {received} results, rank 0 sent {expected}"
)
COUNTERS_DIFFER = Line(
    "M060",
    "the workers had {chunks} chunks summed, but the switch's counters say that it completed "
    "{counted}",
)
CONTRIBUTIONS_DIFFER = Line(
    "M061",
    "{workers} workers sent {chunks} chunks each, but the switch's counters say that it summed "
    "{counted} contributions",
)
SWITCH_BYPASSED = Line("M062", "some all-reduces did not go through the switch: {counts}")
TOO_FEW_COLLECTIVES = Line("M063", "{steps} steps had only {count} all-reduces through the switch")
WEIGHTS_DIFFER = Line("M064", "the workers' weights differ after the training over the switch")

# ---- soaks

NOT_MINUTES = Line("M067", "--minutes {minutes:g}: it must be 0.1 to 10000")
SOAK_DIFFERS = Line(
    "M068",
    "{job}, rank {rank}, lap {lap}, step {step}, over the {carrier}: the sums and the weights are "
    "{digest}, those of the undisturbed training {wanted}",
)
SOAK_RESTARTS = Line(
    "M069",
    "rank {rank} of {job} was started again once more than workers of it were killed ({kills})",
)
SOAK_SKIPS = Line(
    "M070",
    "rank {rank} of {job} has done step {step} of lap {lap} (laps of {steps}) after {done} steps",
)
SOAK_HANGS = Line(
    "M071", "rank {rank} of {job} has done no step for {limit_s:g} s; its last one: {last}"
)
SOAK_NO_RESTART = Line(
    "M097",
    "rank {rank} of {job} was not started again within {limit_s:g} s after a worker was killed",
)
SOAK_JOB_ENDS = Line("M072", "{job} has ended with status {status}{reason}; its output is in {log}")
SOAK_UNEVEN = Line("M073", "the ranks of {job} have ended after different steps: {ends}")
SOAK_LEAVES = Line("M074", "left behind after {limit_s:g} s: {what}")
SOAK_NO_REFERENCE = Line(
    "M075",
    "the undisturbed training of {workers} workers with {field}-bit fields ended with status "
    "{status}; its output is in {log}",
)
SOAK_REFERENCE_DIFFERS = Line(
    "M076",
    "the ranks of the undisturbed training of {workers} workers with {field}-bit fields differ; "
    "its output is in {log}",
)

# ---- traces

GIVE_A_JOB = Line(
    "M080",
    "measure needs one job: `measure -- torchrun …` to run it, or --trace DIR, a folder with a "
    "trace of each rank; --keep goes with the first",
)
NO_TRACES = Line(
    "M081",
    "{folder} has no *.json or *.json.gz: put the file of each rank there that torch.profiler's "
    "export_chrome_trace writes",
)
NOT_A_TRACE = Line("M082", "{path} is no Chrome trace of torch.profiler: {why}")
RANK_TWICE = Line("M083", "{first} and {second} are both of rank {rank}: leave one of them there")
NO_RANK = Line(
    "M084", "{path} does not say its rank: name the files rank0.json, rank1.json and so on"
)
OTHER_JOB = Line(
    "M085", "{first} is of a job of {size} ranks, {second} of one of {other}: keep one job's traces"
)
NO_COLLECTIVES = Line(
    "M086",
    "the traces in {folder} have no collective of nccl, gloo or wiresum in their steps: the job is "
    "not distributed, or the profiler ran while it did not communicate",
)
RANKS_MISSING = Line(
    "M087", "{count} of {world} ranks have a trace; missing: {ranks}: all figures are of the others"
)
NO_STEPS = Line(
    "M088",
    "{count} traces ({first}) have no ProfilerStep#N: all of a trace counts as one step; call the "
    "profiler's step() after each step, with a schedule",
)
NO_SIZES = Line(
    "M089",
    "{count} of {all} collectives have no size in the trace: profile with record_shapes=True, and "
    "NCCL with torch 2.4 or later",
)
NOTHING_MATCHES = Line(
    "M090",
    "no collective is alike on all ranks: who is late cannot be told; profile the same steps",
)
SOME_DIFFER = Line(
    "M091", "{count} collectives are missing or different on some rank: they are not compared"
)
CLOCK_UNKNOWN = Line(
    "M092", "no collective sets the clock of rank {ranks}: whether it is late is unknown"
)
NO_COMPUTATION = Line(
    "M093",
    "some traces show no computation: all communication looks exposed; profile with "
    "ProfilerActivity.CPU, and on GPUs with ProfilerActivity.CUDA",
)
NO_KERNELS = Line(
    "M095",
    "{count} collectives of NCCL have no kernel in the traces: the communication that they stand "
    "for is missing in all figures; profile with ProfilerActivity.CUDA",
)
TOO_LARGE = Line(
    "M096", "{path} needs more memory than this machine has: trace fewer steps, for example 10"
)

# ---- jobs that are run to be measured

COMMAND_ENDED = Line("M110", "the command ended with status {status}: {what}")
NO_STEP = Line(
    "M111",
    "no process of the command took a step of an optimizer of torch: measure a training, in a "
    "Python environment where wiresum is installed",
)
NO_PROCESS_GROUP = Line(
    "M112",
    "the script has no process group of torch.distributed when it takes its first step: it trains "
    "in one process, so it does not communicate",
)
RANK_NOT_RECORDED = Line("M113", "rank {rank} could not record its steps: {why}")
TOO_FEW_STEPS = Line(
    "M114",
    "the script took {seen} steps, too few to record any: {wanted} recorded steps need {needed} in "
    "all; train longer, or give a smaller --steps",
)
RANKS_ELSEWHERE = Line(
    "M115",
    "{count} ranks have written nothing into {folder}: they run on other hosts, or were ended "
    "early; put the files of all hosts' --keep folders into one, and read it with --trace",
)
STEPS_CUT = Line(
    "M116",
    "the script ended after {recorded} of {wanted} steps to record: the figures are of those",
)
OVERHEAD_HIGH = Line(
    "M117",
    "the profiler makes a step {percent:.1f} % longer, and this adds to computation: with more "
    "work in a step, such as a larger batch, its share is smaller",
)
OVERHEAD_UNKNOWN = Line(
    "M118", "the script ended before a step without the profiler: its overhead is not known"
)
LINKS_NOT_MEASURED = Line("M120", "some links between the ranks are not measured: {why}")
FOLDER_USED = Line(
    "M119", "--keep {folder} has {file}, which is not of this run: give a new folder, or empty it"
)

# ---- advice

DOCUMENT_WRONG = Line("M140", "{path} cannot be used: {why}")
OTHER_DOCUMENT = Line("M141", "{path} is not from {made_by}")
OTHER_VERSION = Line("M142", "{path} has version {found}; this wiresum reads version {known}")
ONE_RANK_ONLY = Line(
    "M143",
    "{path} is of one rank only: how long ranks wait for each other is unknown; measure all ranks",
)
NO_MESSAGES = Line("M144", "{path} has no collective with a size: profile with record_shapes=True")
TRIAL_WITHOUT_PLAIN = Line(
    "M145", "{path} has no times of {plain}, with which the others are compared: try it too"
)
LINKS_UNKNOWN = Line(
    "M146", "the report does not say how fast the links are: give --alpha-us and --beta-gbit"
)
NO_CURRENCY = Line("M147", "{option} is a price in no currency: give --currency, for example EUR")
NOT_A_CURRENCY = Line("M148", "--currency {text!r}: it must be three letters, for example EUR")
HOURS_OR_STEPS = Line("M149", "--hours-per-run and --steps-per-run say the same: give one of them")
DAYS_WITHOUT_PRICE = Line(
    "M150", "--engineering-days beside prices needs --engineering-day, the price of one"
)
HOURS_UNKNOWN = Line("M151", "--wanted-hours needs --hours-per-run or --steps-per-run")

# ---- plans

NO_JOBS = Line("M155", "{path} has no list `jobs` with jobs in it: docs/planning.md has an example")
JOBS_UNREADABLE = Line("M156", "{path} cannot be parsed: {why}")
JOB_WRONG = Line("M157", "{path}, job {at} (from 0): {why}")
JOB_TWICE = Line("M158", "{path} has two jobs called {name}")
TOO_MANY_JOBS = Line("M159", "{path} has more than {most} jobs")
NEEDS_YAML = Line(
    "M160", "{path} needs PyYAML: pip install pyyaml, or write the jobs as JSON or TOML"
)
PLAN_RATE = Line("M161", "{option} {text!r}: it must be a rate, for example 10gbit")
TOO_MANY_RACKS = Line(
    "M162", "the jobs need {racks} racks, the most is {most}: give more --hosts-per-rack"
)
NO_CHAKRA = Line("M163", "{path} has no *.et: put the Chakra trace of each rank there")
NOT_CHAKRA = Line("M164", "{path} is no Chakra trace that a plan can use: {why}")

UNKNOWN_NAMES = Line("M165", "{option} {text!r}: it must be of {known}, each once")
TOO_LONG_TO_SIMULATE = Line(
    "M166",
    "{steps} steps of {jobs} jobs whose links cross the uplinks of racks take too long to "
    "simulate: give fewer --steps, or fewer jobs",
)
TABLE_OF_WHAT = Line("M167", "--table-only: name the file of an earlier run with --json")
CREW_SILENT = Line("M168", "the process that forks the trainings has not answered in {limit_s:g} s")

# ---- trials

TRIAL_OF_WHAT = Line("M170", "try what? wiresum trial -- torchrun --nproc-per-node 4 train.py")
TWO_TARGETS = Line("M171", "give --within or --target-loss, not both")
UNKNOWN_REMEDY = Line("M172", "--candidates {name}: it must be of {names}")
REMEDY_NEEDS_SWITCH = Line(
    "M173", "--candidates {name} needs a switch: give --controller HOST:PORT, or --embedded"
)
NOT_A_SHARE = Line("M174", "{text!r} is no share: say, for example, 1% or 0.01")
NOT_A_PATTERN = Line(
    "M175", "--loss-pattern {text}: it must be a regular expression with one group: {why}"
)
OTHER_TRIAL = Line(
    "M176",
    "{folder} holds another trial (changed: {what}): give another --out, or --fresh to forget it",
)
PLAIN_RUN_FAILED = Line("M177", "the plain run over gloo, with no remedy, has failed: {why}")
NO_STEP_SEEN = Line(
    "M178",
    "no step of an optimizer was seen: the script must train with torch.optim, in an environment "
    "that has wiresum, and without TORCH_DEVICE_BACKEND_AUTOLOAD=0",
)
SCRIPT_ENDED = Line(
    "M179", "the script ends after {steps} steps, before the {wanted} of the trial: --steps {steps}"
)
NO_COLLECTIVE = Line(
    "M180", "the script does no collective ({world} ranks): there is no communication to remedy"
)
NOT_PATIENCE = Line("M182", "--patience {value:g}: it must be seconds, above 0")
NO_LOSS = Line(
    "M181",
    "the script reports no loss: call wiresum.report(loss=loss) after each step, or give "
    "--loss-pattern",
)

NO_LANES = Line("M194", "{name} has no lanes to encode: name a codec of `wiresum codec list`")

# ---- accuracy

NO_METHOD = Line("M190", "there is no method {name!r}; there are {names}")
NO_TASK = Line("M191", "there is no task {name!r}; there are {names}")
ANOTHER_TRAINING = Line(
    "M192", "{path} is of another training, or no file of bench accuracy: name another file"
)
NOT_ITS_FILE = Line("M195", "{path} is no file of bench accuracy: {why}; name another file")
GLYPHS_NEED_MATPLOTLIB = Line(
    "M193", "--task glyphs needs matplotlib's fonts: pip install 'wiresum[demo]'"
)
