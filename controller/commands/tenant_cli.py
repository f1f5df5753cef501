"""Commands about tenants."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from wiresum.common.command_line import Argument, Option
from wiresum.common.places import expand
from wiresum.controller import lines
from wiresum.controller.commands.options import THIS_USERS, ControllerOptions, Json
from wiresum.controller.errors import OptionError
from wiresum.controller.rules.checks import MAX_LIMIT, MAX_PRIORITY

if TYPE_CHECKING:
    from wiresum.controller.v1 import controller_pb2 as pb

Name = Annotated[str, Argument(help="Which tenant.")]
Save = Annotated[
    Path | None,
    Option(
        metavar="FILE",
        help="Write the token to FILE, readable by its owner only, instead of printing it.",
    ),
]
Slots = Annotated[
    int | None,
    Option(min=0, max=MAX_LIMIT, help="Slots of all its jobs together; 0: no limit."),
]
Jobs = Annotated[int | None, Option(min=0, max=MAX_LIMIT, help="Live jobs; 0: no limit.")]
Priority = Annotated[
    int | None,
    Option(
        min=-MAX_PRIORITY,
        max=MAX_PRIORITY,
        help="Jobs of a higher priority go first, and may shrink jobs of lower ones.",
    ),
]


def tenant_add(
    name: Annotated[str, Argument(help="Name of the tenant.")],
    slots: Slots = 0,
    jobs: Jobs = 0,
    priority: Priority = 0,
    save: Save = None,
    asked: ControllerOptions = THIS_USERS,
    as_json: Json = False,
) -> None:
    """Add a tenant. Its token is shown now and never again."""
    with asked.connect() as client:
        tenant = client.add_tenant(
            name, slot_quota=slots or 0, max_jobs=jobs or 0, priority=priority or 0
        )
    _show_token(tenant, "added", save, as_json)


def tenant_list(
    asked: ControllerOptions = THIS_USERS,
    as_json: Json = False,
) -> None:
    """List the tenants, their limits and what they use. A tenant sees itself."""
    from wiresum.controller.commands import tables

    with asked.connect() as client:
        tenants = client.list_tenants()
    if as_json:
        tables.print_json(tenants)
    else:
        tables.console().print(tables.tenant_table(tenants))


def tenant_set(
    name: Name,
    slots: Slots = None,
    jobs: Jobs = None,
    priority: Priority = None,
    asked: ControllerOptions = THIS_USERS,
    as_json: Json = False,
) -> None:
    """Change a tenant's limits or priority. Running jobs stay as they are."""
    from wiresum.controller.commands import tables

    if slots is None and jobs is None and priority is None:
        raise OptionError(lines.NOTHING_TO_SET.of())
    with asked.connect() as client:
        tenant = client.set_tenant(name, slot_quota=slots, max_jobs=jobs, priority=priority)
    if as_json:
        tables.print_json(tenant)
    else:
        print(
            f"tenant {tenant.name} has {tenant.slot_quota or 'any number of'} slots, "
            f"{tenant.max_jobs or 'any number of'} jobs, priority {tenant.priority}"
        )


def tenant_rotate(
    name: Name,
    save: Save = None,
    asked: ControllerOptions = THIS_USERS,
    as_json: Json = False,
) -> None:
    """Give a tenant another token; the old one is not valid any more."""
    with asked.connect() as client:
        tenant = client.rotate_tenant_token(name)
    _show_token(tenant, "has another token", save, as_json)


def tenant_remove(
    name: Name,
    evict: Annotated[bool, Option("--evict", help="End its live jobs first.")] = False,
    asked: ControllerOptions = THIS_USERS,
) -> None:
    """Forget a tenant; its token is not valid any more."""
    with asked.connect() as client:
        client.remove_tenant(name, evict=evict)
    print(f"tenant {name} removed")


def _show_token(tenant: "pb.Tenant", what: str, save: Path | None, as_json: bool) -> None:
    from wiresum.controller.commands import tables

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


def _save(path: Path, tenant: "pb.Tenant") -> None:
    from wiresum.common import private

    path = expand(path)
    try:
        private.write(path, f"{tenant.token}\n".encode())
    except OSError as error:
        # Do not lose the token: the controller does not keep it.
        raise OptionError(
            lines.TOKEN_NOT_WRITTEN.of(
                path=path, why=error.strerror, tenant=tenant.name, token=tenant.token
            )
        ) from None
