"""Declaring task queues of the user: what cannot be meant is refused where it is written."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

import jobbridge
from jobbridge.errors import ConfigurationError
from jobbridge.temporal.worker.user_queues import UserQueue, user_queues


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task_queue": " "}, "has the name ' '"),
        ({"task_queue": 7}, "has the name 7"),
        ({"workflows": []}, "'q' serves nothing"),
        ({"workflows": "app:Workflow"}, r"has workflows='app:Workflow'"),
        ({"workflows": ["app.Workflow"]}, "names 'app.Workflow' among its workflows"),
        ({"activities": ["app:work; x"]}, "among its activities"),
        ({"activities": [7]}, "has 7 among its activities"),
        ({"max_concurrent_activities": 0}, "max_concurrent_activities=0"),
        ({"max_concurrent_activities": None}, "max_concurrent_activities=None"),
        ({"max_concurrent_workflow_tasks": 1.5}, "max_concurrent_workflow_tasks=1.5"),
        ({"activity_threads": True}, "activity_threads=True"),
        ({"max_activities_per_second": -1}, "max_activities_per_second=-1"),
        ({"max_task_queue_activities_per_second": "9"}, "='9'"),
        ({"shutdown_timeout": 30}, "shutdown_timeout=30"),
        ({"shutdown_timeout": timedelta(seconds=-1)}, "shutdown_timeout="),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any], message: str) -> None:
    complete = {"task_queue": "q", "workflows": ["app:Workflow"], **fields}

    with pytest.raises(ConfigurationError, match=message) as caught:
        UserQueue(**complete)

    assert caught.value.hint


@pytest.mark.parametrize(
    ("setting", "own", "message"),
    [
        ("tenants", [], "temporal_workers is 'tenants'"),
        ([{"task_queue": "tenants"}], [], "temporal_workers is"),
        (
            [UserQueue("a", ["m:W"]), UserQueue("a", ["m:V"])],
            [],
            "'a' is in temporal_workers more than once",
        ),
        ([UserQueue("alga-jobs", ["m:W"])], ["alga-jobs"], "'alga-jobs' carries this worker's jobs"),
    ],
)
def test_a_setting_that_contradicts_itself_or_the_worker_is_refused(
    setting: Any, own: list[str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        user_queues(setting, own=own)

    assert caught.value.hint


def test_several_queues_with_limits_of_their_own_are_read() -> None:
    queues = [
        UserQueue("a", ["m:W"], max_concurrent_activities=2),
        UserQueue("b", activities=["m.n:o.p"], max_activities_per_second=0.5),
    ]

    assert user_queues(tuple(queues), own=["alga-jobs"]) == queues
    assert user_queues(None) == []


def test_declaring_needs_no_temporalio() -> None:
    code = "import sys; import jobbridge; jobbridge.UserQueue('q', ['m:W']); assert 'temporalio' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_name_that_the_last_release_had_works_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match="HostedQueue is called UserQueue"):
        assert jobbridge.HostedQueue is UserQueue  # type: ignore[attr-defined]  # no type checker is to suggest it
