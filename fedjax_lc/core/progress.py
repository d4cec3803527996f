"""The progress bar, shown on a terminal after two seconds, and lines printed above it."""

from __future__ import annotations

import sys
from typing import Any

from fedjax_lc.core.errors import one_line

DELAY = 2.0  #: seconds before a bar appears


def bar(total: int | None, title: str = "", unit: str = "", *, shown: bool = True, **layout: Any) -> Any:
    """A progress bar of `total` units, as a context manager; `shown=False` hides it on a terminal too.

    Args:
        layout: further options of `tqdm.tqdm`, such as bar_format.

    Example:
        >>> with bar(3, "files") as files:
        ...     files.update()
    """
    from tqdm import tqdm

    hidden = None if shown else True  # None: shown on a terminal only
    return tqdm(total=total, desc=title or None, unit=unit, delay=DELAY, disable=hidden, leave=False, **layout)


def say(line: str) -> None:
    """Print a line on stderr, above the bar if one is shown."""
    from tqdm import tqdm

    tqdm.write(one_line(line), file=sys.stderr)
