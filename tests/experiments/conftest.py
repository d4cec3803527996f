"""What the tests of recipes share."""

import pytest

from tests.quickly import compile_quickly


@pytest.fixture(scope="module")
def quick():
    """For files in which nearly all time goes into compiling."""
    with pytest.MonkeyPatch.context() as patch:
        compile_quickly(patch)
        yield
