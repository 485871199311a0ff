"""The Edge TPUs of this machine, read from sysfs; no device is opened."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edgepose.monitoring.host import glob_sorted

USB_IDS: Final = frozenset({("1a6e", "089a"), ("18d1", "9302")})
"""Vendor and product id: before the first use, and after its firmware is loaded."""

SLOW_USB_MBIT: Final = 480


@dataclass(frozen=True, slots=True)
class EdgeTpuDevice:
    """An Edge TPU: its bus, and the device node that a process must be able to open.

    `usb_mbit_per_s` is the speed of its USB link: 5000 on USB 3, 480 on USB 2.
    """

    bus: Literal["usb", "pci"]
    node: Path
    usb_mbit_per_s: int | None = None

    @property
    def accessible(self) -> bool:
        """Whether this process has permission to open it."""
        return os.access(self.node, os.R_OK | os.W_OK)


def find_devices(root: Path = Path("/")) -> tuple[EdgeTpuDevice, ...]:
    """Return the Edge TPUs of this machine; `root` holds its `sys` and `dev`."""
    nodes = glob_sorted(root, "dev/apex_*")
    return (*_usb_devices(root), *(EdgeTpuDevice("pci", node) for node in nodes))


def _usb_devices(root: Path) -> Iterator[EdgeTpuDevice]:
    for folder in glob_sorted(root, "sys/bus/usb/devices/*"):
        try:
            ids = (_line(folder / "idVendor"), _line(folder / "idProduct"))
            if ids not in USB_IDS:
                continue
            bus, device = int(_line(folder / "busnum")), int(_line(folder / "devnum"))
            speed = _line(folder / "speed")
        except (OSError, ValueError):
            # An interface or a hub has no such files; a device can be unplugged at any time.
            continue
        node = root / "dev/bus/usb" / f"{bus:03d}" / f"{device:03d}"
        yield EdgeTpuDevice("usb", node, int(speed) if speed.isdigit() else None)


def _line(path: Path) -> str:
    return path.read_text(encoding="ascii", errors="replace").strip()
