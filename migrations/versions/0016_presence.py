"""Which process a consumer is, when somebody last looked for the dead, and workers that got stuck.

Only adds what may be null or is new: the release before works on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016_presence"
down_revision = "0015_open_jobs"
branch_labels = None
depends_on = None
serves_since = "0014_relatives"

SCHEMA = "jobbridge_broker"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE jobbridge_broker.consumers
            ADD COLUMN boot_id text, ADD COLUMN pid_namespace text,
            ADD COLUMN process_began bigint, ADD COLUMN proven_at timestamptz
    """)
    op.create_table(
        "sweeps",
        sa.Column("only_one", sa.Boolean, nullable=False),
        _instant("server_started_at"),
        _instant("swept_at"),
        _instant("grace_until"),
        sa.PrimaryKeyConstraint("only_one", name="sweeps_pkey"),
        schema=SCHEMA,
    )
    op.create_table(
        "job_stuck_workers",
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("number", name="job_stuck_workers_pkey"),
    )


def downgrade() -> None:
    op.drop_table("job_stuck_workers")
    op.drop_table("sweeps", schema=SCHEMA)
    for column in ("boot_id", "pid_namespace", "process_began", "proven_at"):
        op.drop_column("consumers", column, schema=SCHEMA)


def _instant(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)
