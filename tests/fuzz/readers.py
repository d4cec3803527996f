"""Small valid files of every format, damaged at random, and what a reader may do with them.

A reader hands back data, or raises one InputError of one printable line, and writes nothing. `python -m
tests.fuzz.readers SEED COUNT FOLDER` tries COUNT cases with a limit on time for each and on memory for all, and prints
the numbers of those at fault; `case(SEED, NUMBER)` makes one of them again.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import resource
import signal
import sys
import tarfile
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.data import Dataset, load, parse, scalings
from tests.data.formats import batch, cifar10_files, idx, images
from tests.data.test_cifar import python2

SECONDS = 30  #: for one case
MEMORY = 3 << 30  #: addresses of a process that reads files of a few thousand bytes, above what it has before
ROWS = 6
SPOILS = [
    # binary: lengths and places far away, ends of records
    *(
        b"\xff" * 4,
        b"\xff" * 8,
        b"\xff" * 7 + b"\x7f",
        b"\0",
        b"\0" * 9,
        b"\x85" * 3000,
        b"\x94",
        b"q\0h\0h\0l",
        b"../",
        b"spam",
    ),
    *(
        b"c_os\nsystem\n",
        b"cnumpy\nndarray\n",
        b"|O",
        b"<c16",
        b"<U9",
        b"|V8",
        b"PK\3\4",
        b"PK\5\6",
        b"GNU.sparse.size",
    ),
    # numbers
    *(b"nan", b"inf", b"1e999", b"1e160", b"1e-320", b"-1", b"0", b"9" * 20, b"9" * 5000, b"2147483648", b"1_0", b"1j"),
    # text: ends, encodings, nesting
    *(b"\n", b"\r", b"\n\n", b"'", b'"', b",", b":", b"#", b"\x1b[31m", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff\0\0"),
    *(b"\xed\xa0\x80", b"\xe2\x80\xa8", "٣".encode(), b"[" * 3000, b"(" * 3000, b'{"a":' * 3000, b"\\ud800"),
    *(b")", b".", b"t", b"u", b"R", b"b"),
]


class Format(NamedTuple):
    """A set of files that loads.

    files: path -> content; call: from their folder to what is loaded; inner: path -> (a content of the file before it
    was packed, how to make the file of such a content).
    """

    files: dict[str, bytes]
    call: Callable[[Path, random.Random], Any]
    inner: Mapping[str, tuple[bytes, Callable[[random.Random, bytes], bytes]]] = MappingProxyType({})


class Case(NamedTuple):
    """One set of files, one of them damaged."""

    name: str
    files: dict[str, bytes]
    call: Callable[[Path], Any]


# --- valid files ---


def _npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _zip(members: dict[str, bytes], rng: random.Random | None = None) -> bytes:
    out = io.BytesIO()
    method = rng.choice([0, 8, 8, 12, 14]) if rng else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def _tar(members: dict[str, bytes], rng: random.Random | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=rng.choice([0, 1, 2]) if rng else 2) as archive:
        for name, content in members.items():
            made = tarfile.TarInfo(name)
            made.size = len(content)
            if rng and rng.random() < 0.1:
                made.type, made.linkname = rng.choice([b"1", b"2", b"S", b"L", b"x"]), name
            archive.addfile(made, io.BytesIO(content))
    return out.getvalue()


def _own(name: str) -> Callable[[Path, random.Random], Any]:
    def call(folder: Path, rng: random.Random) -> Dataset:
        options: dict[str, Any] = {}
        if rng.random() < 0.5:
            options["scale"] = rng.choice(scalings())
        if rng.random() < 0.2:
            options["labels"] = rng.choice(["regression", "multiclass", 1, "no", [1, 2]])
        if name.endswith((".csv", ".parquet", ".feather", ".zip")) and rng.random() < 0.3:
            options["target"] = rng.choice([0, -1, "a", "99"])
        if not name.endswith(".txt") and rng.random() < 0.3:
            options["missing"] = rng.choice(["mean", "drop"])
        if name.endswith((".csv", ".parquet", ".feather")) and rng.random() < 0.3:
            options["categories"] = rng.choice(["onehot", "codes"])
        if name.endswith(".txt") and rng.random() < 0.3:
            options["allow"] = rng.sample(["zero", "unsorted", "repeated", "qid"], 2)
        return load(folder / name, **options)

    return call


def _named(name: str) -> Callable[[Path, random.Random], Any]:
    return lambda folder, rng: load(name, data_dir=folder, download=False)


def _clusters(folder: Path, rng: random.Random) -> Any:
    return parse(f"clusters:{folder / 'ids.npy'}")(ROWS, 2)


def _idx_files() -> dict[str, bytes]:
    train, test = images(10), images(10, seed=1)
    kinds = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    small = [array[:, ::7, ::7] if array.ndim == 3 else array for array in (*train, *test)]
    return {kind + "-ubyte": idx(array) for kind, array in zip(kinds, small, strict=True)}


def formats() -> dict[str, Format]:
    """Every format that a loader reads."""
    rng = np.random.default_rng(0)
    table, labels = rng.normal(size=(ROWS, 3)), np.arange(ROWS) % 2
    csv = "\n".join(
        [
            "a,b,c,label",
            *(",".join(map(str, [*row, ["no", "yes"][k]])) for row, k in zip(table, labels, strict=True)),
        ]
    )
    svm = "".join(f"{k} 1:{a:.3g} 3:{b:.3g}\n" for (a, b, _), k in zip(table, labels, strict=True)).encode()
    made = {
        "csv": Format({"a.csv": csv.encode()}, _own("a.csv")),
        "libsvm": Format({"a.txt": svm}, _own("a.txt")),
        "clusters": Format({"ids.npy": _npy(labels)}, _clusters),
        "words": Format({"ids.npy": _npy(np.array(["a", "bc"])[labels])}, _clusters),
        "text": Format({"shakespeare/input.txt": b"A:\nBut so\n\nB:\nNo.\n\n" * 20},
                       lambda folder, rng: load("shakespeare:4,3", data_dir=folder, download=False)),
    }  # fmt: skip
    for ending, pack in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        repack = lambda rng, content, pack=pack: pack(content)
        made[ending] = Format({f"a.{ending}": pack(svm)}, _own(f"a.{ending}"), {f"a.{ending}": (svm, repack)})
    members = {"X.npy": _npy(table), "y.npy": _npy(np.array(["no", "yes"])[labels]), "groups.npy": _npy(labels)}
    for name in ("X.npy", "y.npy"):
        repack = lambda rng, content, name=name: _zip(members | {name: content}, rng)
        made[f"npz of {name}"] = Format({"a.npz": _zip(members)}, _own("a.npz"), {"a.npz": (members[name], repack)})
    made["idx"] = Format({f"mnist/{name}": content for name, content in _idx_files().items()}, _named("mnist"))
    parts = [name.replace("t10k", "test") for name in _idx_files()]
    packed = {
        f"gzip/emnist-digits-{part}.gz": gzip.compress(c) for part, c in zip(parts, _idx_files().values(), strict=True)
    }
    first = next(iter(packed))
    made["emnist"] = Format(
        {"emnist/gzip.zip": _zip(packed)}, _named("emnist:digits"),
        {"emnist/gzip.zip": (packed[first], lambda rng, content: _zip(packed | {first: content}, rng))},
    )  # fmt: skip
    one = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 9]}
    for protocol in range(6):
        files = {f"cifar10/{name}": pickle.dumps(one, protocol) for name in cifar10_files()}
        files["cifar10/batches.meta"] = pickle.dumps({b"label_names": [b"cat"] * 10}, protocol)
        made[f"cifar10 of protocol {protocol}"] = Format(files, _named("cifar10"))
    files = {f"cifar10/{name}": python2(one[b"data"], one[b"labels"]) for name in cifar10_files()}
    files["cifar10/batches.meta"] = b"(dp1\nS'label_names'\np2\n(lp3\n" + b"S'cat'\na" * 10 + b"s."
    made["cifar10 of Python 2"] = Format(files, _named("cifar10"))
    tarred = {f"cifar-10-batches-py/{name.partition('/')[2]}": content for name, content in files.items()}
    archive = "cifar10/cifar-10-python.tar.gz"
    made["cifar10 in a tar"] = Format(
        {archive: gzip.compress(_tar(tarred))}, _named("cifar10"),
        {archive: (_tar(tarred), lambda rng, content: gzip.compress(content, 1))},
    )  # fmt: skip
    first = next(iter(tarred))
    made["cifar10 in odd members"] = Format(
        {archive: gzip.compress(_tar(tarred))}, _named("cifar10"),
        {archive: (tarred[first], lambda rng, content: gzip.compress(_tar(tarred | {first: content}, rng), 1))},
    )  # fmt: skip
    fine = {
        n: pickle.dumps(batch(2, "fine_labels", 100, k) | {b"coarse_labels": [0, 1]}, 2)
        for k, n in enumerate(["train", "test"])
    }
    fine["meta"] = pickle.dumps({b"fine_label_names": [b"a"] * 100, b"coarse_label_names": [b"b"] * 20}, 2)
    made["cifar100"] = Format({f"cifar100/{name}": content for name, content in fine.items()}, _named("cifar100"))
    leaf = {"users": ["A", "B"], "user_data": {u: {"x": ["But so", "ut sof"], "y": ["f", "t"]} for u in "AB"}}
    both = {f"{part}/all.json": json.dumps(leaf).encode() for part in ("train", "test")}
    made["leaf"] = Format(both, _named("leaf_shakespeare"))
    return made | _of_users()


def _mat(compressed: bool) -> bytes:
    from scipy.io import savemat
    from scipy.sparse import csc_array

    out = io.BytesIO()
    rng = np.random.default_rng(0)
    held = {"X": rng.normal(size=(ROWS, 3)), "y": np.arange(ROWS) % 2, "info": "spam"}
    held |= {"x_test": csc_array(np.eye(3)), "y_test": np.arange(3.0) % 2}
    savemat(out, held, do_compression=compressed)
    return out.getvalue()


def _picture(k: int, kind: str) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    pixels = np.random.default_rng(k).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert("P" if kind == "GIF" else "RGB").save(out, kind)
    return out.getvalue()


def _of_users() -> dict[str, Format]:
    """The formats of files that users bring."""
    import pandas as pd

    frame = pd.DataFrame({"": range(ROWS), "a": [0.5, 1, None, 2, 3, 4], "word": list("aabbcb"), "label": [0, 1] * 3})
    frame["many"] = frame["word"].astype("category")
    made = {"gaps": Format({"a.csv": frame.to_csv(index=False).encode()}, _options("a.csv"))}
    for codec in ("snappy", "gzip"):
        made[f"Parquet by {codec}"] = Format(
            {"a.parquet": frame.to_parquet(index=False, compression=codec)}, _options("a.parquet")
        )
    for codec in ("uncompressed", "lz4", "zstd"):
        out = io.BytesIO()
        frame.to_feather(out, compression=codec)
        made[f"Feather, {codec}"] = Format({"a.feather": out.getvalue()}, _options("a.feather"))
    made["mat"] = Format({"a.mat": _mat(False)}, _own("a.mat"))
    made["packed mat"] = Format({"a.mat": _mat(True)}, _own("a.mat"), {
        "a.mat": (_mat(False)[128:], lambda rng, content: _mat(True)[:128] + _packed_matrix(content)),
    })  # fmt: skip
    pair = {"b/X.npy": _npy(np.eye(ROWS)), "b/y.npy": _npy(np.arange(ROWS) % 2)}
    made["npy"] = Format(pair, lambda folder, rng: load(folder / "b" / "X.npy"))
    users = {u: {"x": [[0.5] * 4, [1.0] * 3 + [k]], "y": [k, 1]} for k, u in enumerate("AB")}
    leaf = json.dumps({"users": ["A", "B"], "num_samples": [2, 2], "user_data": users}).encode()
    made["leaf of numbers"] = Format({"d/train/a.json": leaf, "d/test/a.json": leaf}, lambda f, rng: load(f / "d"))
    for kind, end in (
        ("PNG", "png"),
        ("JPEG", "jpg"),
        ("BMP", "bmp"),
        ("GIF", "gif"),
        ("PPM", "ppm"),
        ("WEBP", "webp"),
    ):
        files = {f"e/{label}/{k}.{end}": _picture(k, kind) for label in ("cat", "dog") for k in range(2)}
        made[f"pictures in {kind}"] = Format(files, lambda folder, rng: load(folder / "e"))
    table = b"a,b,y\n1,2,0\n3,4,1\n"
    made["csv in a zip"] = Format(
        {"a.zip": _zip({"in/a.csv": table})}, _own("a.zip"),
        {"a.zip": (table, lambda rng, content: _zip({"in/a.csv": content}, rng))},
    )  # fmt: skip
    made["a form unknown"] = Format({"a.dat": table}, _own("a.dat"))
    return made


def _options(name: str) -> Callable[[Path, random.Random], Any]:
    """Loads a table with words and empty cells."""

    def call(folder: Path, rng: random.Random) -> Dataset:
        categories, missing = rng.choice(["onehot", "codes"]), rng.choice(["mean", "drop"])
        return load(folder / name, categories=categories, missing=missing)

    return call


def _packed_matrix(content: bytes) -> bytes:
    packed = zlib.compress(content)
    return (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed


FORMATS = formats()


# --- damage ---


def damaged(rng: random.Random, content: bytes) -> bytes:
    """The content after one to four changes."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        content = rng.choice(_CHANGES)(rng, content)
    return content


def _piece(rng: random.Random, content: bytes) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.choice([0, 1, 1, 2, 4, 8, 50, 500]))


def _put(rng: random.Random, content: bytes, new: bytes) -> bytes:
    start, end = _piece(rng, content)
    return content[:start] + new + content[end:]


def _flip(rng: random.Random, content: bytes) -> bytes:
    if not content:
        return content
    # Heads are short beside what follows, so half of the flips are there.
    place = rng.randrange(min(len(content), rng.choice([200, len(content)])))
    return content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]


def _again(rng: random.Random, content: bytes) -> bytes:
    start, end = _piece(rng, content)
    return content[:end] + content[start:end] * rng.choice([1, 2, 100, 1000]) + content[end:]


def _number(rng: random.Random, content: bytes) -> bytes:
    """A number in the text becomes another."""
    digits = [k for k, byte in enumerate(content[:5000]) if 48 <= byte < 58]
    if not digits:
        return content
    start = end = rng.choice(digits)
    while end < len(content) and 48 <= content[end] < 58:
        end += 1
    return (
        content[:start]
        + rng.choice([b"", b"0", b"-7", b"256", b"1e400", b"9" * 19, b"9" * 30, b"3000000000"])
        + content[end:]
    )


_CHANGES = [
    _flip,
    _flip,
    _number,
    _again,
    lambda rng, content: content[: rng.randrange(len(content) + 1)],
    lambda rng, content: _put(rng, content, b""),
    lambda rng, content: _put(rng, content, rng.choice(SPOILS)),
    lambda rng, content: _put(rng, content, rng.randbytes(rng.choice([1, 2, 4, 8, 100]))),
    lambda rng, content: _put(rng, content, rng.choice(_OTHERS)),
]
_OTHERS = [content[:1000] for each in FORMATS.values() for content in each.files.values()]


def case(seed: int, number: int) -> Case:
    """The case of that number."""
    rng = random.Random(f"{seed} {number}")
    name = rng.choice(list(FORMATS))
    made = FORMATS[name]
    victim = rng.choice(list(made.files))
    if victim in made.inner and rng.random() < 0.7:
        plain, repack = made.inner[victim]
        content = repack(rng, damaged(rng, plain))
    else:
        content = damaged(rng, made.files[victim])
    options = rng.random()
    return Case(name, made.files | {victim: content}, lambda folder: made.call(folder, random.Random(options)))


# --- what may happen ---


def fault(call: Callable[[], Any]) -> str:
    """What a reader did that it may not do; empty if it did well."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = call()
    except InputError as error:
        line = str(error)
        good = line and line.isprintable() and len(line) < 2000 and "does not fit into memory" not in line
        return "" if good else f"a message of no use: {line!r:.300}"
    except BaseException:
        return traceback.format_exc()
    if isinstance(data, Dataset):
        entries = data.features.data if hasattr(data.features, "tocsr") else data.features
        good = len(data.targets) == data.features.shape[0] > 0 and np.isfinite(entries).all()
        return "" if good and repr(data) else f"data of no use: {data!r:.300}"
    return ""


def tried(each: Case, folder: Path) -> str:
    """The fault of a case, whose files are written to an empty folder; the folder must be as before."""
    for name, content in each.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    said = fault(lambda: each.call(folder))
    left = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return said or ("" if left == each.files else f"files changed: {sorted(left)}")


class TooLong(BaseException):
    """A case took more than SECONDS."""


def _too_long(*_: Any) -> None:
    raise TooLong


def main(seed: int, count: int, folder: Path) -> int:
    """Tries cases 0..count-1 and says which are at fault; the number of the one under way is in FOLDER/number."""
    signal.signal(signal.SIGALRM, _too_long)
    there = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (there + MEMORY, there + MEMORY))
    faults = 0
    for number in range(count):
        (folder / "number").write_text(str(number))
        place = folder / str(number)
        place.mkdir()
        signal.alarm(SECONDS)
        said = tried(each := case(seed, number), place)
        signal.alarm(0)
        if said:
            faults += 1
            print(f"case({seed}, {number}), {each.name}: {said}")
        else:
            for path in sorted(place.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            place.rmdir()
    return faults


if __name__ == "__main__":
    sys.exit(min(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])), 100))
