"""The default output of `paygate-dump`: one line a frame (R24)."""

from paygate.dump.summary import summary

__all__ = ["summary"]
