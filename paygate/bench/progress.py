"""How far a run is, on stderr: a bar where somebody watches, a line a step where nobody does."""

import sys
from types import TracebackType

from tqdm import tqdm


class ProgressBar:
    """One bar for a run of so many steps."""

    def __init__(self, step_count: int) -> None:
        self._is_watched = sys.stderr.isatty()
        self._begun_count = 0
        self._step_count = step_count
        self._bar = tqdm(total=step_count, disable=not self._is_watched, file=sys.stderr, unit="step", leave=False)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def drop(self, count: int) -> None:
        """So many steps will not come."""
        self._step_count -= count
        self._bar.total = self._step_count

    def step(self, text: str) -> None:
        """A step begins; the one before is done."""
        if self._begun_count:
            self._bar.update()
        self._begun_count += 1
        self._bar.set_description(text)
        if not self._is_watched:
            sys.stderr.write(f"[{self._begun_count}/{self._step_count}] {text}\n")
