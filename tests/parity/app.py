"""What the workers of the parity tests serve."""

from tests.parity.tasks import make_app

app = make_app(
    include=[
        "tests.parity.tasks",
        "tests.parity.canvas_tasks",
        "tests.parity.fan_out_tasks",
        "tests.parity.tenancy_tasks",
        "tests.parity.result_tasks",
        "tests.parity.batch_tasks",
        "tests.parity.feature_tasks",
        "tests.parity.async_tasks",
        "tests.parity.own_pool",
        "tests.parity.mixed_tasks",
        "tests.parity.size_tasks",
        "tests.parity.secret_tasks",
        "tests.parity.waiting_tasks",
        "tests.parity.durable_tasks",
        "tests.parity.dead_tasks",
        "tests.parity.import_tasks",
        "tests.parity.rules_tasks",
    ]
)
