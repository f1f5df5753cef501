"""The controller's commands by name. To import this table imports no command."""

from wiresum.common.command_line import Command, Group

_HERE = "wiresum.controller.commands"

SLOTS = Command(f"{_HERE}.job_cli:slots", "Show who holds which slots.")

TOP = Command(
    f"{_HERE}.top_cli:top",
    "Watch switches, jobs and ranks, and which ranks the others wait for; until Ctrl-C.",
)

CONTROLLER = Group(
    "The controller: shares the slots of its switches among jobs.",
    {
        "serve": Command(
            f"{_HERE}.cli:serve",
            "Serve until SIGTERM or SIGINT; prints its address as one line of JSON when ready.",
        ),
        "certificate": Command(
            f"{_HERE}.cli:certificate",
            "Make a client certificate with the generated CA, for a controller with --client-ca.",
        ),
    },
)

SWITCH = Group(
    "Switches that the controller drives.",
    {
        "add": Command(
            f"{_HERE}.switch_cli:switch_add",
            "Add a switch, or change what is known of it. The controller takes it over at once.",
        ),
        "deploy": Command(
            f"{_HERE}.switch_cli:switch_deploy",
            "Load the switch program into any P4Runtime switch; print what was found there.",
        ),
        "list": Command(
            f"{_HERE}.switch_cli:switch_list", "List the switches, and whether they are up."
        ),
        "drain": Command(
            f"{_HERE}.switch_cli:switch_drain",
            "Give a switch no new jobs; its jobs go on. Prints how many it has.",
        ),
        "undrain": Command(
            f"{_HERE}.switch_cli:switch_undrain", "Give a drained switch new jobs again."
        ),
        "remove": Command(
            f"{_HERE}.switch_cli:switch_remove", "Forget a switch that no live job uses."
        ),
    },
)

JOB = Group(
    "Jobs: what runs, and what the switches counted for it.",
    {
        "list": Command(f"{_HERE}.job_cli:job_list", "List the jobs, newest first."),
        "show": Command(
            f"{_HERE}.job_cli:job_show",
            "Show one job: its ranks, its lease and the switch's counters for it.",
        ),
        "park": Command(
            f"{_HERE}.job_cli:job_park",
            "Let other jobs have a running job's slots, until it is unparked.",
        ),
        "unpark": Command(
            f"{_HERE}.job_cli:job_unpark",
            "Give a parked job its slots back, as soon as others have made way.",
        ),
        "evict": Command(
            f"{_HERE}.job_cli:job_evict",
            "End a job, or take it out of the queue: a tenant its own, the admin anyone's.",
        ),
    },
)

TENANT = Group(
    "Tenants: who may use the switches, and how much of them.",
    {
        "add": Command(
            f"{_HERE}.tenant_cli:tenant_add",
            "Add a tenant. Its token is shown now and never again.",
        ),
        "list": Command(
            f"{_HERE}.tenant_cli:tenant_list",
            "List the tenants, their limits and what they use. A tenant sees itself.",
        ),
        "set": Command(
            f"{_HERE}.tenant_cli:tenant_set",
            "Change a tenant's limits or priority. Running jobs stay as they are.",
        ),
        "rotate": Command(
            f"{_HERE}.tenant_cli:tenant_rotate",
            "Give a tenant another token; the old one is not valid any more.",
        ),
        "remove": Command(
            f"{_HERE}.tenant_cli:tenant_remove",
            "Forget a tenant; its token is not valid any more.",
        ),
    },
)

ALONE = Group(
    "The controller's commands.",
    {
        "controller": CONTROLLER,
        "switch": SWITCH,
        "job": JOB,
        "tenant": TENANT,
        "slots": SLOTS,
    },
)
"""The commands of ``python -m wiresum.controller``."""
