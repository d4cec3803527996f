"""`csv`: every record as a row of a file, which spreadsheets and scripts can read while the run is under way."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lc.core.errors import InputError
from fedjax_lc.core.files import replacing, unwritable
from fedjax_lc.tracking.base import About, place

NAME = "records.csv"  #: in the folder of the results


def make(argument: str, folder: Path | None) -> Csv:
    return Csv(place("csv", argument, folder, NAME))


class Csv:
    """One file for a run, or for all lanes of a sweep; numbers have all their digits."""

    most = 2**32

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            raise InputError(f"track csv: {path} is a folder: give a file, as in csv:{path / NAME}")
        self.path = path
        self.header: list[str] = []

    def start(self, about: About) -> CsvLog:
        return CsvLog(self, about.labels)

    def write(self, labels: Mapping[str, Any], columns: Mapping[str, np.ndarray]) -> None:
        """Add rows; the first ones make the file anew."""
        names = [*labels, *columns]
        if self.header and names != self.header:
            raise InputError(f"{self.path} has other columns than these records")
        rows = zip(*([_number(entry) for entry in column] for column in columns.values()), strict=True)
        text = io.StringIO()
        write = csv.writer(text, lineterminator="\n")
        if not self.header:
            write.writerow(names)
        write.writerows([*labels.values(), *row] for row in rows)
        if self.header:
            try:
                with self.path.open("a", encoding="utf-8", newline="") as file:
                    file.write(text.getvalue())
            except OSError as error:
                raise unwritable(self.path, error) from None
        else:
            with replacing(self.path) as path:
                path.write_text(text.getvalue(), encoding="utf-8", newline="")
        self.header = names


def _number(entry: Any) -> float | int:
    number = entry.item()
    return int(number) if isinstance(number, float) and number.is_integer() and abs(number) < 2**53 else number


class CsvLog:
    """The rows of one run."""

    def __init__(self, file: Csv, labels: Mapping[str, Any]) -> None:
        self.file, self.labels = file, labels

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        self.file.write(self.labels, columns)

    def end(self, status: str, summary: Mapping[str, Mapping[str, float]]) -> None:
        """Nothing is left to write."""
