"""The configuration: every key with its type, default, limits, and the effect of a reload.

The meaning of a key is documented in `config.yaml`; `validation` checks a file against these
classes. Python code that constructs them is trusted.
"""

import functools
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

from edgepose.config.fields import (
    BaseTopic,
    BrokerUrl,
    Device,
    FilePath,
    Id,
    InputSize,
    Live,
    Milliseconds,
    ModelName,
    NeedsRestart,
    NotNegative,
    Positive,
    Printable,
    ReloadsModel,
    ReopensCamera,
    Score,
    Section,
    Source,
    fields_of,
    section_of,
)
from edgepose.config.homeassistant import HomeAssistantConfig
from edgepose.config.login import LOGIN_KEYS, login_conflicts, with_login
from edgepose.config.people import (
    FallsConfig,
    FrameRegion,
    IdleConfig,
    PostureConfig,
    PresenceConfig,
    PublishConfig,
    RepetitionsConfig,
    ZoneConfig,
)
from edgepose.config.source_uri import (
    UNFIT_OPTIONS,
    FrameRate,
    FrameSide,
    Rotation,
    Stream,
    parse_source_uri,
)
from edgepose.config.values import Boolean, Coerce, Validate, coerce_text
from edgepose.config.yaml_reader import Key
from edgepose.mqtt.commands import MAX_FPS
from edgepose.mqtt.options import ConnectOptions, TlsFiles
from edgepose.mqtt.topics import sanitize_id
from edgepose.mqtt.url import BrokerAddress, parse_broker_url
from edgepose.util.address import check_page_url, parse_listen
from edgepose.util.folders import MACHINE_STATE, xdg_folder
from edgepose.util.redact import masked_url
from edgepose.util.secrets import (
    CAMERA_PASSWORD,
    CAMERA_VARIABLE,
    DASHBOARD_TOKEN,
    DASHBOARD_VARIABLE,
    MQTT_PASSWORD,
    MQTT_VARIABLE,
    Secret,
    find_password,
)

MAX_CAMERAS: Final = 16
MAX_ZONES: Final = 32


def _unique_names(entries: tuple["CameraConfig | ZoneConfig", ...]) -> None:
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        what = "cameras" if isinstance(entries[0], CameraConfig) else "zones"
        raise ValueError(f"several {what} are named {', '.join(twice)}; give each another name")


class CameraConfig(Section, frozen=True, kw_only=True):
    """One camera, or another source of frames."""

    name: NeedsRestart[Id] = "main"
    source: ReopensCamera[Source] = "picamera:0"
    rotation: ReopensCamera[Rotation] = 0
    mirror: ReopensCamera[Boolean] = False
    width: ReopensCamera[FrameSide | None] = None
    height: ReopensCamera[FrameSide | None] = None
    fps: ReopensCamera[FrameRate | None] = None
    max_fps: Live[Annotated[float, Meta(ge=0, le=MAX_FPS)]] = 0.0
    stream: ReopensCamera[Stream] = "main"
    label: Live[Printable | None] = None
    area: Live[Printable | None] = None
    username: ReopensCamera[Printable | None] = None
    password: ReopensCamera[Secret | None] = None
    password_file: ReopensCamera[FilePath | None] = None
    region: Live[FrameRegion | None] = None
    zones: Annotated[
        tuple[ZoneConfig, ...], Meta(max_length=MAX_ZONES), Validate(_unique_names)
    ] = ()

    def conflicts(self) -> Iterator[str]:
        """Report contradictions of the login, and options that do not fit."""
        uri = parse_source_uri(self.source)
        given = " and ".join(name for name in LOGIN_KEYS if getattr(self, name) is not None)
        if given and uri.kind != "rtsp":
            yield f"{given} is set, but source is no rtsp:// URL"
        elif given:
            in_url = urlsplit(uri.target)
            if in_url.password is not None:
                yield f"{given} is set, but source contains a password; keep one"
            user = in_url.username and unquote(in_url.username)
            yield from login_conflicts(self.username, self.password, self.password_file, user)
        for name in sorted(UNFIT_OPTIONS[uri.kind]):
            if name in uri.options or getattr(self, name) not in (None, "main"):
                yield f"{name} is set, but the source {uri} has no such option; leave it out"
        if (self.width is None) != (self.height is None):
            given, missing = ("width", "height") if self.height is None else ("height", "width")
            yield f"{given} is set without {missing}; set both or none"

    def stream_url(self) -> str:
        """Return the URL of an RTSP source with the login, read afresh; raises SecretFileError."""
        read_password = functools.partial(
            find_password,
            self.password,
            self.password_file,
            credential=CAMERA_PASSWORD,
            variable=CAMERA_VARIABLE,
        )
        return with_login(parse_source_uri(self.source).target, self.username, read_password)

    def __repr__(self) -> str:
        shown = msgspec.structs.asdict(self) | {"source": masked_url(self.source)}
        return f"CameraConfig({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


class ModelConfig(Section, frozen=True, kw_only=True):
    """The model that finds the poses."""

    name: ReloadsModel[ModelName] = "movenet-lightning-int8"
    kind: ReloadsModel[Literal["auto", "movenet_single", "movenet_multipose", "posenet"]] = "auto"
    crop: ReloadsModel[Boolean] = True
    input_size: ReloadsModel[InputSize | None] = None
    max_poses: ReloadsModel[Annotated[int, Meta(ge=1, le=20)]] = 6
    nms_radius_px: ReloadsModel[NotNegative] = 20.0
    verify: ReloadsModel[Annotated[Literal["auto", "off"], Coerce(coerce_text)]] = "auto"


class InferenceConfig(Section, frozen=True, kw_only=True):
    """How the model is run."""

    runtime: ReloadsModel[Literal["auto", "litert", "tflite-runtime"]] = "auto"
    threads: ReloadsModel[Literal["auto"] | Annotated[int, Meta(ge=1, le=64)]] = "auto"
    device: ReloadsModel[Device | None] = None
    recording: ReloadsModel[FilePath | None] = None


class EdgeTpuPoseConfig(Section, frozen=True, kw_only=True):
    """Thresholds on the Edge TPU, whose scores differ from those of the CPU."""

    keypoint_threshold: ReloadsModel[Score | None] = None
    pose_threshold: ReloadsModel[Score | None] = None


class PoseConfig(Section, frozen=True, kw_only=True):
    """Thresholds from which on keypoints and poses are reported."""

    keypoint_threshold: ReloadsModel[Score] = 0.3
    pose_threshold: ReloadsModel[Score | None] = None
    edgetpu: EdgeTpuPoseConfig = EdgeTpuPoseConfig()

    def for_device(self, device: str) -> "PoseConfig":
        """Return the thresholds on `cpu` or `edgetpu`."""
        if device != "edgetpu":
            return self
        given = msgspec.structs.asdict(self.edgetpu).items()
        return msgspec.structs.replace(self, **{name: v for name, v in given if v is not None})


class TrackingConfig(Section, frozen=True, kw_only=True):
    """How long a track is kept after its last pose."""

    max_age_ms: Live[Milliseconds] = 3000


class SmoothingConfig(Section, frozen=True, kw_only=True):
    """Filters that remove jitter from keypoints."""

    preset: Live[Annotated[Literal["off", "responsive", "steady"], Coerce(coerce_text)]] = "steady"
    min_cutoff_hz: Live[Positive | None] = None
    beta: Live[NotNegative | None] = None
    derivative_cutoff_hz: Live[Positive | None] = None
    speed_floor: Live[NotNegative | None] = None


class TlsConfig(Section, frozen=True, kw_only=True):
    """Certificates and keys beside the certificate authorities of the system."""

    ca_file: NeedsRestart[FilePath | None] = None
    cert_file: NeedsRestart[FilePath | None] = None
    key_file: NeedsRestart[FilePath | None] = None
    insecure: NeedsRestart[Boolean] = False

    def conflicts(self) -> Iterator[str]:
        """Report a key without its certificate."""
        if self.key_file is not None and self.cert_file is None:
            yield "key_file is set without cert_file; set both"


class MqttConfig(Section, frozen=True, kw_only=True):
    """The broker and the login."""

    enabled: NeedsRestart[Boolean] = True
    url: NeedsRestart[BrokerUrl] = "mqtt://127.0.0.1:1883"
    base_topic: NeedsRestart[BaseTopic] = "edgepose"
    client_id: NeedsRestart[Annotated[Printable, Meta(max_length=128)] | None] = None
    username: NeedsRestart[Printable | None] = None
    password: NeedsRestart[Secret | None] = None
    password_file: NeedsRestart[FilePath | None] = None
    protocol: NeedsRestart[Annotated[Literal["5", "3.1.1"], Coerce(coerce_text)]] = "5"
    keepalive_s: NeedsRestart[Annotated[int, Meta(ge=2, le=65535)]] = 10
    tls: TlsConfig = TlsConfig()

    def conflicts(self) -> Iterator[str]:
        """Report contradictions between user, passwords, address and TLS."""
        user = parse_broker_url(self.url).username
        yield from login_conflicts(self.username, self.password, self.password_file, user)
        if not self.address.tls and self.tls != TlsConfig():
            yield (
                f"tls is set, but url begins with mqtt://; write mqtts://{self.address.netloc} "
                "(TLS is usually on port 8883)"
            )

    @property
    def address(self) -> BrokerAddress:
        """Address of the broker, with the user name for the login."""
        address = parse_broker_url(self.url)
        return address if self.username is None else replace(address, username=self.username)

    @property
    def tls_files(self) -> TlsFiles:
        """Files for TLS, which is used if the address is one with TLS."""
        return TlsFiles(self.tls.ca_file, self.tls.cert_file, self.tls.key_file, self.tls.insecure)

    def read_password(self) -> Secret | None:
        """Return the password, read afresh if it is in a file; raises SecretFileError."""
        return find_password(
            self.password, self.password_file, credential=MQTT_PASSWORD, variable=MQTT_VARIABLE
        )

    def connect_options(self, client_id: str) -> ConnectOptions:
        """Return the options of a client."""
        return ConnectOptions(
            self.address,
            client_id,
            self.read_password,
            self.tls_files,
            self.protocol,
            self.keepalive_s,
        )


class OutputConfig(Section, frozen=True, kw_only=True):
    """Outputs of pose messages beside MQTT."""

    ndjson: NeedsRestart[Boolean] = False
    record: NeedsRestart[FilePath | None] = None
    record_max_mb: NeedsRestart[Positive] = 100.0
    record_keep: NeedsRestart[Annotated[int, Meta(ge=1, le=1000)]] = 3


def _check_listen(value: str) -> None:
    parse_listen(value)


class DashboardConfig(Section, frozen=True, kw_only=True):
    """The live page beside the daemon."""

    listen: NeedsRestart[Annotated[str, Validate(_check_listen)] | None] = None
    token_file: NeedsRestart[FilePath | None] = None
    url: Live[Annotated[str, Validate(check_page_url)] | None] = None

    def read_token(self) -> Secret | None:
        """Return the token that opens the page, None without one; raises SecretFileError."""
        return find_password(
            None, self.token_file, credential=DASHBOARD_TOKEN, variable=DASHBOARD_VARIABLE
        )


class MetricsConfig(Section, frozen=True, kw_only=True):
    """Metrics for Prometheus."""

    listen: NeedsRestart[Annotated[str, Validate(_check_listen)] | None] = None
    textfile: NeedsRestart[FilePath | None] = None


class LogConfig(Section, frozen=True, kw_only=True):
    """Logging."""

    level: NeedsRestart[Literal["debug", "info", "warning", "error"]] = "info"


class Config(Section, frozen=True, kw_only=True):
    """A complete configuration, immutable."""

    node: NeedsRestart[Id | None] = None
    cameras: Annotated[
        tuple[CameraConfig, ...],
        Meta(min_length=1, max_length=MAX_CAMERAS),
        Validate(_unique_names),
    ] = (CameraConfig(),)
    model: ModelConfig = ModelConfig()
    accelerator: ReloadsModel[Literal["auto", "cpu", "edgetpu", "replay"]] = "auto"
    inference: InferenceConfig = InferenceConfig()
    pose: PoseConfig = PoseConfig()
    tracking: TrackingConfig = TrackingConfig()
    smoothing: SmoothingConfig = SmoothingConfig()
    presence: PresenceConfig = PresenceConfig()
    idle: IdleConfig = IdleConfig()
    posture: PostureConfig = PostureConfig()
    falls: FallsConfig = FallsConfig()
    repetitions: RepetitionsConfig = RepetitionsConfig()
    publish: PublishConfig = PublishConfig()
    mqtt: MqttConfig = MqttConfig()
    homeassistant: HomeAssistantConfig = HomeAssistantConfig()
    output: OutputConfig = OutputConfig()
    stats_interval_s: NeedsRestart[Annotated[float, Meta(ge=1, le=86_400)]] = 30.0
    dashboard: DashboardConfig = DashboardConfig()
    metrics: MetricsConfig = MetricsConfig()
    log: LogConfig = LogConfig()
    state_directory: NeedsRestart[FilePath | None] = None

    def conflicts(self) -> Iterator[str]:
        """Report recorded outputs that are missing, and a page without a broker."""
        if self.dashboard.listen is not None and not self.mqtt.enabled:
            yield "dashboard.listen is set, but mqtt.enabled is false; the page reads the broker"
        if self.accelerator == "replay" and self.inference.recording is None:
            yield (
                "accelerator is replay, which needs inference.recording, a file made by "
                "tools/record_outputs.py"
            )

    @property
    def node_name(self) -> str:
        """The node id: the configured one, else the host name as an id."""
        return self.node if self.node is not None else sanitize_id(socket.gethostname())

    @property
    def client_id(self) -> str:
        """The MQTT client id: the configured one, else `edgepose-<node>`."""
        configured = self.mqtt.client_id
        return configured if configured is not None else f"edgepose-{self.node_name}"

    @property
    def state_path(self) -> Path:
        """Folder of everything that must survive a restart; it may not exist yet."""
        if self.state_directory is not None:
            return self.state_directory
        # systemd separates several state directories by colons.
        given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        if given:
            return Path(given)
        return xdg_folder("XDG_STATE_HOME") or MACHINE_STATE

    def masked_values(self) -> dict[str, Any]:
        """Return the configuration as plain values, with secrets masked."""
        values: dict[str, Any] = msgspec.to_builtins(self, enc_hook=str)
        for camera in values["cameras"]:
            camera["source"] = masked_url(camera["source"])
        return values


# --- the classes above, walked


def sections(section: type[Section] = Config, key: Key = ()) -> Iterator[tuple[Key, type[Section]]]:
    """Yield every section with its key; the entries of a list have index 0."""
    yield key, section
    for name, field in fields_of(section).items():
        inner = section_of(field.type)
        if inner is not None:
            index: Key = () if inner is field.type else (0,)
            yield from sections(inner, (*key, name, *index))


def value_keys() -> dict[Key, FieldInfo]:
    """Return every key that holds a value, with its field."""
    return {
        (*key, name): field
        for key, section in sections()
        for name, field in fields_of(section).items()
        if section_of(field.type) is None
    }
