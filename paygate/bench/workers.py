"""Processes that seal and check for the bench, on all cores."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor


def make_workers() -> ProcessPoolExecutor:
    """As many as there are cores. An interrupt from the keyboard is the bench's alone to hear: it ends them."""
    return ProcessPoolExecutor(os.cpu_count(), initializer=_leave_interrupts)


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
