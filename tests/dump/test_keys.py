"""Link keys from files, as `paygate-bank add-gateway` writes them."""

from pathlib import Path

import pytest
from builders import LINK_KEY

from paygate.bank.keys import add_gateway
from paygate.cli import ExitCode, PaygateExit
from paygate.dump.keys import load_link_key


def write(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_the_key_that_the_bank_made_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "bank").mkdir(mode=0o700)
    (tmp_path / "bank" / "gateways").mkdir(mode=0o700)
    (tmp_path / "out").mkdir(mode=0o700)
    add_gateway(tmp_path / "bank", "GW1", tmp_path / "out" / "link.key")
    key = load_link_key(tmp_path / "out" / "link.key")
    assert len(key) == 32
    assert key == load_link_key(tmp_path / "bank" / "gateways" / "GW1.key")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 64,
        LINK_KEY,
        LINK_KEY.hex().encode()[:-1],
        LINK_KEY.hex().encode() + b"00",
        b"g" * 64,
        LINK_KEY.hex().encode() + b" " * 2_000 + b"x",
    ],
)
def test_what_is_no_link_key_is_refused_without_showing_it(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path / "link.key", data)
    with pytest.raises(PaygateExit) as caught:
        load_link_key(path)
    assert caught.value.code is ExitCode.BAD_STATE
    assert str(caught.value) == f"--link-key {path}: expected a link key, 64 hexadecimal digits on one line"


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "link.key", LINK_KEY.hex().encode() + b"\n", 0o640)
    with pytest.raises(PaygateExit, match=r"others may read it \(mode 0640\); chmod 600"):
        load_link_key(path)
    path.chmod(0o400)
    assert load_link_key(path) == LINK_KEY


def test_a_file_that_is_missing_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(PaygateExit, match="could not be read"):
            load_link_key(path)
