import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from jobbridge.dev.postgres import PostgresServer, run_postgres
from jobbridge.dev.process import DevServerError, ManagedProcess, free_port, is_port_free
from jobbridge.dev.temporal import TemporalServer
from tests.support import clean_environment, wait_until


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_fresh_database_is_empty_and_answers(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as connection:
        found = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert found == (0,)


def test_a_connection_without_the_password_is_refused(postgres: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"postgresql://jobbridge:wrong@127.0.0.1:{postgres.port}/postgres")


def test_temporal_answers_its_own_cli(temporal: TemporalServer) -> None:
    assert "SERVING" in temporal.run_cli("operator", "cluster", "health")


def test_postgres_keeps_its_data_between_two_runs(server_folder: Path) -> None:
    folder = server_folder / "kept"
    with run_postgres(folder) as server:
        server.create_database("mine")
    with run_postgres(folder) as server, psycopg.connect(server.url("mine")) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("mine",)


def test_two_servers_do_not_share_a_folder(server_folder: Path) -> None:
    folder = server_folder / "shared"
    with run_postgres(folder, is_durable=False):  # noqa: SIM117
        with pytest.raises(DevServerError, match="Another process runs Postgres"), run_postgres(folder):
            pass


def test_a_pid_file_of_a_dead_server_does_not_keep_postgres_from_starting(server_folder: Path) -> None:
    folder = server_folder / "stale"
    with run_postgres(folder) as server:
        data = server.data_folder
        last = (data / "postmaster.pid").read_text()
    _, _, rest = last.partition("\n")
    (data / "postmaster.pid").write_text(f"{os.getpid()}\n{rest}")
    with run_postgres(folder) as server, psycopg.connect(server.url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_taken_port_is_named(server_folder: Path, postgres: PostgresServer) -> None:
    with pytest.raises(DevServerError, match=str(postgres.port)):  # noqa: SIM117
        with run_postgres(server_folder / "taken", port=postgres.port, is_durable=False):
            pass


def test_servers_end_when_their_owner_is_killed(server_folder: Path, tmp_path: Path) -> None:
    owner = tmp_path / "owner.py"
    owner.write_text(
        "import sys, time, pathlib\n"
        "from jobbridge.dev.postgres import run_postgres\n"
        "with run_postgres(pathlib.Path(sys.argv[1])) as server:\n"
        "    print(server.process.pid, server.port, flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, str(owner), str(server_folder / "orphan")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean_environment()) as process:
        assert process.stdout is not None
        pid, port = map(int, process.stdout.readline().split())
        assert not is_port_free(port)

        process.send_signal(signal.SIGKILL)

        wait_until(lambda: not is_alive(pid), timeout=10)
        wait_until(lambda: is_port_free(port))


def test_a_process_that_ignores_its_stop_signal_is_killed_with_its_children(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 600 & echo $!; wait; wait"
    process = ManagedProcess(
        name="stubborn", argv=["sh", "-c", script], log_path=tmp_path / "log", grace=timedelta(seconds=0.3)
    ).start()
    child = int(wait_until(lambda: process.log().strip()))

    process.stop()

    assert process.exit_code == 128 + signal.SIGKILL
    wait_until(lambda: not is_alive(child))


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DevServerError, match="no-such-program"):
        ManagedProcess(name="nothing", argv=["/no-such-program"], log_path=tmp_path / "log").start()


def test_free_port_can_be_bound() -> None:
    assert is_port_free(free_port())


def test_a_folder_that_only_its_owner_may_enter_serves_too(tmp_path: Path) -> None:
    # Root's Postgres runs as another account, which keeps its data elsewhere then.
    tmp_path.chmod(0o700)
    with (
        run_postgres(tmp_path / "closed", is_durable=False) as server,
        psycopg.connect(server.url()) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)
        data = server.data_folder
    assert not data.exists()
    assert not (tmp_path / "closed" / "README").exists()
