"""The bank: holds the accounts, opens envelopes in a child process, moves the money (R5 to R9)."""
