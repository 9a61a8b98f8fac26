"""`make bench` works, on what needs nothing that is not installed: ours and bare Postgres, with few jobs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ledger import Ledger, WrongNumber
from benchmarks.measures import UNITS
from tests.support import REPOSITORY, clean_environment

pytestmark = pytest.mark.long

_MEASURES = {
    "publish": {"jobbridge", "limit"},
    "publish_bulk": {"jobbridge", "limit"},
    "drain": {"limit"},
    "drain_by_100": {"limit"},
    "drain_tracked": {"jobbridge"},
    "start": {"jobbridge"},
    "memory": {"jobbridge"},
    "temporal_publish": {"jobbridge", "jobbridge_light", "temporal_five"},
    "temporal_drain": {"jobbridge", "jobbridge_light", "temporal_five"},
    "temporal_cpu": {"jobbridge", "jobbridge_light", "temporal_five"},
    "temporal_cpu_worker": {"jobbridge", "jobbridge_light", "temporal_five"},
    "temporal_chord100": {"jobbridge", "jobbridge_light", "temporal_five"},
}


def test_a_short_benchmark_measures_ours_and_the_limit() -> None:
    folder = (
        REPOSITORY / "build" / "bench-test"
    )  # on the disk that the checkout is on: durable, or it refuses
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks", "--small", "--rounds", "1", "--folder", str(folder)]
    command += ["--systems", "jobbridge,jobbridge_light,temporal_five,limit", "--only", ",".join(_MEASURES)]

    done = subprocess.run(
        command, cwd=REPOSITORY, env=clean_environment(), capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((folder / "latest.json").read_text())
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["measure"], set()).add(row["system"])
        assert row["unit"] == UNITS[row["measure"]]
        assert row["runs"] == [row["median"]]
        assert row["median"] > 0
    assert found == _MEASURES
    assert "publish : bare INSERT + commit" in done.stdout
    assert "publish : bare INSERT + commit" in (folder / "benchmark.svg").read_text()
    assert list(folder.glob("servers-*")) == []
    shutil.rmtree(folder)


@pytest.mark.parametrize("numbers", [[0, 1], [0, 1, 2, 2], [0, 1, 2, 3]], ids=["missing", "twice", "unknown"])
def test_what_did_not_run_as_it_should_gives_no_number(numbers: list[int], tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.write_bytes(b"".join(number.to_bytes(8, "little") + bytes(8) for number in numbers))

    with pytest.raises(WrongNumber):
        Ledger(path=path).whole(3)
