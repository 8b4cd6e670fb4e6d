"""What the README shows of `paygate-dump` is what it prints."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOWN = re.findall(r"^```text\n\$ (paygate-dump .*)\n((?s:.*?))^```$", (ROOT / "README.md").read_text(), re.MULTILINE)


def test_the_readme_shows_a_capture_in_several_ways() -> None:
    assert len(SHOWN) >= 3


@pytest.mark.parametrize(("line", "shown"), SHOWN, ids=[line for line, _ in SHOWN])
def test_the_readme_shows_what_is_printed(line: str, shown: str) -> None:
    command = [sys.executable, "-P", "-m", "paygate.dump", *shlex.split(line)[1:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == shown.splitlines()
