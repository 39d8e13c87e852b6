"""The CUDA context of a run's GPU, created while Python imports torch."""

import ctypes
import os
from contextlib import suppress
from threading import Thread


def create_meanwhile() -> Thread:
    """Return a started thread that creates the primary context of the process's GPU, which torch uses later.

    ctypes releases Python's lock in the driver's functions, so that imports go on. Where there is no driver or no GPU
    nothing happens: torch says what is wrong.
    """
    thread = Thread(target=_create)
    thread.start()
    return thread


def _create() -> None:
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")  # as torch sets it, before the driver reads it
    device, context = ctypes.c_int(), ctypes.c_void_p()
    with suppress(OSError):
        driver = ctypes.CDLL("libcuda.so.1")
        # Each function returns 0, or the number of an error.
        if not (
            driver.cuInit(0)
            or driver.cuDeviceGet(ctypes.byref(device), int(os.environ.get("LOCAL_RANK", "0")))
        ):
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
