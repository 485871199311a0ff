"""Tries what edgepose needs and what its sandbox must forbid, and prints the results."""

import ctypes
import json
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def share_memory_with_child() -> None:
    """Share memory with a child, as with the worker process of the Edge TPU."""
    descriptor = os.memfd_create("tensors", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, mmap.PAGESIZE)
    here = mmap.mmap(descriptor, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    code = f"import mmap; mmap.mmap({descriptor}, mmap.PAGESIZE)[:4] = b'pose'"
    subprocess.run([sys.executable, "-c", code], pass_fds=[descriptor], check=True)
    assert here[:4] == b"pose"


def call_back_from_c() -> None:
    """Call Python from C, as a delegate does to report errors."""
    numbers = (ctypes.c_int * 3)(3, 1, 2)
    pointer = ctypes.POINTER(ctypes.c_int)
    compare = ctypes.CFUNCTYPE(ctypes.c_int, pointer, pointer)(lambda a, b: a[0] - b[0])
    ctypes.CDLL(None).qsort(numbers, 3, ctypes.sizeof(ctypes.c_int), compare)
    assert list(numbers) == [1, 2, 3]


def create_user_namespace() -> None:
    """Create a user namespace, which most exploits of the kernel need."""
    clone_newuser = 0x10000000
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(clone_newuser):
        raise OSError(ctypes.get_errno(), "unshare")


def write(path: str) -> Callable[[], object]:
    """Return a function that creates a file."""
    return lambda: Path(path).write_text("")


TRIALS: dict[str, Callable[[], object]] = {
    "memory shared with a child": share_memory_with_child,
    "a callback from C": call_back_from_c,
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15),
    "a file of the group video": lambda: Path("/etc/edgepose/secret").read_text(),
    "its state directory": write(f"{os.environ.get('STATE_DIRECTORY')}/file"),
    "the configuration": lambda: Path("/etc/edgepose/config.yaml").read_text(),
    "the processor's features": lambda: Path("/proc/cpuinfo").read_text(),
    "memory to write and execute": lambda: mmap.mmap(
        -1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    ),
    "a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "another user's process": lambda: Path("/proc/1/status").read_text(),
    "the home folders": lambda: list(Path("/home").iterdir()),
    "writing the configuration": write("/etc/edgepose/file"),
    "writing the models": write("/var/lib/edgepose/models/file"),
    "writing the program": write("/opt/edgepose/file"),
    "a user namespace": create_user_namespace,
}


def outcome(trial: Callable[[], object]) -> str:
    """Return `yes`, or the name of the exception."""
    try:
        trial()
    except (OSError, AssertionError, subprocess.CalledProcessError) as error:
        return type(error).__name__
    return "yes"


if __name__ == "__main__":
    results = {name: outcome(trial) for name, trial in TRIALS.items()}
    sys.stdout.write(f"results: {json.dumps(results)}\n")
