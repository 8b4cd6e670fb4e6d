"""Every bug that a client is given, and the cases of the kit that each must fail: the table behind `test_client`."""

from dataclasses import dataclass, fields, replace
from typing import Final

from conform import client_outcome_patches as outcomes
from conform import client_patches as patches

from paygate.cli import ExitCode
from paygate.client import core as core_module
from paygate.client.payment import Outcome
from paygate.codec import seal as seal_module
from paygate.codec.codes import KemId, Role
from paygate.codec.errors import ErrorCode
from paygate.codec.sealed import PasswordKeyParameters, Terms


@dataclass(frozen=True)
class Fault:
    """A bug, and the cases that it must fail (without `client.`)."""

    patch: patches.Patch
    cases: tuple[str, ...]


_UNEXPECTED: Final = (
    *("hello.request_instead", "hello.reply_instead", "link.second_hello_ack", "link.other_reply"),
    *("link.request_to_client", "link.hello_to_client", "frames.pipe_kind"),
)
_UNKNOWN_ID: Final = (
    *("hello.foreign_correlation", "link.foreign_reply", "link.unasked_echo_reply", "link.unasked_error"),
)
_REASONS: Final = (
    *("late", "key_retired", "terms", "token_already_paid", "merchant_unknown", "currency", "credentials", "funds"),
    "fenced",
)
_DAMAGED: Final = (
    *(ErrorCode.BAD_MAGIC, ErrorCode.UNSUPPORTED_VERSION, ErrorCode.UNKNOWN_KIND, ErrorCode.UNKNOWN_FLAG),
    *(ErrorCode.BODY_TOO_SMALL, ErrorCode.BODY_TOO_LARGE, ErrorCode.UNEXPECTED_MAC, ErrorCode.TRUNCATED_FIELD),
    ErrorCode.TRAILING_BYTES,
)


def _told_later(*lies: str) -> tuple[str, ...]:
    """The cases of these lies in a StatusAck."""
    return tuple(f"{when}.lie.{lie}" for lie in lies for when in ("open", "status"))


FAULTS: Final[dict[str, Fault]] = {
    # links
    "talks before HelloAck": Fault(patches.talks_before_hello_ack, ("hello.first",)),
    "takes a HelloAck of anybody": Fault(
        patches.takes_any(role=Role.GATEWAY), ("hello.bank_answers", "hello.client_answers")
    ),
    "takes any version": Fault(patches.takes_any(version=1), ("hello.foreign_version",)),
    "tolerates UNEXPECTED_MESSAGE": Fault(patches.tolerates(ErrorCode.UNEXPECTED_MESSAGE), _UNEXPECTED),
    "tolerates UNKNOWN_CORRELATION": Fault(patches.tolerates(ErrorCode.UNKNOWN_CORRELATION), _UNKNOWN_ID),
    "tolerates HELLO_TIMEOUT": Fault(patches.tolerates(ErrorCode.HELLO_TIMEOUT), ("hello.no_ack",)),
    "tolerates BAD_CHECKSUM": Fault(
        patches.tolerates(ErrorCode.BAD_CHECKSUM), ("frames.bad_checksum", "link.says_why", "cut.damaged_answer")
    ),
    "tolerates BAD_VALUE": Fault(
        patches.tolerates(ErrorCode.BAD_VALUE),
        (
            *("frames.bad_value", "frames.broken_rule", "frames.unknown_code", "frames.bad_text"),
            "receipt.none",
        ),
    ),
    **{f"tolerates {code.name}": Fault(patches.tolerates(code), (f"frames.{code.name.lower()}",)) for code in _DAMAGED},
    "refuses with INTERNAL": Fault(patches.refuses_with_internal, ("frames.bad_magic", "hello.foreign_correlation")),
    "closes silently": Fault(patches.closes_silently, ("link.says_why",)),
    "answers Errors": Fault(patches.answers_errors, ("hello.error_instead", "link.closing_error", "cut.closing_error")),
    "needs whole headers": Fault(patches.needs_whole_headers, ("frames.byte_by_byte",)),
    "takes one frame a read": Fault(patches.takes_one_frame_a_read, ("frames.glued",)),
    "matches replies by order": Fault(patches.matches_replies_by_order, ("link.overtaking",)),
    "numbers all requests alike": Fault(patches.numbers_all_requests_alike, ("link.correlations",)),
    "answers no Echo": Fault(patches.answers_no_echo, ("link.echo", "frames.glued")),
    "echoes zeros": Fault(patches.echoes_zeros, ("link.echo",)),
    "waits 2 s for a frame": Fault(patches.waits("FRAME_TIMEOUT_MS", 2_000), ("frames.dripping",)),
    "waits 1 s for an answer": Fault(patches.waits("ANSWER_MS", 1_000, core_module), ("link.no_answer",)),
    "says declined without a connection": Fault(
        outcomes.says(Outcome.NO_CONNECTION, ExitCode.DECLINED),
        ("hello.error_instead", "link.query_refused", "link.closing_error", "link.cut_before_sending"),
    ),
    # token and session
    "strips passcodes": Fault(patches.strips_passcodes, ("token.query",)),
    "pays whatever the status": Fault(
        patches.pays_whatever_the_status,
        ("token.invalid", "token.paid", "token.expired", "token.locked", "token.in_flight"),
    ),
    "rings early": Fault(
        patches.rings_early, ("session.over_before_sending", "session.over_after_sending", "session.thirty_seconds")
    ),
    # keys
    "checks no root signature": Fault(
        patches.checks_no_signature(seal_module.LABEL_KEY_LIST), ("keys.wrong_root", "keys.altered")
    ),
    "takes key lists of any bank": Fault(
        patches.verifies_key_lists(bank_id=lambda key_list, _: key_list.bank_id), ("keys.other_bank",)
    ),
    "takes key lists of any time": Fault(
        patches.verifies_key_lists(now_wall_ms=lambda key_list, _: key_list.valid_from_ms),
        ("keys.expired", "keys.not_yet_valid"),
    ),
    "takes any serial": Fault(patches.verifies_key_lists(serial_min=lambda _list, _min: 0), ("keys.lower_serial",)),
    "takes no serial twice": Fault(
        patches.verifies_key_lists(serial_min=lambda _list, seen: seen and seen + 1), ("keys.same_serial",)
    ),
    "drops trailing bytes": Fault(
        lambda: patches.wrap(seal_module, "decode_record", patches.decodes_laxly),
        ("keys.trailing", "keys.trailing_inside", "receipt.trailing"),
    ),
    "takes unknown suites for known": Fault(
        lambda: patches.wrap(seal_module, "decode_record", patches.takes_unknown_suites_for_known),
        ("keys.unknown_suite",),
    ),
    "says declined by the gateway's word": Fault(
        outcomes.says(Outcome.REFUSED, ExitCode.DECLINED),
        (
            *("keys.unavailable", "keys.unknown_bank", "refused.session", "refused.bank_unreachable"),
            *("refused.payment_mismatch", "refused.token_paid", "status.receipt_wins"),
        ),
    ),
    "takes any bank in tokens": Fault(patches.takes_any_bank_in_tokens, ("keys.token_of_other_bank",)),
    "prefers X25519": Fault(patches.chooses(lambda keys: min(keys, key=lambda key: int(key.kem_id))), ("suites.best",)),
    "knows the hybrid suite only": Fault(
        patches.chooses(lambda keys: next((key for key in keys if key.kem_id is KemId.MLKEM768_X25519), None)),
        ("suites.x25519",),
    ),
    "takes the last key": Fault(patches.chooses(lambda keys: keys[-1]), ("suites.first_key",)),
    "looks at the KEM only": Fault(
        patches.chooses(lambda keys: keys[0]), ("suites.unknown_combination", "suites.none")
    ),
    # credentials
    "counts seconds": Fault(
        patches.authorises(now=lambda now: now._replace(wall_ms=now.wall_ms // 1_000)), ("credentials.fields",)
    ),
    "has one payment ID": Fault(patches.authorises(payment_id=lambda _: b"the one payment."), ("credentials.fresh",)),
    "counts its payment IDs": Fault(
        patches.authorises(payment_id=lambda made: made[:6] + bytes(9) + b"\1"), ("credentials.fresh",)
    ),
    "seals another amount": Fault(
        patches.seals(terms=lambda terms: replace(terms, amount_minor=1)),
        ("credentials.terms", "credentials.merchant_name"),
    ),
    "refuses nameless merchants": Fault(patches.refuses_nameless_merchants, ("credentials.merchant_name",)),
    "seals another user ID": Fault(patches.seals(user_id=str.upper), ("credentials.user_id",)),
    "has parameters of its own": Fault(
        patches.seals(password_key=lambda _: PasswordKeyParameters(memory_kib=8, iteration_count=1, lane_count=1)),
        ("credentials.password_key", "credentials.parameters"),
    ),
    "normalises nothing": Fault(patches.normalises_nothing, ("credentials.normal_form",)),
    "cuts long passwords": Fault(
        patches.authorises(password=lambda password: password[:72]), ("credentials.long_password",)
    ),
    "says hello by user ID": Fault(patches.says_hello_by_user_id, ("credentials.secrecy",)),
    "saves nothing": Fault(patches.saves_nothing, ("status.killed",)),
    # outcomes
    "keeps the UTR": Fault(outcomes.keeps_the_utr, ("paid.told",)),
    "says paid when declined": Fault(
        outcomes.says(Outcome.DECLINED, ExitCode.OK),
        (*(f"declined.{reason}" for reason in _REASONS), "open.declined_later", "status.declined"),
    ),
    "says paid when in doubt": Fault(
        outcomes.says(Outcome.UNKNOWN, ExitCode.OK), ("open.never_answered", "status.pending", "cut.always")
    ),
    "gives up when open": Fault(
        outcomes.gives_up_when_open,
        (
            *("open.pending", "open.pending_for_long", "open.unknown", "open.too_many_requests"),
            *("open.shutting_down", "open.error_to_status"),
        ),
    ),
    "asks ten times a second": Fault(patches.waits("POLL_MS", 100, core_module), ("open.pending_for_long",)),
    "gives up when cut": Fault(
        outcomes.gives_up_when_cut, ("cut.after_sending", "cut.closing_error", "cut.damaged_answer")
    ),
    "gives up when cut twice": Fault(outcomes.gives_up_when_cut_twice, ("cut.again",)),
    "pays again when cut": Fault(outcomes.pays_again_when_cut, ("cut.after_sending",)),
    "connects again without a wait": Fault(patches.waits("RECONNECT_DELAYS_MS", (1,), core_module), ("cut.always",)),
    "asks for another payment": Fault(outcomes.asks_for_another_payment, ("status.paid", "status.receipt_wins")),
    "pays when asked later": Fault(outcomes.pays_when_asked_later, ("status.paid",)),
    "takes refused questions for refusals": Fault(
        outcomes.takes_refused_questions_for_refusals, ("status.question_refused",)
    ),
    # receipts
    "checks no receipt's signature": Fault(
        patches.checks_no_signature(seal_module.LABEL_RECEIPT_ROOT),
        (
            *("receipt.forged", "receipt.altered", "receipt.borrowed_key_id", "receipt.wrong_path"),
            *("receipt.wrong_index", "receipt.wrong_count", "receipt.declined_forged"),
        ),
    ),
    "takes any receipt key": Fault(outcomes.takes_any_receipt_key, ("receipt.other_key",)),
    "knows one receipt key": Fault(outcomes.knows_one_receipt_key, ("receipt.second_key",)),
    "checks no tree": Fault(outcomes.checks_no_tree, ("receipt.short_path", "receipt.long_path")),
    "passes over what is left of a path": Fault(outcomes.passes_over_what_is_left_of_a_path, ("receipt.long_path",)),
    "knows lone leaves only": Fault(
        outcomes.knows_lone_leaves_only, ("receipt.tree_0_of_2", "receipt.tree_5_of_7", "receipt.tree_4_of_5")
    ),
    "trusts the gateway": Fault(outcomes.trusts_the_gateway, ("receipt.garbage", "receipt.forged")),
    **{
        f"compares no {field.name}": Fault(outcomes.matches_all_terms_but(field.name), (f"receipt.other_{field.name}",))
        for field in fields(Terms)
    },
    "compares no envelope": Fault(outcomes.compares_no_envelope, ("receipt.other_envelope",)),
    "compares answer and receipt in nothing": Fault(
        outcomes.compares_answer_and_receipt_in_nothing,
        (
            *("receipt.other_utr", "receipt.paid_by_declined", "receipt.paid_by_fenced"),
            *("receipt.declined_by_posted", "receipt.other_reason"),
        ),
    ),
    "takes another payment's answer": Fault(
        outcomes.judges(lambda answer, payment: replace(answer, payment_id=payment.payment_id)),
        ("receipt.answer_of_other",),
    ),
    "takes any ID of a receipt key": Fault(outcomes.finds_every_key_id_right, ("keys.receipt_id_not_hash",)),
    # answers to questions
    "verifies receipts of payments only": Fault(
        outcomes.checks_in_payment_acks_only("verify_receipt", outcomes.reads),
        _told_later("forged", "altered", "other_key"),
    ),
    "matches receipts of payments only": Fault(
        outcomes.checks_in_payment_acks_only("match_receipt", outcomes.passes),
        _told_later("other_payment_id", "other_envelope"),
    ),
    "compares answers to payments only": Fault(
        outcomes.checks_in_payment_acks_only("_check_agreement", outcomes.passes),
        _told_later("other_utr", "paid_by_fenced"),
    ),
    "takes another payment's StatusAck": Fault(
        outcomes.judges(outcomes.names_the_payment), _told_later("answer_of_other")
    ),
    "takes any keys when asked later": Fault(
        outcomes.trusts_when_asked(outcomes.takes_any_keys), ("status.forged_keys", "status.lower_serial")
    ),
    "takes no keys when asked later": Fault(
        outcomes.trusts_when_asked(outcomes.takes_no_keys), ("status.rotated_key",)
    ),
    "takes new keys only when asked later": Fault(
        outcomes.trusts_when_asked(outcomes.takes_new_keys_only), ("status.kept_key",)
    ),
}
"""Every bug by its name."""


_IN_ORDER: Final = ("link", "session", "frames.glued", "frames.byte_by_byte", "frames.bad_checksum", "keys.wrong_root")
VARIANTS: Final[dict[str, Fault]] = {
    "asks for the token first": Fault(patches.asks_token_first, _IN_ORDER),
    "asks for the keys first": Fault(patches.asks_keys_first, _IN_ORDER),
    "sends again when cut": Fault(patches.sends_again_when_cut, ("cut",)),
}
"""No bugs: clients that do it otherwise and right, and the cases, or groups of them, that they must not fail."""
