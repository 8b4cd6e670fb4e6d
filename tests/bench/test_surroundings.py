"""What a run was on."""

from pathlib import Path

import pytest

from paygate.bench.surroundings import describe_machine, file_system_of

MOUNTS = """\
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:27 / /proc rw - proc proc rw
41 22 0:50 / /a\\040disk rw,noatime master:3 shared:9 - xfs /dev/sdb rw
42 22 0:51 / /data rw - tmpfs tmpfs rw
43 22 0:52 / /data rw - btrfs /dev/sdc rw
"""


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("/home", "ext4"),
        ("/a disk/var", "xfs"),
        ("/a", "ext4"),
        ("/data", "btrfs"),  # mounted over the other
        ("/datasets", "ext4"),
    ],
)
def test_a_file_system_is_that_of_the_innermost_mount(directory: str, expected: str) -> None:
    assert file_system_of(Path(directory), MOUNTS) == expected


def test_a_machine_is_described(tmp_path: Path) -> None:
    described = describe_machine(tmp_path)
    assert "Linux" in described["system"]
    assert "unknown" not in described["system"]
    assert "cores" in described["processor"]
