"""The wire format, declared once with `construct` (R20), and the cryptography that travels in it.

Everything below this package stands on the standard library and `construct` alone, but for `seal.py`,
the one file here that uses `cryptography`. Nothing here opens a file, reads a clock or draws randomness.
"""
