"""Which release a worker is of, and up to which migration it knows: so the next one can tell who goes on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017_releases"
down_revision = "0016_presence"
branch_labels = None
depends_on = None
serves_since = "0014_relatives"  # two nullable columns


def upgrade() -> None:
    op.add_column("job_workers", sa.Column("release", sa.Text))
    op.add_column("job_workers", sa.Column("knows", sa.Text))


def downgrade() -> None:
    op.drop_column("job_workers", "knows")
    op.drop_column("job_workers", "release")
