from shop import app  # of which `invoice.send` is

from jobbridge import get_job_runner, job
from jobbridge.core.keys import SYSTEM_TENANT

runner = get_job_runner()
tenant, invoices = "acme", [{"number": "1"}, {"number": "2"}]


def tenants() -> list[str]:
    return ["acme"]
