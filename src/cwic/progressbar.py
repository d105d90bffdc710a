"""What takes long tells how far it is: one line on a terminal, and nothing anywhere else."""

from __future__ import annotations

import sys
import time

WAIT_S, BETWEEN_S = 1.0, 0.1  # what is done by then needs no line; how often it is written anew
WIDTH = 30


class ProgressBar:
    """A `cwic.areas.Progress` on standard error, for a `with` block: the line is gone after it."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._next = time.monotonic() + WAIT_S
        self._is_shown = False

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` parts of the work are done."""
        if not self._is_terminal or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + BETWEEN_S
        full = WIDTH * done // total
        self._write(f"\r{what:>10} [{'#' * full}{'.' * (WIDTH - full)}] {100 * done // total:3} %")
        self._is_shown = True

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            self._write("\r" + " " * (WIDTH + 20) + "\r")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
