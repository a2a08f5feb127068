"""The memory of a trial: kept while it runs, given back when it ends, and the errors that say it is not enough."""

from __future__ import annotations

import ctypes
import gc
import sys

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers for these settings
_LARGEST_MMAP_THRESHOLD = 32 << 20  # bytes: glibc takes no more


def keep_freed_memory() -> None:
    """Lets the C library keep what one step frees for the next one, until `free_memory`.

    Otherwise glibc maps the megabytes of activations anew in every step, and the kernel clears them page by page:
    MobileNetV3-small at 224 px took 9.2 ms per clip on one core, and takes 7.7 so. Other C libraries are left alone.
    """
    library = _glibc()
    if library:
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def free_memory() -> None:
    """Gives back what nothing refers to any more, so that the next trial starts with an empty GPU."""
    gc.collect()
    torch.cuda.empty_cache()
    library = _glibc()
    if library:
        library.malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or the machine, has no memory left; torch has no one type for it.

    CUBLAS_STATUS_NOT_INITIALIZED, which a full GPU may say too, is none: a broken driver says the same.
    """
    # The last three: cuBLAS, cuFFT, cuSOLVER and old cuDNN; cuDNN from 9 on; C++ as torch hands it on.
    signs = ("out of memory", "DefaultCPUAllocator", "_ALLOC_FAILED", "_ALLOCATION_FAILED", "std::bad_alloc")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in signs)


def _glibc() -> ctypes.CDLL | None:
    """The process's C library where it is glibc."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
