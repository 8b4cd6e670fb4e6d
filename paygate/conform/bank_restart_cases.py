"""What a bank still knows after it was killed and started again (spec 7.1, 7.4): the tester's command does both."""

import shlex
from typing import Final

from paygate.codec.codes import Reason
from paygate.conform.bank_decline_cases import guessed
from paygate.conform.bank_resolve_cases import require_fenced
from paygate.conform.bank_side import BANK, Till, open_till, require_same
from paygate.conform.cases import Failed, Skipped, Unreachable, require
from paygate.conform.trial import Trial

RESTART_MS: Final = 30_000
"""How long a bank may take to be up again."""
_RETRY_MS: Final = 100


async def _restarted(t: Trial) -> Till:
    """Have the bank killed and started again, and link to it anew."""
    command: str = t.settings.options["restart_command"]
    code = await t.run_command(shlex.split(command))
    require(code == 0, f"exit code 0 of the command {command}", code)
    deadline_ms = t.now_ms + RESTART_MS
    while True:
        try:
            return await open_till(t, name="after the restart")
        except Unreachable as error:
            if t.now_ms > deadline_ms:
                raise Failed(f"the bank in reach within {RESTART_MS} ms of its restart", error) from None
        await t.sleep(_RETRY_MS)


def _skip_without_command(t: Trial) -> None:
    if t.settings.options.get("restart_command") is None:
        raise Skipped("it needs --restart-command CMD, which kills the bank and starts it again")


@BANK.case(
    "restart.answers",
    "What was POSTED, DECLINED or FENCED before a bank was killed is answered after it with the same bytes, to "
    "transfers and to resolves; and new payments go on.",
    *("7.1", "7.3", "7.4", "7.5", "PG-TRF-2", "PG-TRF-8", "PG-RES-1", "PG-RES-9"),
    exclusive=True,
)
async def restart_answers(t: Trial) -> None:
    _skip_without_command(t)
    till = await open_till(t)
    posted, first_posted = await till.pay()
    declined, fenced = till.payment(merchant_id="M-NOBODY"), till.payment()
    first_declined = await till.decline(declined, Reason.MERCHANT_UNKNOWN)
    first_fenced = await till.resolve(fenced)
    require_fenced(first_fenced)
    again = await _restarted(t)
    for payment, first in ((posted, first_posted), (declined, first_declined), (fenced, first_fenced)):
        require_same([first, await again.transfer(payment), await again.resolve(payment)])
    second = again.payment(transaction_id=posted.terms.transaction_id)
    await again.decline(second, Reason.TOKEN_ALREADY_PAID)
    _, answer = await again.pay()
    require(answer.utr != first_posted.utr, "a UTR that was not given before", answer)


@BANK.case(
    "restart.lock",
    "Wrong passwords are counted durably: after the third, and a restart, the right one gets CREDENTIALS still.",
    *("7.1", "6.4", "PG-TRF-7"),
    exclusive=True,
)
async def restart_lock(t: Trial) -> None:
    _skip_without_command(t)
    till = await open_till(t)
    who = guessed(t, 7)
    for _ in range(3):
        await till.decline(till.guess(who), Reason.CREDENTIALS)
    again = await _restarted(t)
    await again.decline(again.payment(who), Reason.CREDENTIALS)
