"""Process-wide settings of the interpreter and the allocator that a worker's way of using memory asks for.

A worker takes and frees blocks of megabytes (request and reply bodies) all the time. glibc gives such blocks back to
the system at once and faults them in again, which was measured as 2 to 3 us of CPU an event. And it makes thousands of
small objects that live for a second and are in no cycle, through which the garbage collector goes again and again.
"""

import ctypes
import gc

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt(3)."""
KEPT_BYTES = 64 * 1024 * 1024
MMAP_BYTES = 32 * 1024 * 1024
"""The most that glibc takes."""
YOUNG_MAX, MIDDLE_EVERY, OLD_EVERY = 50_000, 20, 20


def tune_process() -> None:
    """Call once, when everything that lasts has been made. Another C library than glibc is left as it is."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, MIDDLE_EVERY, OLD_EVERY)
    gc.enable()
