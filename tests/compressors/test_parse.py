"""The string form: what it accepts, and one clear line for everything else."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedjax_lc import compressors
from fedjax_lc.compressors import parse
from fedjax_lc.core.errors import InputError

KNOWN = ", ".join(compressors.names())


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("rand_k:k=4", "rand_k:4"),
        (" rand_k : 4 | natural ", "rand_k:4|natural"),
        ("rand_k:10%", "rand_k:10%"),
        ("rand_k:2.5%,index=binom", "rand_k:2.5%,index=binom"),
        ("bernoulli:per=entry,p=0.1", "bernoulli:0.1,per=entry"),
        ("dithering:s=4,norm=inf", "dithering:4,norm=inf"),
        ("qsgd:4,norm=2,code=fixed", "qsgd:4"),
        ("l1_select:form=biased,index=int32", "l1_select:biased,index=int32"),
        ("induced( top_k:2 ; rand_k:2 | natural )", "induced(top_k:2;rand_k:2|natural)"),
        ("per_block(fcc(top_k:1):2):3x4x5", "per_block(fcc(top_k:1):2):3x4x5"),
        ("per_block(natural):12x", "per_block(natural):12x"),
        ("per_block(natural):4", "per_block(natural):4"),
        ("low_rank:1,rows=3", "low_rank:1,rows=3"),
        ("threshold:0.01,fit=gamma,stages=2,first=0.5", "threshold:0.01,fit=gamma,stages=2,first=0.5"),
        ("bernoulli:0.12345678901", "bernoulli:0.12345678901"),
    ],
)
def test_spellings(given, spelled):
    assert str(parse(given)) == spelled
    assert parse(spelled) == parse(given)


def test_a_compressor_passes_through_and_chains_in_python():
    c = compressors.RandK(4) | compressors.Natural()
    assert parse(c) is c
    assert c == parse("rand_k:4|natural")
    assert parse("dithering:2,norm=inf").norm == math.inf


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("randk:4", f"unknown compressor 'randk': did you mean 'rand_k'? (known: {KNOWN})"),
        ("", "compressor '' has an empty part: write name:value,field=value, as in rand_k:4|natural"),
        ("rand_k:4|", "compressor 'rand_k:4|' has an empty part: write name:value,field=value, as in rand_k:4|natural"),
        ("rand_k", "compressor 'rand_k' needs k: write rand_k:K"),
        ("rand_k:x", "compressor 'rand_k:x': k must be a number or a percentage, got 'x'"),
        ("rand_k:4,k=5", "compressor 'rand_k:4,k=5' gives k twice"),
        ("rand_k:4,binom,7", "compressor 'rand_k:4,binom,7' has too many arguments: rand_k takes at most 2 (k, index)"),
        ("rand_k:4,unit=percent", "unknown option of rand_k 'unit': did you mean 'index'? (known: index, k)"),
        ("natural:3", "compressor 'natural:3' has too many arguments: natural takes none"),
        ("bernoulli:10%", "compressor 'bernoulli:10%': p must be a number, got '10%'"),
        ("fcc(top_k:2:3", "compressor 'fcc(top_k:2:3' has a '(' without its ')'"),
        ("top_k:2)", "compressor 'top_k:2)' has a ')' without its '('"),
        (
            "induced(top_k:2)",
            "compressor 'induced(top_k:2)' has 1 compressors in parentheses: induced takes 2, as in "
            "induced(contractive;unbiased)",
        ),
        ("natural(sign)", "compressor 'natural(sign)' has 1 compressors in parentheses: natural takes none"),
        ("fcc(top_k:2)", "compressor 'fcc(top_k:2)' needs rounds: write fcc(inner):ROUNDS"),
    ],
)
def test_errors_of_the_string_form(text, message):
    with pytest.raises(InputError) as caught:
        parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rand_k:0", "rand_k needs 1 <= k <= d = 12, got k = 0"),
        ("top_k:13", "top_k needs 1 <= k <= d = 12, got k = 13"),
        ("top_k:2.5", "top_k needs a whole k, got 2.5: write top_k:2, or a percentage"),
        ("rand_k:4|top_k:6", "top_k needs 1 <= k <= d = 4, got k = 6"),
        ("rand_k:4,index=log3", "rand_k index must be one of log2, binom, int32, none, seed, got 'log3'"),
        ("top_k:4,index=seed", "top_k index must be one of log2, binom, int32, none, got 'seed'"),
        ("bernoulli:0", "bernoulli needs a probability p in (0, 1], got 0: write bernoulli:0.5"),
        ("bernoulli:0.5,per=block", "bernoulli per must be vector or entry, got 'block'"),
        ("l1_select:both", "l1_select form must be unbiased or biased, got 'both'"),
        ("qsgd:0", "qsgd needs a whole number of levels s, 1 <= s <= 16777216, got 0"),
        ("qsgd:2,norm=3", "qsgd norm must be 1, 2 or inf, got 3"),
        ("dithering:2,norm=inf,code=elias", "dithering code must be fixed, or elias with norm=2, got 'elias'"),
        ("ternary:huffman", "ternary code must be fixed or base3, got 'huffman'"),
        ("natural_dithering:200", "natural_dithering needs a whole number of levels s, 1 <= s <= 120, got 200"),
        (
            "natural_dithering:4,q=0.5",
            "natural_dithering needs a norm q >= 1 (inf for the largest entry), got 0.5",
        ),
        ("block_sign:0", "block_sign needs a whole block size >= 1, got 0: write block_sign:64"),
        ("threshold:0", "threshold needs 0 < ratio <= 1, got 0 (first 0.25): threshold:0.1"),
        ("threshold:0.1,fit=normal", "threshold fit must be one of exponential, pareto, gamma, got 'normal'"),
        ("threshold:0.1,stages=0", "threshold needs a whole number of stages of 1..64, got 0"),
        ("perm_k:0", "perm_k needs the number of clients n >= 1, got 0: write perm_k:10"),
        ("low_rank:1,rows=5", "low_rank needs rows that divide d = 12, got 5"),
        ("low_rank:4,rows=3", "low_rank needs a whole rank, 1 <= rank <= 3, got 4"),
        ("scaled(top_k:2)", "scaled needs an unbiased compressor, got top_k:2: use it as it is"),
        (
            "induced(rand_k:2;top_k:2)",
            "induced(C; Q) needs an unbiased Q, got top_k:2: write induced(top_k:2; rand_k:2)",
        ),
        ("fcc(top_k:2):0", "fcc needs a whole number of rounds >= 1, got 0: write fcc(top_k:2):3"),
        ("per_block(natural):3x4", "per_block sizes add up to 7, but the vector has d = 12 entries"),
        ("per_block(natural):0", "per_block needs block sizes >= 1, got 0: write per_block(natural):3x4"),
        ("per_block(top_k:4):3x4x5", "top_k needs 1 <= k <= d = 3, got k = 4"),
    ],
)
def test_errors_of_the_parameters(text, message):
    with pytest.raises(InputError) as caught:
        parse(text).validate(12)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["top_k:6|low_rank:1,rows=3", "rand_k:6|per_block(natural):4", "top_k:6|perm_k:3"])
def test_compressors_of_positions_come_first(text):
    import jax

    name = text.partition("|")[2].partition(":")[0].partition("(")[0]
    with pytest.raises(InputError) as caught:
        parse(text)(jax.random.key(0), np.ones(12))
    assert str(caught.value) == f"{name} acts on whole vectors: put it first in a chain, not behind a sparsifier"


def test_with_index_reaches_every_part_and_leaves_shared_seeds_alone():
    c = parse("induced(top_k:2;rand_k:3|natural)|fcc(rand_k:2,index=none):2")
    assert str(compressors.with_index(c, "binom")) == (
        "induced(top_k:2,index=binom;rand_k:3,index=binom|natural)|fcc(rand_k:2,index=binom):2"
    )
    assert compressors.with_index(parse("shared_rand_k:3"), "log2") == parse("shared_rand_k:3")
    with pytest.raises(InputError) as caught:
        compressors.with_index(c, "log3")
    assert str(caught.value) == "unknown index convention 'log3': expected one of log2, binom, int32, none"


def test_default_is_rand_k_natural_with_a_share_of_d():
    assert str(compressors.default(10, 4)) == "rand_k:3|natural"
    assert str(compressors.default(4, 10)) == "rand_k:1|natural"
    assert str(compressors.default(10, 4, contractive=True)) == "top_k:3"
