"""The tables of the rules across the fleet. Triggers move what is in them (`migrations`, 0029).

`job_rules` says what was set at run time, `job_limits` has a row for each rule that holds or held a job (of a task, a
tenant, a key, a queue), `job_holds` a row for each rule of a job that has not ended. Jobs without rules have none.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from jobbridge.store.jobs.tables import metadata

_NOW = sa.text("clock_timestamp()")
_CHURNING = {
    "fillfactor": 70,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 1000,
}

# Set at run time, for all jobs of a task or a queue: it goes before what the code declares.
job_rules = sa.Table(
    "job_rules",
    metadata,
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("per", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),  # the task's name, or the queue's
    sa.Column("allowed", sa.Integer, nullable=False),
    sa.Column("period", sa.Interval),
    sa.Column("is_fair", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.Column("ageing", sa.Interval),  # after so long it counts as one priority more
    sa.Column("weights", JSONB),  # of tenants; 1 where there is none
    sa.Column("set_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.PrimaryKeyConstraint("name", name="job_rules_pkey"),
    info={"is_local": True},
)

# What is locked for a decision, and for no longer than the commit takes.
job_limits = sa.Table(
    "job_limits",
    metadata,
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("rank", sa.SmallInteger, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("allowed", sa.Integer, nullable=False),
    sa.Column("period", sa.Interval),
    sa.Column("next_at", sa.DateTime(timezone=True)),  # of a rate: the first instant that is free
    sa.Column("is_fair", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.Column("weights", JSONB),
    sa.Column("passed", sa.Double, nullable=False, server_default=sa.text("0")),  # virtual time
    sa.Column("is_set", sa.Boolean, nullable=False, server_default=sa.text("false")),  # at run time
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.PrimaryKeyConstraint("rule", name="job_limits_pkey"),
    postgresql_with=_CHURNING,
    info={"is_local": True},
)

# A job passes its rules one after the other: it is `running` at those that let it through, waits at one, and comes to
# the others `later`. `passed`: its message was not there, or somebody had it; looked at again.
job_holds = sa.Table(
    "job_holds",
    metadata,
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("job_id", sa.Uuid, nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("rank", sa.SmallInteger, nullable=False),
    sa.Column("task_id", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("priority", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("place", sa.Double),
    sa.Column("sequence", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("allowed", sa.Integer, nullable=False),
    sa.Column("period", sa.Interval),
    sa.Column("is_fair", sa.Boolean, nullable=False, server_default=sa.text("false")),
    sa.Column("due_at", sa.DateTime(timezone=True)),  # on Temporal: from when on it stands in line
    sa.Column("slot_at", sa.DateTime(timezone=True)),  # its message is due then, by a rate or of itself
    sa.Column("held_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("admitted_at", sa.DateTime(timezone=True)),
    sa.PrimaryKeyConstraint("job_id", "tenant", "rule", name="job_holds_pkey"),
    sa.CheckConstraint("state IN ('later', 'waiting', 'running', 'passed')", name="job_holds_state_check"),
    postgresql_with=_CHURNING,
)
_IS_WAITING = job_holds.c.state == "waiting"
sa.Index(
    "job_holds_waiting_idx",
    job_holds.c.rule,
    job_holds.c.priority.desc(),
    job_holds.c.place,
    job_holds.c.sequence,
    job_holds.c.tenant,
    postgresql_where=_IS_WAITING,
)
sa.Index(
    "job_holds_fair_idx",
    job_holds.c.rule,
    job_holds.c.tenant,
    job_holds.c.place,
    postgresql_where=_IS_WAITING & job_holds.c.is_fair,
)
sa.Index(
    "job_holds_new_idx",
    job_holds.c.rule,
    job_holds.c.sequence,
    job_holds.c.tenant,
    postgresql_where=_IS_WAITING & job_holds.c.is_fair & job_holds.c.place.is_(None),
)
sa.Index(
    "job_holds_running_idx",
    job_holds.c.rule,
    job_holds.c.tenant,
    postgresql_where=job_holds.c.state == "running",
)
sa.Index(
    "job_holds_later_idx",
    job_holds.c.task_id,
    job_holds.c.tenant,
    postgresql_where=job_holds.c.state == "later",
)

sa.Index(
    "job_holds_due_idx",
    job_holds.c.due_at,
    job_holds.c.tenant,
    postgresql_where=(job_holds.c.state == "later") & job_holds.c.due_at.is_not(None),
)

# Empty but within a transaction: which rules it has to look at before it commits.
job_rule_changes = sa.Table(
    "job_rule_changes",
    metadata,
    sa.Column("transaction", sa.BigInteger, nullable=False),
    sa.Column("rank", sa.SmallInteger, nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("kind", sa.Text),
    sa.Column("allowed", sa.Integer),
    sa.Column("period", sa.Interval),
    sa.Column("is_fair", sa.Boolean),
    sa.PrimaryKeyConstraint("transaction", "rank", "rule", name="job_rule_changes_pkey"),
    prefixes=["UNLOGGED"],
    postgresql_with=_CHURNING,
    info={"is_local": True},
)
