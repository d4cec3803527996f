"""The small language: whatever is spelled reads back, and every error is one line that says what, expected and got."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

import fedjax_lc as fl
from fedjax_lc.core import spec
from fedjax_lc.core.errors import InputError

NAMES = st.from_regex(r"[a-z_][a-z0-9_]*", fullmatch=True)
WORDS = st.from_regex(r"[a-z0-9./%|-]+(\([a-z0-9,;:=]*\))?", fullmatch=True)
NUMBERS = st.integers() | st.floats(allow_nan=False)
SIZES = st.lists(st.integers(0, 10**6), min_size=1).map(tuple)
ORDER = (int, float, spec.Percent, tuple, bool, type(None), str)  # of a field that takes everything


@st.composite
def calls(draw):
    inner = tuple(draw(st.lists(WORDS | calls().map(str), max_size=2)))
    return spec.Call(draw(NAMES), inner, tuple(draw(st.lists(st.tuples(NAMES | st.just(""), WORDS), max_size=3))))


@given(calls())
def test_a_spelled_call_reads_back(call):
    again = spec.parse("thing", str(call))
    assert again == call
    assert str(again) == str(call)


@given(NUMBERS | SIZES | NUMBERS.map(spec.Percent) | st.booleans() | st.none())
def test_a_spelled_value_reads_back(value):
    again = spec.read(spec.spell(value), ORDER)
    assert again == value
    assert isinstance(again, bool) == isinstance(value, bool)


READERS = (fl.compressors.parse, fl.data.parse, fl.models.get, fl.schedules.parse, fl.data.synthetic.generate)


@given(st.text(), st.sampled_from(READERS))
def test_any_text_is_read_or_refused_in_one_line(text, reader):
    said = ""
    try:
        reader(text)
    except InputError as error:
        said = str(error)
    assert "\n" not in said


def test_words_are_what_spells_nothing_else():
    read = {text: spec.read(text, ORDER) for text in ("natural", "3x", "x3", "10 %", "None", "FALSE", "1e400", "-1")}
    assert read == {
        "natural": "natural",
        "3x": (3,),
        "x3": "x3",
        "10 %": spec.Percent(10),
        "None": None,
        "FALSE": False,
        "1e400": math.inf,
        "-1": -1,
    }
    with pytest.raises(ValueError, match="natural"):
        spec.read("natural", (int, float, tuple))


def test_separators_within_parentheses_separate_nothing():
    call = spec.parse("thing", " f ( g(a;b):1,2 ; h ) : 3 , x = k(1,2) ")
    assert call == spec.Call("f", ("g(a;b):1,2", "h"), (("", "3"), ("x", "k(1,2)")))


FIELDS = {
    "rows": spec.Field((int,), required=True),
    "rate": spec.Field((int, float), fits=lambda rate: rate < 1),
    "to": spec.Field((str,)),
}


def test_arguments_go_by_position_or_by_name():
    expected = {"rows": 3, "rate": 0.5, "to": "a=b/c"}
    for text in ("f:3,0.5,to=a=b/c", "f: rate=0.5, rows=3, to = a=b/c", "f:3,rate=0.5,,to=a=b/c"):
        assert spec.parse("thing", text).read(FIELDS) == expected
    assert spec.parse("thing", "f(a;b):3").read(FIELDS, ("left", "right")) == {"left": "a", "right": "b", "rows": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f", "thing 'f' needs rows: write f:ROWS"),
        ("f:3,0.5,a,4", "thing 'f:3,0.5,a,4' has too many arguments: f takes at most 3 (rows, rate, to)"),
        ("f:3,row=4", "unknown option of f 'row': did you mean 'rows'? (known: rate, rows, to)"),
        ("f:3,rows=4", "thing 'f:3,rows=4' gives rows twice"),
        ("f:3.5", "thing 'f:3.5': rows must be a whole number, got '3.5'"),
        ("f:3,2", "thing 'f:3,2': rate must be a number, got '2'"),
        ("f(g):3", "thing 'f(g):3' has 1 things in parentheses: f takes none"),
        ("f(g:3", "thing 'f(g:3' has a '(' without its ')'"),
        ("f(g)h:3", "cannot read thing 'f(g)h:3': expected name:value,field=value or name(inner):value"),
        ("f:3)", "thing 'f:3)' has a ')' without its '('"),
        ("f:a(b", "thing 'f:a(b' has a '(' without its ')'"),
    ],
)
def test_errors(text, message):
    with pytest.raises(InputError) as caught:
        spec.parse("thing", text).read(FIELDS)
    assert str(caught.value) == message
