"""Values of the host, from the files of a Pi 4, a Pi 5, and without any."""

import resource
from pathlib import Path

import pytest

from edgepose.monitoring import host
from edgepose.monitoring.edgetpu_devices import find_devices
from tests.machines import no_firmware, raspberry_pi_4, raspberry_pi_5, write


def test_machine_raspberry_pi_4(tmp_path: Path) -> None:
    """All values of a Pi 4 are read from its files."""
    root = raspberry_pi_4(tmp_path, throttled="50005", khz=600000)
    assert host.device_name(root) == "Raspberry Pi 4 Model B Rev 1.4"
    machine = host.machine(root)
    assert (machine.name, machine.soc, machine.cpu, machine.cores) == (
        *("Raspberry Pi 4 Model B Rev 1.4", "bcm2711", "Cortex-A72", 4),
    )
    assert machine.memory_mb == pytest.approx(1929.4, abs=0.1)
    assert (machine.os, machine.kernel) == ("Debian GNU/Linux 12 (bookworm)", "6.6.51+rpt-rpi-v8")
    state = host.machine_state(root, no_firmware)
    (group,) = state.frequencies
    assert (group.cpus, group.governor) == ("0 1 2 3", "ondemand")
    assert (group.mhz, group.limit_mhz, group.hardware_mhz) == (600.0, 1800.0, 1800.0)
    assert state.temperatures_c == {"cpu-thermal": 61.3}
    assert state.throttling == (
        *("under_voltage", "throttled", "under_voltage_occurred", "throttled_occurred"),
    )
    assert state.load_average == 0.08
    assert state.memory_available_mb == 1536.0
    assert state.firmware_clock_mhz is None


def test_machine_state_raspberry_pi_5(tmp_path: Path) -> None:
    """The kernel of a Pi 5 has no get_throttled file: vcgencmd is asked."""
    root = raspberry_pi_5(tmp_path)
    asked = []

    def firmware(*words: str) -> str | None:
        asked.append(words)
        return {"get_throttled": "throttled=0x80008", "measure_clock": "frequency(0)=2400033792"}[
            words[0]
        ]

    state = host.machine_state(root, firmware)
    assert state.throttling == ("soft_temperature_limit", "soft_temperature_limit_occurred")
    assert state.firmware_clock_mhz == 2400.0
    assert sorted(asked) == [("get_throttled",), ("measure_clock", "arm")]
    assert host.machine(root).cpu == "Cortex-A76"
    assert host.machine(root).soc == "bcm2712"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        # Of a container, which is the top of its own tree.
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"sys/fs/cgroup/system.slice/edgepose.service/cpu.max": "50000 100000\n"}, 0.5),
        # The smallest of all above counts.
        (
            {
                "sys/fs/cgroup/system.slice/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/system.slice/edgepose.service/cpu.max": "max 100000\n",
            },
            2.0,
        ),
        ({"sys/fs/cgroup/cpu.max": "damaged\n"}, None),
    ],
)
def test_cpu_quota(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    """The limit of the control group, or of one above."""
    own = {"proc/self/cgroup": "1:name=systemd:/x\n0::/system.slice/edgepose.service\n"}
    assert host.cpu_quota(write(tmp_path, files if not files else files | own)) == quota


@pytest.mark.parametrize(("alarm", "flags"), [("0", ()), ("1", ("under_voltage",)), (None, None)])
def test_throttling_voltage_alarm(
    tmp_path: Path, alarm: str | None, flags: tuple[str, ...] | None
) -> None:
    """Without vcgencmd, the hwmon alarm of a Pi 5 is used."""
    assert host.throttling(raspberry_pi_5(tmp_path, alarm=alarm), no_firmware) == flags


def test_throttling_asks_the_firmware_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stats` of the daemon calls it without arguments; on a Pi 5 only vcgencmd has the flags."""
    program = tmp_path / "vcgencmd"
    program.write_text('#!/bin/sh\n[ "$1" = get_throttled ] && echo throttled=0x4\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host.throttling(raspberry_pi_5(tmp_path / "root")) == ("throttled",)


def test_throttling_prefers_the_file(tmp_path: Path) -> None:
    """vcgencmd is not run if the kernel has the flags in a file."""
    root = raspberry_pi_4(tmp_path, throttled="0")
    assert host.throttling(root, lambda *_: pytest.fail("asked")) == ()


@pytest.mark.parametrize("answer", [None, "", "VCHI initialization failed", "error=1"])
def test_machine_state_firmware_without_answer(tmp_path: Path, answer: str | None) -> None:
    """Values of the firmware are None then."""
    state = host.machine_state(tmp_path, lambda *_: answer)
    assert state.throttling is None
    assert state.firmware_clock_mhz is None


def test_machine_without_files(tmp_path: Path) -> None:
    """Every missing value is None or empty."""
    state = host.machine_state(tmp_path, no_firmware)
    assert state == host.MachineState(
        frequencies=(),
        firmware_clock_mhz=None,
        temperatures_c={},
        throttling=None,
        load_average=None,
        memory_available_mb=None,
    )
    machine = host.machine(tmp_path)
    assert machine.name == host.device_name(tmp_path) == machine.architecture
    assert (machine.soc, machine.cpu, machine.memory_mb, machine.os) == (None, None, None, None)
    assert machine.cores >= 1
    assert host.cpu_time_s(tmp_path) is None
    assert host.resident_memory_mb(tmp_path) is None


def test_machine_state_damaged_files(tmp_path: Path) -> None:
    """Values that cannot be parsed are None."""
    root = write(
        tmp_path,
        {
            "proc/stat": "cpu  1 2\n",
            "proc/loadavg": "\n",
            "proc/meminfo": "MemTotal\n\nMemAvailable: lots kB\n",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "hot\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "zz\n",
            "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "<unknown>\n",
        },
    )
    assert host.cpu_time_s(root) is None
    state = host.machine_state(root, no_firmware)
    assert (state.load_average, state.memory_available_mb) == (None, None)
    assert state.temperatures_c == {}
    assert state.throttling is None
    assert state.frequencies == (
        host.CpuFrequency(cpus="0", governor=None, mhz=None, limit_mhz=None, hardware_mhz=None),
    )


def test_cpu_frequencies_numeric_order(tmp_path: Path) -> None:
    """Groups of cores are sorted by number, not by text."""
    folder = "sys/devices/system/cpu/cpufreq"
    root = write(
        tmp_path,
        {f"{folder}/policy{number}/scaling_max_freq": f"{number}000\n" for number in (10, 4, 0)},
    )
    assert [group.limit_mhz for group in host.cpu_frequencies(root)] == [0.0, 4.0, 10.0]


def test_cpu_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of all processes, and those stolen by a hypervisor."""
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    assert host.cpu_time_s(raspberry_pi_4(tmp_path)) == pytest.approx(16.7)


def test_machine_pc(tmp_path: Path) -> None:
    """A PC has its name in the DMI tables."""
    root = write(
        tmp_path,
        {
            "sys/class/dmi/id/sys_vendor": "Dell Inc.\n",
            "sys/class/dmi/id/product_name": "Wyse 5070\n",
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) Pentium(R) Silver J5005\n",
        },
    )
    machine = host.machine(root)
    assert machine.name == "Dell Inc. Wyse 5070"
    assert machine.cpu == "Intel(R) Pentium(R) Silver J5005"
    assert machine.cores == 1


def test_resident_memory_of_this_process() -> None:
    """The value is plausible."""
    memory = host.resident_memory_mb()
    assert memory is not None
    assert 10 < memory < 10_000


def test_vcgencmd_missing_or_failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing or failing program returns None."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host.vcgencmd("get_throttled") is None
    script = tmp_path / "vcgencmd"
    script.write_text('#!/bin/sh\necho "throttled=0x$#"\n')
    script.chmod(0o755)
    assert host.vcgencmd("get_throttled") == "throttled=0x1"
    script.write_text("#!/bin/sh\nexit 255\n")
    assert host.vcgencmd("get_throttled") is None


def test_host_without_a_free_descriptor() -> None:
    """Reading temperatures for the statistics ended the daemon."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        values = (host.temperatures_c(), host.throttling(), host.cpu_frequencies(), find_devices())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert values == ({}, None, (), ())
