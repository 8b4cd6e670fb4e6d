"""Fills the generated parts of `spec/protocol.md`: what stands between `<!-- spec: WHAT -->` and `<!-- /spec -->`.

WHAT is a word and its arguments: `fields TokenQuery`, `codes Reason`, `limits`, `link answering`. The prose around
the parts is written by hand. A requirement is a paragraph or list item that begins with its number: `**PG-FRM-3.**`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from paygate.codec import codes, errors
from paygate.codec.codes import Code
from paygate.codec.fields import Record
from paygate.codec.frame import Header
from paygate.codec.messages import MESSAGES
from specgen import bank_conditions, diagrams, gateway_conditions, link_states, store_states, tables
from specgen.declared import SEALED_RECORDS

_PART = re.compile(r"<!-- spec: (?P<what>[^>]+?) -->\n.*?<!-- /spec -->", re.DOTALL)
_REQUIREMENT = re.compile(
    r"^(?:- )?\*\*(?P<number>PG-[A-Z]+-\d+)\.\*\* (?P<text>.+?)(?=\n\n|\n- |\n\||\Z)", re.MULTILINE | re.DOTALL
)
_EDITION = re.compile(r"^Edition (\d{4}-\d\d-\d\d)\.", re.MULTILINE)
_HEADING = re.compile(r"^#{2,3} (?P<section>\d+(?:\.\d+)?|Appendix [A-Z])\.? ", re.MULTILINE)


class BadDocument(Exception):
    """The hand-written part of the spec has something that can't be filled in or read; the text says what and where."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One numbered requirement: `PG-FRM-3`, the section it stands in, and its text."""

    number: str
    section: str
    text: str


CODES: dict[str, type[Code]] = {
    cls.__name__: cls
    for cls in (vars(codes) | vars(errors)).values()
    if isinstance(cls, type) and issubclass(cls, Code) and cls is not Code
}
_DECLARED: list[type[Record]] = [Header, *MESSAGES.values(), *SEALED_RECORDS]
_RECORDS = {cls.__name__: cls for cls in _DECLARED}

_PARTS: dict[str, Callable[..., str]] = {
    "fields": lambda name: tables.record_block(_RECORDS[name]),
    "codes": lambda name: tables.codes_table(CODES[name]),
    "kinds": tables.kinds_table,
    "pipes": tables.pipe_kinds_table,
    "limits": tables.limits_table,
    "timers": tables.timers_table,
    "currencies": tables.currencies_table,
    "labels": tables.labels_table,
    "suites": tables.suites_table,
    "links": diagrams.link_diagram,
    "answering": lambda: link_states.link_table(link_states.ANSWERING_ENDS),
    "calling": lambda: link_states.link_table(link_states.CALLING_ENDS),
    "tokens": lambda: f"{diagrams.token_diagram()}\n\n{store_states.token_table()}",
    "gateway-conditions": gateway_conditions.gateway_table,
    "payments": lambda: f"{store_states.payment_diagram()}\n\n{store_states.payment_table()}",
    "bank-conditions": bank_conditions.bank_table,
    "client": lambda: f"{diagrams.client_diagram()}\n\n{diagrams.client_events_table()}",
}


def fill(document: str, **more: Callable[[], str]) -> str:
    """The document with every generated part made anew. `more`: further parts by their word. Raises BadDocument."""
    parts = _PARTS | more
    wanted: list[str] = []

    def part(found: re.Match[str]) -> str:
        what = found["what"]
        word, *arguments = what.split()
        wanted.append(what)
        try:
            text = parts[word](*arguments)
        except (KeyError, TypeError):
            raise BadDocument(f"spec/protocol.md asks for `{what}`; there are: {', '.join(sorted(parts))}") from None
        return f"<!-- spec: {what} -->\n{text}\n<!-- /spec -->"

    filled = _PART.sub(part, document)
    missing = sorted(f"fields {name}" for name in _RECORDS if f"fields {name}" not in wanted)
    missing += sorted(f"codes {name}" for name in CODES if f"codes {name}" not in wanted)
    missing += sorted(word for word in parts if word not in ("fields", "codes") and word not in wanted)
    if missing:
        raise BadDocument(f"spec/protocol.md has no part for: {', '.join(missing)}")
    return filled


def edition(document: str) -> str:
    """The date of the edition. Raises BadDocument if it is not said, or not in the list of changes (section 11)."""
    found = _EDITION.search(document)
    if found is None:
        raise BadDocument("spec/protocol.md: no line begins with `Edition YYYY-MM-DD.`")
    if f"| {found[1]} | " not in document:
        raise BadDocument(f"spec/protocol.md: section 11 does not say what changed in the edition {found[1]}")
    return found[1]


def requirements(document: str) -> list[Requirement]:
    """Every numbered requirement in order. Raises BadDocument for a number that stands twice or is out of order."""
    found: dict[str, Requirement] = {}
    sections = [(match.start(), match["section"]) for match in _HEADING.finditer(document)]
    latest: dict[str, int] = {}
    for match in _REQUIREMENT.finditer(document):
        number = match["number"]
        area, _, count = number.rpartition("-")
        if int(count) != latest.get(area, 0) + 1:
            raise BadDocument(f"spec/protocol.md: {number} is not the next one after {area}-{latest.get(area, 0)}")
        latest[area] = int(count)
        section = [name for start, name in sections if start < match.start()][-1]
        found[number] = Requirement(number, section, " ".join(match["text"].split()))
    _check_mentions(document, found)
    return list(found.values())


def _check_mentions(document: str, known: Iterable[str]) -> None:
    unknown = sorted(set(re.findall(r"PG-[A-Z]+-\d+", document)) - set(known))
    if unknown:
        raise BadDocument(f"spec/protocol.md mentions requirements that it does not state: {', '.join(unknown)}")
