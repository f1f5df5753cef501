"""The error lines of the controller and its client. Codes C…; docs/operations.md has the cures."""

from wiresum.common.errors import Line

# ---- reaching the controller

NOT_REACHED = Line(
    "C001",
    "controller {address} cannot be reached ({why}): is `wiresum controller serve` running there?",
)
SERVER_NOT_TRUSTED = Line(
    "C002",
    "controller {address} cannot be reached (its certificate is not trusted: {fault}): {remedy}",
)
NOT_TRUSTED = Line(
    "C003",
    "controller {address} cannot be reached (its certificate is not trusted): give the CA that "
    "signed it with --ca or WIRESUM_CA, and an address that the certificate names",
)
NO_TLS = Line(
    "C004",
    "controller {address} cannot be reached (it does not speak TLS): use http://{endpoint} if "
    "that is meant",
)
TLS_FILE = Line(
    "C005", "controller {address} cannot be reached (a file for TLS cannot be used): {why}"
)
TLS_FILES = Line(
    "C006",
    "controller {address} cannot be reached (a file for TLS cannot be used): check that --ca "
    "or WIRESUM_CA, WIRESUM_CERT and WIRESUM_KEY are PEM files",
)
HUNG_UP = Line(
    "C007",
    "controller {address} cannot be reached (it hung up: does it speak TLS?): use {endpoint} "
    "without http://",
)
CLIENT_NOT_TRUSTED = Line("C008", "controller {address} cannot be reached ({fault}): {remedy}")
ASKS_FOR_CERTIFICATE = Line(
    "C009",
    "controller {address} cannot be reached (it asks for a client certificate): give "
    "WIRESUM_CERT and WIRESUM_KEY",
)
NO_ANSWER = Line("C010", "controller {address} did not answer within {limit_s} s")
STATUS_ALONE = Line("C011", "controller {address} answered {status}")
NOT_A_CONTROLLER = Line("C012", "{address} is not a wiresum controller, or an older one")
CLOSED = Line("C013", "the connection to controller {address} has been closed")
PLAIN_TEXT_ELSEWHERE = Line(
    "C014",
    "{address} is another machine, and a token must not travel there in plain text: use "
    "https://{endpoint}",
)
CLIENT_PAIR = Line(
    "C015", "a certificate and its key belong together: give both WIRESUM_CERT and WIRESUM_KEY"
)
TLS_FILE_UNREADABLE = Line("C016", "{what} file {path} cannot be read: {why}")
NO_HOME = Line(
    "C017",
    "this user has no home folder for a controller's files: set HOME or XDG_STATE_HOME, or "
    "name them (controller serve --store FILE, controller certificate --tls-dir DIR)",
)
NONE_LEADS = Line("C160", "none of the controllers {addresses} leads: {why}")
NONE_REACHED = Line("C161", "none of the controllers {addresses} can be reached; the last: {why}")
DOES_NOT_LEAD = Line(
    "C162",
    "controller {address} does not lead, {leader} does: name both, as in --controller "
    "{leader},{address}",
)
NOBODY_LEADS_YET = Line("C163", "controller {address} does not lead: another one is about to")
NO_STORE_TO_ASK = Line("C164", "controller {address} does not know who leads: {why}")
NO_PSYCOPG = Line(
    "C165", "a store in PostgreSQL needs psycopg ({why}): pip install 'wiresum[postgres]'"
)
NOT_TAKEN_OVER = Line("C018", "{who} has not taken over its switch within {limit_s:g} s: {why}")

# ---- calls

CALL_FAILED = Line("C019", "the controller failed ({name}: {why}): see its log")
REQUEST_TOO_LARGE = Line(
    "C020", "a request of {size} bytes is too large for {method}: it may have {most}"
)
REQUEST_UNREADABLE = Line("C021", "the request is not one of {method}: its bytes cannot be read")
NOT_A_PAGE = Line("C022", "page token {token!r} is none: use the one that ListJobs has returned")
TOO_MANY_CALLS = Line(
    "C023",
    "{callers} {name} make more calls than the controller takes from one: {per_second:g} a "
    "second; ask again in {wait_s:.2f} s",
)
TOO_MANY_WAIT = Line("C024", "{count} calls wait for news of job {job} already: end some of them")

# ---- tokens and rights

NO_TOKEN = Line("C025", "the call has no token: give one with WIRESUM_TOKEN or --token-file")
UNKNOWN_TOKEN = Line(
    "C026", "the controller does not know this token: it was rotated, or is another controller's"
)
NOT_A_TOKEN = Line("C027", "the token has characters that no token has: copy it again")
TOKEN_FILE = Line("C028", "--token-file {path} cannot be read: {why}")
TOKEN_NOT_WRITTEN = Line(
    "C029", "{path} cannot be written ({why}); the token of tenant {tenant} is {token}"
)
ADMIN_ONLY = Line("C030", "only the admin may {what}: this is the token of {caller}")
OWN_JOB_ONLY = Line(
    "C031", "a job's token is for that job and its parts only: use the tenant's token"
)
OWN_JOBS_ONLY = Line("C032", "this is the token of {caller}: it creates no jobs for others")
WRONG_JOB_TOKEN = Line(
    "C033", "wrong token for job {job!r} ({owner}'s): use the one that CreateJob returned"
)

# ---- starting the controller

CANNOT_LISTEN = Line("C034", "cannot listen on {address}: {why}; choose another with --listen")
TLS_PAIR = Line("C035", "a certificate and its key belong together: give --tls-cert and --tls-key")
P4RUNTIME_TLS_PAIR = Line(
    "C036", "a certificate and its key belong together: give --p4runtime-cert and --p4runtime-key"
)
PLAINTEXT_ELSEWHERE = Line(
    "C037",
    "--plaintext is for loopback addresses, not {host}: tokens would travel in the clear; "
    "leave it out to serve with TLS",
)
PLAINTEXT_WITH_TLS = Line(
    "C038", "--plaintext has no certificates: leave it or the --tls-… options out"
)
ADMIN_TOKEN_SHORT = Line(
    "C039",
    "{variable} has {length} characters: anybody could guess it; use at least {least}, such as "
    "`openssl rand -hex 32` prints",
)
ADMIN_TOKEN_NOT_WRITTEN = Line("C040", "the admin's token cannot be written to {path}: {why}")
CANNOT_READ = Line("C041", "{path} cannot be read: {why}")
NOT_A_HOST = Line("C042", "{name!r} is not the name or the address of a host (--tls-name)")
CERTIFICATES_UNUSABLE = Line(
    "C043",
    "certificates in {folder} cannot be used: {why}; give another --tls-dir, or --tls-cert and "
    "--tls-key",
)
NO_CA = Line(
    "C044",
    "there is no CA in {folder}: `wiresum controller serve` makes one at its first start; give "
    "its --tls-dir",
)
CERTIFICATE_NOT_MADE = Line("C045", "certificate {path} cannot be made: {why}")
CA_FILE_MISSING = Line(
    "C046",
    "{file} is missing, and others of this CA's files are there: put it back; or move all of "
    "{folder} away, and a new CA is made, which every client must be given",
)
CA_KEY_MISSING = Line(
    "C047",
    "{file} is missing, and {why}: put it back for this; or move all of {folder} away, and a "
    "new CA is made, which every client must be given",
)
NOT_OUR_KEY = Line("C048", "{file} is not a key that wiresum has made: put that back")
OTHER_KEY = Line("C049", "{file} is not the key of {ca}: put the one back that is")
FOREIGN_FILE = Line(
    "C050",
    "{file} is there, and not a certificate that this CA has signed for {name}: move it away, "
    "or give another --out",
)
CLOCK_WRONG = Line(
    "C051", "no certificate can be made while this machine's clock says {time}: set it"
)

# ---- describing switches

SPEC_PART = Line("C052", "switch {text!r}: {part!r} is not KEY=VALUE with a key of {keys}")
SPEC_TWICE = Line("C053", "switch {text!r}: {key} is given twice")
SPEC_MISSING = Line("C054", "switch {text!r}: {key}=… is missing")
SPEC_SHARED = Line("C055", "switch {text!r}: shared-address is yes or no, not {value!r}")
SPEC_NUMBER = Line("C056", "switch {text!r}: {key} {value!r} is not a number")
SPEC_HOST = Line("C057", "switch {switch}: host {text!r} is not CIDR=PORT, e.g. 10.0.1.0/24=1")
UNKNOWN_SWITCH = Line("C058", "there is no switch {name!r}")
UNKNOWN_SWITCH_OF = Line("C059", "there is no switch {name!r} (known: {known})")
NO_SWITCHES = Line("C060", "the controller knows no switch: add one with `wiresum switch add`")
DEVICE_KNOWN = Line(
    "C061",
    "{p4runtime} (device {device_id}) is already known as switch {switch}: remove that one first",
)
NOT_P4RUNTIME = Line(
    "C062",
    "{what}: {text!r} is no P4Runtime address: give HOST:PORT, https://HOST:PORT or unix:/path",
)
P4RUNTIME_TOO_LONG = Line(
    "C063", "{what}: a P4Runtime address of {length} characters is too long: use up to 256"
)
DEVICE_ID = Line("C064", "{what}: device id {device_id} is too large")
NO_PROGRAM = Line("C065", "{what}: there is no program of {lanes} lanes: choose {choices}")
NO_HOSTS = Line("C066", "{what} has no hosts: say behind which port workers are, e.g. 0.0.0.0/0=1")
TOO_MANY_HOSTS = Line("C067", "{what}: {count} host ranges are too many: up to {most} are possible")
NOT_A_SWITCH_PORT = Line("C068", "{what}: {port} is not a switch port: it must be 1 to {most}")
TWO_PORTS = Line("C069", "{what}: {network} is behind two ports: give each network once")
SWITCH_BUSY = Line(
    "C070", "switch {switch} has live jobs ({jobs}{more}): {consequence}; wait for them to end"
)
NOT_IPV4 = Line("C071", "{what} {text!r} is not an IPv4 address")
NOT_A_HOST_ADDRESS = Line(
    "C072", "{what} {ip} is not one host's address: give the address that packets come from"
)
NOT_A_MAC = Line("C073", "{what} {text!r} is not a MAC address such as {example}")
NOT_A_HOST_MAC = Line("C074", "{what} {text} is not one host's MAC address")
NOT_A_NETWORK = Line(
    "C075", "host range {text!r} is not an IPv4 network such as 10.0.1.0/24: {why}"
)
NOT_A_UDP_PORT = Line("C076", "{what} {port} is not a UDP port: it must be from 1 to 65535")
SWITCH_COMES_OR_GOES = Line("C077", "switch {switch} is just being added or removed")

# ---- switches that are down

SWITCH_DOWN = Line("C078", "switch {switch} is {state}: {why}")
NO_COUNTERS = Line("C079", "switch {switch} did not tell its counters: {why}")
SWITCH_NOT_REACHED_WITH_TLS = Line(
    "C080",
    "{address} cannot be reached with TLS: nothing listens there, its certificate is for "
    "another name, not from --p4runtime-ca or expired, or it wants one from us",
)
SWITCH_NOT_REACHED = Line("C081", "{address} cannot be reached")
SWITCH_ANSWERED = Line("C082", "{address} answered {code}: {message}")
SWITCH_FAILED = Line("C083", "{address}: {error}: {why}")
SWITCH_SILENT = Line("C084", "{address} did not answer within {limit_s:g} s")
SWITCH_LOST = Line("C085", "the connection to {address} was lost")
SWITCH_LOST_IN_SETUP = Line("C086", "the connection to {address} was lost while it was set up")
ANOTHER_CONTROLLER = Line(
    "C087", "another controller is in charge of {address} (election id {election_id}): stop it"
)
CELLS_MISSING = Line("C088", "the switch did not tell {count} cells of {counter}")
PROGRAM_TOO_LARGE = Line(
    "C089", "the program of {size} bytes exceeds what P4Runtime servers accept"
)

# ---- switch deploy

NOT_DEPLOYED = Line("C090", "nothing deployed: {why}")
OTHER_P4RUNTIME = Line("C091", "{address} speaks P4Runtime {version}, and we speak {ours}.x")
OTHER_PROGRAM = Line("C092", "{address} took the program but says that it runs {name}")
ELECTION_ID_TAKEN = Line(
    "C093",
    "another client of {address} has election id {election_id}: stop it, or choose another "
    "with --election-id",
)
ANOTHER_PRIMARY = Line(
    "C094",
    "another client is in charge of {address} (election id {other}, ours is {ours}): stop it, "
    "or take over with --election-id {higher}",
)
ELECTION_ID_REFUSED = Line("C095", "{address} refused election id {election_id}: {why}")

# ---- creating jobs

UNKNOWN_JOB = Line(
    "C096", "there is no job {job!r}: `wiresum job list` shows those that this token may see"
)
NO_LIVE_JOB = Line("C097", "no live job is called {job!r}: see `wiresum job list`")
SEVERAL_JOBS = Line("C098", "{count} jobs are called {name!r} ({names}{more}): say which by its id")
MORE_THAN_ANY_SWITCH = Line(
    "C099", "{slots} slots are more than any switch has: ask for at most {most}"
)
TOO_MANY_JOBS = Line(
    "C100", "tenant {tenant} has {jobs} live jobs, and may have {most}: wait for one to end"
)
QUOTA_IN_USE = Line(
    "C101", "tenant {tenant} has {used} of its {quota} slots in use: no room for {slots} more"
)
BEHIND_EARLIER_JOB = Line(
    "C102",
    "an earlier job of tenant {tenant} waits for its quota or its job limit: {slots} slots "
    "have to wait behind it",
)
QUOTA_TOO_SMALL = Line(
    "C103", "{slots} slots are more than tenant {tenant} may ever have: its quota is {quota}"
)
SWITCH_TOO_SMALL = Line("C104", "{slots} slots are more than {which} has: ask for at most {most}")
LEAST_ABOVE_SLOTS = Line(
    "C105", "at least {least} slots, but {slots} wanted: the other way round is possible"
)
NOT_ON_FULL = Line("C106", "on_full {value} is not one of 0 to {most}")
ALL_DRAINING = Line("C107", "switch {switches} {take} being drained")
NO_ROOM = Line("C108", "no room for {slots} slots in one range{ahead}: {occupancy}")
NO_ROOM_FOR_WORKERS = Line(
    "C109",
    "switch {switch} has room for {free} of {most} workers: tenant {tenant} has {there} there, "
    "and would leave less than that with {workers} more",
)
QUEUE_FULL = Line(
    "C110", "tenant {tenant} has {count} jobs in the queue: wait for some of them to get slots"
)
WANTED_SWITCH_GONE = Line(
    "C111", "job {job} cannot have slots: there is no switch {switch} any more"
)
SWITCHES_GONE = Line("C112", "job {job} cannot have slots: the controller knows no switch any more")
DRAINED_TOO_LONG = Line(
    "C113",
    "job {job} has waited {waited_s:g} s for switch {switches}, which is being drained and "
    "takes no new jobs: `wiresum switch undrain`, or ask for another switch",
)
TAKEN_OUT_BECAUSE = Line("C114", "job {job} was taken out of the queue: {why}")
TAKEN_OUT = Line("C115", "job {job} was taken out of the queue")
WAITED = Line("C116", "waited {waited_s:.0f} s: {why}")
WAIT_TOO_LONG = Line("C117", "a wait of {wait_s:g} s is not possible: at most a year")
HEARTBEAT_WAIT_TOO_LONG = Line("C118", "a wait of {wait_s:g} s is not possible: at most a day")
TIMEOUT_TOO_LONG = Line("C119", "a timeout of {timeout_s:g} s is not possible: at most {most:g}")
LIVE_ELSEWHERE = Line(
    "C120", "job {job} is live on switch {switch}, not {wanted}: release it, or choose another name"
)
ATTACHED_TOO_OFTEN = Line(
    "C121", "job {job} has been attached to {times} times: release it, or choose another name"
)
JOB_OVER = Line("C122", "job {job} is over ({state}: {why}): create a new one")
NOT_A_NAME = Line(
    "C123", "{what} {name!r} is not a name: use up to 64 letters, digits, '.', '_', '/', '-'"
)
NAME_LIKE_AN_ID = Line("C124", "{what} {name!r} looks like a job's id: choose another name")
NOT_A_REQUEST_ID = Line("C125", "request id {text!r} is not one: use up to 64 letters and digits")
REASON_TOO_LONG = Line("C126", "a reason of {length} characters is too long: use up to 200")
NOT_A_FIELD = Line("C127", "a field of {bits} bits is not possible: choose 32, 16 or 8")

# ---- joining a job

TOO_MANY_WORKERS = Line(
    "C128",
    "a job of {workers} workers is not possible: a switch sums for 1 to {most}; use another "
    "backend for this run",
)
NOT_A_RANK = Line(
    "C129", "rank {rank} is not one of 0 to {highest}, the ranks of {workers} workers"
)
NOT_A_RANK_OF_JOB = Line("C130", "rank {rank} is not one of 0 to {highest}, the ranks of job {job}")
RANKS_MISSING = Line(
    "C131", "{attempt}: {noun} {ranks} of {workers} workers {what} within {limit_s} s"
)
SWITCH_NOT_READY = Line(
    "C132",
    "{attempt}: all {workers} workers have joined, but switch {switch} was not ready within "
    "{limit_s} s: {why}",
)
OTHER_VERSION = Line(
    "C133",
    "rank {rank} runs wiresum {version}, the controller {ours}: install the same version on both",
)
OTHER_SWITCH_PROGRAM = Line(
    "C134",
    "rank {rank} was built for switch program {version}, switch {switch} runs "
    "{switch_version}: install the same version on both",
)
OTHER_WORKERS = Line(
    "C135",
    "rank {rank} says {workers} workers, but {attempt} has {expected}: start all ranks with "
    "the same number",
)
OTHER_FIELD = Line(
    "C136",
    "rank {rank} has fields of {bits} bits, but {attempt} has {expected}: start all ranks with "
    "the same --field",
)
RANK_ELSEWHERE = Line(
    "C137",
    "rank {rank} of {attempt} is already {ip}:{udp_port}, not {new_ip}:{new_udp_port}: a "
    "restarted worker needs a later attempt",
)
SOCKET_TAKEN = Line(
    "C138",
    "{ip}:{udp_port} is already rank {other} of {attempt}: rank {rank} needs a socket of its own",
)
NO_HOST_RANGE = Line(
    "C139",
    "{what}: no host range of switch {switch} contains {ip}: repeat `wiresum switch add "
    "{switch}` with a --host for it",
)
ADDRESS_OF_SWITCH = Line(
    "C140",
    "{what} has the address of switch {switch} itself, {ip}: if the switch runs on the "
    "worker's host, add it with --shared-address",
)
ATTEMPT_OVER = Line(
    "C141",
    "attempt {attempt} of job {job} is over: attempt {later} has started; restart this worker "
    "with the others",
)
NO_OWNER = Line("C142", "a claim needs an owner")
NOT_AN_OWNER = Line("C143", "owner {name!r}: at most {most} printable characters")
TAKEN_OVER = Line(
    "C144",
    "another process group{on} has taken job {job} over: restart this worker with the others",
)

NOTHING_TO_PARK = Line("C180", "job {job} has no slots yet: a job in the queue cannot be parked")

# ---- parts of jobs

PART_ELSEWHERE = Line(
    "C175",
    "a part of job {job} cannot have {what} {wanted!r}: it has the job's, {has}; leave the {what} "
    "out of the request",
)
SHARE_TOO_SMALL = Line(
    "C176",
    "a part of {slots} slots never fits into job {job}, which has {admitted} and keeps {least} for "
    "itself: ask for fewer, or give the job more",
)
TOO_MANY_PARTS = Line(
    "C177", "job {job} has {count} parts, more are not possible: release those that are not needed"
)
NO_SHARE = Line(
    "C178",
    "job {job} has no {slots} slots to give to another part: of its {admitted} it has {held} "
    "itself (at least {least}), and its {parts} parts have {theirs}",
)
NO_GROUP_FOR_PART = Line(
    "C179",
    "{job} gets no multicast group: {most} are in use on its job's switch, the rest is kept for "
    "jobs that are no parts",
)

# ---- changes of a lease

CHANGE_OF_ATTEMPT = Line(
    "C145",
    "change {change} belongs to an attempt that has begun: join attempt {attempt} without one",
)
CHANGE_OVER = Line(
    "C146",
    "rank {rank}: change {change} of the lease of job {job} is over, it has change {later}: "
    "restart this worker with the others",
)
CHANGE_CANCELLED = Line(
    "C147",
    "change {change} of the lease of job {job} was cancelled: carry on under the lease of "
    "epoch {epoch}",
)
CHANGE_NOT_AGREED = Line(
    "C148", "the ranks of job {job} have not agreed on change {change} yet: call ChangeLease first"
)
WENT_ON_ALONE = Line(
    "C149",
    "rank {rank} of job {job} has started {started} collectives, but the ranks had agreed to "
    "change over after {boundary}: restart the job's workers",
)
CANNOT_HAVE_STARTED = Line(
    "C150", "rank {rank} of job {job} cannot have started {started} collectives"
)
EPOCH_OVER = Line(
    "C151",
    "epoch {epoch} of job {job} is over: it is in epoch {later}; restart this worker with the "
    "others",
)

# ---- tenants

UNKNOWN_TENANT = Line("C152", "there is no tenant {name!r}")
UNKNOWN_TENANT_OF = Line("C153", "there is no tenant {name!r} (known: {known})")
TENANT_EXISTS = Line(
    "C154",
    "there is a tenant {name} already: `wiresum tenant set` changes its limits, `wiresum "
    "tenant rotate` gives it another token",
)
TENANT_STAYS = Line(
    "C155", "tenant {name} stays: jobs that the admin creates for nobody else are its"
)
TENANT_BUSY = Line(
    "C156",
    "tenant {name} has live jobs ({jobs}{more}): wait for them to end, or remove it with --evict",
)
NOT_A_PRIORITY = Line(
    "C157",
    "tenant {name}: a priority of {priority} is not possible: it must be from {least} to {most}",
)
LIMIT_TOO_LARGE = Line("C158", "tenant {name}: a {what} of {limit} is too large: 0 means no limit")
NOTHING_TO_SET = Line("C159", "nothing to set: give --slots, --jobs or --priority")

# ---- the store

STORE_NOT_OPENED = Line("C166", "store {store} cannot be opened: {why}")
STORE_NOT_REACHED = Line(
    "C167", "store {store} cannot be reached ({why}): see to PostgreSQL and to the network"
)
STORE_TOO_NEW = Line(
    "C168",
    "store {store} is of schema {schema}, made by a later wiresum (this one knows up to "
    "{known}): upgrade, or give --store",
)
POSTGRES_TOO_OLD = Line(
    "C169", "store {store} is on PostgreSQL {version}: version 14 or a later one is needed"
)
STORE_NOT_WRITTEN = Line(
    "C170",
    "the controller's store cannot be written ({why}): running jobs go on, all else has to "
    "wait; see to the PostgreSQL of the controller's --store, and try again",
)
NOT_LEADING = Line(
    "C171", "this controller does not lead any more ({why}): running jobs go on; ask the others"
)
STORE_IN_USE = Line(
    "C172", "store {store} is in use by another controller: stop that one, or give --store"
)
NOT_A_STORE_URL = Line(
    "C174",
    "the URL of --store is not one of PostgreSQL: write it as "
    "postgresql://USER@HOST:PORT/DATABASE, special characters as %XX",
)
STORE_UNUSABLE = Line(
    "C173",
    "the controller's store cannot be used ({why}): running jobs go on, all else has to wait; "
    "see to the disk and the file of the controller's --store, and try again",
)
