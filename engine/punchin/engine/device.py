"""The memory of a device, and whether it ran out. Imports no torch before it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from punchin.protocol.machine import ram

if TYPE_CHECKING:
    import torch


def free_memory(device: torch.device) -> int:
    """Bytes that torch can have on a device now: on a GPU also those that it keeps of what was let go."""
    if device.type != "cuda":
        return ram()[1]
    from torch.cuda import mem_get_info, memory_allocated, memory_reserved

    return mem_get_info(device)[0] + memory_reserved(device) - memory_allocated(device)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on whichever device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(said in str(error) for said in words)
