"""Real LIBSVM files, where FEDJAX_LC_DATA points at a folder that holds them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fedjax_lc.data import load, partition

FOLDER = os.environ.get("FEDJAX_LC_DATA", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="set FEDJAX_LC_DATA to a folder with LIBSVM files to run these")


def real(name, **options):
    try:
        return load(name, data_dir=FOLDER, download=False, **options)
    except ValueError as error:
        if "downloading is off" in str(error):
            pytest.skip(f"{name} is not in FEDJAX_LC_DATA")
        raise


@pytest.mark.parametrize(
    ("name", "rows", "declared", "present", "negative", "positive"),
    [
        ("a1a", 1605, 123, 119, 1210, 395),
        ("a5a", 6414, 123, 122, 4845, 1569),
        ("w1a", 2477, 300, 300, 2405, 72),
        ("diabetes", 768, 8, 8, 268, 500),
        ("australian", 690, 14, 14, 383, 307),
        ("australian_scale", 690, 14, 14, 383, 307),
        ("german.numer", 1000, 24, 24, 700, 300),
        ("ionosphere_scale", 351, 34, 34, 126, 225),
        ("phishing", 11055, 68, 68, 4898, 6157),
        ("mushrooms", 8124, 112, 112, 3916, 4208),
    ],
)
def test_counts(name, rows, declared, present, negative, positive):
    data = real(name)
    assert data.task == "binary"
    assert data.features.shape == (rows, declared)
    assert [(data.targets == sign).sum() for sign in (-1, 1)] == [negative, positive]
    assert real(name, n_features="file").features.shape == (rows, present)


def test_w1a_has_empty_rows():
    assert np.any(np.all(real("w1a").features == 0, axis=1))


def test_minmax_is_the_scaling_of_the_published_files():
    for name in ("australian", "german.numer"):
        published = real(name + "_scale").features
        np.testing.assert_allclose(real(name, scale="minmax").features, published, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "smallest", "largest"), [("a9a", 535, 3225), ("phishing", 229, 1141), ("w8a", 621, 4938)]
)
def test_rebalanced_clusters(name, smallest, largest):
    """Sizes of the non-iid clients of arXiv 2102.12528 after its rebalancing rule."""
    ids = Path(FOLDER) / "mcm" / f"{name}_clusters.npy"
    if not ids.is_file():
        pytest.skip(f"{ids.name} is not in FEDJAX_LC_DATA")
    sizes = [len(part) for part in partition(real(name), 20, f"clusters:{ids},rebalance=10")]
    assert (min(sizes), max(sizes)) == (smallest, largest)
