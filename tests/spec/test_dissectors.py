"""What tests/spec does where tshark or the Kaitai Struct compiler is missing: never pass in silence."""

from collections.abc import Callable
from pathlib import Path

import pytest
from spec.dissectors import compile_ksy, tshark

from spec import dissectors

READERS: list[Callable[[Path], object]] = [
    lambda folder: compile_ksy(folder / "paygate.ksy", folder, "python"),
    lambda folder: tshark("-r", folder / "capture.pcap"),
]


@pytest.mark.parametrize("read", READERS, ids=["node", "tshark"])
def test_without_its_program_a_comparison_is_skipped_and_says_how_to_install_it(
    read: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"is missing.*make test-tools"):
        read(tmp_path)


@pytest.mark.parametrize("read", READERS, ids=["node", "tshark"])
def test_without_its_program_a_comparison_fails_in_ci(
    read: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"is missing.*make test-tools"):
        read(tmp_path)


def test_without_the_compiler_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dissectors, "NODE_MODULES", tmp_path)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="npm package kaitai-struct-compiler is missing"):
        compile_ksy(tmp_path / "paygate.ksy", tmp_path, "python")
