"""Bodies that must be refused, against a bank: every field of every request, derived from its declaration (spec 3)."""

from collections.abc import Callable
from typing import Final

from paygate.codec.errors import ErrorCode
from paygate.codec.fields import Field
from paygate.codec.frame import body_size_range, encode_record
from paygate.codec.messages import BankKeysQuery, Error, Hello, Message, ResolveRequest, TransferRequest
from paygate.conform.bank_side import BANK, connect_as, hello_of, open_link, unsealed_resolve, unsealed_transfer
from paygate.conform.craft import Draft, bad_encodings, body_with, leaves_of, longer_than_body
from paygate.conform.trial import Trial

_VALID: Final[dict[type[Message], Callable[[Trial], Message]]] = {
    Hello: hello_of,
    BankKeysQuery: lambda t: BankKeysQuery(t.world.bank_id),
    Error: lambda _: Error(ErrorCode.SHUTTING_DOWN, closes=False, text="a test"),
    TransferRequest: unsealed_transfer,
    ResolveRequest: unsealed_resolve,
}


async def _refused_body(t: Trial, cls: type[Message], body: bytes, code: ErrorCode) -> None:
    wire = await (connect_as(t) if cls is Hello else open_link(t))
    wire.send_draft(Draft(int(cls.kind), body, link_key=wire.link_key))
    await wire.expect_error(code)


def _declare_bad_values(cls: type[Message], path: str, field: Field) -> None:
    size_min, size_max = body_size_range(cls.kind)

    @BANK.case(
        f"value.{cls.kind.name.lower()}.{path}",
        f"{cls.__name__} whose {path} is not {field.expected} gets BAD_VALUE.",
        *("3.2", "3.3", "9", "PG-ENC-3"),
    )
    async def bad_value(t: Trial) -> None:
        for _words, encoded in bad_encodings(field):
            body = body_with(_VALID[cls](t), path, encoded)
            # One that makes the body too large for its kind is refused for that.
            if size_min <= len(body) <= size_max:
                await _refused_body(t, cls, body, ErrorCode.BAD_VALUE)


for _cls in _VALID:
    for _path, _field in leaves_of(_cls):
        if bad_encodings(_field):
            _declare_bad_values(_cls, _path, _field)


def _declare_ends(cls: type[Message]) -> None:
    name = cls.kind.name

    @BANK.case(
        f"body.{name.lower()}_truncated",
        f"{cls.__name__} whose last field runs past the end of its body gets TRUNCATED_FIELD.",
        *("3.3", "9", "PG-ENC-4"),
    )
    async def truncated(t: Trial) -> None:
        await _refused_body(t, cls, longer_than_body(_VALID[cls](t)), ErrorCode.TRUNCATED_FIELD)

    @BANK.case(
        f"body.{name.lower()}_trailing",
        f"{cls.__name__} with a byte after its last field gets TRAILING_BYTES.",
        *("3.3", "9", "PG-ENC-4"),
    )
    async def trailing(t: Trial) -> None:
        await _refused_body(t, cls, encode_record(_VALID[cls](t)) + b"\0", ErrorCode.TRAILING_BYTES)


for _cls in _VALID:
    _declare_ends(_cls)


@BANK.case(
    "body.first_fault",
    "Of several faults in a body the first field's is told: a truncated last field does not hide a bad value.",
    *("3.3", "PG-ENC-7"),
)
async def first_fault(t: Trial) -> None:
    request = unsealed_transfer(t)
    fields = dict(leaves_of(TransferRequest))
    first = bad_encodings(fields["terms.bank_id"])[0][1]
    body = body_with(request, "terms.bank_id", first)[:-1]
    await _refused_body(t, TransferRequest, body, ErrorCode.BAD_VALUE)
