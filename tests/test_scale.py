"""Features and targets out of scale: the error blames their scale, not a step size or a condition number."""

import numpy as np
import pytest
from scipy.sparse import csr_array

import fedjax_lc as fl
from fedjax_lc.core.errors import InputError
from tests.conftest import make_clients

RANGES = {"float32": "6e-15..3e+14", "float64": "4e-116..4e+115"}
MAKERS = {
    "logistic": (fl.problems.logistic_regression, (-1.0, 1.0)),
    "least squares": (fl.problems.least_squares, (-1.0, 1.0)),
    "softmax": (fl.problems.softmax_regression, (0, 1, 2)),
}


@pytest.mark.parametrize("loss", MAKERS)
@pytest.mark.parametrize("form", [np.asarray, csr_array])
@pytest.mark.parametrize(
    ("dtype", "scale"), [("float64", 1e160), ("float64", 1e-160), ("float32", 1e20), ("float32", 1e-25)]
)
@pytest.mark.parametrize("strength", [{"kappa": 1e4}, {"l2": 0.1}])
def test_features_out_of_scale(loss, form, dtype, scale, strength):
    make, labels = MAKERS[loss]
    clients = [(form(A * scale), b) for A, b in make_clients(labels=labels)]
    largest = max(abs(A).max() for A, _ in clients)
    with pytest.raises(InputError) as caught:
        make(clients, dtype=dtype, **strength)
    assert str(caught.value) == (
        f"the scale of the features does not fit {dtype}: the largest is {largest:.3g}, and its square would leave the "
        f"range unless it is in {RANGES[dtype]}; rescale them (scale='standard')"
        + ", or take dtype float64"
        * (dtype == "float32")
    )


@pytest.mark.parametrize(
    ("dtype", "scale"), [("float64", 1e100), ("float64", 1e-100), ("float32", 1e12), ("float32", 1e-12)]
)
def test_features_within_scale_have_step_sizes(dtype, scale):
    problem = fl.problems.logistic_regression([(A * scale, b) for A, b in make_clients()], kappa=1e4, dtype=dtype)
    gamma = fl.algorithms.get("gd").theory(problem).gamma
    assert 0 < gamma < np.inf


def test_the_command_line_says_so_too(refused, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("3e160,2,0\n-3e160,1,1\n3e160,5,0\n-3e160,0,1\n")
    message = refused("run", "gd", "--data", path, "--clients", 2, "--dtype", "float32", "--out", tmp_path / "out")
    assert message.startswith("the scale of the features does not fit float32: the largest is 3e+160, and its square ")
    assert message.endswith("rescale them (scale='standard')")  # float64 is no help


@pytest.mark.parametrize("scale", [1e160, 1e-160])
def test_scaling_mends_it(scale):
    A, b = np.concatenate([A for A, _ in make_clients()]), np.concatenate([b for _, b in make_clients()])
    with pytest.raises(InputError, match="scale of the features"):
        fl.problem((A * scale, b), clients=3)
    mended = fl.problem((A * scale, b), clients=3, scale="standard")
    np.testing.assert_allclose(mended.smooth, fl.problem((A, b), clients=3, scale="standard").smooth, rtol=1e-12)


def test_targets_out_of_scale():
    clients = [(A, b * 1e20) for A, b in make_clients()]
    with pytest.raises(InputError, match=r"scale of the targets does not fit float32: the largest is 1e\+20"):
        fl.problems.least_squares(clients, l2=0.1, dtype="float32")
