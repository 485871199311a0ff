"""Properties of this machine: name, processor, memory, temperatures, throttling.

Everything is read from files under a root folder, so that tests can use copies of the files of
another machine. A value that is not available is None or empty, never an estimate.
"""

import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgepose.util.process import environment_without_secrets

ROOT: Final = Path("/")

_VCGENCMD_TIMEOUT_S: Final = 2.0

# The lowest bits of get_throttled, from the vcgencmd documentation of Raspberry Pi; 16 bits higher
# they are those of events.
_THROTTLED: Final = ("under_voltage", "frequency_capped", "throttled", "soft_temperature_limit")
OCCURRED: Final = "_occurred"
"""Suffix of the flags for events at any time since the machine started."""

# `CPU part` of /proc/cpuinfo, which has no model name on ARM; all are designs of ARM itself.
_ARM_CORES: Final = {
    "0xc07": "Cortex-A7",
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Properties that do not change while a program runs.

    `usable_cores` are those that this process is allowed to run on; `memory_mb` is in 10^6 bytes.
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
    """Clock rates in MHz of a group of cores that share a clock (`cpus` as the kernel lists them).

    `limit_mhz` is the maximum of the governor, `hardware_mhz` that of the cores.
    """

    cpus: str
    governor: str | None
    mhz: float | None
    limit_mhz: float | None
    hardware_mhz: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineState:
    """Properties that change while a program runs.

    `firmware_clock_mhz` is the clock rate measured by the firmware of a Raspberry Pi, which shows
    throttling; the rates of the kernel do not. `throttling` is None if it is unknown.
    """

    frequencies: tuple[CpuFrequency, ...]
    firmware_clock_mhz: float | None
    temperatures_c: dict[str, float]
    throttling: tuple[str, ...] | None
    load_average: float | None
    memory_available_mb: float | None


def vcgencmd(*words: str) -> str | None:
    """Return the answer of a Raspberry Pi's firmware, such as `throttled=0x0`; None if it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - constant arguments
            ["vcgencmd", *words],  # noqa: S607 - its folder differs between systems
            env=environment_without_secrets(),
            capture_output=True,
            text=True,
            timeout=_VCGENCMD_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def device_name(root: Path = ROOT) -> str:
    """Return the name in the device tree (`Raspberry Pi 5 Model B ...`) or of the PC's board.

    Without either it is the machine type, such as x86_64.
    """
    board = root / "sys/class/dmi/id"
    words = (_text(board / "sys_vendor"), _text(board / "product_name"))
    return (
        _text(root / "proc/device-tree/model")
        or " ".join(word for word in words if word)
        or platform.machine()
    )


def machine(root: Path = ROOT) -> Machine:
    """Return the properties of this machine."""
    cpus = _pairs(root / "proc/cpuinfo", ":")
    first_cpu = dict(reversed(cpus))
    # The last `vendor,name` in the list of the device tree is the chip.
    compatible = (_text(root / "proc/device-tree/compatible") or "").split("\0")[-1]
    return Machine(
        name=device_name(root),
        soc=compatible.rpartition(",")[2] or None,
        cpu=_ARM_CORES.get(first_cpu.get("CPU part", "")) or first_cpu.get("model name"),
        architecture=platform.machine(),
        cores=sum(key == "processor" for key, _ in cpus) or os.cpu_count() or 1,
        usable_cores=len(os.sched_getaffinity(0)),
        memory_mb=_size_mb(root / "proc/meminfo", "MemTotal"),
        os=dict(_pairs(root / "etc/os-release", "=")).get("PRETTY_NAME"),
        kernel=_text(root / "proc/sys/kernel/osrelease"),
        python=platform.python_version(),
    )


def machine_state(
    root: Path = ROOT, ask_firmware: Callable[..., str | None] = vcgencmd
) -> MachineState:
    """Return the present state of this machine; `ask_firmware` replaces `vcgencmd` in tests."""
    return MachineState(
        frequencies=cpu_frequencies(root),
        firmware_clock_mhz=_firmware_clock(ask_firmware),
        temperatures_c=temperatures_c(root),
        throttling=throttling(root, ask_firmware),
        load_average=_number((_text(root / "proc/loadavg") or "").partition(" ")[0]),
        memory_available_mb=_size_mb(root / "proc/meminfo", "MemAvailable"),
    )


def resident_memory_mb(root: Path = ROOT) -> float | None:
    """Return this process's resident memory in MB (10^6 bytes), None if it is not available."""
    return _size_mb(root / "proc/self/status", "VmRSS")


def temperatures_c(root: Path = ROOT) -> dict[str, float]:
    """Return the temperature of every thermal zone in degrees Celsius by type (`cpu-thermal`)."""
    temperatures = {}
    for zone in glob_sorted(root, "sys/class/thermal/thermal_zone*"):
        kind, millidegrees = _text(zone / "type"), _number(_text(zone / "temp"))
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
    files = glob_sorted(root, "sys/devices/platform/soc*/soc*:firmware/get_throttled")
    flags = next(filter(None, map(_text, files)), None) or ask_firmware("get_throttled") or ""
    try:
        bits = int(flags.removeprefix("throttled="), 16)
    except ValueError:
        return _voltage_alarm(root)
    return (
        *(name for bit, name in enumerate(_THROTTLED) if bits >> bit & 1),
        *(name + OCCURRED for bit, name in enumerate(_THROTTLED, 16) if bits >> bit & 1),
    )


def cpu_frequencies(root: Path = ROOT) -> tuple[CpuFrequency, ...]:
    """Return governor and clock rates of each group of cores, by the number of the first core."""
    policies = glob_sorted(root, "sys/devices/system/cpu/cpufreq/policy[0-9]*")
    policies.sort(key=lambda path: int(path.name[6:]))
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


def cpu_time_s(root: Path = ROOT) -> float | None:
    """Return the CPU seconds of all cores since the machine started, None if not available.

    Those stolen by a hypervisor are included.
    """
    fields = (_text(root / "proc/stat") or "").partition("\n")[0].split()
    try:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
    except ValueError:
        return None
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def other_cpu_time_s(root: Path = ROOT) -> float | None:
    """Return the CPU seconds of all other processes, and those stolen by a hypervisor."""
    all_s, own = cpu_time_s(root), os.times()
    return None if all_s is None else all_s - own.user - own.system


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return how many cores' time this process may use, None without a limit.

    It is that of its control group or one above (`CPUQuota=` of systemd, `--cpus` of a container).
    """
    own = (_text(root / "proc/self/cgroup") or "").rpartition("0::/")[2].partition("\n")[0]
    top = root / "sys/fs/cgroup"
    quotas = []
    for folder in (top / own, *(top / own).parents):
        limit, _, period = (_text(folder / "cpu.max") or "").partition(" ")
        if limit.isdigit() and period.isdigit() and int(period):
            quotas.append(int(limit) / int(period))
        if folder == top:
            break
    return min(quotas, default=None)


def _size_mb(path: Path, key: str) -> float | None:
    """Return a size in kB of a file such as /proc/meminfo in MB (10^6 bytes)."""
    kb = _number(dict(_pairs(path, ":")).get(key, "").removesuffix(" kB"))
    return None if kb is None else round(kb * 1024 / 1e6, 1)


def _pairs(path: Path, separator: str) -> list[tuple[str, str]]:
    """Return the keys and values of a file with one pair a line, without quotes."""
    lines = (line.partition(separator) for line in (_text(path) or "").splitlines())
    return [(key.strip(), value.strip().strip("\"'")) for key, found, value in lines if found]


def _firmware_clock(ask_firmware: Callable[..., str | None]) -> float | None:
    """Return the ARM cores' clock from an answer such as `frequency(48)=1500345728`."""
    name, _, hertz = (ask_firmware("measure_clock", "arm") or "").partition("=")
    # The firmware answers `error=1 error_msg=...` to an unknown command.
    known = name.startswith("frequency") and hertz.isdigit()
    return round(int(hertz) / 1e6, 1) if known else None


def _voltage_alarm(root: Path) -> tuple[str, ...] | None:
    for device in glob_sorted(root, "sys/class/hwmon/hwmon*"):
        if _text(device / "name") == "rpi_volt":
            alarm = _number(_text(device / "in0_lcrit_alarm"))
            # The driver reads it from the firmware every two seconds.
            return None if alarm is None else ("under_voltage",) if alarm else ()
    return None


def glob_sorted(root: Path, pattern: str) -> list[Path]:
    """Return the paths that match, sorted; none if the process has no descriptor left to list."""
    try:
        return sorted(root.glob(pattern))
    except OSError:
        return []


def _mhz(path: Path) -> float | None:
    khz = _number(_text(path))
    return None if khz is None else khz / 1000


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").rstrip("\0\n") or None
    except OSError:
        return None
