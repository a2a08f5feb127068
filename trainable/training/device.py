"""The machine that a trial runs on: its device, the precision of its products, and its memory."""

from __future__ import annotations

import ctypes
import gc
import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from trainable.backbones.head import first_convolution, is_depthwise
from trainable.config import TrialConfig
from trainable.errors import Unavailable

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


def find_device(name: str) -> torch.device:
    """The device that a configuration names; auto is the GPU where there is one.

    Raises:
        Unavailable: it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there[device.type]:
        raise Unavailable(f"device: must be one of this machine's, got {name!r}, which is not there. Use auto or cpu.")
    return device


@dataclass(frozen=True)
class Precision:
    """How images go through a model: the type of products and the order of numbers in memory."""

    device: torch.device
    dtype: torch.dtype
    layout: torch.memory_format

    def forward(self, model: nn.Module, images: Tensor) -> Tensor:
        """The logits [b, k] of images [b, c, h, w], float32."""
        # One pass over the images makes three equal channels out of one, orders them and rounds them. Not to fp16: the
        # power of a loud clip is above its largest number.
        rounded = torch.float32 if self.dtype == torch.float16 else self.dtype
        images = images.to(rounded, memory_format=self.layout)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits: Tensor = model(images)
        return logits.float()

    @property
    def hint(self) -> str:
        """What to do about an answer that is no number, where the type of the products may be why."""
        if self.dtype != torch.float16:
            return ""
        return ": fp16 holds no number above 65,504. Use precision: bf16 or fp32, or scale: log"

    def scaler(self) -> GradScaler:
        """What keeps fp16 gradients from vanishing; it does nothing for the other types, which need no help."""
        return GradScaler(self.device.type, enabled=self.dtype == torch.float16)


def choose_precision(config: TrialConfig, model: nn.Module, device: torch.device) -> Precision:
    """The precision of products, and the layout of images; weights, optimiser and batch norms are float32 throughout.

    auto takes what is fastest here by rule, so that a trial does not depend on what else ran while it was measured:

        GPU        bf16 from compute capability 8.0 on (A100), fp16 on 7.x (V100, T4), fp32 before: no tensor cores
        CPU        bf16 where it has AMX, but fp32 for depthwise models, which wait for memory: with AMX ResNet18 at
                   224 px took 16 ms per image in bf16 and 30 ms in fp32, MobileNetV3-small at 64 px 3.8 ms in bf16 and
                   1.9 ms in fp32. AVX512-BF16 alone lost everywhere: 1.2 to 1.6 times the time of fp32
        otherwise  fp32

    In fp16 the first convolution and its input stay float32: what comes after a batch norm fits again.
    """
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = _fastest(model, device) if config.precision == "auto" else named[config.precision]
    first = first_convolution(model)[1]
    if dtype == torch.float16 and type(first) is nn.Conv2d:
        first.__class__ = _Float32Conv2d  # the module as it is, its weights and its name among them
    return Precision(device, dtype, torch.channels_last if config.channels_last else torch.contiguous_format)


class _Float32Conv2d(nn.Conv2d):
    """A convolution in float32, whatever is cast around it."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


def _fastest(model: nn.Module, device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if major >= 8 else torch.float16 if major == 7 else torch.float32
    if device.type == "cpu" and has_amx() and not is_depthwise(model):
        return torch.bfloat16
    return torch.float32


def has_amx() -> bool:
    """Whether this CPU multiplies matrices of bfloat16 in tiles."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))
