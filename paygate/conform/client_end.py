"""How a run of the client ended: what it told its customer, by its exit code."""

from collections.abc import Sequence

from paygate.conform.cases import Skipped, require
from paygate.conform.client_options import ExitCodes, Said
from paygate.conform.programs import Program


def judge(program: Program | None, wanted: Sequence[Said], codes: ExitCodes) -> None:
    """Fail the case unless the client says one of these. Without a program of ours nobody has heard it: skipped."""
    if program is None:
        raise Skipped("the bytes were right; what the client told its customer is seen only with --run")
    is_so = program.exit_code in {codes[said] for said in wanted}
    require(is_so, f"the client to say {words_of(wanted, codes)}", how_it_ended(program, codes))


def how_it_ended(program: Program | None, codes: ExitCodes) -> str:
    """The exit code, what it means, and the last words."""
    if program is None:
        return "the client's end"
    if program.exit_code is None:
        return f"it goes on{program.told}"
    means = (
        " or ".join(said.option for said, code in codes.items() if code == program.exit_code) or "not in --exit-codes"
    )
    return f"the client's end, with exit code {program.exit_code} ({means}){program.told}"


def words_of(wanted: Sequence[Said], codes: ExitCodes) -> str:
    """`paid (0) or declined (1)`."""
    return " or ".join(f"{said.option} ({codes[said]})" for said in wanted)
