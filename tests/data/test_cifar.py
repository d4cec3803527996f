"""CIFAR's pickles: written by Python 2 and 3, by every protocol; and what a pickle may not do."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from fedjax_lc.data import cifar
from fedjax_lc.data.remote import File
from tests.data.formats import batch

BATCH = batch(5)


def python2(data, labels):
    """The stream of opcodes that Python 2's cPickle and NumPy of that time wrote for a batch."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87R"
        b"(K\x01K" + bytes([len(data)]) + b"M\x00\x0c\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + data.size.to_bytes(4, "little") + data.tobytes() + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(b"K" + bytes([k]) for k in labels) + b"e"
    return b"\x80\x02}q\x01(U\x04data" + array + b"U\x06labels" + numbers + b"U\x0bbatch_labelU\x05toy 1u."


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5, "python 2"])
def test_batches_of_any_protocol(protocol):
    data, labels = BATCH[b"data"], BATCH[b"labels"]
    content = python2(data, labels) if protocol == "python 2" else pickle.dumps(BATCH, protocol)
    images, targets = cifar.batch(File("toy", content), "labels")
    assert targets.tolist() == labels
    for channel in range(3):
        block = data[:, 1024 * channel : 1024 * (channel + 1)].reshape(5, 32, 32)
        assert np.array_equal(images[..., channel], block)


def test_arrays_in_the_original_module_of_numpy():
    content = pickle.dumps(BATCH, 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in content
    assert cifar.batch(File("toy", content), "labels")[0].shape == (5, 32, 32, 3)


class Evil:
    def __reduce__(self):
        return os.system, ("echo run > ran",)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (pickle.dumps({b"data": Evil()}), "posix.system"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"cnumpy\nload\n(S'x'\ntR.", "numpy.load"),
        (pickle.dumps({1.5j}), "the operation 8f"),
        (pickle.dumps({b"data": 1.5}), "the operation 47"),
        (pickle.dumps({3: b"data"}), "keys that are no words"),
        (pickle.dumps({b"data": np.zeros(2)}), "an array of f8, not of bytes"),
        (pickle.dumps({b"data": np.array([None])}), "an array of O8, not of bytes"),
        (pickle.dumps({b"data": np.zeros(2, [("f", "u1"), ("g", "O")])}), "an array of V9, not of bytes"),
        (pickle.dumps({b"data": b""}).replace(b"\x80\x04", b"\x80\x06"), "a later protocol"),
        # what crashed NumPy: arrays of objects made of raw bytes, and arrays that nobody filled
        (
            b"cnumpy.core.multiarray\nfrombuffer\n(C\x0812345678cnumpy\ndtype\n(VO\ntRtR.",
            "numpy.core.multiarray.frombuffer",
        ),
        (
            b"cnumpy.core.numeric\n_frombuffer\n(C\x0812345678cnumpy\ndtype\n(VO\ntR(K\x01tVC\ntR.",
            "an array of O, not of bytes",
        ),
        (b"cnumpy\nndarray\n((K\x05K\x06ttR.", "numpy.ndarray called"),
        (b"c_codecs\nencode\n(Vab\nVzlib\ntR.", "the encoding zlib"),
    ],
)
def test_a_pickle_may_only_hold_plain_data(complaint, tmp_path, monkeypatch, content, what):
    monkeypatch.chdir(tmp_path)
    message = f"toy: not a pickle of plain data (it asks for {what}); get the original file"
    assert complaint(cifar.content_of, File("toy", content)) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([1]), "toy: holds a list, expected a dict; get the original file"),
        (pickle.dumps(BATCH)[:-100], "toy: the pickle is truncated or corrupt; copy or download it again"),
        (b"", "toy: the pickle is truncated or corrupt; copy or download it again"),
        (
            pickle.dumps({b"labels": [1]}),
            "toy: has no 'data' (it holds 'labels'); get the original file",
        ),
        (
            pickle.dumps({b"data": BATCH[b"data"][:, :100], b"labels": [0] * 5}),
            "toy: 'data' must be uint8 of shape (N, 3072), got uint8 of shape (5, 100)",
        ),
        (
            pickle.dumps({b"data": [1], b"labels": [0]}),
            "toy: 'data' must be uint8 of shape (N, 3072), got list",
        ),
        (
            pickle.dumps(BATCH | {b"labels": [0] * 4}),
            "toy: 5 images need a list of as many labels in 'labels', got 4 entries",
        ),
        (
            pickle.dumps(BATCH | {b"labels": [0, 1, [2], 3, 4]}),
            "toy: label 2 in 'labels' must be a whole number in 0..255, got a list",
        ),
        (
            pickle.dumps(BATCH | {b"labels": [0, 2**70, 2, 3, 4]}),
            f"toy: label 1 in 'labels' must be a whole number in 0..255, got {2**70}",
        ),
        (
            pickle.dumps(BATCH | {b"labels": [0, -1, True, 3, 4]}),
            "toy: label 1 in 'labels' must be a whole number in 0..255, got -1",
        ),
        (
            pickle.dumps(BATCH | {b"labels": b"12345"}),
            "toy: 5 images need a list of as many labels in 'labels', got bytes",
        ),
    ],
)
def test_pickles_that_are_no_batch(complaint, content, message):
    assert complaint(cifar.batch, File("toy", content), "labels") == message


def test_names_of_classes(complaint):
    meta = File("meta", pickle.dumps({b"label_names": [b"cat", "dog"], b"one": b"cat"}))
    assert cifar.label_names(meta, "label_names") == ["cat", "dog"]
    assert complaint(cifar.label_names, meta, "one") == (
        "meta: 'one' must be a list of names of up to 100 characters each"
    )
    assert complaint(cifar.label_names, meta, "two") == (
        "meta: has no 'two' (it holds 'label_names', 'one'); get the original file"
    )
