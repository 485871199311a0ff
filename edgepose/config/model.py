"""What can be configured: every key with its type, default and limits.

What a key means is written once, in `config.yaml`; these classes say what may stand there.
"""

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    Strict,
    field_serializer,
    field_validator,
    model_validator,
)

from edgepose.mqtt_url import (
    PASSWORD_VARIABLE,
    BrokerAddress,
    Secret,
    TlsFiles,
    parse_broker_url,
    read_password,
)
from edgepose.topics import check_base

MQTT_PASSWORD_CREDENTIAL: Final = "mqtt-password"  # noqa: S105 - a credential's name
MASK: Final = "********"

_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_DEVICE = re.compile(r"(usb|pci)(:[0-9]{1,2})?")
_URL_USER = re.compile(r"(?<=://)[^?\s]*@")
_URL_SECRET = re.compile(r"(?i)([?&][^=&]*(?:pass|pwd|token|secret|key)[^=&]*=)[^&]*")
MAX_THREADS: Final = 64


def _id(value: str) -> str:
    if not _ID.fullmatch(value):
        raise ValueError(
            f"expected 1 to 64 of the characters a-z, A-Z, 0-9, _ and -, got {value!r}; it becomes "
            "part of the MQTT topics"
        )
    return value


def _path(value: Path) -> Path:
    if "\0" in str(value) or str(value) == ".":
        raise ValueError("expected a path, got an empty text; remove the key for no file")
    return value


# Booleans and texts that look like numbers are not taken for numbers: `fps: true` is a mistake.
Id = Annotated[str, AfterValidator(_id)]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Score = Annotated[float, Strict(), Field(ge=0, le=1)]
FilePath = Annotated[Path, AfterValidator(_path)]


class Section(BaseModel):
    """A group of keys; a group whose keys are all commented out is the group's defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, data: object) -> object:
        return {} if data is None else data


class Camera(Section):
    """One camera, or what stands in for it."""

    name: Id = "main"
    source: str = Field(default="picamera:0", min_length=1)
    rotation: Literal[0, 90, 180, 270] = 0
    mirror: bool = False
    width: Whole | None = Field(default=None, ge=16, le=16384)
    height: Whole | None = Field(default=None, ge=16, le=16384)
    fps: Number | None = Field(default=None, gt=0, le=1000)
    stream: Literal["main", "lores"] = "main"

    @field_validator("rotation", mode="before")
    @classmethod
    def _rotation_is_a_number(cls, value: object) -> object:
        # 0 == False in Python, and pydantic compares literals by equality.
        return str(value).lower() if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _both_sides(self) -> Self:
        if (self.width is None) != (self.height is None):
            given, missing = ("width", "height") if self.height is None else ("height", "width")
            raise ValueError(f"{given} is set without {missing}; set both or none")
        return self

    @field_serializer("source", when_used="json")
    def _mask_source(self, source: str) -> str:
        return masked(source)

    def __repr_args__(self) -> list[tuple[str | None, object]]:
        return [
            (name, masked(self.source) if name == "source" else value)
            for name, value in super().__repr_args__()
        ]


class Model(Section):
    """Which model looks at the frames."""

    name: str = Field(default="movenet-lightning-int8", min_length=1)
    kind: Literal["auto", "movenet_single", "movenet_multipose", "posenet"] = "auto"
    crop: bool = True
    input_size: tuple[Whole, Whole] | None = None
    max_poses: Whole = Field(default=6, ge=1, le=20)
    nms_radius_px: Number = Field(default=20, ge=0)

    @field_validator("input_size", mode="before")
    @classmethod
    def _width_and_height(cls, value: object) -> object:
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
        return tuple(value)


class Inference(Section):
    """What runs the model, and how."""

    runtime: Literal["auto", "litert", "tflite-runtime"] = "auto"
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=MAX_THREADS)] = "auto"
    device: str | None = None

    @field_validator("threads", mode="before")
    @classmethod
    def _auto_or_a_count(cls, value: object) -> object:
        if value == "auto" or (type(value) is int and 1 <= value <= MAX_THREADS):
            return value
        raise ValueError(f"expected auto or a whole number from 1 to {MAX_THREADS}")

    @field_validator("device")
    @classmethod
    def _usb_or_pci(cls, value: str | None) -> str | None:
        if value is not None and not _DEVICE.fullmatch(value):
            raise ValueError(
                f"expected an Edge TPU such as usb:0 or pci:0, got {value!r}; leave it out for "
                "the first one found"
            )
        return value


class Pose(Section):
    """Which poses and keypoints are good enough."""

    keypoint_threshold: Score = 0.3
    pose_threshold: Score | None = None


class Tracking(Section):
    """How long an identity outlives its last pose."""

    max_age_ms: Whole = Field(default=1000, ge=0, le=3_600_000)


class Smoothing(Section):
    """How keypoints are freed from jitter."""

    preset: Literal["off", "responsive", "steady"] = "steady"
    min_cutoff_hz: Number | None = Field(default=None, gt=0)
    beta: Number | None = Field(default=None, ge=0)
    derivative_cutoff_hz: Number | None = Field(default=None, gt=0)

    @field_validator("preset", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        # Most YAML tools write the word `off` as false; ours reads both.
        return "off" if value is False else value


class Presence(Section):
    """How long somebody must be seen, or not, before presence changes."""

    on_delay_ms: Whole = Field(default=300, ge=0, le=3_600_000)
    off_delay_ms: Whole = Field(default=1000, ge=0, le=3_600_000)


class Tls(Section):
    """What TLS needs beyond the system's certificate authorities."""

    ca_file: FilePath | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None
    insecure: bool = False

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file is set without cert_file; a key proves nothing alone")
        return self


class Mqtt(Section):
    """The broker and how to get in."""

    enabled: bool = True
    url: str = "mqtt://127.0.0.1:1883"
    base_topic: str = "edgepose"
    client_id: str | None = Field(default=None, min_length=1, max_length=128)
    username: str | None = Field(default=None, min_length=1)
    password: SecretStr | None = Field(default=None, min_length=1)
    password_file: FilePath | None = None
    protocol: Literal["5", "3.1.1"] = "5"
    keepalive_s: Whole = Field(default=10, ge=2, le=65535)
    tls: Tls = Tls()

    @field_validator("url")
    @classmethod
    def _broker(cls, value: str) -> str:
        parse_broker_url(value)
        return value

    @field_validator("base_topic")
    @classmethod
    def _topic(cls, value: str) -> str:
        return check_base(value)

    @field_validator("protocol", mode="before")
    @classmethod
    def _five_is_a_version(cls, value: object) -> object:
        return "5" if type(value) is int and value == 5 else value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file are both set; keep one")
        in_url = self.address.username
        if None not in (in_url, self.username) and in_url != self.username:
            raise ValueError(
                f"url names the user {in_url!r} and username {self.username!r}; keep one"
            )
        if self.has_password and self.user is None:
            raise ValueError("a password is set without username; MQTT needs both")
        if not self.address.tls and self.tls != Tls():
            raise ValueError(
                f"tls is set, but url begins with mqtt://; write mqtts://{self.address.netloc} "
                "(TLS is usually on port 8883)"
            )
        return self

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
            return Secret(self.password.get_secret_value())
        if self.password_file is not None:
            return read_password(file=self.password_file)
        credentials = environment.get("CREDENTIALS_DIRECTORY")
        if credentials and (Path(credentials) / MQTT_PASSWORD_CREDENTIAL).exists():
            return read_password(credential=MQTT_PASSWORD_CREDENTIAL, environment=environment)
        if environment.get(PASSWORD_VARIABLE):
            return read_password(variable=PASSWORD_VARIABLE, environment=environment)
        return None


class Output(Section):
    """Where pose messages go besides MQTT."""

    ndjson: bool = False
    record: FilePath | None = None
    record_max_mb: Number = Field(default=100, gt=0)


class Log(Section):
    """What is logged."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Section):
    """A whole configuration, valid and unchangeable."""

    node: Id | None = None
    cameras: tuple[Camera, ...] = Field(default=(Camera(),), max_length=16)
    model: Model = Model()
    accelerator: Literal["auto", "cpu", "edgetpu"] = "auto"
    inference: Inference = Inference()
    pose: Pose = Pose()
    tracking: Tracking = Tracking()
    smoothing: Smoothing = Smoothing()
    presence: Presence = Presence()
    mqtt: Mqtt = Mqtt()
    output: Output = Output()
    stats_interval_s: Number = Field(default=30, ge=1, le=86_400)
    log: Log = Log()
    state_directory: FilePath | None = None

    @field_validator("cameras", mode="before")
    @classmethod
    def _no_cameras_is_default(cls, value: object) -> object:
        if value == []:
            raise ValueError(
                "expected at least one camera, got none; remove the key for its default"
            )
        return (Camera(),) if value is None else value

    @field_validator("cameras")
    @classmethod
    def _names_differ(cls, cameras: tuple[Camera, ...]) -> tuple[Camera, ...]:
        first: dict[str, int] = {}
        for index, camera in enumerate(cameras):
            other = first.setdefault(camera.name, index)
            if other != index:
                raise ValueError(
                    f"cameras {other} and {index} (counted from 0) are both named "
                    f"{camera.name!r}; every camera needs a name of its own"
                )
        return cameras

    @property
    def node_name(self) -> str:
        """The node id: the configured one, else the host name made to fit."""
        return self.node if self.node is not None else fit_id(socket.gethostname())

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


def fit_id(text: str) -> str:
    """Return a host name, or any text, as an id: its first part, other characters as `-`."""
    fitted = re.sub(r"[^a-zA-Z0-9_-]+", "-", text.split(".")[0]).strip("-")[:64]
    return fitted or "edgepose"


def masked(source: str) -> str:
    """Return a source URI without what may be a password in it."""
    return _URL_SECRET.sub(rf"\1{MASK}", _URL_USER.sub(_mask_password, source))


def _mask_password(match: re.Match[str]) -> str:
    user, colon, _ = match[0][:-1].partition(":")
    return f"{user}:{MASK}@" if colon else match[0]
