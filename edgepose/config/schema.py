"""What can be configured: every key with its type, default and limits.

What a key means is written once, in `config.yaml`; these classes say what may stand there, and
`checking` holds a file against them. Python code that builds them itself is trusted.
"""

import math
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from edgepose.mqtt.topics import check_base
from edgepose.mqtt.url import (
    PASSWORD_VARIABLE,
    BrokerAddress,
    Secret,
    TlsFiles,
    parse_broker_url,
    read_password,
)
from edgepose.util.redact import masked_url

MQTT_PASSWORD_CREDENTIAL: Final = "mqtt-password"  # noqa: S105 - a credential's name

_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_DEVICE = re.compile(r"(usb|pci)(:[0-9]{1,2})?")
MAX_THREADS: Final = 64
MAX_CAMERAS: Final = 16
_SWITCHES: Final = {
    **dict.fromkeys(("true", "yes", "on", "y", "t", "1"), True),
    **dict.fromkeys(("false", "no", "off", "n", "f", "0"), False),
}


@dataclass(frozen=True, slots=True)
class Coerce:
    """Beside a type: turns what people write into a value of the type, before it is checked.

    The function returns what it does not know unchanged, or raises ValueError with a sentence.
    """

    function: Callable[[object], object]


@dataclass(frozen=True, slots=True)
class Validate:
    """Beside a type: raises ValueError with a sentence where a value of the type is no good."""

    function: Callable[[Any], object]


def _id(value: str) -> None:
    if not _ID.fullmatch(value):
        raise ValueError(
            f"expected 1 to 64 of the characters a-z, A-Z, 0-9, _ and -, got {value!r}; it becomes "
            "part of the MQTT topics"
        )


def _path(value: Path) -> None:
    if "\0" in str(value) or str(value) == ".":
        raise ValueError("expected a path, got an empty text; remove the key for no file")


def _printable(value: str) -> None:
    if not value.isprintable():
        raise ValueError("expected a text without control characters, which no MQTT broker takes")


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value}")
    return value


def _switch(value: object) -> object:
    # Older YAML has more words for a boolean than ours.
    return _SWITCHES.get(str(value).lower(), value) if isinstance(value, (str, int)) else value


def _preset(value: object) -> object:
    # Most YAML tools write the word `off` as false; ours reads both.
    return "off" if value is False else value


def _protocol(value: object) -> object:
    return "5" if type(value) is int and value == 5 else value


def _threads(value: object) -> object:
    if value == "auto" or (type(value) is int and 1 <= value <= MAX_THREADS):
        return value
    raise ValueError(f"expected auto or a whole number from 1 to {MAX_THREADS}")


def _input_size(value: object) -> object:
    if value is None:
        return value
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 2
        or not all(type(side) is int and 32 <= side <= 4096 for side in value)
    ):
        raise ValueError(
            "expected width and height, whole numbers from 32 to 4096, such as [256, 192]"
        )
    return value


def _device(value: str) -> None:
    if not _DEVICE.fullmatch(value):
        raise ValueError(
            f"expected an Edge TPU such as usb:0 or pci:0, got {value!r}; leave it out for the "
            "first one found"
        )


def _cameras(value: object) -> object:
    if value == []:
        raise ValueError("expected at least one camera, got none; remove the key for its default")
    if isinstance(value, list) and len(value) > MAX_CAMERAS:
        raise ValueError(f"expected at most {MAX_CAMERAS} entries, got {len(value)}")
    return (None,) if value is None else value


def _names_differ(cameras: tuple["CameraConfig", ...]) -> None:
    first: dict[str, int] = {}
    for index, camera in enumerate(cameras):
        other = first.setdefault(camera.name, index)
        if other != index:
            raise ValueError(
                f"cameras {other} and {index} (counted from 0) are both named {camera.name!r}; "
                "every camera needs a name of its own"
            )


# Nothing is guessed here: neither `true` nor `'5'` is a number.
Text = Annotated[str, Meta(min_length=1)]
Id = Annotated[str, Meta(extra_json_schema={"pattern": f"^{_ID.pattern}$"}), Validate(_id)]
Switch = Annotated[bool, Coerce(_switch)]
Number = Annotated[float, Coerce(_finite)]
NotNegative = Annotated[Number, Meta(ge=0)]
Positive = Annotated[Number, Meta(gt=0)]
Score = Annotated[Number, Meta(ge=0, le=1)]
Side = Annotated[int, Meta(ge=16, le=16384)]
InputSide = Annotated[int, Meta(ge=32, le=4096)]
UpToAnHour = Annotated[int, Meta(ge=0, le=3_600_000)]
FilePath = Annotated[Path, Validate(_path)]
ClientId = Annotated[str, Meta(min_length=1, max_length=128), Validate(_printable)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group of keys."""

    def conflicts(self) -> Iterable[str]:
        """Say, in a sentence each, which keys do not go together."""
        return ()


class CameraConfig(Section, frozen=True, kw_only=True):
    """One camera, or what stands in for it."""

    name: Id = "main"
    source: Text = "picamera:0"
    rotation: Literal[0, 90, 180, 270] = 0
    mirror: Switch = False
    width: Side | None = None
    height: Side | None = None
    fps: Annotated[Number, Meta(gt=0, le=1000)] | None = None
    stream: Literal["main", "lores"] = "main"

    def conflicts(self) -> Iterator[str]:
        """Say that one side is set without the other."""
        if (self.width is None) != (self.height is None):
            given, missing = ("width", "height") if self.height is None else ("height", "width")
            yield f"{given} is set without {missing}; set both or none"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        shown = msgspec.structs.asdict(self) | {"source": masked_url(self.source)}
        return list(shown.items())

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"CameraConfig({values})"


class ModelConfig(Section, frozen=True, kw_only=True):
    """Which model looks at the frames."""

    name: Text = "movenet-lightning-int8"
    kind: Literal["auto", "movenet_single", "movenet_multipose", "posenet"] = "auto"
    crop: Switch = True
    input_size: Annotated[tuple[InputSide, InputSide] | None, Coerce(_input_size)] = None
    max_poses: Annotated[int, Meta(ge=1, le=20)] = 6
    nms_radius_px: NotNegative = 20.0


class InferenceConfig(Section, frozen=True, kw_only=True):
    """What runs the model, and how."""

    runtime: Literal["auto", "litert", "tflite-runtime"] = "auto"
    threads: Annotated[
        Literal["auto"] | Annotated[int, Meta(ge=1, le=MAX_THREADS)], Coerce(_threads)
    ] = "auto"
    device: Annotated[str, Validate(_device)] | None = None
    recording: FilePath | None = None


class EdgeTpuPoseConfig(Section, frozen=True, kw_only=True):
    """The same for the Edge TPU, whose scores are not those of the CPU."""

    keypoint_threshold: Score | None = None
    pose_threshold: Score | None = None


class PoseConfig(Section, frozen=True, kw_only=True):
    """Which poses and keypoints are good enough."""

    keypoint_threshold: Score = 0.3
    pose_threshold: Score | None = None
    edgetpu: EdgeTpuPoseConfig = EdgeTpuPoseConfig()

    def for_device(self, device: str) -> "PoseConfig":
        """Return what counts on `cpu` or `edgetpu`."""
        if device != "edgetpu":
            return self
        keypoint, pose = self.edgetpu.keypoint_threshold, self.edgetpu.pose_threshold
        return PoseConfig(
            keypoint_threshold=self.keypoint_threshold if keypoint is None else keypoint,
            pose_threshold=self.pose_threshold if pose is None else pose,
        )


class TrackingConfig(Section, frozen=True, kw_only=True):
    """How long an identity outlives its last pose."""

    max_age_ms: UpToAnHour = 1000


class SmoothingConfig(Section, frozen=True, kw_only=True):
    """How keypoints are freed from jitter."""

    preset: Annotated[Literal["off", "responsive", "steady"], Coerce(_preset)] = "steady"
    min_cutoff_hz: Positive | None = None
    beta: NotNegative | None = None
    derivative_cutoff_hz: Positive | None = None


class PresenceConfig(Section, frozen=True, kw_only=True):
    """How long somebody must be seen, or not, before presence changes."""

    on_delay_ms: UpToAnHour = 300
    off_delay_ms: UpToAnHour = 1000


class TlsConfig(Section, frozen=True, kw_only=True):
    """What TLS needs beyond the system's certificate authorities."""

    ca_file: FilePath | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None
    insecure: Switch = False

    def conflicts(self) -> Iterator[str]:
        """Say that the certificate of a key is missing."""
        if self.key_file is not None and self.cert_file is None:
            yield "key_file is set without cert_file; a key proves nothing alone"


class MqttConfig(Section, frozen=True, kw_only=True):
    """The broker and how to get in."""

    enabled: Switch = True
    url: Annotated[str, Validate(parse_broker_url)] = "mqtt://127.0.0.1:1883"
    base_topic: Annotated[str, Validate(check_base)] = "edgepose"
    client_id: Annotated[str, Meta(min_length=1, max_length=128), Validate(_printable)] | None = (
        None
    )
    username: Annotated[Text, Validate(_printable)] | None = None
    password: Secret | None = None
    password_file: FilePath | None = None
    protocol: Annotated[Literal["5", "3.1.1"], Coerce(_protocol)] = "5"
    keepalive_s: Annotated[int, Meta(ge=2, le=65535)] = 10
    tls: TlsConfig = TlsConfig()

    def conflicts(self) -> Iterator[str]:
        """Say where user, passwords, address and TLS contradict each other."""
        if self.password is not None and self.password_file is not None:
            yield "password and password_file are both set; keep one"
        in_url = self.address.username
        if None not in (in_url, self.username) and in_url != self.username:
            yield f"url names the user {in_url!r} and username {self.username!r}; keep one"
        if self.has_password and self.user is None:
            yield "a password is set without username; MQTT needs both"
        if not self.address.tls and self.tls != TlsConfig():
            yield (
                f"tls is set, but url begins with mqtt://; write mqtts://{self.address.netloc} "
                "(TLS is usually on port 8883)"
            )

    @property
    def address(self) -> BrokerAddress:
        """Where the broker is, with the user that `url` names."""
        return parse_broker_url(self.url)

    @property
    def user(self) -> str | None:
        """Who to log in as, wherever it is written."""
        return self.username if self.username is not None else self.address.username

    @property
    def has_password(self) -> bool:
        """Whether the file names a password."""
        return self.password is not None or self.password_file is not None

    @property
    def tls_files(self) -> TlsFiles | None:
        """What TLS needs; None where the address is without TLS."""
        if not self.address.tls:
            return None
        return TlsFiles(self.tls.ca_file, self.tls.cert_file, self.tls.key_file, self.tls.insecure)

    def read_password(self, environment: Mapping[str, str] | None = None) -> Secret | None:
        """Fetch the password from the first place that has one; None where no place does.

        The places: `password`, `password_file`, the systemd credential `mqtt-password`, the
        environment variable EDGEPOSE_MQTT_PASSWORD. Raises ConfigError where a named place cannot
        be read.
        """
        environment = os.environ if environment is None else environment
        if self.password is not None:
            return self.password
        if self.password_file is not None:
            return read_password(file=self.password_file)
        credentials = environment.get("CREDENTIALS_DIRECTORY")
        if credentials and (Path(credentials) / MQTT_PASSWORD_CREDENTIAL).exists():
            return read_password(credential=MQTT_PASSWORD_CREDENTIAL, environment=environment)
        if environment.get(PASSWORD_VARIABLE):
            return read_password(variable=PASSWORD_VARIABLE, environment=environment)
        return None


class OutputConfig(Section, frozen=True, kw_only=True):
    """Where pose messages go besides MQTT."""

    ndjson: Switch = False
    record: FilePath | None = None
    record_max_mb: Positive = 100.0


class LogConfig(Section, frozen=True, kw_only=True):
    """What is logged."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Section, frozen=True, kw_only=True):
    """A whole configuration, unchangeable."""

    node: Id | None = None
    cameras: Annotated[
        tuple[CameraConfig, ...],
        Meta(min_length=1, max_length=MAX_CAMERAS),
        Coerce(_cameras),
        Validate(_names_differ),
    ] = (CameraConfig(),)
    model: ModelConfig = ModelConfig()
    accelerator: Literal["auto", "cpu", "edgetpu", "replay"] = "auto"
    inference: InferenceConfig = InferenceConfig()
    pose: PoseConfig = PoseConfig()
    tracking: TrackingConfig = TrackingConfig()
    smoothing: SmoothingConfig = SmoothingConfig()
    presence: PresenceConfig = PresenceConfig()
    mqtt: MqttConfig = MqttConfig()
    output: OutputConfig = OutputConfig()
    stats_interval_s: Annotated[Number, Meta(ge=1, le=86_400)] = 30.0
    log: LogConfig = LogConfig()
    state_directory: FilePath | None = None

    def conflicts(self) -> Iterator[str]:
        """Report that recorded outputs are missing."""
        if self.accelerator == "replay" and self.inference.recording is None:
            yield (
                "accelerator is replay, which needs inference.recording, a file made by "
                "tools/record_outputs.py"
            )

    @property
    def node_name(self) -> str:
        """The node id: the configured one, else the host name made to fit."""
        return self.node if self.node is not None else sanitize_id(socket.gethostname())

    @property
    def client_id(self) -> str:
        """The MQTT client id: the configured one, else `edgepose-<node>`."""
        configured = self.mqtt.client_id
        return configured if configured is not None else f"edgepose-{self.node_name}"

    @property
    def state_path(self) -> Path:
        """The folder for what must outlive a restart; it need not exist yet."""
        if self.state_directory is not None:
            return self.state_directory
        # systemd separates several state directories by colons.
        given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        if given:
            return Path(given)
        home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(home).expanduser() / "edgepose"

    def masked_values(self) -> dict[str, Any]:
        """Return the configuration as plain values, without secrets."""
        values: dict[str, Any] = msgspec.to_builtins(self, enc_hook=str)
        for camera in values["cameras"]:
            camera["source"] = masked_url(camera["source"])
        return values


def sanitize_id(text: str) -> str:
    """Return a host name, or any text, as an id: its first part, other characters as `-`."""
    fitted = re.sub(r"[^a-zA-Z0-9_-]+", "-", text.split(".")[0]).strip("-")[:64]
    return fitted or "edgepose"
