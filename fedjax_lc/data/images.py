"""Image sets by name: the MNIST family (idx files) and CIFAR (python batches), each with a test part.

Every address is one of https, and every file that is fetched is known by its sha256. MNIST's checksums and those of
Fashion-MNIST's label files agree with copies that were at hand; those of Fashion-MNIST's images, EMNIST and CIFAR are
the ones that several independent projects publish for the same file, and no copy was at hand to try them on.
"""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedjax_lc.core.errors import InputError, unknown
from fedjax_lc.data import cifar, idx
from fedjax_lc.data.dataset import Dataset, from_images
from fedjax_lc.data.remote import File, Folder, Remote, members, note, read

_PARTS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def _four(name: str, site: str, folders: tuple[str, ...], checksums: Sequence[str]) -> list[Remote]:
    return [
        Remote(name, f"{site}/{part}-ubyte.gz", folders, sha256) for part, sha256 in zip(_PARTS, checksums, strict=True)
    ]


# of the unpacked content
MNIST = _four(
    "mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    ("mnist", "MNIST/raw"),
    [
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ],
)
# of the packed files
FASHION_MNIST = _four(
    "fashion_mnist",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    ("fashion-mnist", "fashion_mnist", "FashionMNIST/raw"),
    [
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ],
)
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def mnist(*, data_dir: Folder = None, download: bool = True) -> Dataset:
    """Handwritten digits: 60000 + 10000 images of 28 x 28 x 1, 10 classes.

    Features (60000, 784) uint8, targets 0..9, `test` of 10000 rows. Raises InputError as `load` does.

    Source: LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document recognition", 1998.
    """
    return _idx_remotes("mnist", MNIST, range(10), data_dir, download)


def fashion_mnist(*, data_dir: Folder = None, download: bool = True) -> Dataset:
    """Articles of clothing: 60000 + 10000 images of 28 x 28 x 1, 10 classes.

    Features (60000, 784) uint8, targets 0..9, `test` of 10000 rows. Raises InputError as `load` does.

    Source: Xiao, Rasul & Vollgraf, "Fashion-MNIST", arXiv 1708.07747.
    """
    return _idx_remotes("fashion_mnist", FASHION_MNIST, FASHION_CLASSES, data_dir, download)


def _idx_remotes(
    name: str, remotes: Sequence[Remote], classes: Sequence[Any], data_dir: Folder, download: bool
) -> Dataset:
    pairs = [read(remote, data_dir, download) for remote in remotes]
    notes = note([filename for _, doubtful in pairs for filename in doubtful])
    return _idx_set(name, [file for file, _ in pairs], classes, notes)


# --- EMNIST ---

EMNIST = Remote(
    "emnist",
    "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
    ("emnist", "emnist/gzip", "EMNIST/raw"),
    "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
)
_MERGED = (*string.digits, *string.ascii_uppercase, *"abdefghnqrt")
# classes, training rows, test rows
_EMNIST: dict[str, tuple[Sequence[Any], int, int]] = {
    "byclass": ((*string.digits, *string.ascii_uppercase, *string.ascii_lowercase), 697932, 116323),
    "bymerge": (_MERGED, 697932, 116323),
    "balanced": (_MERGED, 112800, 18800),
    "letters": (tuple(string.ascii_lowercase), 124800, 20800),
    "digits": (range(10), 240000, 40000),
    "mnist": (range(10), 60000, 10000),
}


def emnist(part: str = "byclass", *, data_dir: Folder = None, download: bool = True) -> Dataset:
    """Handwritten letters and digits of 28 x 28 x 1: emnist:byclass, balanced, bymerge, letters, digits, mnist.

    part: byclass (62 classes, 697932 + 116323 images; the one of FedOpt), bymerge and balanced (47 classes, small
    letters like their capitals merged with them), letters (26), digits or mnist (10). Images are turned upright:
    the files hold them transposed. Raises InputError for an unknown part, and as `load` does.

    Source: Cohen, Afshar, Tapson & van Schaik, "EMNIST: an extension of MNIST to handwritten letters",
    arXiv 1702.05373; numbers of images from memory.
    """
    if part not in _EMNIST:
        raise unknown("part of emnist", part, _EMNIST)
    classes, *rows = _EMNIST[part]
    kinds = ("train-images-idx3", "train-labels-idx1", "test-images-idx3", "test-labels-idx1")
    names = {f"emnist-{part}-{kind}-ubyte.gz": "" for kind in kinds}
    content, doubtful = members(EMNIST, names, data_dir, download)
    files = [content[name] for name in names]
    data = _idx_set(f"emnist:{part}", files, classes, note(doubtful), first=int(part == "letters"), turned=True)
    # No checksum of the single files is known.
    if data.test and [len(data.targets), len(data.test.targets)] != rows:
        counts = f"{len(data.targets)} + {len(data.test.targets)} images, the original has {rows[0]} + {rows[1]}"
        return dataclasses.replace(data, notes=(*data.notes, f"not the original files: {counts}"))
    return data


def _idx_set(
    name: str,
    files: Sequence[File],
    classes: Sequence[Any],
    notes: tuple[str, ...],
    first: int = 0,
    turned: bool = False,
) -> Dataset:
    """The data set of four idx files (images, labels, test images, test labels).

    first: the number that stands for class 0; turned: whether images are stored transposed.
    """
    test = _idx_pair(name, files[2:], classes, first, turned)
    train = _idx_pair(name, files[:2], classes, first, turned)
    if test.shape != train.shape:
        raise InputError(f"{files[2].where}: images of shape {test.shape}, but {files[0].where} has {train.shape}")
    return dataclasses.replace(train, notes=notes, test=test)


def _idx_pair(name: str, files: Sequence[File], classes: Sequence[Any], first: int, turned: bool) -> Dataset:
    images, labels = (idx.parse(file.content, file.where) for file in files)
    for array, file, axes in ((images, files[0], 3), (labels, files[1], 1)):
        if array.ndim != axes:
            raise InputError(f"{file.where}: an idx file of {axes} axes is expected, got shape {array.shape}")
    if len(images) != len(labels):
        raise InputError(
            f"{files[0].where}: {len(images)} images, but {files[1].where} has {len(labels)} labels; "
            "copy or download both again"
        )
    upright = images.transpose(0, 2, 1) if turned else images
    return from_images(upright, labels.astype(np.int64) - first, name=name, classes=classes)


# --- CIFAR ---

_CIFAR = "https://www.cs.toronto.edu/~kriz"
CIFAR10 = Remote(
    "cifar10",
    f"{_CIFAR}/cifar-10-python.tar.gz",
    ("cifar10", "cifar-10-batches-py", "cifar10/cifar-10-batches-py"),
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
# md5 of files that may lie unpacked in a folder of the user
CIFAR10_FILES = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
CIFAR100 = Remote(
    "cifar100",
    f"{_CIFAR}/cifar-100-python.tar.gz",
    ("cifar100", "cifar-100-python", "cifar100/cifar-100-python"),
    "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
)
CIFAR100_FILES = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}


def cifar10(*, data_dir: Folder = None, download: bool = True) -> Dataset:
    """Photographs: 50000 + 10000 images of 32 x 32 x 3, 10 classes.

    Features (50000, 3072) uint8, targets 0..9, `test` of 10000 rows. Raises InputError as `load` does.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    content, doubtful = members(CIFAR10, CIFAR10_FILES, data_dir, download)
    *train, test, meta = content.values()
    return _cifar_set("cifar10", train, test, cifar.label_names(meta, "label_names"), "labels", doubtful)


def cifar100(labels: str = "fine", *, data_dir: Folder = None, download: bool = True) -> Dataset:
    """Photographs: 50000 + 10000 images of 32 x 32 x 3, 100 classes; cifar100:coarse has 20.

    Features (50000, 3072) uint8, targets 0..99 (labels "fine") or 0..19 ("coarse"), `test` of 10000 rows. Raises
    InputError for other labels, and as `load` does.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    if labels not in ("fine", "coarse"):
        raise unknown("labels of cifar100", labels, ["fine", "coarse"])
    content, doubtful = members(CIFAR100, CIFAR100_FILES, data_dir, download)
    classes = cifar.label_names(content["meta"], f"{labels}_label_names")
    name = "cifar100" if labels == "fine" else "cifar100:coarse"
    return _cifar_set(name, [content["train"]], content["test"], classes, f"{labels}_labels", doubtful)


def _cifar_set(
    name: str, train: Sequence[File], test: File, classes: Sequence[str], key: str, doubtful: Sequence[str]
) -> Dataset:
    parts = [
        [np.concatenate(arrays) for arrays in zip(*(cifar.batch(file, key) for file in files), strict=True)]
        for files in (train, [test])
    ]
    rows, held_out = (from_images(*part, name=name, classes=classes) for part in parts)
    return dataclasses.replace(rows, notes=note(doubtful), test=held_out)


IMAGES: dict[str, Callable[..., Dataset]] = {
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "emnist": emnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
}
