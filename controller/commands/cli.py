"""The controller's part of the command line; the root command mounts it."""

import os
from pathlib import Path
from typing import Annotated

import typer

from wiresum.common import command_line, logs
from wiresum.common.places import expand
from wiresum.controller.client.address import DEFAULT_CONTROLLER
from wiresum.controller.client.connection import default_ca_file
from wiresum.controller.commands.job_cli import job_app, job_evict, job_list, job_show, slots
from wiresum.controller.commands.spec import parse_switch
from wiresum.controller.commands.switch_cli import (
    P4RuntimeCa,
    P4RuntimeCert,
    P4RuntimeKey,
    switch_add,
    switch_app,
    switch_deploy,
    switch_drain,
    switch_list,
    switch_remove,
    switch_undrain,
)
from wiresum.controller.commands.tenant_cli import (
    tenant_add,
    tenant_app,
    tenant_list,
    tenant_remove,
    tenant_rotate,
    tenant_set,
)

__all__ = [
    "certificate",
    "controller_app",
    "job_app",
    "job_evict",
    "job_list",
    "job_show",
    "main",
    "serve",
    "slots",
    "switch_add",
    "switch_app",
    "switch_deploy",
    "switch_drain",
    "switch_list",
    "switch_remove",
    "switch_undrain",
    "tenant_add",
    "tenant_app",
    "tenant_list",
    "tenant_remove",
    "tenant_rotate",
    "tenant_set",
]

controller_app = typer.Typer(help="Run the controller.", no_args_is_help=True)


@controller_app.callback()
def _controller() -> None:
    """Run the controller."""


@controller_app.command()
def serve(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to serve; port 0 takes any.")
    ] = DEFAULT_CONTROLLER,
    store: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="SQLite file, or :memory:  [default: $XDG_STATE_HOME/wiresum/controller.sqlite]",
        ),
    ] = "",
    switch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,…",
            help="Add a switch: the options of `switch add` in one string, such as "
            "name=s1,p4runtime=127.0.0.1:9559,address=127.0.0.1:5555,host=0.0.0.0/0=1",
        ),
    ] = None,
    expiry: Annotated[
        float, typer.Option(min=0.5, help="Seconds of silence after which a job's lease ends.")
    ] = 30.0,
    plaintext: Annotated[
        bool,
        typer.Option("--plaintext", help="Serve without TLS: on a loopback address only."),
    ] = False,
    tls_dir: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Where the generated CA and certificate live  [default: tls, beside the store]",
        ),
    ] = "",
    tls_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Another name or address that clients use for this controller."
        ),
    ] = None,
    tls_cert: Annotated[
        str, typer.Option(metavar="FILE", help="Your own certificate (chain), PEM.")
    ] = "",
    tls_key: Annotated[str, typer.Option(metavar="FILE", help="Its key, PEM.")] = "",
    client_ca: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="Clients must show a certificate that this authority has signed."
        ),
    ] = "",
    p4runtime_ca: P4RuntimeCa = "",
    p4runtime_cert: P4RuntimeCert = "",
    p4runtime_key: P4RuntimeKey = "",
    new_admin_token: Annotated[
        bool,
        typer.Option("--new-admin-token", help="Make another admin token; write it to its file."),
    ] = False,
    exit_with_parent: Annotated[
        bool, typer.Option("--exit-with-parent", help="End when the process that started this does")
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Serve Prometheus metrics there (port 0: any)."),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(
            metavar="text|json",
            help="How to log to stderr.  [default: WIRESUM_LOG_FORMAT, or text]",
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more to stderr.")] = False,
) -> None:
    """Serve until SIGTERM or SIGINT; prints its address as one line of JSON when ready."""
    # Only this command needs the store and finsy; they take a second to import.
    from wiresum.controller.api.security import ADMIN_TOKEN_VARIABLE, Security
    from wiresum.controller.api.server import ServeOptions, configure_logging, parse_store
    from wiresum.controller.api.server import serve as run
    from wiresum.controller.rules.jobs import Limits
    from wiresum.controller.southbound.loop import LoopOptions
    from wiresum.controller.southbound.switch_tls import SwitchTls

    configure_logging(logs.log_format(log_format), verbose=verbose)
    run(
        ServeOptions(
            listen=listen,
            store=parse_store(store),
            switches=[parse_switch(text) for text in switch or ()],
            exit_with_parent=exit_with_parent,
            metrics=metrics,
            security=Security(
                plaintext=plaintext,
                tls_dir=tls_dir,
                tls_names=tls_name or (),
                tls_cert=tls_cert,
                tls_key=tls_key,
                client_ca=client_ca,
                admin_token=os.environ.get(ADMIN_TOKEN_VARIABLE, ""),
                new_admin_token=new_admin_token,
            ),
            limits=Limits(heartbeat_s=expiry / 6, expiry_s=expiry),
            loop=LoopOptions(tls=SwitchTls(p4runtime_ca, p4runtime_cert, p4runtime_key)),
        )
    )


@controller_app.command("certificate")
def certificate(
    name: Annotated[str, typer.Argument(help="Whose certificate; becomes the files' name.")],
    tls_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the controller's CA lives  [default: that of this user's own controller]",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write it.")] = Path(),
) -> None:
    """Make a client certificate with the generated CA, for a controller with --client-ca."""
    from wiresum.controller.api.certificates import issue_client
    from wiresum.controller.rules.checks import check_name

    check_name(name, "certificate")
    folder = expand(tls_dir) if tls_dir is not None else default_ca_file().parent
    files = issue_client(folder, name.replace("/", "-"), expand(out))
    print(f"certificate {files.cert}, key {files.key}")


def main() -> None:
    """``python -m wiresum.controller``: the controller's commands without the others."""
    app = typer.Typer(no_args_is_help=True, add_completion=False)
    app.add_typer(controller_app, name="controller")
    app.add_typer(switch_app, name="switch")
    app.add_typer(job_app, name="job")
    app.add_typer(tenant_app, name="tenant")
    app.command()(slots)
    command_line.main(app)
