"""The switches are set and put back; what a type sums in is found out, not believed."""

import pytest
import torch

from compatlearn.precision import _sums_in_float32, fast_in_bfloat16, full_precision

CPU = torch.device("cpu")


def test_bfloat16_is_used_only_where_it_is_summed_in_float32(monkeypatch):
    with full_precision(CPU):
        assert _sums_in_float32(CPU)
        for known in (True, False):
            fast_in_bfloat16.cache_clear()
            monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda known=known: known, raising=False)
            monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
            assert fast_in_bfloat16(CPU) == known
        monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: torch.full((32, 32), 256.0))  # as a sum in bfloat16
        assert not _sums_in_float32(CPU)
    fast_in_bfloat16.cache_clear()
    assert not fast_in_bfloat16(torch.device("meta"))


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_switches_are_set_and_put_back(precision):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        switch = getattr(torch.backends.cuda.matmul, "fp32_precision", None)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with full_precision(CPU):
                assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
                assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
                if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
                    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
                    assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        assert torch.get_float32_matmul_precision() == precision
        assert torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
        with pytest.raises(KeyError), full_precision(CPU):
            raise KeyError
        assert getattr(torch.backends.cuda.matmul, "fp32_precision", None) == switch
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
