"""Image sets by name from small files: folders, archives, downloads, notes, and the exact message of each refusal."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import http.server
import io
import pickle
import tarfile
import threading
import zipfile

import numpy as np
import pytest

from fedjax_lc.data import images, load, names, text
from fedjax_lc.data.catalogue import CATALOGUE
from tests.data.formats import batch, cifar10_files, idx, write_files, write_idx
from tests.data.formats import images as made

MNIST_NAMES = [remote.url.rpartition("/")[2] for remote in images.MNIST]
TRAIN, TEST = made(20), made(10, seed=1)
OTHER = "not the original files (other checksums): "


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def md5(content):
    return hashlib.md5(content).hexdigest()


def emnist_names(part, packed=True):
    kinds = [f"{side}-{kind}" for side in ("train", "test") for kind in ("images-idx3", "labels-idx1")]
    return [f"emnist-{part}-{kind}-ubyte" + ".gz" * packed for kind in kinds]


@pytest.mark.parametrize(
    ("folder", "spelled"),
    [
        ("mnist", lambda name: name),
        ("mnist", lambda name: name.removesuffix(".gz")),
        ("mnist", lambda name: name.replace("-idx", ".idx")),
        ("mnist", lambda name: name.replace("-idx", ".idx").removesuffix(".gz")),
        ("MNIST/raw", lambda name: name.removesuffix(".gz")),
    ],
)
def test_mnist_in_a_folder(tmp_path, folder, spelled):
    write_idx(tmp_path / folder, [spelled(name) for name in MNIST_NAMES], TRAIN, TEST)
    for data_dir in (tmp_path, tmp_path / folder):
        data = load("mnist", data_dir=data_dir, download=False)
        assert (data.name, data.task, data.shape, data.classes) == (
            "mnist",
            "multiclass",
            (28, 28, 1),
            tuple(range(10)),
        )
        assert data.notes == (OTHER + ", ".join(map(spelled, MNIST_NAMES)),)
        for part, (pixels, labels) in ((data, TRAIN), (data.test, TEST)):
            assert part.features.dtype == np.uint8
            assert np.array_equal(part.features, pixels.reshape(len(pixels), -1))
            assert np.array_equal(part.targets, labels)


@pytest.mark.parametrize("folder", ["fashion-mnist", "fashion_mnist", "FashionMNIST/raw"])
def test_fashion_mnist_in_a_folder(tmp_path, monkeypatch, folder):
    write_idx(tmp_path / folder, MNIST_NAMES, TRAIN, TEST)
    monkeypatch.setenv("FEDJAX_LC_DATA", str(tmp_path))
    data = load("fashion_mnist", download=False)
    assert data.classes[0] == "T-shirt/top"
    assert np.array_equal(data.test.features, TEST[0].reshape(10, -1))


def test_a_folder_of_another_name_is_known_by_checksums_only(tmp_path, complaint, monkeypatch):
    """MNIST's files are never taken for Fashion-MNIST's, which have the same names."""
    for folder in (tmp_path, tmp_path / "mnist"):
        write_idx(folder, MNIST_NAMES, TRAIN, TEST)
        for name in ("fashion_mnist",) if folder.name == "mnist" else ("mnist", "fashion_mnist"):
            assert complaint(load, name, data_dir=folder, download=False).startswith(f"{name!r} is not in {folder} or ")
    contents = [gzip.decompress((tmp_path / name).read_bytes()) for name in MNIST_NAMES]
    known = [
        dataclasses.replace(remote, sha256=hashlib.sha256(content).hexdigest())
        for remote, content in zip(images.MNIST, contents, strict=True)
    ]
    monkeypatch.setattr(images, "MNIST", known)
    data = load("mnist", data_dir=tmp_path, download=False)
    assert (len(data.targets), data.notes) == (20, ())


def test_labels_and_scale(tmp_path):
    write_idx(tmp_path / "mnist", MNIST_NAMES, TRAIN, TEST)
    five = load("mnist", labels=5, scale="standard", data_dir=tmp_path)
    assert (five.task, five.features.dtype, five.classes) == ("binary", np.float64, ("0|1|2|3|4|6|7|8|9", 5))
    assert np.flatnonzero(five.targets > 0).tolist() == [5, 15]
    assert np.flatnonzero(five.test.targets > 0).tolist() == [5]
    assert load("mnist", labels="multiclass", data_dir=tmp_path).task == "multiclass"


@pytest.mark.parametrize(
    ("part", "count", "first"),
    [
        ("byclass", 62, 0),
        ("bymerge", 47, 0),
        ("balanced", 47, 0),
        ("letters", 26, 1),
        ("digits", 10, 0),
        ("mnist", 10, 0),
    ],
)
def test_emnist_is_turned_upright(tmp_path, part, count, first):
    train, test = made(124, count, first=first), made(62, count, seed=1, first=first)
    write_idx(tmp_path / "emnist", emnist_names(part, packed=False), train, test)
    data = load(f"emnist:{part}", data_dir=tmp_path, download=False)
    assert (data.name, len(data.classes), data.shape) == (f"emnist:{part}", count, (28, 28, 1))
    assert np.array_equal(data.features.reshape(-1, 28, 28), train[0].transpose(0, 2, 1))
    assert np.array_equal(data.test.targets, np.arange(62) % count)
    original = {"byclass": "697932 + 116323", "bymerge": "697932 + 116323", "balanced": "112800 + 18800"}
    original |= {"letters": "124800 + 20800", "digits": "240000 + 40000", "mnist": "60000 + 10000"}
    assert data.notes == (f"not the original files: 124 + 62 images, the original has {original[part]}",)


def test_names_of_emnist_classes(tmp_path):
    for part, count in (("byclass", 62), ("balanced", 47), ("letters", 26)):
        first = int(part == "letters")
        write_idx(tmp_path / "emnist", emnist_names(part), *(made(62, count, first=first),) * 2)
        found = load(f"emnist:{part}", data_dir=tmp_path, download=False).classes
        expected = {"byclass": "09AZaz", "balanced": "09AZat", "letters": "ajkz"}[part]
        places = {"byclass": (0, 9, 10, 35, 36, 61), "balanced": (0, 9, 10, 35, 36, 46), "letters": (0, 9, 10, 25)}
        assert "".join(found[place] for place in places[part]) == expected
    assert load("emnist", data_dir=tmp_path).name == "emnist:byclass"


def test_emnist_from_its_archive(tmp_path):
    train, test = made(62, 62), made(62, 62, seed=1)
    (tmp_path / "emnist").mkdir()
    with zipfile.ZipFile(tmp_path / "emnist" / "gzip.zip", "w") as archive:
        for name, array in zip(emnist_names("byclass"), (*train, *test), strict=True):
            archive.writestr(f"gzip/{name}", gzip.compress(idx(array)))
    data = load("emnist", data_dir=tmp_path, download=False)
    assert np.array_equal(data.test.features.reshape(-1, 28, 28), test[0].transpose(0, 2, 1))
    assert data.notes[0] == OTHER + "gzip.zip"


def write_tar(path, folder, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("folder", ["cifar-10-batches-py", "cifar10/cifar-10-batches-py", "cifar10", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_cifar10(tmp_path, folder, packed, monkeypatch):
    files = cifar10_files()
    if packed:
        archive = tmp_path / folder.partition("/")[0] / "cifar-10-python.tar.gz"
        write_tar(archive, "cifar-10-batches-py", files)
        known = dataclasses.replace(images.CIFAR10, sha256=sha256(archive.read_bytes()))
        monkeypatch.setattr(images, "CIFAR10", known)
    else:
        write_files(tmp_path / folder, files)
    data = load("cifar10", data_dir=tmp_path, download=False)
    assert (data.features.shape, data.test.features.shape, data.shape) == ((30, 3072), (4, 3072), (32, 32, 3))
    assert data.classes == tuple(f"class {k}" for k in range(10))
    assert data.targets.tolist() == list(range(6)) * 5
    stored = pickle.loads(files["data_batch_2"])[b"data"][3].reshape(3, 32, 32)
    assert np.array_equal(data.features[9].reshape(data.shape), stored.transpose(1, 2, 0))
    assert data.notes == (() if packed else (OTHER + ", ".join(files),))


def test_original_batches_have_no_note(tmp_path, monkeypatch):
    files = cifar10_files()
    write_files(tmp_path / "cifar10", files)
    known = {name: md5(content) for name, content in files.items()}
    monkeypatch.setattr(images, "CIFAR10_FILES", known)
    assert load("cifar10", data_dir=tmp_path, download=False).notes == ()
    monkeypatch.setattr(images, "CIFAR10_FILES", known | {"test_batch": "0" * 32})
    assert load("cifar10", data_dir=tmp_path, download=False).notes == (OTHER + "test_batch",)


def test_cifar100(tmp_path):
    meta = {f"{kind}_label_names".encode(): [f"{kind} {k}".encode() for k in range(count)]
            for kind, count in (("fine", 100), ("coarse", 20))}  # fmt: skip
    both = {part: batch(rows, "fine_labels", 100, rows) | {b"coarse_labels": [k // 5 for k in range(rows)]}
            for part, rows in (("train", 100), ("test", 50))}  # fmt: skip
    write_files(tmp_path / "cifar-100-python", {n: pickle.dumps(c, 2) for n, c in (both | {"meta": meta}).items()})
    fine, coarse = (load(name, data_dir=tmp_path, download=False) for name in ("cifar100", "cifar100:coarse"))
    assert (fine.name, fine.classes[:2], len(fine.classes)) == ("cifar100", ("fine 0", "fine 1"), 100)
    assert (coarse.name, coarse.classes[19], len(coarse.classes)) == ("cifar100:coarse", "coarse 19", 20)
    assert fine.targets.tolist() == list(range(100))
    assert coarse.test.targets.tolist() == [k // 5 for k in range(50)]
    assert np.array_equal(fine.features, coarse.features)


# --- what cannot be used ---


def test_damaged_folders(tmp_path, complaint):
    folder = tmp_path / "mnist"
    here = functools.partial(load, "mnist", data_dir=tmp_path, download=False)
    write_idx(folder, MNIST_NAMES, (TRAIN[0], TRAIN[1][:15]), TEST)
    train, labels = (folder / name for name in MNIST_NAMES[:2])
    assert complaint(here) == f"{train}: 20 images, but {labels} has 15 labels; copy or download both again"
    write_idx(folder, MNIST_NAMES, TRAIN[::-1], TEST)
    assert complaint(here) == f"{train}: an idx file of 3 axes is expected, got shape (20,)"
    write_idx(folder, MNIST_NAMES, (TRAIN[0][:, :14], TRAIN[1]), TEST)
    test = folder / MNIST_NAMES[2]
    assert complaint(here) == f"{test}: images of shape (28, 28, 1), but {train} has (14, 28, 1)"
    write_idx(folder, MNIST_NAMES, (TRAIN[0], TRAIN[1] + 1), TEST)
    assert complaint(here) == "mnist: targets must be in 0..9 for 10 classes, got 1..10"
    train.write_bytes(gzip.compress(idx(TRAIN[0])[:-5]))
    assert complaint(here) == (
        f"{train}: the idx file is cut off (expected 15696 bytes for shape (20, 28, 28), got 15691); copy it again"
    )
    train.write_bytes(train.read_bytes()[:50])
    assert complaint(here) == f"{train}: the .gz file is truncated or corrupt; copy or download it again"


def test_damaged_archives(tmp_path, complaint):
    tar, packed = tmp_path / "cifar10" / "cifar-10-python.tar.gz", tmp_path / "emnist" / "gzip.zip"
    files = cifar10_files()
    missing = {name: content for name, content in files.items() if name != "data_batch_4"}
    write_tar(tar, "cifar-10-batches-py", missing)
    cifar = functools.partial(load, "cifar10", data_dir=tmp_path, download=False)
    assert complaint(cifar) == f"{tar}: the archive has no file data_batch_4; copy or download it again"
    write_tar(tar, "cifar-10-batches-py", files | {"test_batch": pickle.dumps([1])})
    assert complaint(cifar) == f"{tar}: test_batch: holds a list, expected a dict; get the original file"
    write_tar(tar, "cifar-10-batches-py", files)
    tar.write_bytes(tar.read_bytes()[:1000])
    assert complaint(cifar) == f"{tar}: the .gz file is truncated or corrupt; copy or download it again"
    tar.write_bytes(gzip.compress(b"spam" * 200))
    assert complaint(cifar) == f"{tar}: the archive is truncated or corrupt; copy or download it again"
    packed.parent.mkdir()
    packed.write_bytes(b"PK")
    assert complaint(load, "emnist", data_dir=tmp_path, download=False) == (
        f"{packed}: the archive is truncated or corrupt; copy or download it again"
    )


def test_options_that_are_unknown(complaint):
    assert complaint(load, "emnist:balance") == (
        "unknown part of emnist 'balance': did you mean 'balanced'? "
        "(known: balanced, byclass, bymerge, digits, letters, mnist)"
    )
    assert complaint(load, "cifar100:rough") == (
        "unknown labels of cifar100 'rough': did you mean 'coarse'? (known: coarse, fine)"
    )
    assert complaint(load, "mnist:3") == "data set 'mnist:3' has too many arguments: mnist takes none"
    assert complaint(load, "emnist:download=1") == (
        "unknown option of emnist 'download': did you mean 'part'? (known: part)"
    )
    assert complaint(load, "mnist", n_features=3) == "mnist: n_features is for LIBSVM files only; leave it out"


def test_sets_that_are_nowhere(tmp_path, complaint):
    cache = tmp_path / "cache"
    for name, folder, url in (
        ("mnist", "mnist", "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz"),
        (
            "fashion_mnist",
            "fashion-mnist",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/train-images-idx3-ubyte.gz",
        ),
        ("emnist", "emnist", "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip"),
        ("cifar10", "cifar10", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"),
        ("cifar100", "cifar100", "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"),
    ):
        file = url.rpartition("/")[2]
        assert name in names()
        assert complaint(load, name, download=False) == (
            f"{name!r} is not in {cache}, and downloading is off; get {url} and put it at {cache / folder / file}, "
            f"or set FEDJAX_LC_DATA to a folder that holds {file}"
        )


# --- downloads ---


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder and the address it is served at."""
    folder = tmp_path / "site"
    folder.mkdir()
    server = http.server.HTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_mnist_is_fetched_once(site, tmp_path, monkeypatch, capsys):
    folder, address = site
    write_idx(folder, MNIST_NAMES, TRAIN, TEST)
    known = [
        dataclasses.replace(remote, url=f"{address}/{name}", sha256=sha256((folder / name).read_bytes()))
        for name, remote in zip(MNIST_NAMES, images.MNIST, strict=True)
    ]
    monkeypatch.setattr(images, "MNIST", known)
    assert load("mnist").notes == ()
    assert sorted(path.name for path in (tmp_path / "cache" / "mnist").iterdir()) == sorted(MNIST_NAMES)
    assert capsys.readouterr().err.count("downloading ") == 4
    (folder / MNIST_NAMES[0]).unlink()
    assert np.array_equal(load("mnist", download=False).targets, TRAIN[1])


def test_a_download_or_cached_file_must_be_the_original(site, tmp_path, monkeypatch, complaint):
    folder, address = site
    archive = folder / "cifar-10-python.tar.gz"
    write_tar(archive, "cifar-10-batches-py", cifar10_files())
    known = dataclasses.replace(images.CIFAR10, url=f"{address}/{archive.name}", sha256="0" * 64)
    monkeypatch.setattr(images, "CIFAR10", known)
    cached = tmp_path / "cache" / "cifar10" / archive.name
    differs = f"expected sha256 000000000000..., got {sha256(archive.read_bytes())[:12]}..."
    assert complaint(load, "cifar10") == (
        f"the download of {address}/{archive.name} has a wrong checksum ({differs}) and was removed; "
        f"try again, or put a good copy at {cached}"
    )
    cached.write_bytes(archive.read_bytes())
    assert complaint(load, "cifar10") == (
        f"{cached}: wrong checksum for 'cifar10' ({differs}); delete the file to fetch it again, "
        "or keep a copy of your own in another folder and give that as data_dir"
    )
    monkeypatch.setattr(images, "CIFAR10", dataclasses.replace(known, sha256=sha256(archive.read_bytes())))
    assert len(load("cifar10").targets) == 30


def test_what_is_fetched_comes_by_https_and_is_known_by_sha256():
    pictures = [*images.MNIST, *images.FASHION_MNIST, images.EMNIST, images.CIFAR10, images.CIFAR100]
    remotes = [*pictures, text.SHAKESPEARE]
    assert {remote.url.partition(":")[0] for remote in [*remotes, *CATALOGUE.values()]} == {"https"}
    assert {len(remote.sha256) for remote in remotes} == {64}
    assert len({remote.sha256 for remote in remotes}) == len(remotes)
    unpacked = [*images.CIFAR10_FILES.values(), *images.CIFAR100_FILES.values()]
    assert {len(known) for known in unpacked} == {32}
    assert len(set(unpacked)) == len(unpacked)
