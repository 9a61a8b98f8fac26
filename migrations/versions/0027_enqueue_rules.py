"""`jobbridge.enqueue` in SQL refuses what `delay()` refuses, in the same words.

The rules are those of `jobbridge.core.tenant_names`, `jobbridge.core.enqueue` and `jobbridge.app.publish.message`; one
table of cases is sent by every way there is in tests/integration/app/test_what_may_be_sent.py.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from alembic import op

revision = "0027_enqueue_rules"
down_revision = "0026_newest_last"
branch_labels = None
depends_on = None
serves_since = "0014_relatives"  # functions

#: Code points, of Unicode 14: what `core.tenant_names` says that nobody sees …
_UNSEEN = """
1-1f 7f-9f ad 34f 600-605 61c 6dd 70f 890-891 8e2 115f-1160 17b4-17b5 180b-180f 200b-200f 2028-202e 2060-2064
2066-206f 2800 3164 e000-f8ff fe00-fe0f feff ffa0 fff9-fffb 110bd 110cd 13430-13438 1bca0-1bca3 1d173-1d17a e0001
e0020-e007f e0100-e01ef f0000-ffffd 100000-10fffd
"""
#: … what looks like a blank, and is none …
_BLANKS = """
a0 1680 2000-200a 202f 205f 3000
"""
#: … and marks, which belong to the letter before them.
_MARKS = """
300-36f 483-489 591-5bd 5bf 5c1-5c2 5c4-5c5 5c7 610-61a 64b-65f 670 6d6-6dc 6df-6e4 6e7-6e8 6ea-6ed 711 730-74a
7a6-7b0 7eb-7f3 7fd 816-819 81b-823 825-827 829-82d 859-85b 898-89f 8ca-8e1 8e3-903 93a-93c 93e-94f 951-957 962-963
981-983 9bc 9be-9c4 9c7-9c8 9cb-9cd 9d7 9e2-9e3 9fe a01-a03 a3c a3e-a42 a47-a48 a4b-a4d a51 a70-a71 a75 a81-a83 abc
abe-ac5 ac7-ac9 acb-acd ae2-ae3 afa-aff b01-b03 b3c b3e-b44 b47-b48 b4b-b4d b55-b57 b62-b63 b82 bbe-bc2 bc6-bc8
bca-bcd bd7 c00-c04 c3c c3e-c44 c46-c48 c4a-c4d c55-c56 c62-c63 c81-c83 cbc cbe-cc4 cc6-cc8 cca-ccd cd5-cd6 ce2-ce3
d00-d03 d3b-d3c d3e-d44 d46-d48 d4a-d4d d57 d62-d63 d81-d83 dca dcf-dd4 dd6 dd8-ddf df2-df3 e31 e34-e3a e47-e4e eb1
eb4-ebc ec8-ecd f18-f19 f35 f37 f39 f3e-f3f f71-f84 f86-f87 f8d-f97 f99-fbc fc6 102b-103e 1056-1059 105e-1060
1062-1064 1067-106d 1071-1074 1082-108d 108f 109a-109d 135d-135f 1712-1715 1732-1734 1752-1753 1772-1773 17b4-17d3
17dd 180b-180d 180f 1885-1886 18a9 1920-192b 1930-193b 1a17-1a1b 1a55-1a5e 1a60-1a7c 1a7f 1ab0-1ace 1b00-1b04
1b34-1b44 1b6b-1b73 1b80-1b82 1ba1-1bad 1be6-1bf3 1c24-1c37 1cd0-1cd2 1cd4-1ce8 1ced 1cf4 1cf7-1cf9 1dc0-1dff
20d0-20f0 2cef-2cf1 2d7f 2de0-2dff 302a-302f 3099-309a a66f-a672 a674-a67d a69e-a69f a6f0-a6f1 a802 a806 a80b
a823-a827 a82c a880-a881 a8b4-a8c5 a8e0-a8f1 a8ff a926-a92d a947-a953 a980-a983 a9b3-a9c0 a9e5 aa29-aa36 aa43
aa4c-aa4d aa7b-aa7d aab0 aab2-aab4 aab7-aab8 aabe-aabf aac1 aaeb-aaef aaf5-aaf6 abe3-abea abec-abed fb1e fe00-fe0f
fe20-fe2f 101fd 102e0 10376-1037a 10a01-10a03 10a05-10a06 10a0c-10a0f 10a38-10a3a 10a3f 10ae5-10ae6 10d24-10d27
10eab-10eac 10f46-10f50 10f82-10f85 11000-11002 11038-11046 11070 11073-11074 1107f-11082 110b0-110ba 110c2
11100-11102 11127-11134 11145-11146 11173 11180-11182 111b3-111c0 111c9-111cc 111ce-111cf 1122c-11237 1123e
112df-112ea 11300-11303 1133b-1133c 1133e-11344 11347-11348 1134b-1134d 11357 11362-11363 11366-1136c 11370-11374
11435-11446 1145e 114b0-114c3 115af-115b5 115b8-115c0 115dc-115dd 11630-11640 116ab-116b7 1171d-1172b 1182c-1183a
11930-11935 11937-11938 1193b-1193e 11940 11942-11943 119d1-119d7 119da-119e0 119e4 11a01-11a0a 11a33-11a39
11a3b-11a3e 11a47 11a51-11a5b 11a8a-11a99 11c2f-11c36 11c38-11c3f 11c92-11ca7 11ca9-11cb6 11d31-11d36 11d3a
11d3c-11d3d 11d3f-11d45 11d47 11d8a-11d8e 11d90-11d91 11d93-11d97 11ef3-11ef6 16af0-16af4 16b30-16b36 16f4f
16f51-16f87 16f8f-16f92 16fe4 16ff0-16ff1 1bc9d-1bc9e 1cf00-1cf2d 1cf30-1cf46 1d165-1d169 1d16d-1d172 1d17b-1d182
1d185-1d18b 1d1aa-1d1ad 1d242-1d244 1da00-1da36 1da3b-1da6c 1da75 1da84 1da9b-1da9f 1daa1-1daaf 1e000-1e006
1e008-1e018 1e01b-1e021 1e023-1e024 1e026-1e02a 1e130-1e136 1e2ae 1e2ec-1e2ef 1e8d0-1e8d6 1e944-1e94a e0100-e01ef
"""


def _class_of(ranges: str) -> str:
    """Give a class of Postgres' regular expressions."""
    escaped = ("-".join(f"\\U{end:0>8}" for end in each.split("-")) for each in ranges.split())
    return f"'[{''.join(escaped)}]'"


# As Python's ascii() has it: whoever is told of a character must see which.
_SHOWN = """
CREATE FUNCTION jobbridge.shown(name text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT '''' || coalesce(string_agg(CASE
        WHEN letter.code BETWEEN 32 AND 126 THEN chr(letter.code)
        WHEN letter.code = 9 THEN '\\t'
        WHEN letter.code = 10 THEN '\\n'
        WHEN letter.code = 13 THEN '\\r'
        WHEN letter.code < 256 THEN '\\x' || lpad(to_hex(letter.code), 2, '0')
        WHEN letter.code < 65536 THEN '\\u' || lpad(to_hex(letter.code), 4, '0')
        ELSE '\\U' || lpad(to_hex(letter.code), 8, '0')
    END, '' ORDER BY letter.place), '') || ''''
    FROM (
        SELECT ascii(each.letter) AS code, each.place
        FROM regexp_split_to_table(
            CASE WHEN length(shown.name) > 255 THEN left(shown.name, 40) || '…' ELSE shown.name END, ''
        ) WITH ORDINALITY AS each (letter, place)
        WHERE each.letter <> ''
    ) AS letter
$$
"""

_TENANT_NAMED = f"""
CREATE FUNCTION jobbridge.tenant_named(name text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    normal text := normalize(name, NFC);
    usual text := normalize(normal, NFKC);
    odd text := substring(normal COLLATE "C" FROM {_class_of(_UNSEEN + _BLANKS)});
    code text := 'U+' || lpad(upper(to_hex(ascii(odd))), greatest(4, length(to_hex(ascii(odd)))), '0');
    problem text := CASE
        WHEN normal = '' THEN 'it is empty'
        WHEN length(normal) > 255 THEN 'it has more than 255 characters'
        WHEN odd COLLATE "C" ~ {_class_of(_UNSEEN)} THEN 'nobody sees its character ' || code
        WHEN odd IS NOT NULL THEN 'its character ' || code || ' looks like a blank, and is none'
        WHEN normal LIKE ' %' OR normal LIKE '% ' THEN 'it begins or ends with a blank'
        WHEN left(normal, 1) COLLATE "C" ~ {_class_of(_MARKS)}
            THEN 'it begins with a mark that belongs to a letter before it'
        WHEN usual <> normal THEN 'it is another form of ''' || usual || ''', and looks like that'
    END;
BEGIN
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '% cannot be a tenant: %.', jobbridge.shown(name), problem
            USING ERRCODE = '22023', HINT = 'Name the tenant otherwise.';
    END IF;
    RETURN normal;
END
$$
"""

_COMMENT = """
COMMENT ON FUNCTION jobbridge.tenant_named IS
'Gives the tenant of that name, in Unicode''s normal form C. Refuses names that look like others.'
"""

# As jobbridge.broker.headers has it: what Celery sends empty is not stored.
_LEAN = """(
            SELECT json_object_agg(told.name, told.value ORDER BY told.place)
            FROM json_each(headers) WITH ORDINALITY AS told (name, value, place)
            WHERE told.name <> 'timelimit' AND NOT (told.value::text = 'null' AND told.name IN (
                'shadow', 'eta', 'expires', 'group', 'group_index', 'parent_id', 'stamped_headers'
            ))
        )"""

# The greatest value of the setting, which Postgres does not know. Before anything else is made of what is so large.
_SIZE = """
    size := octet_length(given_args::text)::bigint + octet_length(given_kwargs::text);
    IF size > 256000000 THEN
        RAISE EXCEPTION 'The message for % is % MB, and JOB_RUNNER_PAYLOAD_LIMIT_MB allows 256 MB.',
            jobbridge.shown(enqueue.task), rtrim(rtrim(to_char(size / 1000000.0, 'FM999,990.000'), '0'), '.')
            USING ERRCODE = '22023', HINT =
                'Keep the content elsewhere (a file, a bucket, a table) and send where it is.';
    END IF;
"""

#: What of `jobbridge.enqueue` (0020) becomes what.
_CHANGES = (
    ("    message text;\n", "    message text;\n    size bigint;\n"),
    (
        "\n    -- As far as workers tell",
        f"{_SIZE}\n    -- As far as workers tell",
    ),
    ("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"),
    (
        "    IF enqueue.priority IS NULL",
        """
    IF enqueue.queue LIKE '%.pidbox' OR enqueue.queue = 'celeryev' OR enqueue.queue LIKE 'celeryev.%' THEN
        RAISE EXCEPTION 'The queue ''%'' is one of Celery''s remote control, and takes no jobs.', enqueue.queue
            USING ERRCODE = '22023', HINT = 'Choose a queue that a worker serves: `jobbridge queues list`.';
    END IF;
    IF enqueue.run_at NOT BETWEEN '0001-01-01 00:00Z' AND '9999-12-31 23:59:59.999999Z' THEN
        RAISE EXCEPTION 'run_at is %.', quote_literal(enqueue.run_at)
            USING ERRCODE = '22023', HINT = 'Pass an instant between the years 1 and 9999.';
    END IF;
    IF enqueue.expires_at NOT BETWEEN '0001-01-01 00:00Z' AND '9999-12-31 23:59:59.999999Z' THEN
        RAISE EXCEPTION 'expires_at is %.', quote_literal(enqueue.expires_at)
            USING ERRCODE = '22023', HINT = 'Pass an instant between the years 1 and 9999.';
    END IF;
    IF jsonb_typeof(enqueue.metadata) <> 'object' THEN
        RAISE EXCEPTION 'metadata is %.', left(enqueue.metadata::text, 60)
            USING ERRCODE = '22023', HINT = 'Pass an object.';
    END IF;
    IF enqueue.priority IS NULL""",
    ),
    (
        """    owner := coalesce(
        enqueue.tenant, enqueue.data ->> 'tenantId', enqueue.data ->> 'tenant_id', enqueue.data ->> 'tenant',
        '00000000-0000-0000-0000-000000000000'
    );
""",
        """    owner := jobbridge.tenant_named(coalesce(enqueue.tenant, (
        -- What Python takes for true; `data` may say null, or nothing, for no tenant.
        SELECT enqueue.data ->> told.name
        FROM (VALUES (1, 'tenantId'), (2, 'tenant_id'), (3, 'tenant')) AS told (place, name)
        WHERE enqueue.data -> told.name NOT IN ('null', '""', '0', 'false', '[]', '{}')
        ORDER BY told.place
        LIMIT 1
    ), '00000000-0000-0000-0000-000000000000'));
""",
    ),
    (
        "id::text, 'application/json', 'utf-8', headers, properties",
        f"id::text, 'application/json', 'utf-8', {_LEAN}, properties",
    ),
)


def upgrade() -> None:
    function = _of_0020()
    for old, new in _CHANGES:
        assert function.count(old) == 1, old
        function = function.replace(old, new)
    for statement in (_SHOWN, _TENANT_NAMED, _COMMENT, function):
        op.execute(statement.replace(":", "\\:"))


def downgrade() -> None:
    op.execute(_of_0020().replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION").replace(":", "\\:"))
    op.execute("DROP FUNCTION jobbridge.tenant_named")
    op.execute("DROP FUNCTION jobbridge.shown")


def _of_0020() -> str:
    """Give the function as it was: a migration never changes, so neither does this."""
    path = Path(__file__).with_name("0020_enqueue.py")
    spec = importlib.util.spec_from_file_location("jobbridge_0020_enqueue", path)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: str = module._ENQUEUE
    return function
