"""Jobs from SQL: `jobbridge.enqueue`, for triggers and for programs in other languages.

What it writes is what `jobbridge.app.publish` writes; a test compares the two. It runs with the rights of who calls it.
"""

from __future__ import annotations

from alembic import op

revision = "0020_enqueue"
down_revision = "0019_chords"
branch_labels = None
depends_on = None
serves_since = "0014_relatives"  # a function

#: `jobbridge.postgres.locks.WORKERS`: a worker holds the lock of its number for as long as it lives.
_WORKERS = 0x4A57 << 48

#: `jobbridge.broker.routing.CHANNEL_OF_QUEUE`.
_CHANNEL = "'jb_' || left(encode(sha256(convert_to(enqueue.queue, 'UTF8')), 'hex'), 40)"

_ENQUEUE = f"""
CREATE FUNCTION jobbridge.enqueue(
    task text,
    args jsonb DEFAULT NULL,
    queue text DEFAULT 'celery',
    run_at timestamptz DEFAULT NULL,
    tenant text DEFAULT NULL,
    data jsonb DEFAULT NULL,
    priority integer DEFAULT 0,
    expires_at timestamptz DEFAULT NULL,
    engine text DEFAULT 'celery',
    user_id uuid DEFAULT NULL,
    metadata jsonb DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    id uuid := gen_random_uuid();
    delivery uuid := gen_random_uuid();
    runner text := CASE lower(enqueue.engine) WHEN 'pgboss' THEN 'celery' ELSE lower(enqueue.engine) END;
    owner public.jobs.tenant%TYPE;
    given_args jsonb := '[]';
    given_kwargs jsonb := '{{}}';
    -- As Python's isoformat() has it.
    eta text := replace(to_char(run_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'), '.000000', '');
    expires text := replace(
        to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'), '.000000', ''
    );
    readable jsonb;
    headers json;
    properties json;
    arguments json;
    message text;
BEGIN
    IF coalesce(enqueue.task, '') = '' OR coalesce(enqueue.queue, '') = '' THEN
        RAISE EXCEPTION 'A job needs the name of its task and of its queue.' USING ERRCODE = '22023';
    END IF;
    IF runner IS NULL OR runner NOT IN ('celery', 'temporal') THEN
        RAISE EXCEPTION 'There is no engine %.', coalesce(quote_literal(enqueue.engine), 'NULL')
            USING ERRCODE = '22023', HINT = 'Use one of: celery, temporal.';
    END IF;
    IF enqueue.priority IS NULL OR enqueue.priority NOT BETWEEN 0 AND 9 THEN
        RAISE EXCEPTION 'priority is %.', coalesce(enqueue.priority::text, 'NULL')
            USING ERRCODE = '22023', HINT = 'Pass 0 to 9; higher runs first.';
    END IF;
    IF enqueue.data IS NOT NULL AND enqueue.args IS NOT NULL THEN
        RAISE EXCEPTION 'There are both args and data.'
            USING ERRCODE = '22023', HINT = 'Pass data to a handler (@job), and args to any other task.';
    END IF;
    IF enqueue.data IS NOT NULL THEN
        given_args := jsonb_build_array(enqueue.data);
    ELSIF jsonb_typeof(enqueue.args) = 'array' THEN
        given_args := enqueue.args;
    ELSIF jsonb_typeof(enqueue.args) = 'object' THEN
        given_kwargs := enqueue.args;
    ELSIF enqueue.args IS NOT NULL THEN
        RAISE EXCEPTION 'args is %, which is neither an object nor an array.', jsonb_typeof(enqueue.args)
            USING ERRCODE = '22023', HINT = 'Pass keyword arguments as an object, others as an array.';
    END IF;

    -- As far as workers tell: those of the engine that live. Without any, nobody knows better than the caller.
    IF NOT EXISTS (
        SELECT FROM public.job_workers AS worker
        WHERE worker.engine = runner AND enqueue.task = ANY(worker.tasks)
    ) AND EXISTS (
        SELECT FROM public.job_workers AS worker
        WHERE worker.engine = runner AND CASE
            WHEN pg_try_advisory_lock_shared({_WORKERS} + worker.number)
                THEN NOT pg_advisory_unlock_shared({_WORKERS} + worker.number)
            ELSE true
        END
    ) THEN
        RAISE EXCEPTION 'No worker of the engine % knows the task %.', runner, quote_literal(enqueue.task)
            USING ERRCODE = '22023', HINT = 'They know: ' || (
                SELECT coalesce(string_agg(known.name, ', ' ORDER BY known.name), 'none') FROM (
                    SELECT DISTINCT unnest(worker.tasks) AS name
                    FROM public.job_workers AS worker
                    WHERE worker.engine = runner
                ) AS known
                WHERE known.name NOT LIKE 'celery.%'
            ) || '.';
    END IF;

    owner := coalesce(
        enqueue.tenant, enqueue.data ->> 'tenantId', enqueue.data ->> 'tenant_id', enqueue.data ->> 'tenant',
        '00000000-0000-0000-0000-000000000000'
    );
    readable := CASE
        WHEN enqueue.data IS NOT NULL THEN enqueue.data
        ELSE jsonb_build_object('args', given_args, 'kwargs', given_kwargs)
    END;
    readable := CASE
        WHEN length(readable::text) <= 65536 THEN jsonb_build_object('data', readable)
        ELSE jsonb_build_object('argsrepr', left(given_args::text, 1024), 'kwargsrepr', left(given_kwargs::text, 1024))
    END;
    headers := json_build_object(
        'lang', 'py', 'task', enqueue.task, 'id', id, 'shadow', NULL, 'eta', eta, 'expires', expires,
        'group', NULL, 'group_index', NULL, 'retries', 0, 'timelimit', json_build_array(NULL, NULL),
        'root_id', id, 'parent_id', NULL,
        'argsrepr', left(given_args::text, 1024), 'kwargsrepr', left(given_kwargs::text, 1024),
        'origin', 'sql@' || coalesce(host(inet_client_addr()), 'local'), 'ignore_result', NULL,
        'replaced_task_nesting', 0, 'stamped_headers', NULL, 'stamps', json_build_object(),
        'jobbridge', json_build_object('tenant', owner, 'delivery', delivery, 'engine', runner)
    );
    arguments := json_build_array(
        given_args, given_kwargs,
        json_build_object('callbacks', NULL, 'errbacks', NULL, 'chain', NULL, 'chord', NULL)
    );
    IF runner = 'temporal' THEN
        message := json_strip_nulls(json_build_object(
            'id', id, 'task', enqueue.task, 'tenant', owner, 'delivery', delivery, 'queue', enqueue.queue,
            'eta', eta, 'expires', expires, 'priority', enqueue.priority
        ))::jsonb || jsonb_build_object(
            'headers', headers, 'timelimit', jsonb_build_array(NULL, NULL),
            'properties', jsonb_build_object('correlation_id', id, 'priority', enqueue.priority),
            'content_type', 'application/json', 'content_encoding', 'utf-8', 'arguments', arguments
        );
    END IF;

    INSERT INTO public.jobs (
        tenant, job_id, task_id, type, status, metadata, user_id, runner_type, external_id, queue, priority, run_at,
        expires_at, root_id, delivery, message, undelivered_since, attempt, created_at, updated_at
    )
    VALUES (
        owner, id, id::text, enqueue.task,
        CASE WHEN runner = 'temporal' THEN 'pending' WHEN enqueue.run_at > now() THEN 'scheduled' ELSE 'queued' END,
        coalesce(enqueue.metadata, '{{}}') || readable, enqueue.user_id, runner, id::text, enqueue.queue,
        enqueue.priority, enqueue.run_at, enqueue.expires_at, id, delivery, message,
        CASE WHEN runner = 'temporal' THEN clock_timestamp() END, 0, clock_timestamp(), clock_timestamp()
    );
    IF runner = 'temporal' THEN
        PERFORM pg_notify('jobbridge_relay', '');
        RETURN id;
    END IF;

    properties := json_build_object(
        'correlation_id', id, 'delivery_mode', 2,
        'delivery_info', json_build_object('exchange', '', 'routing_key', enqueue.queue), 'priority', enqueue.priority
    );
    INSERT INTO jobbridge_broker.messages (
        queue, priority, due_at, expires_at, correlation_id, content_type, content_encoding, headers, properties, body
    )
    SELECT
        enqueue.queue, enqueue.priority, CASE WHEN enqueue.run_at > clock_timestamp() THEN enqueue.run_at END,
        LEAST(enqueue.expires_at, clock_timestamp() + declared.message_ttl),
        id::text, 'application/json', 'utf-8', headers, properties, convert_to(arguments::text, 'UTF8')
    FROM (SELECT enqueue.queue AS name) AS target
    LEFT JOIN jobbridge_broker.queues AS declared ON declared.name = target.name;
    IF enqueue.run_at IS NULL OR enqueue.run_at < clock_timestamp() + interval '60 seconds' THEN
        PERFORM pg_notify({_CHANNEL}, CASE WHEN enqueue.run_at > clock_timestamp() THEN 'due' ELSE '' END);
    END IF;
    RETURN id;
END
$$
"""

_COMMENT = """
COMMENT ON FUNCTION jobbridge.enqueue IS
'Makes a job: its row, and its message in the broker (or, for engine temporal, for the relay). Gives the job''s id.'
"""


#: By default a session looks for names in the schema that is called as its role, then in public. For a role `jobbridge`
#: that was public alone until now, and stays so: its tables are there, and those it makes belong there.
_KEEP_SEARCH_PATH = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'jobbridge') AND NOT EXISTS (
        SELECT FROM pg_db_role_setting, unnest(setconfig) AS setting
        WHERE setting LIKE 'search_path=%'
          AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = 'jobbridge'))
          AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    ) THEN
        EXECUTE format('ALTER ROLE jobbridge IN DATABASE %I SET search_path = public', current_database());
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'The role jobbridge finds names in the schema jobbridge first now.'
        USING HINT = 'Run as a superuser: ALTER ROLE jobbridge SET search_path = public;';
END $$
"""


def upgrade() -> None:
    op.execute("CREATE SCHEMA IF NOT EXISTS jobbridge")
    op.execute("GRANT USAGE ON SCHEMA jobbridge TO PUBLIC")
    op.execute(_KEEP_SEARCH_PATH.replace(":", "\\:"))
    op.execute(_ENQUEUE.replace(":", "\\:"))
    op.execute(_COMMENT)


def downgrade() -> None:
    op.execute("DROP FUNCTION jobbridge.enqueue")
    # Somebody else may have put something there.
    op.execute("""
        DO $$ BEGIN
            DROP SCHEMA jobbridge RESTRICT;
        EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN NULL;
        END $$
    """)
