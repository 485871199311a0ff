"""Finding Edge TPUs in a tree of files like the kernel's."""

from pathlib import Path

from edgepose.monitoring.edgetpu_devices import EdgeTpuDevice, find_devices
from tests.machines import plug_in


def test_find_devices_none(tmp_path: Path) -> None:
    """Without sysfs there are no devices."""
    assert find_devices(tmp_path) == ()
    plug_in(tmp_path, "1-1", "046d", "0825")
    (tmp_path / "sys/bus/usb/devices/1-1:1.0").mkdir()
    assert find_devices(tmp_path) == ()


def test_find_devices_usb_ids(tmp_path: Path) -> None:
    """The USB ids change when the firmware is loaded."""
    for number, ids in enumerate([("1a6e", "089a"), ("18d1", "9302")]):
        root = tmp_path / str(number)
        node = plug_in(root, "2-1", *ids)
        assert find_devices(root) == (EdgeTpuDevice("usb", node, 5000),)
        assert find_devices(root)[0].accessible


def test_find_devices_usb_2(tmp_path: Path) -> None:
    """The speed of the USB port is read."""
    plug_in(tmp_path, "1-1.2", "18d1", "9302", speed="480")
    assert find_devices(tmp_path)[0].usb_mbit_per_s == 480


def test_edgetpu_device_without_node(tmp_path: Path) -> None:
    """A device whose node is missing is not accessible."""
    plug_in(tmp_path, "2-1", "18d1", "9302").unlink()
    assert not find_devices(tmp_path)[0].accessible


def test_find_devices_pci(tmp_path: Path) -> None:
    """PCIe devices are found by their node."""
    (tmp_path / "dev").mkdir()
    for name in ("apex_1", "apex_0"):
        (tmp_path / "dev" / name).touch()
    assert [device.node.name for device in find_devices(tmp_path)] == ["apex_0", "apex_1"]
