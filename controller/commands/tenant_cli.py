"""Commands about tenants."""

from pathlib import Path
from typing import Annotated

import typer

from wiresum.common import private
from wiresum.common.places import expand
from wiresum.controller.client.address import DEFAULT_CONTROLLER
from wiresum.controller.commands import tables
from wiresum.controller.commands.options import Ca, Controller, Json, TokenFile, connect
from wiresum.controller.errors import OptionError
from wiresum.controller.rules.checks import MAX_LIMIT, MAX_PRIORITY
from wiresum.controller.v1 import controller_pb2 as pb

tenant_app = typer.Typer(
    help="Tenants: who may use the switches, and how much of them.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="Which tenant.")]
Save = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the token there, for its owner only; print it not."),
]
Slots = Annotated[
    int | None,
    typer.Option(min=0, max=MAX_LIMIT, help="Slots of all its jobs together; 0: no limit."),
]
Jobs = Annotated[int | None, typer.Option(min=0, max=MAX_LIMIT, help="Live jobs; 0: no limit.")]
Priority = Annotated[
    int | None,
    typer.Option(
        min=-MAX_PRIORITY,
        max=MAX_PRIORITY,
        help="Higher goes first, and may shrink the jobs of lower ones.",
    ),
]


@tenant_app.callback()
def _tenant() -> None:
    """Tenants: who may use the switches, and how much of them."""


@tenant_app.command("add")
def tenant_add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    slots: Slots = 0,
    jobs: Jobs = 0,
    priority: Priority = 0,
    save: Save = None,
    controller: Controller = DEFAULT_CONTROLLER,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Add a tenant. Its token is shown now and never again."""
    with connect(controller, token_file, ca) as client:
        tenant = client.add_tenant(
            name, slot_quota=slots or 0, max_jobs=jobs or 0, priority=priority or 0
        )
    _show_token(tenant, "added", save, as_json)


@tenant_app.command("list")
def tenant_list(
    controller: Controller = DEFAULT_CONTROLLER,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """List the tenants, their limits and what they use. A tenant sees itself."""
    with connect(controller, token_file, ca) as client:
        tenants = client.list_tenants()
    if as_json:
        tables.print_json(tenants)
    else:
        tables.console().print(tables.tenant_table(tenants))


@tenant_app.command("set")
def tenant_set(
    name: Name,
    slots: Slots = None,
    jobs: Jobs = None,
    priority: Priority = None,
    controller: Controller = DEFAULT_CONTROLLER,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Change a tenant's limits or priority. What runs is not touched."""
    if slots is None and jobs is None and priority is None:
        raise OptionError("nothing to set: give --slots, --jobs or --priority")
    with connect(controller, token_file, ca) as client:
        tenant = client.set_tenant(name, slot_quota=slots, max_jobs=jobs, priority=priority)
    if as_json:
        tables.print_json(tenant)
    else:
        print(
            f"tenant {tenant.name} has {tenant.slot_quota or 'any number of'} slots, "
            f"{tenant.max_jobs or 'any number of'} jobs, priority {tenant.priority}"
        )


@tenant_app.command("rotate")
def tenant_rotate(
    name: Name,
    save: Save = None,
    controller: Controller = DEFAULT_CONTROLLER,
    token_file: TokenFile = None,
    ca: Ca = None,
    as_json: Json = False,
) -> None:
    """Give a tenant another token: the one before is worth nothing from then on."""
    with connect(controller, token_file, ca) as client:
        tenant = client.rotate_tenant_token(name)
    _show_token(tenant, "has another token", save, as_json)


@tenant_app.command("remove")
def tenant_remove(
    name: Name,
    evict: Annotated[bool, typer.Option("--evict", help="End its live jobs first.")] = False,
    controller: Controller = DEFAULT_CONTROLLER,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Forget a tenant; its token is worth nothing from then on."""
    with connect(controller, token_file, ca) as client:
        client.remove_tenant(name, evict=evict)
    print(f"tenant {name} removed")


def _show_token(tenant: pb.Tenant, what: str, save: Path | None, as_json: bool) -> None:
    if save is not None:
        _save(save, tenant)
    if save is not None and as_json:
        tables.print_json(tenant)
    elif save is not None:
        print(f"tenant {tenant.name} {what}: its token is in {save}")
    elif as_json:
        tables.print_json(tenant, secrets=True)
    else:
        print(f"tenant {tenant.name} {what}; its token, which is not shown again:\n{tenant.token}")


def _save(path: Path, tenant: pb.Tenant) -> None:
    path = expand(path)
    try:
        private.write(path, f"{tenant.token}\n".encode())
    except OSError as error:
        # It must not be lost: the controller does not know it any more.
        raise OptionError(
            f"{path} cannot be written ({error.strerror}); the token of tenant {tenant.name} is "
            f"{tenant.token}"
        ) from None
