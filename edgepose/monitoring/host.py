"""What the machine says of itself: name, processor, memory, heat, throttling.

Everything is read from files under a root folder, so that a copy of another machine's files can
stand in for it. What a machine does not tell is None or empty, never a guess.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path("/")

_VCGENCMD_TIMEOUT_S: Final = 2.0

# Bits of the Raspberry Pi firmware's get_throttled, as its documentation of vcgencmd lists them.
_THROTTLED_BITS: Final = {
    0: "under_voltage",
    1: "frequency_capped",
    2: "throttled",
    3: "soft_temperature_limit",
    16: "under_voltage_occurred",
    17: "frequency_capped_occurred",
    18: "throttled_occurred",
    19: "soft_temperature_limit_occurred",
}
OCCURRED: Final = "_occurred"
"""Ends the flags that say what happened at any time since the machine started."""

# `CPU implementer` and `CPU part` of /proc/cpuinfo, which names no model on ARM.
_ARM_CORES: Final = {
    ("0x41", "0xb76"): "ARM1176",
    ("0x41", "0xc07"): "Cortex-A7",
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What does not change while a program runs.

    `usable_cores` are those this process may run on, `memory_mb` in 10^6 bytes.
    """

    name: str
    soc: str | None
    cpu: str | None
    architecture: str
    cores: int
    usable_cores: int
    memory_mb: float | None
    os: str | None
    kernel: str | None
    python: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuFrequency:
    """One group of cores that share a clock (`cpus` as the kernel lists them), in MHz.

    `limit_mhz` is what the governor may use, `hardware_mhz` what the cores are made for.
    """

    cpus: str
    governor: str | None
    mhz: float | None
    limit_mhz: float | None
    hardware_mhz: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineState:
    """What changes while a program runs.

    `firmware_clock_mhz` is the clock that a Raspberry Pi's firmware measures: throttling shows
    there and not in the kernel's figures. `throttling` None means that nobody tells.
    """

    frequencies: tuple[CpuFrequency, ...]
    firmware_clock_mhz: float | None
    temperatures_c: dict[str, float]
    throttling: tuple[str, ...] | None
    load_average: float | None
    memory_available_mb: float | None


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """CPU seconds of all cores since the start of the machine; `stolen_s` by a hypervisor."""

    busy_s: float
    stolen_s: float


def vcgencmd(*words: str) -> str | None:
    """Return what a Raspberry Pi's firmware answers (`throttled=0x0`); None without an answer."""
    program = shutil.which("vcgencmd")
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - our own words
            [program, *words],
            capture_output=True,
            text=True,
            timeout=_VCGENCMD_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def no_firmware(*_words: str) -> str | None:
    """Return None: a replacement for `vcgencmd` on machines without that firmware."""
    return None


def device_name(root: Path = ROOT) -> str:
    """Return the device tree's model name (`Raspberry Pi 5 Model B ...`), else the machine type."""
    return _text(root / "proc/device-tree/model") or platform.machine()


def machine(root: Path = ROOT) -> Machine:
    """Return what this machine is."""
    total = _meminfo(root).get("MemTotal")
    return Machine(
        name=_name(root),
        soc=_soc(root),
        cpu=_cpu(root),
        architecture=platform.machine(),
        cores=_cores(root) or os.cpu_count() or 1,
        usable_cores=len(os.sched_getaffinity(0)),
        memory_mb=total,
        os=_os_name(root),
        kernel=_text(root / "proc/sys/kernel/osrelease"),
        python=platform.python_version(),
    )


def machine_state(
    root: Path = ROOT, ask_firmware: Callable[..., str | None] = vcgencmd
) -> MachineState:
    """Return how this machine is right now; `ask_firmware` is asked as `vcgencmd` would be."""
    return MachineState(
        frequencies=cpu_frequencies(root),
        firmware_clock_mhz=_firmware_clock(ask_firmware),
        temperatures_c=temperatures_c(root),
        throttling=throttling(root, ask_firmware),
        load_average=_load_average(root),
        memory_available_mb=_meminfo(root).get("MemAvailable"),
    )


def resident_memory_mb(root: Path = ROOT) -> float | None:
    """Return this process's resident memory in MB (10^6 bytes), None where it is not told."""
    try:
        for line in (root / "proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    except (OSError, ValueError, IndexError):
        pass
    return None


def temperatures_c(root: Path = ROOT) -> dict[str, float]:
    """Return every thermal zone's temperature in degrees Celsius by its kind (`cpu-thermal`)."""
    temperatures = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        kind, millidegrees = _text(zone / "type"), _number(zone / "temp")
        if kind is not None and millidegrees is not None:
            temperatures[kind] = round(millidegrees / 1000, 1)
    return temperatures


def throttling(
    root: Path = ROOT, ask_firmware: Callable[..., str | None] = vcgencmd
) -> tuple[str, ...] | None:
    """Return the throttling flags of the firmware that are set; None if they are unknown.

    Older Raspberry Pi kernels have them in a file. A Pi 5 has not: `vcgencmd` is asked, and if it
    fails (the service may not open /dev/vcio), the voltage alarm of the power supply.
    """
    files = sorted(root.glob("sys/devices/platform/soc*/soc*:firmware/get_throttled"))
    words = [text for file in files if (text := _text(file)) is not None]
    if not words:
        words = [(ask_firmware("get_throttled") or "").removeprefix("throttled=")]
    try:
        bits = int(words[0], 16)
    except ValueError:
        return _voltage_alarm(root)
    return tuple(name for bit, name in _THROTTLED_BITS.items() if bits >> bit & 1)


def cpu_frequencies(root: Path = ROOT) -> tuple[CpuFrequency, ...]:
    """Return governor and clock of each group of cores, in the order of their first core."""
    folder = root / "sys/devices/system/cpu/cpufreq"
    policies = sorted(folder.glob("policy[0-9]*"), key=lambda path: int(path.name[6:]))
    return tuple(
        CpuFrequency(
            cpus=_text(policy / "affected_cpus") or policy.name[6:],
            governor=_text(policy / "scaling_governor"),
            mhz=_mhz(policy / "scaling_cur_freq"),
            limit_mhz=_mhz(policy / "scaling_max_freq"),
            hardware_mhz=_mhz(policy / "cpuinfo_max_freq"),
        )
        for policy in policies
    )


def cpu_times(root: Path = ROOT) -> CpuTimes | None:
    """Return how long all cores were busy since the machine started; None where it is not told."""
    fields = (_text(root / "proc/stat") or "").partition("\n")[0].split()
    try:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
    except ValueError:
        return None
    ticks_a_second = os.sysconf("SC_CLK_TCK")
    return CpuTimes((user + nice + system + irq + softirq) / ticks_a_second, steal / ticks_a_second)


def _name(root: Path) -> str:
    board = root / "sys/class/dmi/id"
    words = (_text(board / "sys_vendor"), _text(board / "product_name"))
    return (
        _text(root / "proc/device-tree/model")
        or " ".join(word for word in words if word)
        or platform.machine()
    )


def _soc(root: Path) -> str | None:
    """Return the chip: the device tree lists `maker,name` from the board down to the chip."""
    compatible = (_text(root / "proc/device-tree/compatible") or "").split("\0")
    return compatible[-1].rpartition(",")[2] or None


def _cpu(root: Path) -> str | None:
    text = _text(root / "proc/cpuinfo") or ""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            values.setdefault(key.strip(), value.strip())
    core = _ARM_CORES.get((values.get("CPU implementer", ""), values.get("CPU part", "")))
    return core or values.get("model name")


def _cores(root: Path) -> int:
    lines = (_text(root / "proc/cpuinfo") or "").splitlines()
    return sum(line.partition(":")[0].strip() == "processor" for line in lines)


def _os_name(root: Path) -> str | None:
    for line in (_text(root / "etc/os-release") or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip("\"'")
    return None


def _meminfo(root: Path) -> dict[str, float]:
    """Return /proc/meminfo in MB (10^6 bytes)."""
    sizes = {}
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        key, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            sizes[key] = round(int(words[0]) * 1024 / 1e6, 1)
    return sizes


def _load_average(root: Path) -> float | None:
    words = (_text(root / "proc/loadavg") or "").split()
    try:
        return float(words[0])
    except (IndexError, ValueError):
        return None


def _firmware_clock(ask_firmware: Callable[..., str | None]) -> float | None:
    """Return the ARM cores' clock from an answer such as `frequency(48)=1500345728`."""
    name, _, hertz = (ask_firmware("measure_clock", "arm") or "").partition("=")
    # A firmware that does not know the question answers with `error=1 error_msg=...`.
    known = name.startswith("frequency") and hertz.isdigit()
    return round(int(hertz) / 1e6, 1) if known else None


def _voltage_alarm(root: Path) -> tuple[str, ...] | None:
    for device in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _text(device / "name") == "rpi_volt":
            alarm = _number(device / "in0_lcrit_alarm")
            # Its driver asks the firmware every two seconds what has happened since.
            return None if alarm is None else ("under_voltage",) if alarm else ()
    return None


def _mhz(path: Path) -> float | None:
    khz = _number(path)
    return None if khz is None else khz / 1000


def _number(path: Path) -> float | None:
    try:
        return float(_text(path) or "")
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").rstrip("\0\n") or None
    except OSError:
        return None
