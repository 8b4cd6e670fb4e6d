"""`python -m specgen [--check]`: write spec/, or say what in it is stale and exit with 1."""

import argparse
import sys
from pathlib import Path

from paygate.dump import schema
from specgen import document, kaitai, registry, session_text, vectors, wireshark

SPEC = Path(__file__).parent.parent.parent / "spec"
VECTORS = "vectors"


def outputs(spec: Path) -> dict[str, str]:
    """Every generated file below `spec` with the text that it should have.

    Raises BadDocument if the hand-written part of protocol.md can't be filled in.
    """
    found = {
        f"{VECTORS}/{name}": text
        for name, text in vectors.render(
            {path.name: path.read_text(encoding="utf-8") for path in (spec / VECTORS).glob("*.json")}
        ).items()
    }
    written = document.fill((spec / "protocol.md").read_text(encoding="utf-8"), session=session_text.render)
    return found | {
        "protocol.md": written,
        "registry.json": registry.render(document.edition(written), document.requirements(written)),
        "paygate.ksy": kaitai.render(),
        "paygate.lua": wireshark.render(),
        "dump.schema.json": schema.text(),
    }


def main() -> int:
    """Write what differs, or with --check only name it."""
    parser = argparse.ArgumentParser(prog="specgen", description="write what follows from the declarations into spec/")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if something is stale")
    arguments = parser.parse_args()
    try:
        wanted = outputs(SPEC)
    except document.BadDocument as error:
        print(f"specgen: {error}", file=sys.stderr)
        return 2
    stale = [name for name, text in wanted.items() if _read(SPEC / name) != text]
    for name in stale:
        if arguments.check:
            print(f"spec/{name} is stale: run make spec", file=sys.stderr)
        else:
            (SPEC / name).parent.mkdir(exist_ok=True)
            (SPEC / name).write_text(wanted[name], encoding="utf-8")
            print(f"wrote spec/{name}")
    return 1 if arguments.check and stale else 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
