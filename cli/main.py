"""Builds the command ``wiresum`` from the packages' commands and runs it.

Every error that wiresum raises on purpose ends as one line on stderr and a non-zero exit status,
never as a traceback.
"""

import os
from typing import Annotated

import typer

# gRPC's C core logs beside our one line, for instance when a port is in use.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from wiresum.common import command_line
from wiresum.common.version import package_version
from wiresum.controller.commands import cli as controller
from wiresum.controller.commands.top_cli import top
from wiresum.host_agent import cli as host_agent
from wiresum.measure.attack import cli as attack
from wiresum.measure.bench import cli as bench
from wiresum.measure.demo import cli as demo
from wiresum.measure.report import cli as report
from wiresum.softswitch import cli as softswitch
from wiresum.testbed import cli as testbed
from wiresum.testbed.conformance import cli as conformance


def _version(asked: bool) -> None:
    if asked:
        print(f"wiresum {package_version()}")
        raise typer.Exit


def _group(help_text: str) -> typer.Typer:
    return typer.Typer(help=help_text, no_args_is_help=True)


def build() -> typer.Typer:
    """The whole command."""
    app = typer.Typer(
        name="wiresum",
        help="In-network aggregation for distributed deep learning.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def root(
        version: Annotated[
            bool, typer.Option("--version", help="Say the version.", callback=_version)
        ] = False,
    ) -> None:
        """In-network aggregation for distributed deep learning."""

    app.command("run", context_settings=host_agent.RUN_SETTINGS)(host_agent.run)
    app.command("demo")(demo.demo)
    app.command("slots")(controller.slots)
    app.command("top")(top)
    app.command("pcap")(conformance.pcap)

    serve = _group("The controller: shares the slots of its switches among jobs.")
    serve.command("serve")(controller.serve)
    serve.command("certificate")(controller.certificate)
    app.add_typer(serve, name="controller")

    switch = _group("Switches: run the embedded one; tell the controller of others.")
    switch.command("serve")(softswitch.serve)
    switch.command("add")(controller.switch_add)
    switch.command("deploy")(controller.switch_deploy)
    switch.command("list")(controller.switch_list)
    switch.command("drain")(controller.switch_drain)
    switch.command("undrain")(controller.switch_undrain)
    switch.command("remove")(controller.switch_remove)
    app.add_typer(switch, name="switch")

    job = _group("Jobs: what runs, and what the switches counted for it.")
    job.command("list")(controller.job_list)
    job.command("show")(controller.job_show)
    job.command("evict")(controller.job_evict)
    app.add_typer(job, name="job")

    tenant = _group("Tenants: who may use the switches, and how much of them.")
    tenant.command("add")(controller.tenant_add)
    tenant.command("list")(controller.tenant_list)
    tenant.command("set")(controller.tenant_set)
    tenant.command("rotate")(controller.tenant_rotate)
    tenant.command("remove")(controller.tenant_remove)
    app.add_typer(tenant, name="tenant")

    rack = _group("Testbeds: racks of workers and a switch in network namespaces (needs root).")
    rack.command("up")(testbed.up)
    rack.command("down")(testbed.down)
    rack.command("exec", context_settings=testbed.EXEC_SETTINGS)(testbed.exec_)
    rack.command("train")(demo.train)
    rack.command("conformance")(conformance.conformance)
    app.add_typer(rack, name="testbed")

    benches = _group("Benchmarks: ratios, measured in one run on the same links (needs root).")
    benches.command("allreduce")(bench.allreduce)
    benches.command("flood")(attack.flood)
    benches.command("switch")(bench.switch)
    benches.command("engine")(bench.engine)
    benches.command("report")(report.report)
    app.add_typer(benches, name="bench")
    return app


def main() -> None:
    """Entry point of the command ``wiresum``."""
    command_line.main(build())


if __name__ == "__main__":
    main()
