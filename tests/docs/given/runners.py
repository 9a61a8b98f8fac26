from datetime import UTC, datetime, timedelta

from jobbridge import JobService
from jobbridge.bootstrap import default_app

default_app()
tenant, client = "acme", "northwind"
data = {"tenantId": tenant, "clientId": client, "periodStart": "2026-10-01", "periodEnd": "2026-10-31"}
ids = ["00000000-0000-4000-8000-000000000001"]
run_at = datetime.now(UTC) + timedelta(hours=1)
