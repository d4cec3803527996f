"""`Table`: what a file or an object holds, not yet checked."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Table(NamedTuple):
    """What a file holds, not yet checked.

    features: (N, d), pictures, or sparse; targets: (N,); groups: (N,) client ids if it has any; test: (N,) which rows
    are of the test part, None for none; said: what it was read as, or its target; kept: (M,) which rows of the file
    these N are, None for all.
    """

    features: Any
    targets: NDArray[Any]
    notes: tuple[str, ...] = ()
    groups: NDArray[Any] | None = None
    test: NDArray[np.bool_] | None = None
    said: str = "read as arrays"
    kept: NDArray[np.bool_] | None = None
