"""A record's declaration turned into Python that does what its layout says: the fast way in and out.

Strategy
--------
construct walks a tree of objects at every message. Here the same declaration (`fields_of`, the field types with their
limits, `rules`) is read once, at the first use of a record, and written out as two plain functions: one `struct` for
each run of fields of fixed size, a length in front of what it counts included, and slices for the rest; every check in
its place; nested records in line, and rules too where that is certain (`rule_lines.py`). `Compiled.source` shows them,
and so does a traceback.

The functions only say *that* something is wrong, by None or by one of REFUSALS: `record_codec.py` then asks construct,
which stays the reference, what it is. So both can differ in one way only, in what they accept, and
tests/codec/test_compiled.py holds them together there. Three things keep the functions short:

* Slices past the end are not looked for: they come out short, the place behind them is past the end, and every record
  has to end exactly at `end`. Whatever a check made of the short slice, the bytes are refused.
* Values are taken as they are or not at all: a subclass of `bytes`, or of a nested record, is left to construct.
* Texts that recur, and encodings that are asked for again, are remembered (`remembered.py`).
* Frozen records are filled in as drafts (`paygate/making.py`).
"""

import struct
from typing import Final, NamedTuple

from paygate.codec.decode_lines import Decode, Decoding
from paygate.codec.encode_lines import Encode, encoder_of
from paygate.codec.fields import Record, fields_of
from paygate.codec.lines import fixed_format

REFUSALS: Final = (struct.error, IndexError, KeyError, UnicodeError)
"""What the functions may raise instead of returning None. Its text may hold values: nobody shows it or chains to it."""


class Compiled(NamedTuple):
    """`decode(data, at, end)` makes the record that lies there, `encode(value)` its bytes; see REFUSALS."""

    decode: Decode
    encode: Encode
    source: str


def compile_record(cls: type[Record]) -> Compiled:
    """Write and compile the two functions of a record."""
    decode, decode_source = Decoding().function(cls)
    encode, encode_source = encoder_of(cls)  # type: ignore[arg-type]  # classes can be hashed
    return Compiled(decode, encode, f"{decode_source}\n\n{encode_source}")


def struct_of(cls: type[Record]) -> struct.Struct:
    """The one struct of a record that consists of integers and opaque bytes only, checks apart."""
    return struct.Struct(">" + "".join(fixed_format(f.type) for f in fields_of(cls)))
