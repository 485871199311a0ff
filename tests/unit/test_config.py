"""The configuration: sample, limits, flags, paths, secrets, and errors reported all at once."""

import json
import os
import socket
from pathlib import Path

import msgspec
import pytest

from edgepose.config import loader
from edgepose.config.fields import dotted
from edgepose.config.loader import (
    SYSTEM_FILE,
    find_config_file,
    hidden_config_file,
    load_config,
)
from edgepose.config.people import ZoneConfig
from edgepose.config.reference import (
    descriptions,
    json_schema,
    sample_path,
    text_with_examples,
)
from edgepose.config.schema import CameraConfig, Config, MqttConfig, value_keys
from edgepose.config.values import Resolve, parts
from edgepose.config.yaml_reader import parse
from edgepose.errors import ConfigError, ModelFileError, SecretFileError
from edgepose.model_builder.build import default_cache
from edgepose.mqtt.topics import sanitize_id
from edgepose.registry.registry import Registry, user_folder
from edgepose.util.redact import masked_url


def load(tmp_path: Path, text: str, **overrides: object) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load_config(path, {key.replace("__", "."): value for key, value in overrides.items()})


def errors_of(tmp_path: Path, text: str, **overrides: object) -> list[str]:
    """Return the lines of the error without the path."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **overrides)
    assert caught.value.exit_code == 2
    lines = str(caught.value).splitlines()
    shown = lines if len(lines) == 1 else lines[1:]
    if len(lines) > 1:
        assert lines[0] == f"{len(shown)} errors in {tmp_path / 'config.yaml'}:"
    return [line.strip().removeprefix(f"{tmp_path / 'config.yaml'}:") for line in shown]


# --- the sample


def test_sample_config_equals_the_defaults() -> None:
    """`config.yaml` has the default of every key."""
    assert load_config(sample_path()) == Config() == load_config()


def test_sample_config_has_every_key() -> None:
    """`config.yaml` has every key of the schema and no other."""
    document = parse(text_with_examples(), sample_path())
    written = {key for key in document.lines if isinstance(key[-1], str)}
    known = set(value_keys())
    sections = {key[:i] for key in known for i in range(1, len(key)) if key[i - 1] != 0}
    assert written == known | sections


def test_sample_config_describes_every_key() -> None:
    """Each key has a comment that no other key has."""
    document = parse(text_with_examples(), sample_path())
    texts = descriptions()
    for key in document.lines:
        if isinstance(key[-1], str):
            assert len(texts.get(key, "").split()) >= 4, dotted(key)
    described = [text for key, text in texts.items() if isinstance(key[-1], str)]
    assert len(set(described)) == len(described)


def test_schema_defaults_have_the_declared_type() -> None:
    """Structs take any default; `30` instead of a float would only show in the output."""
    for key, field in value_keys().items():
        if field.required:
            continue
        again = msgspec.convert(
            field.default, field.type, dec_hook=lambda wanted, value: wanted(value)
        )
        assert (again, type(again)) == (field.default, type(field.default)), dotted(key)


def test_schema_every_path_is_resolved() -> None:
    """Every key that holds a path is made absolute."""
    types = {dotted(key): list(parts(field.type)) for key, field in value_keys().items()}
    paths = {key for key, found in types.items() if Path in found}
    resolved = {key for key, f in types.items() if any(isinstance(part, Resolve) for part in f)}
    assert paths | {"cameras.0.source", "model.name"} == resolved
    assert "output.record" in paths


# --- errors

KEEPALIVE = "expected a whole number, at least 2 and at most 65535"


def test_load_config_reports_all_errors(tmp_path: Path) -> None:
    """Each error has line, key and, if there is one, a suggestion."""
    assert errors_of(
        tmp_path,
        "nodee: x\n"
        "cameras:\n"
        "  - sorce: picamera:0\n"
        "    fps: true\n"
        "    rotation: 91\n"
        "model:\n"
        "  name: movenet-lightnin-int8\n"
        "  crop: maybe\n"
        "threads: 3\n"
        "accelerator: edgtpu\n"
        "inference: {threads: 0}\n"
        "pose:\n"
        "  keypoint_threshold: 1.5\n"
        "  pose_threshold: .nan\n"
        "mqtt:\n"
        "  keepalive_s: '5'\n"
        "accelerator: cpu\n",
    ) == [
        "1: nodee: unknown key; did you mean 'node'?",
        "3: cameras.0.sorce: unknown key; did you mean 'source'?",
        "4: cameras.0.fps: expected a number, more than 0 and at most 1000, got true",
        "5: cameras.0.rotation: expected 0, 90, 180 or 270, got 91",
        (
            "7: model.name: there is no model named 'movenet-lightnin-int8', and it is no path to "
            "a .tflite file; did you mean 'movenet-lightning-int8'?"
        ),
        "8: model.crop: expected true or false, got 'maybe'",
        "9: threads: unknown key; did you mean 'inference.threads'?",
        (
            "10: accelerator: expected auto, cpu, edgetpu or replay, got 'edgtpu'; did you "
            "mean 'edgetpu'?"
        ),
        (
            "11: inference.threads: expected auto or a whole number, at least 1 and at most 64, "
            "got 0"
        ),
        "13: pose.keypoint_threshold: expected a number, at least 0 and at most 1, got 1.5",
        "14: pose.pose_threshold: expected a number, at least 0 and at most 1, got '.nan'",
        (
            "16: mqtt.keepalive_s: expected a whole number, at least 2 and at most 65535, got '5'; "
            "remove the quotes"
        ),
        "17: accelerator: the key is given twice (first in line 10); keep one",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("node: a b\n", "1: node: expected 1 to 64 of the characters"),
        ("node: 5\n", "1: node: expected a text, got 5; put it in quotes"),
        ("node: true\n", "1: node: expected a text, got true; put it in quotes"),
        (
            "cameras: []\n",
            "1: cameras: expected a list of 1 to 16 entries, each beginning with `- `, got 0",
        ),
        (
            "cameras: main\n",
            "1: cameras: expected a list of 1 to 16 entries, each beginning with `- `",
        ),
        ("cameras:\n- a\n", "2: cameras.0: expected keys with values (name, source,"),
        (
            "cameras:\n- name: a\n- name: a\n",
            "1: cameras: several cameras are named a; give each another name",
        ),
        (
            "cameras: [{}" + ", {}" * 16 + "]\n",
            "1: cameras: expected a list of 1 to 16 entries, each beginning with `- `, got 17",
        ),
        ("cameras:\n- width: 640\n", "2: cameras.0: width is set without height"),
        ("cameras:\n- rotation: false\n", "2: cameras.0.rotation: expected 0, 90, 180 or 270"),
        ("cameras:\n- source: picmera:0\n", "2: cameras.0.source: picmera:0: unknown source"),
        ("cameras:\n- source: ''\n", "2: cameras.0.source: expected a text, got ''; leave it out"),
        (
            "cameras:\n- fps: 0\n",
            "2: cameras.0.fps: expected a number, more than 0 and at most 1000, got 0",
        ),
        (
            "cameras:\n- fps:\n- fps: [1]\n",
            "3: cameras.1.fps: expected a number, more than 0 and at most 1000, got a list",
        ),
        ("model: {input_size: 256}\n", "1: model.input_size: expected width and height"),
        ("model: {input_size: [256, true]}\n", "1: model.input_size: expected width and"),
        (
            "model: {max_poses: 2.0}\n",
            "1: model.max_poses: expected a whole number, at least 1 and at most 20, got 2.0",
        ),
        (
            "model: {max_poses: 0}\n",
            "1: model.max_poses: expected a whole number, at least 1 and at most 20, got 0",
        ),
        (
            "model: {max_poses: null}\n",
            "1: model.max_poses: expected a whole number, at least 1 and at most 20, got nothing",
        ),
        ("model: lightning\n", "1: model: expected keys with values (name, kind,"),
        ("inference: {device: usb0}\n", "1: inference.device: expected an Edge TPU such as usb:0"),
        (
            "cameras:\n- rotation: '90'\n",
            "2: cameras.0.rotation: expected 0, 90, 180 or 270, got '90'; remove the quotes",
        ),
        (
            "cameras:\n- rotation: 090\n",
            "2: cameras.0.rotation: expected 0, 90, 180 or 270, got '090'; did you mean 90?",
        ),
        *(
            (
                f"mqtt: {{keepalive_s: {number}}}\n",
                f"1: mqtt.keepalive_s: {KEEPALIVE}, got '{number}'; write it in digits, such as 1",
            )
            for number in ("1_000", "1e3", "0x10", "0o17", "017", "12:30", "10s")
        ),
        ("stats_interval_s: 1:30\n", "1: stats_interval_s: expected a number, at least 1 and at"),
        ("inference: {threads: true}\n", "1: inference.threads: expected auto or a whole"),
        ("log: {level: warn}\n", "1: log.level: expected debug, info, warning or error, got"),
        (
            "smoothing: {min_cutoff_hz: 0}\n",
            "1: smoothing.min_cutoff_hz: expected a number, more than 0, got 0",
        ),
        ("smoothing: {preset: true}\n", "1: smoothing.preset: expected off, responsive or steady"),
        ("<<: {a: 1}\n", "1: <<: merge keys"),
        ("zzzz: 1\n", "1: zzzz: unknown key; known here: node, cameras,"),
        ("output: {record: ''}\n", "1: output.record: expected a path, got ''; leave it out"),
        (
            "stats_interval_s: 0\n",
            "1: stats_interval_s: expected a number, at least 1 and at most 86400, got 0",
        ),
        ("mqtt:\n  url: http://h\n", "2: mqtt.url: the broker address 'http://h' does not"),
        (
            "dashboard:\n  url: gym.local:8080\n",
            "2: dashboard.url: expected the address of a page without a login, such as http://192",
        ),
        ("mqtt:\n  base_topic: /x\n", "2: mqtt.base_topic: the base topic is one or more"),
        (
            "mqtt: {client_id: ''}\n",
            "1: mqtt.client_id: expected a text, at most 128 characters, got ''; leave",
        ),
        (
            f"mqtt: {{client_id: {'x' * 129}}}\n",
            "1: mqtt.client_id: expected a text, at most 128 characters, got 'xxx",
        ),
        ("mqtt: {password: ''}\n", "1: mqtt.password: expected a text, got ''; leave it out"),
        ("mqtt: {password: 5}\n", "1: mqtt.password: expected a text, got something else; put it"),
        ("output: {record: 5}\n", "1: output.record: expected a path, got 5"),
        ("output: {ndjson: 1.0}\n", "1: output.ndjson: expected true or false, got 1.0"),
        ("mqtt:\n  protocol: 4\n", "2: mqtt.protocol: expected 5 or 3.1.1, got 4"),
        ("mqtt:\n  password: x\n", "1: mqtt: a password is set without username"),
        ("mqtt:\n  tls: {ca_file: a}\n", "1: mqtt: tls is set, but url begins with mqtt://"),
        ("mqtt:\n  tls: {key_file: a}\n", "2: mqtt.tls: key_file is set without cert_file"),
        (
            "mqtt: {url: 'mqtt://a@h', username: b}\n",
            "1: mqtt: the URL names the user 'a' and username 'b'",
        ),
        (
            "mqtt: {username: a, password: p, password_file: f}\n",
            "1: mqtt: password and password_file are both set",
        ),
    ],
)
def test_load_config_invalid_value(tmp_path: Path, text: str, expected: str) -> None:
    """One invalid value is one error of one line."""
    found = errors_of(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_load_config_reports_all_conflicts(tmp_path: Path) -> None:
    """All conflicts of a section are reported, not only the first."""
    found = errors_of(
        tmp_path, "mqtt: {url: 'mqtt://h', password: p, password_file: f, tls: {insecure: true}}\n"
    )
    assert [line.split(";")[0] for line in found] == [
        "1: mqtt: password and password_file are both set",
        "1: mqtt: a password is set without username",
        "1: mqtt: tls is set, but url begins with mqtt://",
    ]


def test_load_config_alias_bomb(tmp_path: Path) -> None:
    """Nested aliases are not expanded."""
    bomb = "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 10)}]\n" for i in range(1, 40))
    with pytest.raises(ConfigError, match=r"^42 errors"):
        load(tmp_path, "b0: &b0 [x]\n" + bomb + "model: {crop: *b39, input_size: *b39}\n")


def test_load_config_limits_the_number_of_errors(tmp_path: Path) -> None:
    """Of 1000 errors, 25 are listed."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "".join(f"k{i}: 1\n" for i in range(1000)))
    assert len(str(caught.value).splitlines()) == 27
    assert str(caught.value).endswith("and 975 more")


# --- values


def test_load_config_zero_is_a_value(tmp_path: Path) -> None:
    """Zero is not taken for an unset key."""
    config = load(
        tmp_path,
        "pose: {keypoint_threshold: 0, pose_threshold: 0}\n"
        "smoothing: {beta: 0}\n"
        "presence: {on_delay_ms: 0, off_delay_ms: 0}\n"
        "tracking: {max_age_ms: 0}\n"
        "model: {nms_radius_px: 0}\n"
        "cameras: [{rotation: 0}]\n",
    )
    assert config.pose.keypoint_threshold == 0
    assert config.pose.pose_threshold == 0
    assert config.pose.pose_threshold is not None
    assert config.smoothing.beta == 0
    assert config.smoothing.beta is not None
    assert (config.presence.on_delay_ms, config.presence.off_delay_ms) == (0, 0)
    assert config.tracking.max_age_ms == 0
    assert config.model.nms_radius_px == 0


@pytest.mark.parametrize("word", ["off", "'off'", "false"])
def test_load_config_preset_off(tmp_path: Path, word: str) -> None:
    """YAML tools write `off` as a word, a text or false."""
    assert load(tmp_path, f"smoothing: {{preset: {word}}}\n").smoothing.preset == "off"


@pytest.mark.parametrize(
    ("word", "value"), [("yes", True), ("on", True), ("no", False), ("off", False)]
)
def test_load_config_boolean_words(tmp_path: Path, word: str, value: bool) -> None:
    """Booleans accept the words of YAML 1.1."""
    assert load(tmp_path, f"model: {{crop: {word}}}\n").model.crop is value


def test_load_config_node_named_no(tmp_path: Path) -> None:
    """A text that is a boolean in YAML 1.1 remains a text."""
    assert load(tmp_path, "node: no\n").node == "no"


@pytest.mark.parametrize("word", ["5", "'5'"])
def test_load_config_protocol_with_and_without_quotes(tmp_path: Path, word: str) -> None:
    """The number 5 is accepted for the protocol version."""
    assert load(tmp_path, f"mqtt: {{protocol: {word}}}\n").mqtt.protocol == "5"
    assert load(tmp_path, "mqtt: {protocol: 3.1.1}\n").mqtt.protocol == "3.1.1"


def test_load_config_empty_section(tmp_path: Path) -> None:
    """A section whose keys are all commented out is its defaults."""
    config = load(tmp_path, "mqtt:\n#  url: x\ncameras:\nmodel:\n  # nothing\nlog:\n")
    assert config == Config()


def test_config_is_immutable() -> None:
    """Neither keys nor keys of sections can be assigned."""
    config = Config()
    with pytest.raises(AttributeError, match="immutable"):
        config.node = "x"  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        config.mqtt.url = "x"  # type: ignore[misc]


# --- paths


def test_load_config_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in the file are relative to the file."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "config.yaml").write_text(
        "cameras:\n"
        "- {name: a, source: clips/a.mp4?loop=1}\n"
        "- {name: b, source: 'picamera:0'}\n"
        "- {name: c, source: /dev/video0}\n"
        "- {name: d, source: 'rtsp://host/path'}\n"
        "- {name: e, source: 'sunday:1.mp4'}\n"
        "model: {name: my/model.tflite}\n"
        "mqtt:\n  url: mqtts://h\n  username: u\n  password_file: secret\n"
        "  tls: {ca_file: ~/ca.pem, cert_file: ../c.pem, key_file: k.pem}\n"
        "output: {record: out.ndjson}\n"
        "state_directory: state\n"
    )
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("etc/config.yaml"))
    assert [camera.source for camera in config.cameras] == [
        f"{folder}/clips/a.mp4?loop=1",
        "picamera:0",
        "/dev/video0",
        "rtsp://host/path",
        f"{folder}/sunday:1.mp4",
    ]
    assert config.model.name == f"{folder}/my/model.tflite"
    assert config.mqtt.password_file == folder / "secret"
    assert config.mqtt.tls.ca_file == Path("/home/someone/ca.pem")
    assert config.mqtt.tls.cert_file == folder / "../c.pem"
    assert config.output.record == folder / "out.ndjson"
    assert config.state_path == folder / "state"


def test_load_config_relative_paths_of_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths of flags are relative to the current directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    config = load(tmp_path, "node: x\n", cameras__0__source="a.mp4", model__name="m.tflite")
    assert config.cameras[0].source == f"{folder}/a.mp4"
    assert config.model.name == f"{folder}/m.tflite"


# --- overrides


def test_load_config_flags_override_the_file(tmp_path: Path) -> None:
    """Flags replace their keys; other keys of the section stay."""
    config = load(
        tmp_path,
        "cameras:\n- {name: door, source: 'picamera:1', rotation: 90}\n"
        "model: {name: movenet-lightning-int8, crop: false}\n"
        "accelerator: auto\n",
        cameras__0__source="synthetic:",
        model__name="movenet-thunder-fp16",
        accelerator="cpu",
        mqtt__url=None,
    )
    camera = config.cameras[0]
    assert (camera.name, camera.source, camera.rotation) == ("door", "synthetic:", 90)
    assert (config.model.name, config.model.crop) == ("movenet-thunder-fp16", False)
    assert config.accelerator == "cpu"
    assert config.mqtt.url == "mqtt://127.0.0.1:1883"


def test_load_config_flags_create_sections(tmp_path: Path) -> None:
    """Flags work without a file and with empty sections."""
    flags: dict[str, object] = {"cameras.0.source": "synthetic:", "mqtt.url": "mqtt://h:1"}
    for config in (
        load_config(None, flags),
        load(
            tmp_path,
            "cameras:\nmqtt:\n",
            **{key.replace(".", "__"): value for key, value in flags.items()},
        ),
    ):
        assert config.cameras[0].source == "synthetic:"
        assert config.mqtt.address.port == 1


def test_load_config_false_and_zero_flags() -> None:
    """False and 0 are values; only None is a flag that was not given."""
    config = load_config(None, {"model.crop": False, "pose.keypoint_threshold": 0.0})
    assert config.model.crop is False
    assert config.pose.keypoint_threshold == 0


def test_load_config_error_in_a_flag(tmp_path: Path) -> None:
    """The error names the flag instead of line and key."""
    found = errors_of(
        tmp_path,
        "nod: 1\n",
        model__name="movenet-lightning-int9",
        accelerator="vulkan",
        mqtt__url="mqtt://h:99999999",
        cameras__0__source="picmera:0",
    )
    # The rest of the message is tested with source_uri.
    assert found.pop().startswith("--source: picmera:0: unknown source picmera:")
    assert found == [
        "1: nod: unknown key; did you mean 'node'?",
        (
            "--model: there is no model named 'movenet-lightning-int9', and it is no path to a "
            ".tflite file; did you mean 'movenet-lightning-int8'?"
        ),
        "--accelerator: expected auto, cpu, edgetpu or replay, got 'vulkan'",
        (
            "--mqtt: the broker address 'mqtt://h:99999999' has an invalid port (1 to 65535); "
            "expected mqtt://[user@]host[:port], or mqtts:// for TLS"
        ),
    ]


def test_load_config_flag_in_an_invalid_section(tmp_path: Path) -> None:
    """A flag does not hide an error of the file."""
    assert errors_of(tmp_path, "mqtt: 5\n", mqtt__url="mqtt://h")[0].startswith(
        "1: mqtt: expected keys with values"
    )


@pytest.mark.parametrize(
    ("source", "keys", "refused"),
    [
        ("clip.mp4", "width: 640, height: 480", ["height", "width"]),
        ("clip.mp4", "stream: lores", ["stream"]),
        ("clip.mp4?width=640&height=480&stream=main", "fps: 5", ["height", "stream", "width"]),
        ("rtsp://cam/live", "width: 640, height: 480, fps: 5", ["fps", "height", "width"]),
        ("/dev/video0", "stream: lores", ["stream"]),
        ("picamera:0", "width: 640, height: 480, fps: 5, stream: lores", []),
        ("synthetic:", "width: 640, height: 480, fps: 5", []),
    ],
)
def test_load_config_keys_that_a_source_cannot_fulfil(
    tmp_path: Path, source: str, keys: str, refused: list[str]
) -> None:
    """They are refused; those of another camera are left out with `--source`."""
    text = f"cameras: [{{source: '{source}', {keys}}}]\n"
    if refused:
        (error, *_) = errors = errors_of(tmp_path, text)
        assert len(errors) == len(refused), error
        for name, line in zip(refused, errors, strict=True):
            assert f"{name} is set, but the source" in line
    else:
        load(tmp_path, text)
    camera = f"cameras: [{{source: 'picamera:0', {keys}}}]\n"
    source = source.partition("?")[0]
    (kept,) = load(tmp_path, camera, cameras__0__source=source).cameras
    assert all(getattr(kept, name) in (None, "main") for name in refused)


def test_load_config_video_of_a_flag_has_its_own_rate(tmp_path: Path) -> None:
    """The rate in the file was meant for a camera."""
    text = "cameras: [{source: 'picamera:0', fps: 5}]\n"
    rates = [
        load(tmp_path, text, cameras__0__source=source).cameras[0].fps
        for source in ("clip.mp4", "/dev/video0")
    ]
    assert rates == [None, 5]


@pytest.mark.parametrize(
    "source", ["rtsp://other/live", "rtsp://me@cam/live", "synthetic:"], ids=lambda text: text
)
def test_load_config_source_of_a_flag_has_its_own_login(tmp_path: Path, source: str) -> None:
    """The login of the camera in the file is not sent to another camera."""
    config = load(
        tmp_path,
        "cameras: [{source: 'rtsp://cam/live', username: u, password: hunter2, rotation: 90}]\n",
        cameras__0__source=source,
    )
    assert config.cameras == (CameraConfig(source=source, rotation=90),)


def test_load_config_login_of_a_flag(tmp_path: Path) -> None:
    """The password of the file is not sent with the user of the flag."""
    file = "mqtt: {url: mqtt://a, username: alice, password: hers}\n"
    config = load(tmp_path, file, mqtt__url="mqtt://bob@b")
    assert config.mqtt.address.username == "bob"
    assert config.mqtt.password is None
    same = load(tmp_path, file, mqtt__url="mqtt://alice@b")
    assert same.mqtt.password is not None
    assert same.mqtt.password.reveal() == "hers"


# --- secrets


def test_config_masks_secrets(tmp_path: Path) -> None:
    """No text of a configuration contains a password."""
    config = load(
        tmp_path,
        "mqtt: {username: u, password: hunter2}\n"
        "cameras: [{source: 'rtsp://me:hunter2@cam:554/s?channel=1&pwd=hunter2'}]\n",
    )
    for text in (repr(config), str(config), json.dumps(config.masked_values())):
        assert "hunter2" not in text
        assert "rtsp://me:********@cam:554/s?channel=1" in text
    assert "hunter2" in config.cameras[0].source
    password = config.mqtt.read_password()
    assert password is not None
    assert password.reveal() == "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        "mqtt: {url: 'mqtt://u:hunter2@h'}\n",
        "mqtt: {url: 'http://u:hunter2@h/x@y'}\n",
        "mqtt: {password: [hunter2]}\n",
        "mqtt: {passwort: hunter2}\n",
        "mqtt: {username: u, password: hunter2, password_file: f}\n",
        "cameras: rtsp://u:hunter2@h/x\n",
        "cameras: [rtsp://u:hunter2@h/x]\n",
        "cameras: [{source: 'synthetic:?pwd=hunter2'}]\n",
        "cameras: [{source: 'rtps://u:hunter2@h/x'}]\n",
    ],
)
def test_load_config_errors_mask_secrets(tmp_path: Path, text: str) -> None:
    """No error contains a password."""
    (found,) = errors_of(tmp_path, text)
    assert "hunter2" not in found


def test_masked_url_keeps_everything_else() -> None:
    """Only passwords are masked."""
    assert masked_url("picamera:0?fps=5") == "picamera:0?fps=5"
    assert masked_url("rtsp://user@host/a") == "rtsp://user@host/a"
    assert masked_url("rtsp://u:p@ss@host/a") == "rtsp://u:********@host/a"


@pytest.mark.parametrize(
    ("keys", "url"),
    [
        ("source: 'rtsp://cam:554/live', username: 'a:b', password: 'x@/?:#%'", None),
        ("source: 'rtsp://a%3Ab@cam:554/live', password: 'x@/?:#%'", None),
        ("source: 'rtsp://a%3Ab@cam:554/live', username: 'a:b', password: 'x@/?:#%'", None),
        ("source: 'rtsp://cam/live', username: u", "rtsp://u:from%20variable@cam/live"),
        ("source: 'rtsp://u@[::1]/l?a=1', mirror: 1", "rtsp://u:from%20variable@[::1]/l?a=1"),
        ("source: 'rtsp://cam/live'", "rtsp://cam/live"),
        ("source: 'rtsp://u:own@cam/live'", "rtsp://u:own@cam/live"),
        (
            "source: 'rtsp://cam/live', username: u, password_file: file",
            "rtsp://u:f%C3%BC@cam/live",
        ),
    ],
)
def test_camera_stream_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: str, url: str | None
) -> None:
    """The login of a camera comes from its URL, its keys, a file or the environment."""
    (tmp_path / "file").write_bytes("\ufefffü\r\n".encode())
    monkeypatch.setenv("EDGEPOSE_CAMERA_PASSWORD", "from variable")
    (camera,) = load(tmp_path, f"cameras: [{{{keys}}}]\n").cameras
    assert camera.stream_url() == (url or "rtsp://a%3Ab:x%40%2F%3F%3A%23%25@cam:554/live")
    assert "x@" not in repr(camera)


def test_camera_stream_url_reads_the_file_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password may be missing at first, and be changed later."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (camera,) = load(
        tmp_path, "cameras: [{source: 'rtsp://u@cam/live', password_file: secret}]\n"
    ).cameras
    with pytest.raises(SecretFileError, match="secret: the password cannot be read"):
        camera.stream_url()
    for text in ("old", "new"):
        (tmp_path / "secret").write_text(text)
        assert camera.stream_url() == f"rtsp://u:{text}@cam/live"
    (tmp_path / "camera-password").write_text("from credential")
    assert CameraConfig(source="rtsp://u@cam/1").stream_url() == (
        "rtsp://u:from%20credential@cam/1"
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("source: 'synthetic:', username: u", "username is set, but source is no rtsp:// URL"),
        (
            "source: 'rtsp://u:p@cam/l', username: u, password: hunter2",
            "username and password is set, but source contains a password; keep one",
        ),
        (
            "source: 'rtsp://u@cam/l', username: w",
            "the URL names the user 'u' and username 'w'; keep one",
        ),
        ("source: 'rtsp://cam/l', password: hunter2", "a password is set without username"),
        (
            "source: 'rtsp://u@cam/l', password: hunter2, password_file: f",
            "password and password_file are both set; keep one",
        ),
        ("source: 'rtsp://u@cam/l', pasword: hunter2", "unknown key; did you mean 'password'?"),
        ("source: 'rtsp://u@cam/l', password: [hunter2]", "expected a text, got something else"),
    ],
)
def test_camera_login_conflicts(tmp_path: Path, keys: str, expected: str) -> None:
    """The error names the contradiction and no part of a password."""
    (found,) = errors_of(tmp_path, f"cameras: [{{{keys}}}]\n")
    assert expected in found
    assert "hunter2" not in found


def test_read_password_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is key, file, systemd credential, environment."""
    (tmp_path / "file").write_text("from file\n")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    monkeypatch.setenv("EDGEPOSE_MQTT_PASSWORD", "from variable")

    def password(text: str) -> str | None:
        secret = load(tmp_path, text).mqtt.read_password()
        return None if secret is None else secret.reveal()

    assert password("mqtt: {username: u}\n") == "from variable"
    (credentials / "mqtt-password").write_text("from credential")
    assert password("mqtt: {username: u}\n") == "from credential"
    assert password("mqtt: {username: u, password_file: file}\n") == "from file"
    assert password("mqtt: {username: u, password: own}\n") == "own"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    monkeypatch.delenv("EDGEPOSE_MQTT_PASSWORD")
    assert password("mqtt: {username: u}\n") is None
    with pytest.raises(SecretFileError, match="gone"):
        password("mqtt: {username: u, password_file: gone}\n")


# --- derived values


@pytest.mark.parametrize(
    ("host", "node"),
    [
        ("raspberrypi", "raspberrypi"),
        ("gym.local", "gym"),
        ("küche 1", "k-che-1"),
        ("äö", "edgepose"),
    ],
)
def test_node_name_from_the_host_name(
    monkeypatch: pytest.MonkeyPatch, host: str, node: str
) -> None:
    """The default node name is the host name as a valid id."""
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    config = Config()
    assert sanitize_id(host) == config.node_name == node
    assert config.client_id == f"edgepose-{node}"


def test_node_name_and_client_id_configured() -> None:
    """Configured names replace the defaults."""
    config = Config(node="n", mqtt=MqttConfig(client_id="c"))
    assert (config.node_name, config.client_id) == ("n", "c")


def test_state_path_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is key, systemd, XDG, home."""
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert Config().state_path == Path("/home/u/.local/state/edgepose")
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert Config().state_path == Path("/x/edgepose")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/edgepose:/var/lib/other")
    assert Config().state_path == Path("/var/lib/edgepose")
    assert Config(state_directory=Path("/s")).state_path == Path("/s")


@pytest.mark.parametrize("home", [None, ""])
def test_folders_without_a_home(home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home, as in a container, has the folders of the service."""
    for name in ("HOME", "STATE_DIRECTORY", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("EDGEPOSE_MODELS", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)

    def no_entry(_uid: int) -> object:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", no_entry)
    assert Config().state_path == Path("/var/lib/edgepose")
    assert find_config_file() == (SYSTEM_FILE if SYSTEM_FILE.is_file() else None)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert user_folder() == Path("/var/lib/edgepose/models")
    assert default_cache() == Path("/var/lib/edgepose/cache")
    monkeypatch.setenv("EDGEPOSE_MODELS", "~unknown-user/m")
    assert user_folder() == Path.cwd() / "~unknown-user/m"
    with pytest.raises(ModelFileError, match=r"~unknown-user/m\.tflite: no such model file"):
        Registry({}, ()).resolve("~unknown-user/m.tflite")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_find_config_file_of_the_service_for_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who may not read it can run `estimate` with the defaults."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    system = tmp_path / "etc.yaml"
    monkeypatch.setattr(loader, "SYSTEM_FILE", system)
    system.write_text("node: gym\n")
    assert find_config_file() == system
    system.chmod(0)
    assert find_config_file() is None
    assert hidden_config_file() == system
    system.chmod(0o600)


def test_find_config_file_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is the given file, the user's, the system's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    given = Path("given.yaml")
    assert find_config_file(given) == given
    system = SYSTEM_FILE if SYSTEM_FILE.is_file() else None
    assert find_config_file() == system
    own = tmp_path / "edgepose" / "config.yaml"
    own.parent.mkdir()
    own.write_text("node: x\n")
    assert find_config_file() == own


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_load_config_without_permission(tmp_path: Path) -> None:
    """The error has the reason of the system."""
    path = tmp_path / "config.yaml"
    path.write_text("node: x\n")
    path.chmod(0)
    with pytest.raises(ConfigError, match="Permission denied"):
        load_config(path)


# --- the schema


def test_json_schema_descriptions() -> None:
    """Every key is described with the comment in `config.yaml`."""
    schema = json_schema()
    assert schema["additionalProperties"] is False
    texts = descriptions()
    assert schema["properties"]["accelerator"]["description"] == texts["accelerator",]
    camera = schema["$defs"]["CameraConfig"]["properties"]
    assert camera["source"]["description"] == texts["cameras", 0, "source"]
    assert schema["$defs"]["TlsConfig"]["properties"]["insecure"]["description"]
    for group in (schema, *schema["$defs"].values()):
        for name, prop in group["properties"].items():
            assert prop.get("description"), name
    json.dumps(schema)


# --- zones

SQUARE = "[[0, 0], [1, 0], [1, 1], [0, 1]]"


def with_zones(*zones: str) -> str:
    """Return a configuration with these entries in the zones of a camera, from line 4 on."""
    return "cameras:\n  - name: main\n    zones:\n" + "".join(f"      - {z}\n" for z in zones)


def test_load_config_zones(tmp_path: Path) -> None:
    """Only name and corners are needed."""
    zones = f"{{name: b, polygon: {SQUARE}, exclude: all}}", f"{{name: a, polygon: {SQUARE}}}"
    first, second = load(tmp_path, with_zones(*zones)).cameras[0].zones
    assert list(map(list, first.polygon)) == [[0, 0], [1, 0], [1, 1], [0, 1]]
    assert (first.name, first.place, first.dwell_ms) == ("b", "feet", 0)
    assert [first.exclude, second.exclude] == ["all", "none"]
    for nothing in ("[]", ""):
        assert not load(tmp_path, f"cameras: [{{name: main, zones: {nothing}}}]").cameras[0].zones


def test_sample_config_example_of_a_zone(tmp_path: Path) -> None:
    """The commented entry is valid, and has the defaults of all other keys."""
    (zone,) = load(tmp_path, text_with_examples()).cameras[0].zones
    assert zone == ZoneConfig(name=zone.name, polygon=zone.polygon)


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("name: a b, polygon: SQUARE", ".name: expected 1 to 64 of the"),
        ("name: a", ": polygon is missing; expected 3 corners or more, such"),
        ("polygon: SQUARE", ": name is missing; expected a text"),
        ("name: a, polygon: 5", ".polygon: expected 3 corners or more, such as [[0.1, "),
        ("name: a, polygon: [1, 2]", ".polygon: expected 3 corners or more"),
        ("name: a, polygon: [[0, 0], [.nan, 0], [1, 1]]", ".polygon: expected 3 corners or more"),
        ("name: a, polygon: [[0, 0], [1, 1]]", ".polygon: expected 3 to 64 corners, got 2"),
        (
            "name: a, polygon: [[0, 0], [320, 0], [1, 1]]",
            ".polygon: corner 2 is [320, 0], expected fractions of the frame, 0 to 1; divide",
        ),
        (
            "name: a, polygon: [[0, 0], [1, 0], [1, 1], [0, 0]]",
            ".polygon: corners 1 and 4 are the same point; leave one out",
        ),
        (
            "name: a, polygon: [[0, 0], [1, 1], [1, 0], [0, 1]]",
            ".polygon: the side from corner 1 to 2 crosses or touches that from 3 to 4; give the",
        ),
        (
            "name: a, polygon: SQUARE, exclude: al",
            ".exclude: expected none, falls or all, got 'al'",
        ),
        ("name: a, polygon: SQUARE, place: null", ".place: expected feet or torso, got nothing"),
        ("name: a, polygon: SQUARE, polygons: 1", ".polygons: unknown key; did you mean 'polygon'"),
        ("name: a, polygon: SQUARE, dwell_ms: -1", ".dwell_ms: expected a whole number, at least"),
    ],
)
def test_load_config_invalid_zone(tmp_path: Path, zone: str, expected: str) -> None:
    """One mistake is one error, with its line and what to do."""
    (found,) = errors_of(tmp_path, with_zones(f"{{{zone.replace('SQUARE', SQUARE)}}}"))
    assert found.startswith(f"4: cameras.0.zones.0{expected}")


def test_load_config_zones_with_one_name(tmp_path: Path) -> None:
    """Topics are made of the names."""
    zone = f"{{name: a, polygon: {SQUARE}}}"
    assert errors_of(tmp_path, with_zones(zone, zone)) == [
        "3: cameras.0.zones: several zones are named a; give each another name"
    ]


def test_load_config_too_many_zones(tmp_path: Path) -> None:
    """A camera has 32 zones at most."""
    zones = [f"{{name: z{n}, polygon: {SQUARE}}}" for n in range(33)]
    assert errors_of(tmp_path, with_zones(*zones)) == [
        "3: cameras.0.zones: expected a list of 0 to 32 entries, each beginning with `- `, got 33"
    ]


# --- the region of a camera


def test_load_config_region(tmp_path: Path) -> None:
    text = "cameras: [{name: main, region: [0, 0.25, 0.5, 1]}]"
    assert load(tmp_path, text).cameras[0].region == (0, 0.25, 0.5, 1)
    assert load(tmp_path, "cameras: [{name: main, region: null}]").cameras[0].region is None


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ("[0, 0, 320, 240]", "got [0, 0, 320, 240]; divide pixels by the width and height of the"),
        ("[0.5, 0, 0.5, 1]", "expected 0 <= x_min < x_max <= 1 and 0 <= y_min < y_max <= 1, got"),
        ("[-0.1, 0, 1, 1]", "expected 0 <= x_min < x_max <= 1"),
        ("[.nan, 0, 1, 1]", "expected [x_min, y_min, x_max, y_max]"),
        ("[0, 0, 1]", "expected [x_min, y_min, x_max, y_max], such as [0, 0.4, 0.5, 1]"),
        ("left", "expected [x_min, y_min, x_max, y_max], such as [0, 0.4, 0.5, 1]"),
    ],
)
def test_load_config_invalid_region(tmp_path: Path, region: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, f"cameras: [{{name: main, region: {region}}}]")
    assert "cameras.0.region: " in str(error.value)
    assert message in str(error.value)
