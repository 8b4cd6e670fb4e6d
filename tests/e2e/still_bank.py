"""A bank that falls silent with all that its gateway needs of it beforehand."""

import signal
from contextlib import closing

from gateway.programs import Caller
from local_system import BANK_ID, LocalSystem, wait_until

from paygate.codec.codes import KeysStatus
from paygate.codec.messages import BankKeys, BankKeysQuery


def still_bank(system: LocalSystem) -> None:
    """SIGSTOP to the bank, once its gateway has the bank's keys: a link is open before they came.

    A bank that was stopped between the two would leave every client without keys, and no payment would be sent.
    """
    assert system.bank is not None
    assert system.gateway is not None
    host, port = system.gateway.address.split(":")
    with closing(Caller((host, int(port)))) as caller:
        wait_until(lambda: has_keys(caller), "the gateway to have the bank's keys")
    system.bank.popen.send_signal(signal.SIGSTOP)


def has_keys(caller: Caller) -> bool:
    """Whether the gateway answers with a key list."""
    answer = caller.ask(BankKeysQuery(BANK_ID))
    assert isinstance(answer, BankKeys)
    return answer.status is KeysStatus.AVAILABLE
