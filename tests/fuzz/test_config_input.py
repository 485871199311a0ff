"""Any file and any flag is a Config or a ConfigError, in limited time and memory."""

import random
import resource
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgepose.config.loader import load_config
from edgepose.config.reference import sample_text
from edgepose.config.schema import Config, value_keys
from edgepose.config.yaml_reader import MAX_BYTES
from edgepose.errors import ConfigError
from edgepose.util.text import printable
from tests.fuzz.effort import examples

SAMPLE = sample_text().encode()
KEYS = sorted({str(part) for key in value_keys() for part in key if isinstance(part, str)})

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([10**400, -(2**63), 2**64, 1e308, "1" * 5000, "picamera:0", "rtsp://u:p@h/a"])
    | st.text(max_size=30)
    | st.sampled_from(
        ["off", "auto", "mqtt://h", "mqtts://u@[::1]:8883", "5", "\x00", "\ufeff", "../.."]
    )
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=12), inner, max_size=6)
    ),
    max_leaves=25,
)


def check_lines(error: ConfigError) -> None:
    """Check that the error is one line, or a list of lines, without control characters."""
    text = str(error)
    assert text.strip()
    assert len(text) < 30_000
    # Spaces of any kind and bytes that are not UTF-8 stay as they are in names.
    assert all(printable(line) == line for line in text.split("\n")), ascii(text)


def outcome(path: Path) -> Config | ConfigError:
    """Load a file; any other exception than ConfigError fails the test."""
    try:
        config = load_config(path)
    except ConfigError as error:
        check_lines(error)
        return error
    assert isinstance(config, Config)
    # A valid configuration can be shown, and used as far as that needs no file and no network.
    yaml.safe_dump(config.masked_values(), allow_unicode=True)
    assert config.node_name
    assert config.client_id
    assert config.mqtt.address.netloc
    return config


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


@examples(300)
@given(content=st.binary(max_size=400))
def test_load_config_any_bytes(path: Path, content: bytes) -> None:
    """Any bytes are loaded or raise ConfigError."""
    path.write_bytes(content)
    outcome(path)


@examples(250)
@given(tree=TREES)
def test_load_config_any_tree(path: Path, tree: Any) -> None:
    """Any YAML tree is loaded or raises ConfigError."""
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), "utf-8", "surrogatepass")
    outcome(path)


@examples(250)
@given(key=st.sampled_from(sorted(value_keys(), key=str)), value=TREES)
def test_load_config_any_value_of_a_key(path: Path, key: tuple[str | int, ...], value: Any) -> None:
    """Any value of a known key is loaded or raises ConfigError."""
    tree = value
    for part in reversed(key):
        tree = [tree] if isinstance(part, int) else {part: tree}
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), "utf-8", "surrogatepass")
    outcome(path)


@examples(60)
@given(seed=st.integers(0, 2**32), damages=st.integers(1, 12))
def test_load_config_damaged_sample(path: Path, seed: int, damages: int) -> None:
    """A damaged `config.yaml` is loaded or raises ConfigError."""
    chance = random.Random(seed)
    content = bytearray(SAMPLE)
    for _ in range(damages):
        at = chance.randrange(len(content))
        match chance.randrange(4):
            case 0:
                content[at] = chance.randrange(256)
            case 1:
                del content[at : at + chance.randrange(1, 40)]
            case 2:
                start = chance.randrange(len(content))
                content[at:at] = content[start : start + chance.randrange(1, 200)]
            case _:
                content[at:at] = chance.choice(
                    [b": ", b"- ", b"\n", b"  ", b"'", b"[", b"{", b"&a ", b"*a ", b"#"]
                )
    path.write_bytes(content)
    outcome(path)


def bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 {x: y}"]
    for level in range(1, levels):
        inner = ", ".join(f"k{n}: *a{level - 1}" for n in range(width))
        lines.append(f"a{level}: &a{level} {{{inner}}}")
    return "\n".join(lines)


def list_bomb(levels: int) -> str:
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


HOSTILE = {
    "aliases of mappings": bomb(40, 10),
    "aliases of lists": list_bomb(40),
    "a bomb as cameras": list_bomb(30) + "\ncameras: *a29",
    "a bomb as one camera": bomb(30, 9) + "\ncameras: [*a29, *a29]",
    "a bomb as a section": bomb(30, 9) + "\nmqtt: *a29",
    "a bomb as a value": list_bomb(30) + "\nmqtt: {url: *a29}\nmodel: {input_size: *a29}",
    "deep lists": "a: " + "[" * 500_000,
    "deep mappings": "{a: " * 200_000,
    "deep blocks": "\n".join(" " * n + "a:" for n in range(1000)),
    "deep keys": "? " * 200_000,
    "many keys": "\n".join(f"k{n}: {n}" for n in range(60_000)),
    "many duplicates": "node: a\n" * 100_000,
    "many cameras": "cameras:\n" + "- {name: a}\n" * 80_000,
    "many wrong cameras": "cameras:\n" + "- 1\n" * 200_000,
    "many anchors": "\n".join(f"k{n}: &a{n} 1" for n in range(50_000)),
    "a long key": "k" * (MAX_BYTES - 10) + ": 1",
    "a long number": "stats_interval_s: " + "9" * (MAX_BYTES - 100),
    "a long float": "stats_interval_s: 1." + "9" * (MAX_BYTES - 100),
    "a long exponent": "stats_interval_s: 1.0e+" + "9" * 100_000,
    "a long name": "model: {name: '" + "m" * (MAX_BYTES - 100) + "'}",
    "a long source": "cameras: [{source: '" + "?" * 100_000 + "'}]",
    "a long url": "mqtt: {url: 'mqtt://" + "a:b@" * 100_000 + "'}",
    "long options": "cameras: [{source: 'synthetic:?" + "a=b&" * 100_000 + "'}]",
    "a long tag": "a: !" + "x" * 500_000 + " y",
    "many tags": "a: !x y\n" * 100_000,
    "many documents": "---\n" * 200_000,
    "long equals": "cameras: [{source: 'rtsp://h/" + "=" * 500_000 + "'}]",
    "long words": "mqtt: 'pass" + " " * 500_000 + "'",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_load_config_bomb(path: Path, name: str) -> None:
    """The most expensive files of 1 MiB take neither hours nor the memory of a Pi."""
    path.write_text(HOSTILE[name][:MAX_BYTES], "utf-8")
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # What grows with the square of the file exceeds the timeout of the test.
    outcome(path)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
    assert grown_mb < 300


@pytest.mark.parametrize(
    "text",
    [
        "? [a, b]\n: 1",
        "? {a: b}\n: 1",
        "1: 2",
        "null: 2",
        "true: 2",
        "2026-01-01: x",
        "~: 1\n? \n: 2",
        "cameras: {0: {name: a}}",
        "cameras: [[], {}, null, 1]",
        "mqtt: []",
        "mqtt: {tls: {tls: {tls: 1}}}",
        "node: 'a\\0b'",
        'node: "a\\0b"',
        'mqtt: {client_id: "a\\0b"}',
        'mqtt: {client_id: "a\\eb", username: "x\\ny"}',
        'mqtt: {url: "mqtt://u%00@h"}',
        'mqtt: {url: "mqtt://u%0Av@h"}',
        'output: {record: "a\\0b"}',
        'state_directory: "\\0"',
        'model: {name: "a\\0b.tflite"}',
        'model: {name: "\\e[31m/x.tflite"}',
        'cameras: [{source: "\\e]0;x\\a"}]',
        'cameras: [{source: "file:///a%00b"}]',
        '"\\e[31m": 1',
        'a: !!python/object/apply:os.system ["true"]',
        'a: !!binary "gIGC"',
        "<<: {node: a}",
        "a: &a\n  b: *a",
        "accelerator: !!float nan",
        "stats_interval_s: .nan",
        "inference: {threads: 99999999999999999999}",
        "inference: {threads: true}",
        "%YAML 3.0\n---\na: 1",
        "\ufeffnode: a",
        "node: \u2028",
        "node: \u202e",
    ],
)
def test_load_config_regressions(path: Path, text: str) -> None:
    """Inputs that once raised another exception."""
    path.write_text(text, "utf-8")
    outcome(path)


def test_load_config_control_characters(path: Path) -> None:
    """mosquitto closes the connection for a control character, without a reason."""
    for text in ('client_id: "a\\eb"', 'username: "x\\ny"', "url: mqtt://u%0Av@h"):
        path.write_text(f"mqtt: {{{text}}}", "utf-8")
        with pytest.raises(ConfigError, match="control character"):
            load_config(path)


@examples(200)
@given(
    flags=st.dictionaries(
        st.sampled_from(["cameras.0.source", "model.name", "accelerator", "mqtt.url"]),
        st.text(max_size=40)
        | st.binary(max_size=20).map(lambda b: b.decode("utf-8", "surrogateescape")),
    )
)
def test_load_config_any_flag(flags: dict[str, object]) -> None:
    """Any value of a flag is loaded or raises ConfigError."""
    try:
        config = load_config(None, flags)
    except ConfigError as error:
        check_lines(error)
    else:
        assert isinstance(config, Config)
