"""What holds for all our tables of a database, whichever migration made them.

`conform` runs within the transaction of each step upwards: what the step made follows the rules that this database has
already. `separate` and `distribute` make such rules.

Row-level security: a role sees and writes the rows of the tenant that its session names in `app.current_tenant`, and
none if it names none; of what belongs to the installation (tokens, links, secrets, the audit, workers, messages of all
tenants) it sees and writes nothing, whatever it was granted. Roles that serve all tenants (workers, whoever migrates)
have a policy of their own: that needs neither a superuser nor BYPASSRLS, and FORCE holds for the owner too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

from psycopg import sql

from jobbridge.errors import ConfigurationError
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.postgres.schema.rendering import qualified, rendered

#: Our tables in schema public that have a tenant, whether they are there yet or not. A test holds it complete.
TENANT_TABLES = (
    "jobs",
    "job_details",
    "job_keys",
    "job_chords",
    "job_waits",
    "job_inbox",
    "job_batches",
    "job_singletons",
    "job_holds",
    "job_schedules",
    "job_schedule_fires",
    "job_retention",
    "job_suspensions",
    "job_families",
    "job_family_members",
    "job_counts",
    "job_hours",
    "job_count_changes",
    "job_flow",
)

#: Our tables that belong to the installation: with row-level security they are for roles that serve all tenants.
SERVICE_TABLES = (
    "public.job_tokens",
    "public.job_audit",
    "public.job_links",
    "public.job_requests",
    "public.job_signouts",
    "public.job_secrets",
    "public.job_workers",
    "public.job_stuck_workers",
    "public.job_queue_pauses",
    "public.job_services",
    "public.job_awaiters",
    "public.job_followers",
    "public.job_rules",
    "public.job_limits",
    "public.job_rule_changes",
    "public.job_flow_totals",
    "public.job_events",
    "public.job_watchers",
    "jobbridge_broker.messages",
    "jobbridge_broker.dead_letters",
    "jobbridge_broker.queues",
    "jobbridge_broker.exchanges",
    "jobbridge_broker.bindings",
    "jobbridge_broker.consumers",
    "jobbridge_broker.sweeps",
    "jobbridge_broker.subscriptions",
)

#: Our tables that say nothing of anybody: which migrations were made. Each table that there is must be in one of the
#: three lists; a test holds that, so that a new one is decided about.
OPEN_TABLES = ("public.jobbridge_version", "public.jobbridge_revisions")

#: Columns that name a tenant by another type than `jobs` does. Only a table that was just made has such: it is empty.
_OTHER_TENANTS: LiteralString = """
SELECT other.attrelid::regclass::text, other.attname, format_type(ours.atttypid, ours.atttypmod)
FROM pg_attribute AS other JOIN pg_attribute AS ours ON ours.atttypid <> other.atttypid
WHERE ours.attrelid = to_regclass('public.jobs') AND ours.attname = 'tenant'
  AND other.attname ~ '^(.*_)?tenant$' AND NOT other.attisdropped
  AND other.attrelid IN (SELECT to_regclass('public.' || name) FROM unnest(%(tables)s::text[]) AS name)
"""

_EXISTING: LiteralString = """
SELECT name FROM unnest(%(tables)s::text[]) AS name WHERE to_regclass('public.' || name) IS NOT NULL
"""

_SERVICE_ROLES: LiteralString = """
SELECT array_agg(role::regrole::text) FROM pg_policy, unnest(polroles) AS role
WHERE polrelid = to_regclass('public.jobs') AND polname = 'jobbridge_services'
"""

_KNOWN_ROLES: LiteralString = "SELECT rolname FROM pg_roles WHERE rolname = ANY(%(roles)s)"

_SEPARATED: LiteralString = """
SELECT schemaname || '.' || tablename FROM pg_policies WHERE policyname = 'jobbridge_services'
"""

_THERE: LiteralString = (
    "SELECT name FROM unnest(%(tables)s::text[]) AS name WHERE to_regclass(name) IS NOT NULL"
)

_PARTITIONS: LiteralString = """
SELECT 'public.' || relname
FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent IN (to_regclass('public.jobs'), to_regclass('public.job_details'))
ORDER BY relname
"""

#: Citus is there when its function is.
_HAS_CITUS: LiteralString = """
SELECT EXISTS (SELECT FROM pg_proc WHERE proname = 'create_distributed_table')
"""

_DISTRIBUTED: LiteralString = "SELECT logicalrelid::regclass::text FROM pg_dist_partition"

_DISTRIBUTE: LiteralString = "SELECT create_distributed_table(%(table)s, 'tenant', colocate_with => %(with)s)"


def conform(connection: DriverConnection) -> None:
    """Make the tables alike: the tenant's type, row-level security and distribution are those of `jobs`.

    One type (uuid where the original's tables were taken over) means that no statement has to cast.

    Args:
        connection: In the transaction of the migration that may have made some.
    """
    others = connection.execute(_OTHER_TENANTS, {"tables": list(TENANT_TABLES)}).fetchall()
    for table, column, type_name in others:
        connection.execute(
            sql.SQL("ALTER TABLE {} ALTER {column} TYPE {type} USING {column}::text::{type}").format(
                sql.Identifier("public", table), column=sql.Identifier(column), type=sql.SQL(type_name)
            )
        )
    roles = service_roles(connection)
    if roles:
        done = {table for (table,) in connection.execute(_SEPARATED).fetchall()}
        for table in _guarded(connection):
            if table not in done:
                _separate(connection, table, roles)
    if "jobs" in _distributed(connection):
        distribute(connection)


# -- row-level security


def service_roles(connection: DriverConnection) -> list[str]:
    """Name the roles that see all tenants; none: row-level security is off."""
    [(roles,)] = connection.execute(_SERVICE_ROLES).fetchall()
    return list(roles or [])


def separate(connection: DriverConnection, roles: Sequence[str] = ()) -> list[str]:
    """Switch row-level security on, or change the roles that see all tenants.

    Args:
        connection: In a transaction; its role must own the tables.
        roles: Roles that see all tenants, beside the connection's own.

    Returns:
        These roles.

    Raises:
        ConfigurationError: There is no role of that name.
    """
    [(own,)] = connection.execute("SELECT current_user::text").fetchall()
    wanted = sorted({own, *roles})
    known = {role for (role,) in connection.execute(_KNOWN_ROLES, {"roles": wanted}).fetchall()}
    if unknown := [role for role in wanted if role not in known]:
        raise ConfigurationError(
            f"There is no role {', '.join(map(repr, unknown))} in this Postgres.",
            hint="Create it first: CREATE ROLE … LOGIN; or name the role of the workers' DATABASE_URL.",
        )
    for table in _guarded(connection):
        _separate(connection, table, [sql.Identifier(role).as_string(connection) for role in wanted])
    return wanted


def unite(connection: DriverConnection) -> None:
    """Switch row-level security off."""
    for table in _guarded(connection):
        name = sql.Identifier(*table.split("."))
        for policy in ("jobbridge_tenant", "jobbridge_services"):
            connection.execute(sql.SQL("DROP POLICY IF EXISTS {} ON {}").format(sql.Identifier(policy), name))
        off = "ALTER TABLE {} NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY"
        connection.execute(sql.SQL(off).format(name))


def _separate(connection: DriverConnection, table: str, roles: Sequence[str]) -> None:
    """Set the policies of one table; `roles` are written as SQL names. Whom none is for sees and writes nothing."""
    name = sql.Identifier(*table.split("."))
    everybody = sql.SQL(", ").join(map(sql.SQL, roles))
    policies: list[tuple[str, sql.Composable, sql.Composable]] = [
        ("jobbridge_services", everybody, sql.SQL("true"))
    ]
    # Of a partition by its own name, too, only who serves all tenants sees anything; others ask the whole.
    if table.rpartition(".")[2] in TENANT_TABLES:
        policies.append(("jobbridge_tenant", sql.SQL("PUBLIC"), _is_mine(connection, table)))
    for policy, to, rows in policies:
        connection.execute(sql.SQL("DROP POLICY IF EXISTS {} ON {}").format(sql.Identifier(policy), name))
        connection.execute(
            sql.SQL("CREATE POLICY {} ON {} TO {} USING ({rows}) WITH CHECK ({rows})").format(
                sql.Identifier(policy), name, to, rows=rows
            )
        )
    on = "ALTER TABLE {} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
    connection.execute(sql.SQL(on).format(name))


def _is_mine(connection: DriverConnection, table: str) -> sql.Composed:
    """Write the condition that a row is of the session's tenant."""
    [(type_name,)] = connection.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = to_regclass(%s) AND attname = 'tenant'",
        [table],
    ).fetchall()
    # A setting that was made for a transaction is an empty string after it.
    mine = "tenant = nullif(current_setting('app.current_tenant', true), '')::{}"
    return sql.SQL(mine).format(sql.SQL(type_name))


def _guarded(connection: DriverConnection) -> list[str]:
    """Name the tables that have policies, with their schemas."""
    service = [rendered(table, connection) for table in SERVICE_TABLES]
    there = connection.execute(_THERE, {"tables": service}).fetchall()
    whole = [qualified(connection, table) for table in _existing(connection)] + [table for (table,) in there]
    return whole + [part for (part,) in connection.execute(_PARTITIONS).fetchall()]


# -- distribution by tenant


def distribute(connection: DriverConnection) -> list[str]:
    """Distribute our tables by tenant; does nothing on a Postgres without Citus.

    Returns:
        The tables that were distributed now.
    """
    [(has_citus,)] = connection.execute(_HAS_CITUS).fetchall()
    if not has_citus:
        return []
    done = _distributed(connection)
    now = [table for table in _existing(connection) if table not in done]
    for table in now:
        colocated = "default" if table == "jobs" else "jobs"
        connection.execute(_DISTRIBUTE, {"table": qualified(connection, table), "with": colocated})
    return now


def is_distributed(connection: DriverConnection) -> bool:
    """Whether Citus has the jobs."""
    return "jobs" in _distributed(connection)


def _distributed(connection: DriverConnection) -> set[str]:
    [(is_citus,)] = connection.execute("SELECT to_regclass('pg_dist_partition')").fetchall()
    if is_citus is None:
        return set()
    return {table for (table,) in connection.execute(_DISTRIBUTED).fetchall()}


def _existing(connection: DriverConnection) -> list[str]:
    return [table for (table,) in connection.execute(_EXISTING, {"tables": list(TENANT_TABLES)}).fetchall()]
