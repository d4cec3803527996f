"""The LIBSVM data sets known by name: where they live, their declared sizes and checksums.

Source: LIBSVM Data (https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/). The number of features is the
declared one, which may exceed the largest index in a file (a1a: 123 declared, 119 present).

A checksum is the sha256 of the uncompressed text with white space at line ends, carriage returns and empty lines
at the end removed, so the same content verifies however a copy ends its lines. It is stored only where copies
of independent sources agree, or where the other files of a source do; every set is checked by its number of rows.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

from fedjax_lc.data import libsvm
from fedjax_lc.data.files import differ, read_bytes
from fedjax_lc.data.targets import Task

SITE = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One LIBSVM data set: the file NAME + `packed` under its `task` (binary, multiclass, regression) of the site."""

    name: str
    task: Task
    features: int
    rows: int
    packed: str = ""
    sha256: str = ""
    folder: ClassVar[str] = "libsvm"
    advice: ClassVar[str] = "or give its path to load it as your own data"

    @property
    def url(self) -> str:
        return f"{SITE}/{self.task}/{self.name}{self.packed}"

    def find(self, folder: Path) -> Path | None:
        """The file in a folder or its `libsvm/`, or None."""
        return libsvm.find(self.name, folder)

    def mismatch(self, path: Path) -> str:
        """How the content differs from the known one; empty if it does not, or if no checksum is known."""
        content = read_bytes(path)
        return differ("sha256", self.sha256, libsvm.content_sha256(content)) if self.sha256 else ""


_ADULT_ROWS = (1605, 2265, 3185, 4781, 6414, 11220, 16100, 22696, 32561)
_ADULT_TEST_ROWS = (30956, 30296, 29376, 27780, 26147, 21341, 16461, 9865, 16281)
_WEB_ROWS = (2477, 3470, 4912, 7366, 9888, 17188, 24692, 49749)
_WEB_TEST_ROWS = (47272, 46279, 44837, 42383, 39861, 32561, 25057, 14951)

_SHA256 = {
    "a1a": "4e013dd5fbfef8c648b97271e2b63548be30330187c770c351573df2f344f979",
    "a1a.t": "6b3144fcd7d72cca1059a39cff37a458a20aac754fa24b80084dc8088b6e6a47",
    "a5a": "f3e650050be2b9790c9238b5f21a2e608b9ad8e1aa1fe90ebbaa8e1403237db0",
    "a8a": "d196f11c0db92a460316bf7f87c551106304f05c0b66180c19d463a43a5bd1a6",
    "a8a.t": "affdb7f80d8d5384e1505432fe399e166e4b59e7901e32bd6180b2bed8cd3bbd",
    "a9a": "4a64288fba73c4362cf066e219c35663b450f1658867b7ed7bcc1f6accfc4949",
    "a9a.t": "506954ec230f3de29ee7ba703521446f458e81ecc317a9661ddc10d908e9d6f0",
    "australian": "68f0210ada935269697a190951350e4d44147d93bbcdeaa3f2b722e4305890d4",
    "australian_scale": "3120c7ae395dceea8e90202538b942aa85f203ee27f57f289188a87c2a464017",
    "fourclass_scale": "cd295ef2cf54b92ff548af5a3ac6fb5eebaff27b2470d25c4e9af4bc793bc2ca",
    "german.numer_scale": "e26357228dd24307f55aafc9a9e121414e39c7fbf4707df15567d761a62ae865",
    "heart_scale": "b6c40e69bf693916926ab98913c9510389af26062323881c8b5c58fb1eec2e76",
    "ionosphere_scale": "dcdfc737536c1e0fe648afc1608a0df4444b8b27fefcacf281bb6ba942c94866",
    "mushrooms": "a082183b372d8ddd8bf84542785952fb53c86cee7ea5e4399cb4ed0f3d5132c5",
    "news20": "2bbb190080c235c22274923ecea4ba002e46cb63c20e9f2c13d0cb910704d740",
    "phishing": "0b0ca40e17bc95e909bfa587c408bf69904571ace01dea26e34cafc464f2da93",
    "sonar_scale": "760b95d79272dd324790266c8cd4f7d1a872098760db90b854e3ce166e090167",
    "svmguide1": "6af4ac2c8dff259b69186ba7f04f6f11ba883f864a8203eb39dfd8361b92d380",
    "w1a": "a1fd3402ba268eda2c41f17a3dfcc48f4908d9b6fa9ccc52c189ae94326bafa9",
    "w8a": "434eb5fdfe5ab0f759922fe58473326dbccaf16342ae874ac295d99322b44274",
    "w8a.t": "7b896e1081ddcfc3f06365722430c6fcbb43a75fccd62f7ed0509788c7004dda",
}

# name, declared features, rows, ending of the packed file
_BINARY = [
    ("australian", 14, 690, ""),
    ("australian_scale", 14, 690, ""),
    ("breast-cancer", 10, 683, ""),
    ("breast-cancer_scale", 10, 683, ""),
    ("cod-rna", 8, 59535, ""),
    ("covtype.libsvm.binary", 54, 581012, ".bz2"),
    ("covtype.libsvm.binary.scale", 54, 581012, ".bz2"),
    ("diabetes", 8, 768, ""),
    ("diabetes_scale", 8, 768, ""),
    ("fourclass", 2, 862, ""),
    ("fourclass_scale", 2, 862, ""),
    ("german.numer", 24, 1000, ""),
    ("german.numer_scale", 24, 1000, ""),
    ("gisette_scale", 5000, 6000, ".bz2"),
    ("heart", 13, 270, ""),
    ("heart_scale", 13, 270, ""),
    ("ijcnn1", 22, 49990, ".bz2"),
    ("ionosphere_scale", 34, 351, ""),
    ("madelon", 500, 2000, ""),
    ("mushrooms", 112, 8124, ""),
    ("phishing", 68, 11055, ""),
    ("rcv1_train.binary", 47236, 20242, ".bz2"),
    ("real-sim", 20958, 72309, ".bz2"),
    ("skin_nonskin", 3, 245057, ""),
    ("sonar_scale", 60, 208, ""),
    ("splice", 60, 1000, ""),
    ("splice_scale", 60, 1000, ""),
    ("svmguide1", 4, 3089, ""),
    ("svmguide1.t", 4, 4000, ""),
    *((f"a{i}a", 123, rows, "") for i, rows in enumerate(_ADULT_ROWS, 1)),
    *((f"a{i}a.t", 123, rows, "") for i, rows in enumerate(_ADULT_TEST_ROWS, 1)),
    *((f"w{i}a", 300, rows, "") for i, rows in enumerate(_WEB_ROWS, 1)),
    *((f"w{i}a.t", 300, rows, "") for i, rows in enumerate(_WEB_TEST_ROWS, 1)),
]
_MULTICLASS = [
    ("dna.scale", 180, 2000, ""),
    ("glass.scale", 9, 214, ""),
    ("iris.scale", 4, 150, ""),
    ("letter.scale", 16, 15000, ""),
    ("news20", 62061, 15935, ".bz2"),
    ("pendigits", 16, 7494, ""),
    ("satimage.scale", 36, 4435, ""),
    ("segment.scale", 19, 2310, ""),
    ("usps", 256, 7291, ".bz2"),
    ("vehicle.scale", 18, 846, ""),
    ("vowel", 10, 528, ""),
    ("wine.scale", 13, 178, ""),
]
_REGRESSION = [
    ("abalone", 8, 4177, ""),
    ("abalone_scale", 8, 4177, ""),
    ("bodyfat", 14, 252, ""),
    ("bodyfat_scale", 14, 252, ""),
    ("cadata", 8, 20640, ""),
    ("cpusmall", 12, 8192, ""),
    ("cpusmall_scale", 12, 8192, ""),
    ("housing", 13, 506, ""),
    ("housing_scale", 13, 506, ""),
    ("mg", 6, 1385, ""),
    ("mpg", 7, 392, ""),
    ("space_ga", 6, 3107, ""),
    ("YearPredictionMSD", 90, 463715, ".bz2"),
]


def _entries() -> dict[str, Entry]:
    tables: list[tuple[Task, list[tuple[str, int, int, str]]]] = [
        ("binary", _BINARY),
        ("multiclass", _MULTICLASS),
        ("regression", _REGRESSION),
    ]
    return {
        name: Entry(name, task, features, rows, packed, _SHA256.get(name, ""))
        for task, table in tables
        for name, features, rows, packed in table
    }


CATALOGUE = _entries()
