"""The door to text records (R13-R18): how a line looks, a log of our own, a file shared with others."""

from typing import Final

from paygate.files.append_file import AppendFile, Row
from paygate.files.in_place import ChangingColumns
from paygate.files.layout import LINE, ROW_SIZE_MAX, Column, FieldProblem, Layout, LineProblem
from paygate.files.line_stream import RawLine
from paygate.files.shared_file import News, SharedFile

WRITE_DELAY_MS: Final = 50
"""How far the files may be behind the last commit while a server runs. What changes twice meanwhile is written once: a
payment under load gets its line and its outcome together. When a server ends they are complete."""

__all__ = [
    "LINE",
    "ROW_SIZE_MAX",
    "WRITE_DELAY_MS",
    "AppendFile",
    "ChangingColumns",
    "Column",
    "FieldProblem",
    "Layout",
    "LineProblem",
    "News",
    "RawLine",
    "Row",
    "SharedFile",
]
