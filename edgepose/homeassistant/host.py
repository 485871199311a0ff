"""What Home Assistant is to know of the machine."""

from typing import Final

from edgepose.homeassistant.discovery import Host
from edgepose.monitoring.host import device_name, temperatures_c, throttling

_PI_SENSOR: Final = "cpu-thermal"


def read_host(*, restartable: bool) -> Host:
    """Read what the machine reports; on a Pi 5 its firmware answers through another process."""
    sensors = temperatures_c()
    sensor = _PI_SENSOR if _PI_SENSOR in sensors else next(iter(sensors), None)
    return Host(
        hardware=device_name(),
        temperature=sensor,
        throttling=throttling() is not None,
        restartable=restartable,
    )
