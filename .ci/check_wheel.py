"""Install the wheel in the folder argv[1] without extras, and run one job with it, temporalio absent.

Runs under the development environment, which lends its Postgres; the wheel's own environment has none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from jobbridge.dev.postgres import run_postgres
from jobbridge.dev.process import ManagedProcess

UV = Path(".ci/uv").resolve()
SHOP = """
from jobbridge import Celery

app = Celery("shop")


@app.task(name="shop.double")
def double(number):
    return number * 2
"""


def main() -> None:
    [wheel] = Path(sys.argv[1]).glob("*.whl")
    with tempfile.TemporaryDirectory(prefix="jobbridge-wheel-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # Postgres does not run as root
        environment = install(wheel.resolve(), folder)
        (folder / "shop.py").write_text(SHOP)
        with run_postgres(folder / "postgres", is_durable=False) as server:
            run_one_job(folder, environment, server.create_database("shop"))
    print("The wheel without extras ran a job.")


def install(wheel: Path, folder: Path) -> Path:
    environment = folder / "venv"
    constraints = folder / "constraints.txt"
    # The versions of uv.lock: what passed here yesterday passes today.
    export = ["export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--no-hashes", "--all-extras"]
    run([str(UV), *export, "--output-file", str(constraints)])
    run([str(UV), "venv", "--quiet", "--python", sys.executable, str(environment)])
    python = str(environment / "bin" / "python")
    run(
        [
            str(UV),
            "pip",
            "install",
            "--quiet",
            "--python",
            python,
            "--constraint",
            str(constraints),
            str(wheel),
        ]
    )
    absent = subprocess.run([python, "-c", "import temporalio"], cwd=folder, capture_output=True, check=False)
    if absent.returncode == 0:
        sys.exit("temporalio was installed without the extra `temporal`")
    [package] = environment.glob("lib/python*/site-packages/jobbridge")
    if not (package / "py.typed").is_file():
        sys.exit("the wheel has no py.typed: its types would not be seen")
    return environment


def run_one_job(folder: Path, environment: Path, database_url: str) -> None:
    binaries = environment / "bin"
    jobbridge = str(binaries / "jobbridge")
    kept = ("PATH", "HOME", "LANG", "TMPDIR")
    env = {key: os.environ[key] for key in kept if key in os.environ} | {"DATABASE_URL": database_url}
    run([jobbridge, "--help"], cwd=folder, env=env)
    run([jobbridge, "migrate"], cwd=folder, env=env)
    refused = subprocess.run(
        [jobbridge, "temporal-worker"], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    if "jobbridge[temporal]" not in refused.stderr or "Traceback" in refused.stderr:
        sys.exit(f"`jobbridge temporal-worker` does not say which extra is missing:\n{refused.stderr}")
    worker = ManagedProcess(
        name="celery worker",
        argv=[str(binaries / "celery"), "-A", "shop", "worker", "-P", "solo", "-l", "INFO"],
        log_path=folder / "worker.log",
        env=env,
        cwd=folder,
    )
    program = "import shop; print(shop.double.delay(21).get(timeout=60))"
    with worker:
        answer = run([str(binaries / "python"), "-c", program], cwd=folder, env=env, log=worker)
    if answer.strip() != "42":
        sys.exit(f"the job's result is {answer!r}, not 42")
    wait_for_row(database_url)
    look_around(jobbridge, folder, env)


def look_around(jobbridge: str, folder: Path, env: dict[str, str]) -> None:
    """Ask what somebody asks who has no Temporal, and never will: nothing may fail for the lack of it."""
    questions = (
        "doctor", "jobs list", "queues list", "schedules list", "cutover check --to celery",
    )  # fmt: skip
    for question in questions:
        done = subprocess.run(
            [jobbridge, *question.split(), "-A", "shop"],
            cwd=folder, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode not in (0, 1) or "Traceback" in done.stderr:  # 1: `doctor` has found something
            sys.exit(f"`jobbridge {question}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def wait_for_row(database_url: str) -> None:
    row = None
    for _ in range(100):
        with psycopg.connect(database_url) as connection:
            row = connection.execute("SELECT type, status, runner_type, attempt FROM jobs").fetchone()
        if row == ("shop.double", "completed", "celery", 1):
            return
        time.sleep(0.1)
    sys.exit(f"the job's row is {row}")


def run(
    command: list[str],
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    log: ManagedProcess | None = None,
) -> str:
    print("+", shutil.which(command[0]) or command[0], *command[1:], flush=True)
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, log.log() if log else "", sep="\n")
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
