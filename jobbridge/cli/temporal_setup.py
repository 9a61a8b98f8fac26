"""`jobbridge temporal-setup`."""

from __future__ import annotations

import click

from jobbridge.cli.common import app_option, json_option, load_app, write_json
from jobbridge.core.keys import Engine
from jobbridge.errors import DatabaseError, EngineUnavailable


@click.command("temporal-setup")
@app_option
@json_option
def command(app_name: str | None, as_json: bool) -> None:
    """Add the search attributes of jobs to the namespace: tenant, job name, job id, root id. Again is harmless.

    Schedules that Temporal has already are told to it again, with them.
    """
    app = load_app(app_name)
    app.delivery(Engine.TEMPORAL)  # says which extra is missing
    from temporalio.service import RPCError

    from jobbridge.store.schedules.mirrors import MirrorStore
    from jobbridge.temporal.wire import search_attributes
    from jobbridge.temporal.wire.client import TemporalClient

    client = TemporalClient(app.settings)
    try:
        client.check_namespace()
        added = client.call(search_attributes.register)
    except (RPCError, TimeoutError) as error:
        raise EngineUnavailable(
            f"Temporal did not add the search attributes: {error or 'no answer in time'}.",
            hint="Ask whoever operates the namespace to add them as keywords: "
            + ", ".join(key.name for key in search_attributes.ALL)
            + ".",
        ) from error
    finally:
        client.close()
    if added:
        try:
            MirrorStore(app.database).tell_again()
        except DatabaseError as error:
            click.echo(f"Temporal has its Schedules without them until they are changed: {error}", err=True)
    if as_json:
        write_json({"added": added})
        return
    click.echo(f"Added: {', '.join(added)}." if added else "All search attributes are there.")
