"""The switches are set and put back; what a type sums in is found out, not believed."""

from threading import Barrier, Thread

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


def test_switches_return_when_the_last_thread_leaves():
    """Two threads that overlap: the second must not take the first's settings for the caller's."""
    cuda = torch.backends.cuda.matmul
    assert cuda.allow_bf16_reduced_precision_reduction
    first_is_in, second_is_in, first_is_out = Barrier(2, timeout=10), Barrier(2, timeout=10), Barrier(2, timeout=10)
    seen = []

    def first():
        with full_precision(CPU):
            first_is_in.wait()
            second_is_in.wait()
        first_is_out.wait()

    def second():
        first_is_in.wait()
        with full_precision(CPU):
            second_is_in.wait()
            first_is_out.wait()
            seen.append(cuda.allow_bf16_reduced_precision_reduction)

    threads = [Thread(target=first), Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [False]
    assert cuda.allow_bf16_reduced_precision_reduction
