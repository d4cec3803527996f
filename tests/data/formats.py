"""Small files of the formats that image and text sets come in, written by the tests."""

from __future__ import annotations

import gzip
import json
import pickle

import numpy as np


def idx(array):
    """The bytes of an idx file."""
    head = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    return head + array.astype(np.uint8).tobytes()


def images(rows, classes=10, seed=0, first=0):
    """Random images (rows, 28, 28) and labels, every class among them."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (rows, 28, 28), dtype=np.uint8), np.arange(rows) % classes + first


def write_idx(folder, names, train, test, packed=True):
    """Four idx files; `names` of training images, training labels, test images, test labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(names, (*train, *test), strict=True):
        content = idx(array)
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def batch(rows, key="labels", classes=10, seed=0):
    """A batch as CIFAR stores it."""
    data = np.random.default_rng(seed).integers(0, 256, (rows, 3072), dtype=np.uint8)
    return {b"data": data, key.encode(): [int(k) % classes for k in range(rows)]}


def cifar10_files(protocol=2):
    """Name -> content of the files of a small CIFAR-10: batches of 6 rows, a test batch of 4."""
    names = [f"data_batch_{k}" for k in range(1, 6)]
    found = {name: pickle.dumps(batch(6, seed=k), protocol) for k, name in enumerate(names)}
    found["test_batch"] = pickle.dumps(batch(4, seed=9), protocol)
    labels = [f"class {k}".encode() for k in range(10)]
    return found | {"batches.meta": pickle.dumps({b"label_names": labels}, protocol)}


def write_files(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def write_leaf(folder, part, users, name="all.json"):
    """A file of LEAF's form from user -> (strings, characters after them)."""
    (folder / part).mkdir(parents=True, exist_ok=True)
    told = {user: {"x": x, "y": y} for user, (x, y) in users.items()}
    (folder / part / name).write_text(json.dumps({"users": list(users), "user_data": told}))
