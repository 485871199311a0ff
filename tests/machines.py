"""Files in /proc and /sys of other machines, as their kernels write them."""

from pathlib import Path

_CPUINFO = (
    "processor\t: {number}\nBogoMIPS\t: 108.00\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
    "CPU variant\t: 0x4\nCPU part\t: {part}\nCPU revision\t: 1\n\n"
)


def no_firmware(*_words: str) -> str | None:
    """In place of `vcgencmd`: a machine without the firmware of a Raspberry Pi."""
    return None


def write(root: Path, files: dict[str, str]) -> Path:
    """Write files under a root and return it."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def raspberry_pi_4(
    root: Path, *, throttled: str | None = "0", governor: str = "ondemand", khz: int = 1800000
) -> Path:
    """A Pi 4 of Bookworm, whose kernel has the firmware's throttling flags in a file."""
    files = {
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
        "proc/cpuinfo": "".join(_CPUINFO.format(number=number, part="0xd08") for number in range(4))
        + "Revision\t: c03114\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
        "proc/meminfo": "MemTotal:        1884200 kB\nMemFree:          900000 kB\n"
        "MemAvailable:    1500000 kB\n",
        "proc/loadavg": "0.08 0.03 0.01 1/150 2222\n",
        "proc/stat": "cpu  1000 100 500 90000 300 0 50 20 0 0\nintr 12 0 0\n",
        "proc/sys/kernel/osrelease": "6.6.51+rpt-rpi-v8\n",
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\n',
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "61341\n",
    }
    files |= _policy("0 1 2 3", governor, khz, 1800000, 1800000)
    if throttled is not None:
        files["sys/devices/platform/soc/soc:firmware/get_throttled"] = f"{throttled}\n"
    return write(root, files)


def raspberry_pi_5(root: Path, *, governor: str = "performance", alarm: str | None = "0") -> Path:
    """A Pi 5, whose kernel has no such file: the flags come from the firmware or an alarm."""
    files = {
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
        "proc/cpuinfo": "".join(
            _CPUINFO.format(number=number, part="0xd0b") for number in range(4)
        ),
        "proc/meminfo": "MemTotal:        8256000 kB\nMemAvailable:    7000000 kB\n",
        "proc/loadavg": "1.75 0.90 0.40 2/170 3333\n",
        "proc/sys/kernel/osrelease": "6.12.20+rpt-rpi-2712\n",
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n',
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "83650\n",
        "sys/class/hwmon/hwmon1/name": "pwmfan\n",
        "sys/class/hwmon/hwmon2/name": "rpi_volt\n",
    }
    files |= _policy("0 1 2 3", governor, 2400000, 2400000, 2400000)
    if alarm is not None:
        files["sys/class/hwmon/hwmon2/in0_lcrit_alarm"] = f"{alarm}\n"
    return write(root, files)


def plug_in(root: Path, name: str, vendor: str, product: str, speed: str = "5000") -> Path:
    """Write the files of a USB device and return its node."""
    folder = root / "sys/bus/usb/devices" / name
    folder.mkdir(parents=True)
    files = {"idVendor": vendor, "idProduct": product, "busnum": "2", "devnum": "7", "speed": speed}
    for file, text in files.items():
        (folder / file).write_text(f"{text}\n")
    node = root / "dev/bus/usb/002/007"
    node.parent.mkdir(parents=True, exist_ok=True)
    node.touch()
    return node


def _policy(
    cpus: str, governor: str, khz: int, limit_khz: int, hardware_khz: int
) -> dict[str, str]:
    folder = "sys/devices/system/cpu/cpufreq/policy0"
    return {
        f"{folder}/affected_cpus": f"{cpus}\n",
        f"{folder}/scaling_governor": f"{governor}\n",
        f"{folder}/scaling_cur_freq": f"{khz}\n",
        f"{folder}/scaling_max_freq": f"{limit_khz}\n",
        f"{folder}/cpuinfo_max_freq": f"{hardware_khz}\n",
    }
