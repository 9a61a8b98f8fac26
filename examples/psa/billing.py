"""An IT service provider bills its clients with the handlers that JobBridge ships (docs/handlers.md)."""

from jobbridge.bootstrap import default_app
from jobbridge.handlers.dataset import import_dataset

app = default_app()


def open_books(tenant: str) -> None:
    """Give a provider ten clients, and their October 2026."""
    with app.database.transaction() as connection:
        import_dataset(connection, tenant=tenant)


def bill(tenant: str, client: str):
    """Bill one client for October; gives the job."""
    return app.enqueue(
        "generate-invoice",
        {"clientId": client, "periodStart": "2026-10-01", "periodEnd": "2026-10-31"},
        tenant=tenant,
    )


def invoices_of(tenant: str) -> list[str]:
    """Name the clients that were billed."""
    with app.database.connection() as connection:
        rows = connection.execute("SELECT client_id FROM psa.invoices WHERE tenant = %s", [tenant])
        return [client for (client,) in rows]
