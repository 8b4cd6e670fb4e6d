"""A client that somebody else wrote, from `spec/` alone, passes the kit: it is not fitted to our own."""

import json
from pathlib import Path
from typing import Final

from conform.test_client_kit import conform, world
from interop.test_node import NODE_CLIENT, node

from paygate.cli import ExitCode

__all__ = ["world"]

GROUPS: Final = (
    "hello",
    "token",
    "session",
    "keys",
    "suites",
    "credentials",
    "paid",
    "declined",
    "open",
    "cut",
    "status",
)
EXIT_CODES: Final = "timed_out=5,already_paid=6,refused=4"
"""It has fewer of them than ours."""
LEFT_OUT: Final = {
    "client.suites.best": "this client does not implement the hybrid suite; it need not",
    "client.session.thirty_seconds": "it waits 30 s, and --no-slow was given",
}
TIMEOUT_S: Final = 120


def test_a_client_in_another_language_passes_by_its_own_options_and_exit_codes(world: Path) -> None:
    command = f"{node()} {NODE_CLIENT / 'pay.mjs'}"
    common = "--gateway {address} --bank-root {bank_root_file} --passcode-file {passcode_file}"
    state = "--pending {state_dir}/pending.jsonl"
    customer = "--transaction {transaction} --user {user} --password-file {password_file}"
    run = f"{command} {common} {state} {customer}"
    status = f"{command} status {common} {state} --payment {{payment_id}}"
    options = ("--run", run, "--status-run", status, "--exit-codes", EXIT_CODES, "--no-slow", "--json")
    done = conform(world, *(f"client.{group}" for group in GROUPS), *options, timeout_s=TIMEOUT_S)
    report = json.loads(done.stdout)
    failed = {case["id"]: (case["expected"], case["reason"]) for case in report["cases"] if case["outcome"] == "failed"}
    skipped = {case["id"]: case["reason"] for case in report["cases"] if case["outcome"] == "skipped"}
    assert failed == {}
    assert skipped == LEFT_OUT
    assert report["passed"] > 60
    assert done.returncode == ExitCode.OK
