"""Child processes."""

import pytest

from edgepose.util.process import environment_without_secrets


def test_environment_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The closed library of the Edge TPU had the password of the broker in its environment."""
    secrets = {
        "EDGEPOSE_MQTT_PASSWORD": "s3cret",
        "EDGEPOSE_YARD_PASSWORD": "s3cret",
        "CREDENTIALS_DIRECTORY": "/run/credentials/edgepose.service",
        "GITHUB_TOKEN": "s3cret",
        "CAMERA": "rtsp://admin:s3cret@192.0.2.7/live",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/coral")
    environment = environment_without_secrets()
    assert not secrets.keys() & environment.keys()
    assert environment["LD_LIBRARY_PATH"] == "/opt/coral"
    assert "PATH" in environment
