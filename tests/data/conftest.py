"""Every test of this folder runs with an empty cache and without the user's own data folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedjax_lc.core.errors import InputError


@pytest.fixture(autouse=True)
def _empty_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDJAX_LC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FEDJAX_LC_DATA", raising=False)


@pytest.fixture(scope="session")
def complaint() -> Callable[..., str]:
    """complaint(f, *args, **options): the message of the InputError that the call must raise, one line."""

    def call(function: Callable[..., Any], *args: Any, **options: Any) -> str:
        with pytest.raises(InputError) as caught:
            function(*args, **options)
        message = str(caught.value)
        assert "\n" not in message
        return message

    return call
