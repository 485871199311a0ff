"""What a machine's state says of the figures that were measured on it."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgepose.benchmark import environment as conditions
from edgepose.benchmark.results import EdgeTpuPort
from edgepose.monitoring import host
from edgepose.monitoring.host import MachineState
from tests.machines import raspberry_pi_4, raspberry_pi_5, write

CLOCK = "ondemand 1800 of 1800 MHz"
THROTTLED = "under voltage occurred, throttled occurred"


def state_of(root: Path) -> MachineState:
    return host.machine_state(root, host.no_firmware)


def quiet_pi(tmp_path: Path) -> MachineState:
    return state_of(raspberry_pi_4(tmp_path, governor="performance"))


def test_a_quiet_machine_at_full_clock_gives_no_warning(tmp_path: Path) -> None:
    state = quiet_pi(tmp_path)
    assert conditions.warnings(state, state) == ()


def test_a_machine_that_tells_nothing_gives_no_warning(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    assert conditions.warnings(state, state) == ()


def test_the_governor_and_its_remedy(tmp_path: Path) -> None:
    state = state_of(raspberry_pi_4(tmp_path, governor="ondemand", khz=600000))
    (warning,) = conditions.warnings(state, state)
    assert "the governor of cores 0 1 2 3 is ondemand" in warning
    assert "echo performance" in warning


def test_a_clock_held_back(tmp_path: Path) -> None:
    before = quiet_pi(tmp_path)
    (group,) = before.frequencies
    after = replace(before, frequencies=(replace(group, mhz=1000.0),))
    (warning,) = conditions.warnings(before, after)
    assert "cores 0 1 2 3 ran at 1000 of 1800 MHz afterwards" in warning
    # The kernel repeats what it asked for; the firmware knows what the cores got.
    (warning,) = conditions.warnings(before, replace(before, firmware_clock_mhz=750.0))
    assert "ran at 750 of 1800 MHz" in warning
    assert conditions.warnings(before, replace(before, firmware_clock_mhz=1800.4)) == ()


def test_a_clock_that_is_limited(tmp_path: Path) -> None:
    before = quiet_pi(tmp_path)
    (group,) = before.frequencies
    limited = replace(before, frequencies=(replace(group, limit_mhz=1500.0, mhz=1500.0),))
    (warning,) = conditions.warnings(limited, limited)
    assert "limited to 1500 of their 1800 MHz" in warning


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ((), ("under_voltage",), "the supply's voltage is too low: these figures are too slow"),
        (("throttled",), (), "the cores are throttled: these figures are too slow; cool it"),
        ((), ("under_voltage_occurred",), "too low, at times while it measured"),
        (
            ("frequency_capped_occurred",),
            ("frequency_capped_occurred",),
            "the clock is capped, at times since the machine started, not while it measured",
        ),
    ],
)
def test_throttling(
    tmp_path: Path, before: tuple[str, ...], after: tuple[str, ...], sentence: str
) -> None:
    state = quiet_pi(tmp_path)
    found = conditions.warnings(replace(state, throttling=before), replace(state, throttling=after))
    assert len(found) == 1
    assert sentence in found[0]


def test_now_and_since_the_start_is_said_once(tmp_path: Path) -> None:
    state = replace(quiet_pi(tmp_path), throttling=("throttled", "throttled_occurred"))
    assert len(conditions.warnings(state, state)) == 1


def test_heat_company_and_little_memory(tmp_path: Path) -> None:
    state = state_of(raspberry_pi_5(tmp_path))
    hot, busy = conditions.warnings(state, state)
    assert hot.startswith("84 °C is hot")
    assert "the load average was 1.75 before it began" in busy
    full = replace(quiet_pi(tmp_path / "4"), memory_available_mb=60.0)
    (warning,) = conditions.warnings(full, full)
    assert "only 60 MB of memory were free" in warning


def test_an_edge_tpu_on_a_slow_port(tmp_path: Path) -> None:
    state = quiet_pi(tmp_path)
    ports = (
        EdgeTpuPort(bus="usb", usb_mbit_per_s=480),
        EdgeTpuPort(bus="usb", usb_mbit_per_s=5000),
        EdgeTpuPort(bus="pci"),
    )
    (warning,) = conditions.warnings(state, state, ports)
    assert "an Edge TPU is connected at 480 Mbit/s (USB 2)" in warning


def test_edge_tpus_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgepose.monitoring.edgetpu_devices import find_devices

    folder = "sys/bus/usb/devices/2-1"
    write(
        tmp_path,
        {
            f"{folder}/idVendor": "18d1\n",
            f"{folder}/idProduct": "9302\n",
            f"{folder}/busnum": "2\n",
            f"{folder}/devnum": "3\n",
            f"{folder}/speed": "5000\n",
        },
    )
    monkeypatch.setattr(conditions, "find_devices", lambda: find_devices(tmp_path))
    assert conditions.edge_tpu_ports() == (EdgeTpuPort(bus="usb", usb_mbit_per_s=5000),)


def test_a_pi_in_words(tmp_path: Path) -> None:
    root = raspberry_pi_4(tmp_path, throttled="50000")
    state = state_of(root)
    machine = replace(host.machine(root), architecture="aarch64", python="3.11.2", usable_cores=4)
    after = replace(state, temperatures_c={"cpu-thermal": 71.2}, firmware_clock_mhz=1800.4)
    ports = (EdgeTpuPort(bus="usb", usb_mbit_per_s=5000),)
    assert list(conditions.described(machine, state, after, ports)) == [
        "machine: Raspberry Pi 4 Model B Rev 1.4 (bcm2711, Cortex-A72), 4 cores, 1929 MB",
        "system: Debian GNU/Linux 12 (bookworm), kernel 6.6.51+rpt-rpi-v8, aarch64, Python 3.11.2",
        f"clock: {CLOCK}; afterwards {CLOCK}, firmware says 1800 MHz",
        "temperature: cpu-thermal 61 °C; afterwards cpu-thermal 71 °C",
        f"throttling: {THROTTLED}; afterwards {THROTTLED}",
        "Edge TPU: usb at 5000 Mbit/s",
    ]
    in_container = conditions.described(replace(machine, usable_cores=2), state, state, ())
    assert "4 cores (2 usable)" in in_container[0]
