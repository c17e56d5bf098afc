"""The bound holds for real products, and the switches are set and put back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compatlearn.precision import full_precision, squared_distance_error

CPU = torch.device("cpu")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    dimension=st.integers(1, 300),
    offset=st.sampled_from([0.0, 1.0, 1e4]),
    scale=st.sampled_from([1e-25, 1e-3, 1.0, 1e15]),
)
def test_error_is_within_the_bound(seed, dimension, offset, scale):
    random = np.random.default_rng(seed)
    queries, gallery = (scale * (offset + random.standard_normal((rows, dimension))) for rows in (3, 20))
    queries, gallery = (torch.from_numpy(values.astype(np.float32)) for values in (queries, gallery))
    halves = (gallery.double().square().sum(dim=1) / 2).float()
    scores = torch.addmm(halves, queries, gallery.T, alpha=-1).double()
    lengths, reach = queries.double().norm(dim=1), gallery.double().norm(dim=1).max()
    found = (lengths**2)[:, None] + 2 * scores
    exact = (queries.double()[:, None] - gallery.double()).square().sum(dim=2)
    error = squared_distance_error(lengths, reach, dimension, torch.float32)
    assert (((found - exact).abs() <= error[:, None]) | error.isinf()[:, None]).all()  # an overflow is known as such
    assert error.isfinite().all() or scale * offset > 1e18
    assert (squared_distance_error(lengths, reach, dimension, torch.float64) < error).all()


def test_bound_is_infinite_where_float32_overflows():
    error = squared_distance_error(torch.tensor([1.0, 1e25]).double(), torch.tensor(1.0).double(), 8, torch.float32)
    assert error.isfinite().tolist() == [True, False]


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_switches_are_set_and_put_back(precision):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        switch = getattr(torch.backends.cuda.matmul, "fp32_precision", None)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with full_precision(CPU):
                assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
                if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
                    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
                    assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        assert torch.get_float32_matmul_precision() == precision
        with pytest.raises(KeyError), full_precision(CPU):
            raise KeyError
        assert getattr(torch.backends.cuda.matmul, "fp32_precision", None) == switch
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
