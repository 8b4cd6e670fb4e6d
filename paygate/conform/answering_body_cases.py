"""Bodies that must be refused: every field of every request to an answering end, from its declaration (spec 3)."""

from paygate.codec.errors import ErrorCode
from paygate.codec.fields import Field
from paygate.codec.frame import body_size_range
from paygate.codec.messages import Hello, Message
from paygate.codec.record_codec import encode_record
from paygate.conform.answering import EVERY_END, AnsweringEnd
from paygate.conform.craft import Draft, bad_encodings, body_with, leaves_of, longer_than_body
from paygate.conform.trial import Trial


async def refused_body(t: Trial, end: AnsweringEnd, cls: type[Message], body: bytes, code: ErrorCode) -> None:
    """Send the body in a frame that is right otherwise, and have it refused."""
    wire = await (end.connect(t, "") if cls is Hello else end.open_link(t))
    wire.send_draft(Draft(int(cls.kind), body, link_key=wire.link_key))
    await wire.expect_error(code)


def _bad_encodings(cls: type[Message], field: Field) -> list[bytes]:
    """What may be in the field's place in a body that is neither too small nor too large for its kind."""
    size_min, size_max = body_size_range(cls.kind)
    before_min, before_max = size_min - field.size_min, size_max - field.size_max
    encodings = [encoded for _words, encoded in bad_encodings(field)]
    return [e for e in encodings if before_min + len(e) <= size_max and before_max + len(e) >= size_min]


def _declare_bad_values(end: AnsweringEnd, cls: type[Message], path: str, field: Field) -> None:
    size_min, size_max = body_size_range(cls.kind)

    @end.catalogue.case(
        f"value.{cls.kind.name.lower()}.{path}",
        f"{cls.__name__} whose {path} is not {field.expected} gets BAD_VALUE.",
        *("3.2", "3.3", "9", "PG-ENC-3"),
    )
    async def bad_value(t: Trial) -> None:
        for encoded in _bad_encodings(cls, field):
            body = body_with(end.examples[cls](t), path, encoded)
            # One that makes the body too large for its kind is refused for that.
            if size_min <= len(body) <= size_max:
                await refused_body(t, end, cls, body, ErrorCode.BAD_VALUE)


def _declare_ends(end: AnsweringEnd, cls: type[Message]) -> None:
    name = cls.kind.name

    @end.catalogue.case(
        f"body.{name.lower()}_truncated",
        f"{cls.__name__} whose last field runs past the end of its body gets TRUNCATED_FIELD.",
        *("3.3", "9", "PG-ENC-4"),
    )
    async def truncated(t: Trial) -> None:
        await refused_body(t, end, cls, longer_than_body(end.examples[cls](t)), ErrorCode.TRUNCATED_FIELD)

    @end.catalogue.case(
        f"body.{name.lower()}_trailing",
        f"{cls.__name__} with a byte after its last field gets TRAILING_BYTES.",
        *("3.3", "9", "PG-ENC-4"),
    )
    async def trailing(t: Trial) -> None:
        await refused_body(t, end, cls, encode_record(end.examples[cls](t)) + b"\0", ErrorCode.TRAILING_BYTES)


@EVERY_END.for_each
def declare_bodies(end: AnsweringEnd) -> None:
    """A case for each field that can be wrong, and for both ways in which a body can end wrongly."""
    for cls in end.examples:
        for path, field in leaves_of(cls):
            if _bad_encodings(cls, field):
                _declare_bad_values(end, cls, path, field)
    for cls in end.examples:
        _declare_ends(end, cls)
