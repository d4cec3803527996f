"""Real files, where FEDJAX_LC_DATA points at a folder that holds them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fedjax_lc.data import load, partition

FOLDER = os.environ.get("FEDJAX_LC_DATA", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="set FEDJAX_LC_DATA to a folder of data sets to run these")


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


def test_mnist():
    data = real("mnist")
    assert (data.features.shape, data.test.features.shape, data.features.dtype) == (
        (60000, 784),
        (10000, 784),
        np.uint8,
    )
    assert data.targets[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test.targets[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(data.targets).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert round(float(data.features.mean()) / 255, 4) == 0.1307
    assert data.notes == ()
    assert real("mnist").features.flags.c_contiguous
    sizes = [len(part) for part in partition(data, 100, "main_class:0.5")]
    assert sum(sizes) == 60000


@pytest.mark.parametrize(("least", "speakers"), [(2, 299), (1000, 141), (5000, 64)])
def test_speakers_of_shakespeare(least, speakers):
    """Ten of the 309 are ghosts without a line."""
    data = real(f"shakespeare:seq_len=1,min_chars={least},test_share=0")
    assert data.notes == (f"{speakers} of 309 speakers are clients, those with {least} characters or more",)
    assert len(data.classes) == 65


def test_windows_of_shakespeare():
    data = real("shakespeare")
    assert (data.features.shape[1], data.groups.max(), data.test.groups.max()) == (80, 140, 140)
    first = "".join(data.classes[k] for k in data.features[0])
    assert first == "Before we proceed any further, hear me speak.\nYou are all resolved rather to die"
    assert "".join(data.classes[k] for k in data.targets[0]) == first[1:] + " "
    assert 0.19 < len(data.test.targets) / (len(data.targets) + len(data.test.targets)) < 0.21


def test_cifar10():
    """The original batches, or a re-encoding of them, whose note says so."""
    data = real("cifar10")
    assert (data.features.shape, data.test.features.shape) == ((50000, 3072), (10000, 3072))
    assert np.bincount(data.targets).tolist() == [5000] * 10
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    means = data.features.reshape(-1, 3).mean(axis=0) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=5e-4)
