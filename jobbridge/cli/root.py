"""The group of commands. Each is imported when it is called, so that `jobbridge --help` is quick and needs no extra."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module

import click

from jobbridge import __version__
from jobbridge.cli.app_option import app_option_of_group
from jobbridge.cli.failures import report

#: Name → module, and the line in `--help`.
_COMMANDS = {
    "batches": ("jobbridge.cli.batches", "List, show and cancel batches."),
    "codec-server": ("jobbridge.cli.codec_server", "Decrypt payloads for Temporal's web UI."),
    "cutover": (
        "jobbridge.cli.cutover",
        "Move waiting jobs and schedules to the other engine, or from an old broker here.",
    ),
    "dashboard": ("jobbridge.cli.dashboard", "Serve the dashboard and its API."),
    "demo": (
        "jobbridge.cli.demo",
        "Run the twelve shipped handlers on both engines, and show what they made.",
    ),
    "dev": ("jobbridge.cli.dev", "Start Postgres, Temporal, beat and workers here, until Ctrl-C."),
    "doctor": ("jobbridge.cli.doctor", "Show every setting and its source, and what can be reached."),
    "enqueue": ("jobbridge.cli.enqueue", "Send a job by its handler's name."),
    "events": ("jobbridge.cli.events", "Send what jobs wait for; list events; make links to answer by."),
    "explain": ("jobbridge.cli.explain", "Say why a job does not run, and what to do."),
    "handlers": ("jobbridge.cli.handlers", "List what this app can run."),
    "jobs": ("jobbridge.cli.jobs", "List, show, cancel, retry and watch jobs."),
    "keys": ("jobbridge.cli.keys", "Make a key for encryption; see which keys are in use."),
    "maintain": (
        "jobbridge.cli.maintain",
        "Run the services that look after jobs: deliver, free, repair, delete.",
    ),
    "migrate": ("jobbridge.cli.migrate", "Make or update the tables."),
    "queues": ("jobbridge.cli.queues", "List, pause and resume queues."),
    "rules": ("jobbridge.cli.rules", "List, set and remove rules across the fleet."),
    "schedules": (
        "jobbridge.cli.schedules",
        "List, show, create, pause, resume, run, backfill, delete and import schedules.",
    ),
    "temporal-setup": ("jobbridge.cli.temporal_setup", "Add the search attributes of jobs to Temporal."),
    "tenants": ("jobbridge.cli.tenants", "List, suspend, resume and purge tenants."),
    "tokens": ("jobbridge.cli.tokens", "Make, list and revoke tokens of the dashboard and its API."),
    "temporal-worker": ("jobbridge.cli.temporal_worker", "Run jobs that Temporal delivers."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(_COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings come from the environment; `jobbridge doctor` shows them.",
)
@app_option_of_group
@click.version_option(__version__, prog_name="jobbridge")
@click.option("--debug", is_flag=True, help="Show the traceback of an error (also: JOBBRIDGE_DEBUG=1).")
def jobbridge(debug: bool) -> None:
    """Celery tasks on two engines: Postgres alone, or Temporal. One jobs table for both."""


def run(arguments: Sequence[str], *, prog_name: str = "jobbridge") -> int:
    """Run the command and give its exit code; errors are told on stderr."""
    is_debug = "--debug" in arguments or bool(os.environ.get("JOBBRIDGE_DEBUG"))
    try:
        code = jobbridge.main(args=list(arguments), prog_name=prog_name, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 130
    except BrokenPipeError:
        return 0  # `jobbridge jobs list | head`
    except Exception as error:
        return report(error, is_debug=is_debug)
