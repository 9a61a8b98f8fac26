"""Forked children of a process that uses Temporal, as the workers of a web server that loads the application first."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import clean_environment

#: Arguments: address, and what the child does.
_PROGRAM = """
import gc, os, sys
from jobbridge.settings import load_settings
from jobbridge.temporal.client import TemporalClient

async def address(client):
    return (await client.workflow_service.get_system_info(REQUEST)).server_version

from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
REQUEST = GetSystemInfoRequest()
settings = load_settings({"TEMPORAL_ADDRESS": sys.argv[1]})
client = TemporalClient(settings)
version = client.call(address)
if sys.argv[2] == "closed":
    gc.disable()  # so that what is closed is still there
    client.close()
child = os.fork()
if child == 0:
    if sys.argv[2] == "uses":
        assert client.call(address) == version
        client.close()
    if sys.argv[2] == "drops":
        del client
    gc.collect()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0, "the child did not end well"
assert client.call(address) == version
client.close()
"""


@pytest.mark.parametrize("then", ["exits", "uses", "drops", "closed"])
def test_a_forked_child_ends_whatever_it_does_with_its_parents_client(
    temporal_server: str, then: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, temporal_server, then],
        env=clean_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
