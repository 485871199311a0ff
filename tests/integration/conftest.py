"""Real brokers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mosquitto import Certificates, Listener, Mosquitto


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """Return a mosquitto without login."""
    with Mosquitto(tmp_path) as mosquitto:
        yield mosquitto


@pytest.fixture
def listener(broker: Mosquitto) -> Iterator[Listener]:
    """Return a subscriber to everything on `broker`."""
    with broker.listener() as listening:
        yield listening


@pytest.fixture
def password_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """Return a mosquitto that requires `tests.mosquitto.USERNAME` and `PASSWORD`."""
    with Mosquitto(tmp_path, password=True) as mosquitto:
        yield mosquitto


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return certificates for localhost, made once: the keys take a second."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls_broker(tmp_path: Path, certificates: Certificates) -> Iterator[Mosquitto]:
    """Return a mosquitto with TLS only."""
    with Mosquitto(tmp_path, certificates=certificates) as mosquitto:
        yield mosquitto
