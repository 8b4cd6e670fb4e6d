"""SVG diagrams: well-formed, standing alone, everything within the picture, hostile text as text."""

import re
from collections.abc import Iterable, Iterator
from typing import Final
from xml.etree import ElementTree

import builders
import pytest
from dump.drawn import HOSTILE, LONG, examples, finding, hostile_flow, opened, seen_session
from dump.tape import LinkTape, Tape
from specgen.vector_session import FENCED, PAID, SESSIONS, Payment

from paygate.codec.codes import Kind
from paygate.dump.display import display_width
from paygate.dump.model import Item, SeenFrame, Side
from paygate.dump.sheet import ROW_COUNT_MAX
from paygate.dump.svg import CHAR_WIDTH, SMALL_WIDTH, Svg
from paygate.escape import escape_line

_NAMESPACE: Final = "{http://www.w3.org/2000/svg}"
_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def svg_of(items: Iterable[Item], *, show_secrets: bool = False) -> ElementTree.Element:
    """The picture, parsed."""
    parts: list[str] = []
    svg = Svg(parts.append, show_secrets=show_secrets)
    for item in items:
        svg.receive(item)
    svg.finish()
    text = "".join(parts)
    assert text.isascii()
    # Nothing in it runs, loads or leads anywhere.
    assert not re.search(r"<script|<a |href|url\(|@import|<!|<\?", text)
    return ElementTree.fromstring(text)


def texts_in(picture: ElementTree.Element) -> list[str]:
    """Every text of the picture."""
    return ["".join(element.itertext()) for element in picture.iter(f"{_NAMESPACE}text")]


def boxes_in(picture: ElementTree.Element) -> Iterator[tuple[str, float, float, float, float]]:
    """What is drawn, with its left, right, upper and lower edge; of texts with the widest font's width."""
    for element in picture.iter():
        tag, get = element.tag.removeprefix(_NAMESPACE), element.attrib.get
        if tag == "text":
            small = "small" in get("class", "")
            width = display_width("".join(element.itertext())) * (SMALL_WIDTH if small else CHAR_WIDTH)
            x, y = float(get("x", "")), float(get("y", ""))
            left = x - {"middle": width / 2, "end": width}.get(get("text-anchor", ""), 0)
            yield "".join(element.itertext()), left, left + width, y - 11, y + 3
        elif tag == "rect" and get("class") != "paper":
            x, y = float(get("x", "")), float(get("y", ""))
            yield tag, x, x + float(get("width", "")), y, y + float(get("height", ""))
        elif tag == "line":
            x1, x2, y1, y2 = (float(get(name, "")) for name in ("x1", "x2", "y1", "y2"))
            yield tag, x1, x2, y1, y2
        elif tag == "path":
            # Absolute moves; what is relative in a tip or a cross is a few pixels.
            for x_text, y_text in re.findall(r"M(-?[0-9.]+) (-?[0-9.]+)", get("d", "")):
                yield tag, float(x_text) - 10, float(x_text) + 10, float(y_text) - 10, float(y_text) + 10
            for x_text in re.findall(r"H(-?[0-9.]+)", get("d", "")):
                yield tag, float(x_text), float(x_text), 0, 0


def everything() -> list[Item]:
    """Frames of every kind, strangers, many clients, findings that repeat anything."""
    tape = Tape()
    links = [LinkTape(tape, is_bank_link=number == 0) for number in range(5)]
    stranger = hostile_flow(links[0].flow)
    for number, message in enumerate(examples(), start=10):
        links[number % 5].ask(message, number)
        links[number % 5].answer(message, number)
        tape.frame(stranger, Side.ANSWERER, message, number)
    tape.items += [opened(stranger), finding(None, HOSTILE), finding(links[1].flow, LONG), finding(stranger, HOSTILE)]
    return tape.items


def crowd() -> list[Item]:
    """More strangers than have a lifeline of their own, so that their arrows end where they begin."""
    tape = Tape()
    for number, message in enumerate(examples()):
        flow = hostile_flow(tape.flow())
        flow.caller = flow.caller._replace(port=number + 1)
        tape.frame(flow, Side.CALLER, message, number)
    return tape.items


@pytest.mark.parametrize("payment", SESSIONS, ids=lambda payment: payment.name)
def test_a_session_has_all_its_arrows_with_their_kinds_in_order(payment: Payment) -> None:
    items = seen_session(payment)
    frames = [item for item in items if isinstance(item, SeenFrame)]
    picture = svg_of(items)
    kinds = [e.text for e in picture.iter(f"{_NAMESPACE}tspan") if e.attrib["class"] == "kind"]
    assert kinds == [type(frame.message).__name__ for frame in frames]
    arrows = [e for e in picture.iter(f"{_NAMESPACE}path") if e.attrib["class"].startswith("arrow")]
    assert [("reply" in arrow.attrib["class"]) for arrow in arrows if "event" not in arrow.attrib["class"]] == [
        frame.kind.is_reply for frame in frames
    ]
    for arrow in arrows:
        begin, _, end = map(float, _NUMBER.findall(arrow.attrib["d"])[:3])
        if "reply" in arrow.attrib["class"]:
            assert begin > end
        else:
            assert begin < end


def test_the_picture_shows_who_when_what_and_how_it_went() -> None:
    texts = texts_in(svg_of(seen_session(FENCED)))
    for text in (
        "client",
        "gateway GW1",
        "bank BANK1",
        "ms since 2026-01-02T00:00:00.001Z",
        "12007.000",
        "PaymentAck DECLINED FENCED 2.01 s",
        "payment=2deaeccb receipt=<200 bytes>",
        "transaction=TX-1003 passcode=<secret>",
    ):
        assert text in texts


def test_screen_readers_get_a_title_and_what_the_picture_holds() -> None:
    picture = svg_of(seen_session(PAID))
    assert picture.attrib["role"] == "img"
    described = [picture.find(f".//*[@id='{name}']") for name in picture.attrib["aria-labelledby"].split()]
    assert [element.text for element in described if element is not None] == [
        "paygate sequence diagram",
        "20 messages, events and findings between client, gateway GW1, bank BANK1",
    ]


def test_dark_screens_get_colours_of_their_own_for_everything() -> None:
    style = svg_of([]).find(f"{_NAMESPACE}style")
    assert style is not None
    assert style.text is not None
    light, _, dark = style.text.partition("@media(prefers-color-scheme:dark)")
    coloured = re.compile(r"([^{}]+)\{[^{}]*(?:fill|stroke):#")
    assert set(coloured.findall(dark.removeprefix("{"))) == set(coloured.findall(light))
    assert len(set(re.findall(r"#[0-9a-f]{6}", light)) & set(re.findall(r"#[0-9a-f]{6}", dark))) == 0


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_text_stands_out_from_what_is_behind_it_as_wcag_asks_of_small_text() -> None:
    style = svg_of([]).findtext(f"{_NAMESPACE}style") or ""
    for rules in style.split("@media"):
        fills = dict(re.findall(r"\.(\w+)\{fill:(#[0-9a-f]{6})", rules))
        ground = [luminance(fills.pop(name)) for name in ("paper", "head", "note")]
        assert len(fills) >= 6
        for name, colour in fills.items():
            for behind in ground:
                darker, lighter = sorted((luminance(colour), behind))
                assert (lighter + 0.05) / (darker + 0.05) >= 4.5, name


def test_everything_is_within_the_picture() -> None:
    for items in (everything(), crowd(), seen_session(PAID), []):
        picture = svg_of(items)
        _, _, width, height = map(float, picture.attrib["viewBox"].split())
        assert (picture.attrib["width"], picture.attrib["height"]) == (f"{width:.0f}", f"{height:.0f}")
        for what, left, right, upper, lower in boxes_in(picture):
            assert left >= 0, what
            assert right <= width, what
            assert upper >= 0, what
            assert lower <= height, what


def test_texts_of_one_row_do_not_reach_into_the_next() -> None:
    for items in (everything(), crowd()):
        check_apart([box for box in boxes_in(svg_of(items)) if box[0] not in ("path", "line", "rect")])


def check_apart(boxes: list[tuple[str, float, float, float, float]]) -> None:
    """No two boxes overlap by more than a pixel."""
    assert len(boxes) > 25
    for index, (what, left, right, upper, lower) in enumerate(boxes):
        for other, other_left, other_right, other_upper, other_lower in boxes[index + 1 :]:
            is_beside = right <= other_left + 1 or other_right <= left + 1
            is_above = lower <= other_upper + 1 or other_lower <= upper + 1
            assert is_beside or is_above, (what, other)


def test_hostile_text_stays_text() -> None:
    picture = svg_of([finding(None, HOSTILE), finding(hostile_flow(Tape().flow()), HOSTILE)])
    shown = f"expected 0x00000002, got {escape_line(HOSTILE)} (spec 4.3)"
    assert any(text.endswith("…") and shown.startswith(text[:-1]) and len(text) > 30 for text in texts_in(picture))
    tags = {element.tag.removeprefix(_NAMESPACE) for element in picture.iter()}
    assert tags == {"svg", "title", "desc", "style", "rect", "text", "line"}


def test_more_strangers_than_have_room_talk_on_one_lifeline() -> None:
    texts = texts_in(svg_of(crowd()))
    assert "13 strangers" in texts
    assert texts.index("EchoReply") + 1 == texts.index("echo_data=6563686f", texts.index("EchoReply"))


def test_secrets_are_masked_unless_they_are_asked_for() -> None:
    assert "<secret>" in str(texts_in(svg_of(seen_session(PAID))))
    assert "<secret>" not in str(texts_in(svg_of(seen_session(PAID), show_secrets=True)))


def test_a_long_capture_ends_with_a_text_that_counts_the_rest() -> None:
    tape = Tape()
    link = LinkTape(tape)
    for number in range(ROW_COUNT_MAX):
        link.ask(builders.example(Kind.ECHO), number + 10)
    texts = texts_in(svg_of(tape.items))
    assert sum(text == "Echo" for text in texts) == ROW_COUNT_MAX - 3
    assert any(text.startswith("3 more rows are not shown") for text in texts)


def test_an_input_without_traffic_is_a_picture_that_says_so() -> None:
    assert texts_in(svg_of([])) == ["no paygate traffic"]
