"""Why there is no link to the bank, told so that an operator can mend it."""

from typing import Final

from paygate.codec.errors import ErrorCode

LINK_KEY_NAME: Final = "link.key"
"""The gateway's copy of the link key, in its state directory."""
_KEY_CODES: Final = (ErrorCode.BAD_MAC, ErrorCode.NOT_AUTHENTICATED, ErrorCode.UNEXPECTED_MAC)


def refusal_text(text: str, code: ErrorCode | None) -> str:
    """`text` is what one end of the link said when it closed; `code` is its reason."""
    if code in _KEY_CODES:
        return (
            f"{text}; {LINK_KEY_NAME} in the state directory is not the key that the bank has for this gateway: "
            "put the file there that 'paygate-bank add-gateway' wrote"
        )
    if code is ErrorCode.UNKNOWN_PARTY:
        return (
            f"{text}; the bank has no key for this gateway: run 'paygate-bank add-gateway' there, and put the "
            f"file that it writes in the place of {LINK_KEY_NAME} in the state directory"
        )
    return text


def another_bank_text(found_id: str, wanted_id: str) -> str:
    """`found_id` answers where `wanted_id` was expected."""
    return (
        f"the bank there is {found_id}, not {wanted_id}; give the address of {wanted_id} with --bank, or, if "
        f"{found_id} is the one to pay through, make the gateway anew with 'paygate-gateway init --bank-id {found_id}'"
    )
