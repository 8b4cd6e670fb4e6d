"""The gateway: knows tokens, forwards what it can't read, and never pays a token twice (R1 to R4, R8, R9)."""
