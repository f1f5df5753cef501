"""The commands ``wiresum controller serve`` and ``certificate``."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from wiresum.common.command_line import Argument, Option
from wiresum.common.command_line.serving import ExitWithParent, LogFormat, Metrics
from wiresum.common.places import expand
from wiresum.controller.client.address import DEFAULT_CONTROLLER
from wiresum.controller.commands.switch_options import NO_FILES, P4RuntimeTls

if TYPE_CHECKING:
    from wiresum.controller.api.security import Security


@dataclass(frozen=True)
class SecurityArguments:
    """How a controller is reached: with which certificates, or in plain text."""

    plaintext: Annotated[
        bool,
        Option("--plaintext", help="Serve without TLS: on a loopback address only."),
    ] = False
    tls_dir: Annotated[
        str,
        Option(
            metavar="DIR",
            help="Where the generated CA and certificate live  [default: tls, beside the store]",
        ),
    ] = ""
    tls_name: Annotated[
        list[str] | None,
        Option(
            metavar="NAME", help="Another name or address that clients use for this controller."
        ),
    ] = None
    tls_cert: Annotated[str, Option(metavar="FILE", help="Your own certificate (chain), PEM.")] = ""
    tls_key: Annotated[str, Option(metavar="FILE", help="Its key, PEM.")] = ""
    client_ca: Annotated[
        str,
        Option(
            metavar="FILE", help="Clients must show a certificate that this authority has signed."
        ),
    ] = ""

    def security(self, *, new_admin_token: bool) -> "Security":
        """The same for the server, with the admin's token from the environment."""
        from wiresum.controller.api.security import ADMIN_TOKEN_VARIABLE, Security

        return Security(
            plaintext=self.plaintext,
            tls_dir=self.tls_dir,
            tls_names=self.tls_name or (),
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            client_ca=self.client_ca,
            admin_token=os.environ.get(ADMIN_TOKEN_VARIABLE, ""),
            new_admin_token=new_admin_token,
        )


DEFAULT_SECURITY = SecurityArguments()


def serve(
    listen: Annotated[
        str, Option(metavar="HOST:PORT", help="Where to serve; port 0 takes any.")
    ] = DEFAULT_CONTROLLER,
    store: Annotated[
        str,
        Option(
            metavar="FILE|URL",
            help="SQLite file, or :memory:, or postgresql://… for several controllers  "
            "[default: $XDG_STATE_HOME/wiresum/controller.sqlite]",
        ),
    ] = "",
    switch: Annotated[
        list[str] | None,
        Option(
            metavar="KEY=VALUE,…",
            help="Add a switch: the options of `switch add` in one string, such as "
            "name=s1,p4runtime=127.0.0.1:9559,address=127.0.0.1:5555,host=0.0.0.0/0=1",
        ),
    ] = None,
    expiry: Annotated[
        float, Option(min=0.5, help="Seconds of silence after which a job's lease ends.")
    ] = 30.0,
    security: SecurityArguments = DEFAULT_SECURITY,
    p4runtime: P4RuntimeTls = NO_FILES,
    new_admin_token: Annotated[
        bool,
        Option("--new-admin-token", help="Make another admin token; write it to its file."),
    ] = False,
    exit_with_parent: ExitWithParent = False,
    metrics: Metrics = None,
    log_format: LogFormat = None,
    verbose: Annotated[bool, Option("--verbose", "-v", help="Log more to stderr.")] = False,
) -> None:
    """Serve until SIGTERM or SIGINT; prints its address as one line of JSON when ready."""
    from wiresum.common import logs
    from wiresum.controller.api.server import ServeOptions, configure_logging, parse_store
    from wiresum.controller.api.server import serve as run
    from wiresum.controller.commands.spec import parse_switch
    from wiresum.controller.rules.limits import Limits
    from wiresum.controller.southbound.loop import LoopOptions

    configure_logging(logs.log_format(log_format), verbose=verbose)
    run(
        ServeOptions(
            listen=listen,
            store=parse_store(store),
            switches=[parse_switch(text) for text in switch or ()],
            exit_with_parent=exit_with_parent,
            metrics=metrics,
            security=security.security(new_admin_token=new_admin_token),
            limits=Limits(heartbeat_s=expiry / 6, expiry_s=expiry),
            loop=LoopOptions(tls=p4runtime.files()),
        )
    )


def certificate(
    name: Annotated[str, Argument(help="Whose certificate; becomes the files' name.")],
    tls_dir: Annotated[
        Path | None,
        Option(
            metavar="DIR",
            help="Where the controller's CA lives  [default: that of this user's own controller]",
        ),
    ] = None,
    out: Annotated[Path, Option(metavar="DIR", help="Where to write it.")] = Path(),
) -> None:
    """Make a client certificate with the generated CA, for a controller with --client-ca."""
    from wiresum.controller.api.certificates import issue_client
    from wiresum.controller.client.trust import default_ca_file
    from wiresum.controller.rules.checks import check_name

    check_name(name, "certificate")
    folder = expand(tls_dir) if tls_dir is not None else default_ca_file().parent
    files = issue_client(folder, name.replace("/", "-"), expand(out))
    print(f"certificate {files.cert}, key {files.key}")
