"""The error lines of what all packages share. Codes G…; docs/operations.md has the cures."""

from wiresum.common.errors import Line

# ---- the command line

WRONG_USAGE = Line("G001", "{fault}; see `{command} --help`")
NOT_UTF8 = Line("G002", "argument {argument!a} is not UTF-8")
SYSTEM_REFUSES = Line("G003", "the system refuses what this command needs: {what}{why}")
UNKNOWN_LOG_FORMAT = Line("G004", "{where} {chosen!r}: it must be text or json")
NO_ENDPOINT = Line("G005", "{what} {text!r} is not HOST:PORT with a port from 0 to 65535")
METRICS_CANNOT_LISTEN = Line("G006", "{option}: cannot listen on {address}: {why}")

# ---- files

NO_HOME_TO_PUT = Line(
    "G007", "{path}: there is no home folder to put for {name}: write the whole path"
)
CANNOT_BE_PRIVATE = Line(
    "G008",
    "{what} {path} may be read by others (mode {mode:04o}), which cannot be changed: {why}; "
    "give it to this user, and chmod 600 it",
)
NO_TEMPORARY_FOLDER = Line(
    "G009",
    "no folder for temporary files can be used ({why}): make room, or set TMPDIR to a folder "
    "that can be written",
)

# ---- processes that wiresum starts

DID_NOT_START = Line("G010", "{what} did not start within {limit_s:g} s{said}")
SAID_SOMETHING_ELSE = Line("G011", "{what} said {text!r} instead of being ready")
CHILD_ENDED = Line("G012", "{what} {verb} (status {status}){said}")

# ---- certificates and keys

WRONG_ORDER = Line(
    "G013",
    "{cert_name} {cert} is in the wrong order: the certificate of {key_name} {key} must come "
    "first, then that of the authority that signed it, and so on",
)
OTHER_KEY = Line("G014", "{key_name} {key} is not that of {cert_name} {cert}: give the pair")
CERTIFICATE_UNUSABLE = Line("G015", "{what} cannot be used: {fault}; renew it, or set the clock")
BAD_CERTIFICATE = Line("G016", "{name} {path} has a certificate that cannot be read: {why}")
KEY_PROTECTED = Line(
    "G017",
    "{name} {path} is protected by a password, which nobody is asked for: write it without "
    "one, `openssl pkey -in FILE -out NEW`",
)
PEM_UNREADABLE = Line("G018", "{name} {path} cannot be read: {why}")
FILE_EMPTY = Line("G019", "{file} is empty")
BYTE_ORDER_MARK = Line(
    "G020", "{file} begins with a byte order mark (BOM): save it as ASCII, without one"
)
UTF16 = Line("G021", "{file} is UTF-16 text with a byte order mark (BOM): save it as ASCII")
KEY_FOR_CERTIFICATE = Line(
    "G022", "{file} has a private key in it and no certificate: are the two files swapped?"
)
PKCS7 = Line(
    "G023",
    "{file} is PKCS#7, not PEM certificates: convert it, `openssl pkcs7 -print_certs -in FILE "
    "-out NEW`",
)
CERTIFICATE_REQUEST = Line(
    "G024", "{file} is a request for a certificate: give the certificate that came of it"
)
CERTIFICATE_IN_DER = Line(
    "G025", "{file} is DER, not PEM: convert it, `openssl x509 -inform DER -in FILE -out NEW`"
)
PKCS12 = Line(
    "G026", "{file} is PKCS#12, not PEM: convert it, `openssl pkcs12 -in FILE -nodes -out NEW`"
)
NO_CERTIFICATE = Line(
    "G027", "{file} is not PEM: there is no line -----BEGIN CERTIFICATE----- in it"
)
CERTIFICATE_FOR_KEY = Line(
    "G028", "{file} has a certificate in it and no private key: are the two files swapped?"
)
DER_PROTECTED = Line(
    "G029",
    "{file} is DER and protected by a password: convert it, `openssl pkey -inform DER -in FILE "
    "-out NEW`",
)
KEY_IN_DER = Line(
    "G030", "{file} is DER, not PEM: convert it, `openssl pkey -inform DER -in FILE -out NEW`"
)
NO_KEY = Line("G031", "{file} is not PEM: there is no line -----BEGIN PRIVATE KEY----- in it")
