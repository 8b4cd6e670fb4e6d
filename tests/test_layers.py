"""Which part may import what: the architecture's layers, read from the source and held (R20, R22, R26).

The tables below are the architecture; the code after them reads every import of `paygate/` and compares. It runs
alone and fast, as "import layers" of `make check`.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

import paygate

ROOT: Final = Path(paygate.__file__).parent

# A part is a folder or a module directly below paygate/. Beside itself and the standard library, it may import:
SHARED: Final = {
    "arguments", "audit", "backups", "children", "cli", "clock", "codec", "effects", "escape", "files", "hardening",
    "link",
    "link_checks", "link_events", "link_states", "links", "making", "net", "shell",
    "tick",
}  # fmt: skip
PARTS: Final[dict[str, set[str]]] = {
    "__init__": set(),
    "clock": set(),
    "escape": set(),
    "effects": set(),
    "hardening": set(),
    "children": set(),
    "making": set(),
    "codec": {"making"},
    "net": set(),  # knows no paygate type: bytes in, bytes out (R22)
    "cli": {"clock", "escape"},
    "audit": {"cli", "clock", "codec", "files", "making"},  # what the servers' audits share
    "files": {"cli", "escape"},  # text and databases; what the records mean is the roles' business
    "link_states": {"codec"},
    "link_events": {"codec"},
    "link_checks": {"codec", "link_states"},
    "link": {"codec", "link_checks", "link_events", "link_states", "making"},
    "links": {"codec", "effects", "link", "link_events", "link_states", "making"},
    "arguments": {"cli", "codec", "net"},
    "tick": {"cli", "clock", "effects", "files", "net"},
    "backups": {"clock", "effects", "files", "net", "shell"},
    "shell": {"arguments", "cli", "clock", "effects", "net", "tick"},
    # Roles never import each other: they meet on the wire only.
    "bank": SHARED,
    "gateway": SHARED,
    "client": SHARED,
    # Plays a role against anybody's implementation, so it knows none of ours, and no link but its own bytes.
    "conform": {"arguments", "cli", "clock", "codec", "escape", "net"},
    "dump": {"arguments", "cli", "clock", "codec", "escape"},
    # Measures all of it, from outside and from within.
    "bench": {*SHARED, "bank", "gateway", "client"},
}

# Who may import what is not in the standard library, and why.
THIRD_PARTY: Final[dict[str, set[str]]] = {
    "construct": {
        "codec.fields",  # declares the layouts
        "codec.record_codec",  # runs them
    },
    "cryptography": {
        "codec.seal",  # everything sealed, signed or verified
        "bank.keys",  # makes and loads the root and receipt-signing keys
        "conform.bank_keys",  # makes the same keys of the bank that the kit plays
        "conform.foreign_seal",  # seals what the codec refuses to seal
        "bank.sqlite_ledger",  # is given the receipt key, since receipts are signed within the transaction
    },
    "apsw": {
        "bench.staged",  # times its functions
        "bench.surroundings",  # says which SQLite was measured
        "files.sqlite",  # opens databases
        "files.database_copy",  # copies them for backups
        "bank.ledger_reentry",  # enters what a backup did not have
        "audit.command",  # hands a connection on
        "audit.findings",  # knows its word for a damaged page
        "audit.pages",  # asks for damaged pages
        "bank.record_audit",  # hands a connection on
        "gateway.record_audit",  # hands a connection on
        "bank.audit",  # reads the ledger
        "gateway.audit",  # reads the tokens
        "bank.ledger_tables",  # the ledger's tables
        "bank.ledger_batch",  # what a transaction reads from them
        "bank.ledger_rows",  # what it writes into them
        "bank.ledger_chain",  # the hash chain over them
        "bank.ledger_check",  # looks at all of them
        "gateway.token_tables",  # the tokens' tables
        "gateway.token_chain",  # the hashes over them
        "gateway.token_check",  # looks at all of them
    },
    "hdrh": {"bench.latency"},  # latency histograms
    "iso8583": {"bench.peers.iso8583_server"},  # is measured
    "matplotlib": {"bench.plots"},
    "tqdm": {"bench.progress"},
}

# Roles' modules that decide: given the same arguments they do the same, in a test, a simulator and a server.
PURE_NAMES: Final = {
    "bank_side", "client_side", "core", "effects", "flights", "ledger", "order", "payment", "sessions", "states",
    "tokens", "verdict",
}  # fmt: skip
ROLES: Final = {"bank", "gateway", "client"}
PURE_PARTS: Final = {"codec", "effects", "link", "link_checks", "link_events", "link_states", "links"}
IMPURE: Final = {
    "apsw", "ctypes", "fcntl", "getpass", "io", "mmap", "os", "pathlib", "random", "resource", "secrets", "select",
    "selectors", "shutil", "signal", "socket", "sqlite3", "subprocess", "sys", "tempfile", "termios", "threading",
    "time",
    "paygate.files", "paygate.net", "paygate.shell", "paygate.tick",
    "paygate.hardening",
}  # fmt: skip
PURE_EXCEPTIONS: Final = {"paygate.net.addresses"}  # the type alias Address
READS_ENVIRONMENT: Final = "codec.record_codec"  # PAYGATE_CODEC, at import: which of two equal ways, for debugging
MAKES_SOCKETS_TOO: Final = "bench.peers.loopback"  # a peer stands for what others make, so it has none of our loop
CLOCK_CALLS: Final = {"now", "utcnow", "today"}  # of datetime and date

# One thread, one loop, children by exec, no code or objects out of bytes (R21, R22, R23).
NOWHERE: Final = {
    "asyncio", "concurrent", "http", "importlib", "marshal", "multiprocessing", "pickle", "shelve", "socketserver",
    "ssl", "subprocess", "threading", "urllib",
}  # fmt: skip

# The bench stands beside the system that it measures, and starts it and its peers.
MAY_ANYWAY: Final[dict[str, set[str]]] = {"bench": {"concurrent", "importlib", "subprocess"}}

# These may be imported where they are not used, to say in an annotation what is handed in.
TYPE_ONLY: Final = {"socket", "random"}


def module_name(path: Path) -> str:
    """`codec.fields` for paygate/codec/fields.py."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@cache
def modules() -> dict[str, ast.Module]:
    """Every module, parsed once for all checks."""
    return {module_name(path): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported; `from a import b` is `a.b`, since b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out from the top"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_below(name: str, above: set[str]) -> bool:
    """Whether the name, or a package that it is in, is among `above`."""
    words = name.split(".")
    return any(".".join(words[:count]) in above for count in range(1, len(words) + 1))


def is_pure(module: str) -> bool:
    part, _, rest = module.partition(".")
    return part in PURE_PARTS or (part in ROLES and rest in PURE_NAMES)


def uses_beyond_annotations(tree: ast.AST, name: str) -> list[int]:
    """Lines where a module is used for more than saying a type."""
    annotations: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            annotations.append(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            annotations.append(node.returns)
    in_annotations = {id(inner) for node in annotations if node is not None for inner in ast.walk(node)}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == name and id(node) not in in_annotations
    ]


# -- the checks: each gives what is wrong, in words ------------------------------------------------------


def wrong_layers(module: str, tree: ast.AST) -> Iterator[str]:
    part = module.partition(".")[0]
    if part not in PARTS:
        yield f"{module}: a new part; say in PARTS what it may import"
        return
    for name in imports_of(tree):
        top, _, rest = name.partition(".")
        if top != "paygate":
            continue
        imported = rest.partition(".")[0]
        # The package by itself holds nothing; it is imported to find where it lies.
        if imported not in (part, "") and imported not in PARTS[part]:
            yield f"{module} imports {name}: {part} may not import {imported}"


def wrong_libraries(module: str, tree: ast.AST) -> Iterator[str]:
    for name in imports_of(tree):
        top = name.partition(".")[0]
        if top in NOWHERE - MAY_ANYWAY.get(module.partition(".")[0], set()):
            yield f"{module} imports {name}: nobody may"
        elif top != "paygate" and top not in sys.stdlib_module_names and module not in THIRD_PARTY.get(top, set()):
            yield f"{module} imports {name}: not among those that may"


def wrong_purity(module: str, tree: ast.AST) -> Iterator[str]:
    if not is_pure(module):
        return
    for name in imports_of(tree):
        if name in TYPE_ONLY and not uses_beyond_annotations(tree, name):
            continue
        if module == READS_ENVIRONMENT and name == "os.environ":
            continue
        if is_below(name, IMPURE) and not is_below(name, PURE_EXCEPTIONS):
            yield f"{module} imports {name}: it decides, and so is given what it needs"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr in CLOCK_CALLS:
                yield f"{module}, line {node.lineno}: reads a clock"
            if isinstance(called, ast.Name) and called.id in ("open", "input", "print"):
                yield f"{module}, line {node.lineno}: {called.id}()"


def wrong_sockets(module: str, tree: ast.AST) -> Iterator[str]:
    """R22: only paygate/net makes sockets; others may name the type of one that they are given."""
    if module.startswith("net.") or module == MAKES_SOCKETS_TOO:
        return
    for name in imports_of(tree):
        if name.startswith(("socket.", "_socket")):
            yield f"{module} imports {name}: only paygate/net makes sockets"
    for line in uses_beyond_annotations(tree, "socket"):
        yield f"{module}, line {line}: uses socket for more than a type"


def wrong_layouts(module: str, tree: ast.AST) -> Iterator[str]:
    """Style 1: only codec/record_codec.py runs layouts. Elsewhere, `parse` may be another's, but not the codec's."""
    if module == "codec.record_codec":
        return
    of_codec = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("paygate.codec"):
            of_codec |= {alias.asname or alias.name for alias in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if not node.func.attr.startswith(("parse", "build")):
            continue
        root: ast.AST = node.func.value
        while isinstance(root, ast.Attribute | ast.Call | ast.Subscript):
            root = root.func if isinstance(root, ast.Call) else root.value
        if module.startswith("codec.") or (isinstance(root, ast.Name) and root.id in of_codec):
            yield f"{module}, line {node.lineno}: .{node.func.attr}( of a layout"


CHECKS: Final = (wrong_layers, wrong_libraries, wrong_purity, wrong_sockets, wrong_layouts)
each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


@each_check
def test_the_layers_hold(check: object) -> None:
    assert callable(check)
    wrong = [text for module, tree in modules().items() for text in check(module, tree)]
    assert wrong == []


def test_what_the_tables_name_is_there() -> None:
    # A table that speaks of what is gone holds nothing.
    assert len(modules()) > 50
    assert {name for allowed in THIRD_PARTY.values() for name in allowed} <= set(modules())
    parts = {module.partition(".")[0] for module in modules()}
    assert set(PARTS) <= parts
    for role in ROLES:
        assert f"{role}.core" in modules()
    for library, allowed in THIRD_PARTY.items():
        importing = {m for m, tree in modules().items() if any(is_below(n, {library}) for n in imports_of(tree))}
        assert importing == allowed


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("codec.frame", "from paygate.link import Link", "codec may not import link"),
        ("codec.frame", "import paygate.net.loop", "codec may not import net"),
        ("net.loop", "from paygate.codec import limits", "net may not import codec"),
        ("files.layout", "def f():\n    from paygate.codec.money import parse_amount", "files may not import codec"),
        ("bank.core", "from paygate.gateway.tokens import Token", "bank may not import gateway"),
        ("client.core", "from paygate import bank", "client may not import bank"),
        ("link", "from paygate.links import LinkTable", "link may not import links"),
        ("brandnew", "", "a new part"),
        ("codec.messages", "import construct", "not among those that may"),
        ("gateway.core", "from cryptography.exceptions import InvalidTag", "not among those that may"),
        ("client.core", "import requests", "not among those that may"),
        ("net.loop", "import asyncio", "nobody may"),
        ("gateway.core", "import os", "is given what it needs"),
        ("gateway.payment", "from os import path", "is given what it needs"),
        ("bank.ledger", "import time", "is given what it needs"),
        ("gateway.tokens", "from paygate.files.sqlite import open_database", "is given what it needs"),
        ("gateway.core", "from paygate.net.loop import Loop", "is given what it needs"),
        ("client.core", "import random\nx = random.random()", "is given what it needs"),
        ("codec.seal", "import secrets", "is given what it needs"),
        ("bank.ledger", "from datetime import datetime\nx = datetime.now()", "reads a clock"),
        ("link", "data = open('file')", "open()"),
        ("shell", "import socket\ns = socket.socket()", "more than a type"),
        ("bank.server", "import socket\ns = socket.create_connection(('', 1))", "more than a type"),
        ("bank.server", "from socket import create_server", "only paygate/net makes sockets"),
        ("codec.money", "x = layout.parse(data)", "of a layout"),
        ("gateway.records", "from paygate.codec.fields import IDENTIFIER\nx = IDENTIFIER.build('a')", "of a layout"),
        ("gateway.records", "from paygate.codec import fields\nx = fields.HASH.parse_stream(f)", "of a layout"),
    ],
)
def test_each_check_finds_what_it_is_for(module: str, source: str, expected: str) -> None:
    wrong = [text for check in CHECKS for text in check(module, ast.parse(source))]
    assert any(expected in text for text in wrong), wrong


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gateway.core", "from paygate.net.addresses import Address"),
        ("client.core", "import random\ndef f(randomness: random.Random) -> random.Random:\n    return randomness"),
        ("shell", "import socket\ndef f(sock: socket.socket) -> None:\n    pass"),
        ("net.listen", "import socket\ns = socket.socket()"),
        ("gateway.records", "from paygate.files.text_records import Layout\nx = Layout().parse(b'')"),
        ("client.args", "import argparse\nx = argparse.ArgumentParser().parse_args()"),
        ("bank.core", "from paygate.bank.ledger import decide\nimport heapq"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert [text for check in CHECKS for text in check(module, ast.parse(source))] == []
