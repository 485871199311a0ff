"""What the machine says of itself: memory, temperatures, throttling, name."""

import platform
from pathlib import Path

_THERMAL = Path("/sys/class/thermal")
_THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
_DEVICE_TREE_MODEL = Path("/proc/device-tree/model")
_STATUS = Path("/proc/self/status")

# Bits of the Raspberry Pi firmware's get_throttled, as its documentation of vcgencmd lists them.
_THROTTLED_BITS = {
    0: "under_voltage",
    1: "frequency_capped",
    2: "throttled",
    3: "soft_temperature_limit",
    16: "under_voltage_occurred",
    17: "frequency_capped_occurred",
    18: "throttled_occurred",
    19: "soft_temperature_limit_occurred",
}


def device_name() -> str:
    """Return the device tree's model name (`Raspberry Pi 5 Model B ...`), else the machine type."""
    try:
        return _DEVICE_TREE_MODEL.read_text().rstrip("\0\n") or platform.machine()
    except OSError:
        return platform.machine()


def resident_memory_mb() -> float | None:
    """Return this process's resident memory in MB (10^6 bytes), None where it is not told."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmRSS:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    except (OSError, ValueError, IndexError):
        pass
    return None


def temperatures_c() -> dict[str, float]:
    """Return every thermal zone's temperature in degrees Celsius by its kind (`cpu-thermal`)."""
    temperatures = {}
    for zone in sorted(_THERMAL.glob("thermal_zone*")):
        try:
            kind = (zone / "type").read_text().strip()
            temperatures[kind] = round(int((zone / "temp").read_text()) / 1000, 1)
        except (OSError, ValueError):
            continue
    return temperatures


def throttling() -> tuple[str, ...] | None:
    """Return the firmware's throttling flags that are set; None where there is no such firmware."""
    try:
        bits = int(_THROTTLED.read_text(), 16)
    except (OSError, ValueError):
        return None
    return tuple(name for bit, name in _THROTTLED_BITS.items() if bits >> bit & 1)
