"""Texts by speaker: windows and clients of small texts, LEAF's files, and the exact message of each refusal."""

from __future__ import annotations

import functools
import hashlib

import numpy as np
import pytest

from fedjax_lc.data import clients, load, partition, text
from tests.data.formats import write_leaf

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
# Blank lines may come in pairs; "C" speaks too little for a window of four; the paragraph in brackets is nobody's.
PLAY = f"""A:
{ALPHABET[:10]}

B:
{ALPHABET}

[Exeunt]


A:
{ALPHABET[10:]}

C:
xy
"""


@pytest.fixture
def play(tmp_path):
    """Loads the play from a folder with options; the text is not the known one."""
    (tmp_path / "shakespeare").mkdir()
    (tmp_path / "shakespeare" / "input.txt").write_text(PLAY)
    return lambda options: load(f"shakespeare:{options}", data_dir=tmp_path, download=False)


def words(data, rows):
    return ["".join(data.classes[k] for k in row) for row in rows]


def test_speakers_keep_their_order_and_speeches():
    assert text.by_speaker(PLAY) == {"A": f"{ALPHABET[:10]}\n{ALPHABET[10:]}", "B": ALPHABET, "C": "xy"}


def test_windows_follow_each_other_and_the_last_ones_are_the_test_part(play):
    data = play("seq_len=4,min_chars=3,test_share=0.3")
    said = [f"{ALPHABET[:10]}\n{ALPHABET[10:]}", ALPHABET]
    windows = [[whole[k : k + 4] for k in range(0, len(whole) - 4, 4)] for whole in said]
    after = [[whole[k + 1 : k + 5] for k in range(0, len(whole) - 4, 4)] for whole in said]
    assert [len(w) for w in windows] == [6, 6]
    assert words(data, data.features) == windows[0][:4] + windows[1][:4]
    assert words(data, data.targets) == after[0][:4] + after[1][:4]
    assert words(data, data.test.features) == windows[0][4:] + windows[1][4:]
    assert words(data, data.test.targets) == after[0][4:] + after[1][4:]
    assert data.groups.tolist() == [0] * 4 + [1] * 4
    assert data.test.groups.tolist() == [0] * 2 + [1] * 2
    assert data.classes == tuple(sorted(set(PLAY)))
    assert (data.task, data.features.dtype, data.targets.dtype) == ("sequence", np.int32, np.int32)
    assert data.notes == (
        "2 of 3 speakers are clients, those with 5 characters or more",
        "not the original files (other checksums): input.txt",
    )
    assert [len(targets) for _, targets in clients(data, partition(data))] == [4, 4]


@pytest.mark.parametrize("stride", [1, 3, 4, 7])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9])
def test_no_character_is_a_target_of_both_parts(play, stride, share):
    data = play(f"seq_len=4,min_chars=20,stride={stride},test_share={share}")
    count = len(range(0, 26 - 4, stride))
    mine = [set("".join(words(data, part.targets[part.groups == 1]))) for part in (data, data.test) if part]
    assert words(data, data.features[data.groups == 1])[0] == "abcd"
    if len(mine) == 2:
        assert not mine[0] & mine[1]
        assert np.sum(data.test.groups == 1) in (0, min(round(share * count), count - 1))
    else:
        first = count - min(round(share * count), count - 1)
        assert share == 0 or first * stride < 4
        assert len(data.targets) == count + len(range(0, 27 - 4, stride))


def test_a_client_too_short_for_both_parts_has_no_test_part(play):
    data = play("seq_len=20,min_chars=26,stride=1,test_share=0.5")
    assert data.test is None
    assert np.bincount(data.groups).tolist() == [7, 6]


def test_options_out_of_range(play, complaint):
    for options, message in (
        ("seq_len=0", "shakespeare: seq_len must be at least 1, got 0"),
        ("test_share=1", "shakespeare: test_share must be in [0, 1), got 1.0"),
        ("stride=-1", "shakespeare: stride must be 0 (as seq_len) or more, got -1"),
        (
            "seq_len=4,min_chars=99",
            "shakespeare: no speaker has 99 characters (the most are 27); lower min_chars or seq_len",
        ),
        (
            "seq_len=40,min_chars=9",
            "shakespeare: no speaker has 41 characters (the most are 27); lower min_chars or seq_len",
        ),
        (
            "speakers=3",
            "unknown option of shakespeare 'speakers': did you mean 'seq_len'? "
            "(known: min_chars, seq_len, stride, test_share)",
        ),
    ):
        assert complaint(play, options) == message


def test_the_text_of_another_edition_or_none(tmp_path, complaint):
    (tmp_path / "input.txt").write_text(PLAY)
    assert complaint(load, "shakespeare", data_dir=tmp_path, download=False).startswith("'shakespeare' is not in")
    (tmp_path / "shakespeare").mkdir()
    path = tmp_path / "shakespeare" / "input.txt"
    path.write_bytes(b"A:\n\xff\xff")
    assert complaint(load, "shakespeare", data_dir=tmp_path) == (
        f"{path}: not a text file in UTF-8 (line 2 has the byte ff); save it as UTF-8"
    )
    path.write_text("no speaker\n")
    assert complaint(load, "shakespeare", data_dir=tmp_path) == (
        "shakespeare: no speaker has 1000 characters (the most are 0); lower min_chars or seq_len"
    )


def test_the_original_text_is_known_by_its_checksum(tmp_path, monkeypatch):
    import dataclasses

    found = hashlib.sha256(PLAY.encode()).hexdigest()
    monkeypatch.setattr(text, "SHAKESPEARE", dataclasses.replace(text.SHAKESPEARE, sha256=found))
    (tmp_path / "input.txt").write_text(PLAY)
    data = load("shakespeare:4,3", data_dir=tmp_path, download=False)
    assert data.notes == ("2 of 3 speakers are clients, those with 5 characters or more",)


def test_unknown_characters(complaint):
    assert complaint(text.encode, "añb", "abc") == "character 'ñ' is not among the 3 known ones; take it out"
    assert text.encode(text.LEAF_CHARACTERS, text.LEAF_CHARACTERS).tolist() == list(range(80))


# --- LEAF ---


@pytest.mark.parametrize("inside", ["", "leaf_shakespeare", "leaf/data/shakespeare/data"])
def test_leaf_files(tmp_path, inside):
    folder = tmp_path / inside
    write_leaf(folder, "train", {"ROMEO": (["But so", "ut sof"], ["f", "t"]), "IDLE": ([], [])}, "a.json")
    write_leaf(folder, "train", {"JULIET": (["O Rome"], ["o"])}, "b.json")
    write_leaf(folder, "test", {"NURSE": (["Madam,"], [" "]), "JULIET": (["wheref", "herefo"], ["o", "r"])})
    data = load("leaf_shakespeare", data_dir=tmp_path)
    assert (data.task, data.name, data.classes) == ("sequence", "leaf_shakespeare", tuple(text.LEAF_CHARACTERS))
    assert words(data, data.features) == ["But so", "ut sof", "O Rome"]
    assert words(data, data.targets) == ["ut sof", "t soft", " Romeo"]
    assert data.groups.tolist() == [0, 0, 1]
    assert words(data, data.test.targets) == ["herefo", "erefor", "adam, "]
    assert data.test.groups.tolist() == [1, 1, 2]
    assert len(clients(data, partition(data))) == 2


def test_leaf_files_that_cannot_be_used(tmp_path, complaint):
    here = functools.partial(load, "leaf_shakespeare", data_dir=tmp_path)
    assert complaint(here) == (
        "leaf_shakespeare: no folder with train/*.json; make it with preprocess.sh in data/shakespeare of "
        "https://github.com/TalwalkarLab/leaf, then give its data folder as data_dir or by FEDJAX_LC_DATA"
    )
    path = tmp_path / "train" / "all.json"
    other = f"{path}: not a JSON file of LEAF's Shakespeare (it is cut off, or has another form); make it again"
    write_leaf(tmp_path, "train", {"A": (["ab", "cd"], ["c"])})
    assert complaint(here) == other
    bad = [
        '{"users": ["A"], "user_data": {',
        "[]",
        '{"users": ["A"], "user_data": {"A": {"x": []}}}',
        '{"users": 3}',
        '{"users": [["A"], 3], "user_data": {"A": 1}}',
        "[" * 10_000 + "]" * 10_000,
        '{"users": ' + '{"a":' * 10_000 + "1" + "}" * 10_001,
    ]
    for content in bad:
        path.write_text(content)
        assert complaint(here) == other
    for users, x, fault in (
        ("[]", '["ab"]', "'users' and the keys of 'user_data' differ"),
        ('["A", "B"]', '["ab"]', "'users' and the keys of 'user_data' differ"),
        ('["A", "A"]', '["ab"]', "'users' and the keys of 'user_data' differ"),
        ('["A"]', '"ab"', "a user's x or y is no list"),
        ('["A"]', '[["a"]]', "a user's x or y holds what is no text"),
    ):
        path.write_text(f'{{"users": {users}, "user_data": {{"A": {{"x": {x}, "y": ["c"]}}}}}}')
        assert complaint(here) == other.replace("it is cut off, or has another form", fault)
    for strings, after in ((["ab", "cde"], ["c", "f"]), (["ab"], ["cd"])):
        write_leaf(tmp_path, "train", {"A": (strings, after)})
        assert complaint(here) == other.replace(
            "it is cut off, or has another form",
            "a user with windows of different lengths, or more than one character after a window",
        )
    write_leaf(tmp_path, "train", {"A": (["a~"], ["c"])})
    assert complaint(here) == other.replace(
        "it is cut off, or has another form", "character '~' is not among the 80 known ones; take it out"
    )
    write_leaf(tmp_path, "train", {"A": (["ab"], ["c"]), "B": (["abc"], ["d"])})
    assert complaint(here) == f"{tmp_path}: needs windows of one length, got 2, 3; make the files again"
    write_leaf(tmp_path, "train", {"A": ([], [])})
    assert complaint(here) == f"{tmp_path}: needs windows of one length, got none; make the files again"
    write_leaf(tmp_path, "test", {"A": (["ab"], ["c"])})
    assert complaint(here) == f"{tmp_path}: no user has windows in train/*.json; make the files again"
