from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from trainable.training.device import free_memory, is_out_of_memory, keep_freed_memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("Expected more than 1 value per channel when training"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_torchs_own_error_for_an_impossible_block_is_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 58)
    assert is_out_of_memory(error.value)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the kernel does not say what a process has")
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_freed_memory_is_kept_for_the_next_step_and_given_back_in_the_end() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    keep_freed_memory()
    before = resident()
    blocks = [torch.zeros(1 << 20) for _ in range(50)]  # 50 blocks of 4 MiB
    del blocks
    kept = resident()
    free_memory()
    assert kept - before > 150 << 20
    assert resident() - before < 50 << 20
