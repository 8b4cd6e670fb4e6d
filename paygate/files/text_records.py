"""The door to text records (R13-R18): how a line looks, a log of our own, a file shared with others."""

from paygate.files.append_file import AppendFile, Row
from paygate.files.in_place import ChangingColumns, RowChange
from paygate.files.layout import LINE, ROW_SIZE_MAX, Column, FieldProblem, Layout, LineProblem
from paygate.files.line_stream import RawLine
from paygate.files.shared_file import News, SharedFile

__all__ = [
    "LINE",
    "ROW_SIZE_MAX",
    "AppendFile",
    "ChangingColumns",
    "Column",
    "FieldProblem",
    "Layout",
    "LineProblem",
    "News",
    "RawLine",
    "Row",
    "RowChange",
    "SharedFile",
]
