"""Programs that are forked where one was prepared end, die and say what they say as if they had been started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from conform.prepared import preparation, serve, starting

TIMEOUT_S: Final = 60


def run(arguments: list[str]) -> int:
    """The program that is prepared here."""
    match arguments:
        case ["exit", code]:
            return int(code)
        case ["die", number]:
            os.kill(os.getpid(), int(number))
        case ["tell", name]:
            print(os.environ.get(name), Path.cwd(), repr(sys.stdin.read()), flush=True)
            print("an error", file=sys.stderr)
        case ["stay", path]:
            Path(path).write_text(str(os.getpid()))
            time.sleep(TIMEOUT_S)
        case ["is_there", path]:
            return int(Path(f"/proc/{Path(path).read_text()}").exists())
    return 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("prepared") / "socket"
    with preparation("conform.test_prepared", path):
        yield path


@pytest.mark.parametrize("code", [0, 5, 255])
def test_its_exit_code_is_told(server: Path, code: int) -> None:
    assert subprocess.run(starting(server, "exit", str(code)), timeout=TIMEOUT_S, check=False).returncode == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_its_signal_is_told(server: Path, number: int) -> None:
    done = subprocess.run(starting(server, "die", str(int(number))), timeout=TIMEOUT_S, check=False)
    assert done.returncode == -number


def test_it_has_the_environment_directory_and_descriptors_of_its_start(server: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        starting(server, "tell", "OF_THE_START"),
        cwd=tmp_path,
        env={"OF_THE_START": "yes"},
        input="typed",
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert (done.stdout, done.stderr) == (f"yes {tmp_path} 'typed'\n", "an error\n")


def test_it_is_gone_when_whoever_started_it_was_killed_and_the_next_one_runs(server: Path, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with subprocess.Popen(starting(server, "stay", str(path))) as first:
        deadline_s = time.monotonic() + TIMEOUT_S
        while not path.exists() or not path.read_text():
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        first.kill()
    # The next run itself looks, at the first moment that it could trip over the one before.
    assert subprocess.run(starting(server, "is_there", str(path)), timeout=TIMEOUT_S, check=False).returncode == 0


if __name__ == "__main__":
    serve(Path(sys.argv[1]), run)
