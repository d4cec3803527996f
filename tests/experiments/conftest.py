"""What the tests of recipes share."""

from pathlib import Path

import pytest

from tests.quickly import compile_quickly


def pytest_collection_modifyitems(items):
    """Recipes and benches, which are no part of the package, are tested in `make test-all`."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def quick():
    """For files in which nearly all time goes into compiling."""
    with pytest.MonkeyPatch.context() as patch:
        compile_quickly(patch)
        yield
