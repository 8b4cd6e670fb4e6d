"""`paygate-dump`: captures in, what happened out (R24)."""
