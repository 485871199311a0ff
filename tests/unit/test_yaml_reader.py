"""The YAML reader: every invalid file is one error of one line."""

import contextlib
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepose.config.yaml_reader import MAX_BYTES, describe, parse, plain, read
from edgepose.errors import ConfigError

HERE = Path("config.yaml")


def error_of(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"", None, "empty file"),
        (b" \n\n", None, "empty file"),
        (b"- a\n- b\n", None, "got a list"),
        (b"just words\n", None, "got 'just words'"),
        (b"mqtt:\n\turl: x\n", 2, "tab"),
        (b"a: 1\nb: c: d\n", 2, "indentation"),
        (b"a: 1\nb: @x\n", 2, "cannot begin with a character such as @"),
        (b"a: 1\nb: 'x\nc: 2\n", 2, "never closed"),
        (b"a: 1\nb: [1, 2\nc: 3\n", 2, "never closed"),
        (b"a: *nowhere\n", 1, "no finished anchor"),
        (b"a: &a [*a]\n", 1, "no finished anchor"),
        (b"a: 1\n---\nb: 2\n", 2, "one YAML document"),
        (b"? [a]\n: 1\n", 1, "expected a key"),
        (b"a: &x 1\n*x : 2\n", 2, "expected a key"),
        (b"a: \x00\n", None, "control character 0x00"),
        (b"a: 1\nb: \xff\n", 2, "byte 0xFF"),
        ("a: é".encode("utf-16"), 1, "expected UTF-8 text, got UTF-16"),
        (b"a: " + b"[" * 100_000, 1, "levels"),
        (b"a: " + b"{b: " * 100_000, 1, "levels"),
        (b"#" * (MAX_BYTES + 1), None, "at most 1024 KiB, got a larger file"),
    ],
    ids=lambda value: None if not isinstance(value, str) else value,
)
def test_read_invalid_file(tmp_path: Path, content: bytes, line: int | None, words: str) -> None:
    """The error has path and line."""
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    text = error_of(path)
    assert text.startswith(f"{path}: " if line is None else f"{path}:{line}: ")
    assert words in text


def test_read_pipe_and_folder(tmp_path: Path) -> None:
    """Only regular files are read; a pipe could block."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "a pipe" in error_of(pipe)
    assert "a folder" in error_of(tmp_path)
    assert "No such file" in error_of(tmp_path / "missing.yaml")


def test_parse_alias_bomb() -> None:
    """A hundred levels of ten aliases each would be 10^100 values if they were expanded."""
    levels = ["a0: &a0 [x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 100)]
    document = parse("\n".join(levels), HERE)
    assert len(document.values) == 100
    assert describe(document.values["a99"]) == "a list"


def test_parse_line_numbers() -> None:
    """Every key and list entry has its line."""
    text = "# first\na: 1\nb:\n  c: x\n  d:\n    - e: 1\n    -\n      f: 2\n"
    document = parse(text, HERE)
    assert document.values == {"a": 1, "b": {"c": "x", "d": [{"e": 1}, {"f": 2}]}}
    assert document.lines == {
        ("a",): 2,
        ("b",): 3,
        ("b", "c"): 4,
        ("b", "d"): 5,
        ("b", "d", 0): 6,
        ("b", "d", 0, "e"): 6,
        ("b", "d", 1): 8,
        ("b", "d", 1, "f"): 8,
    }
    assert document.line(("b", "d", 1, "missing")) == 8


def test_parse_duplicate_keys_and_tags() -> None:
    """They are collected as issues; the rest is read."""
    document = parse("a: 1\nb: {c: 1, c: 2}\na: 3\ne: !secret x\n", HERE)
    assert document.values == {"a": 1, "b": {"c": 1}, "e": "x"}
    assert [(m.key, m.line) for m in document.issues] == [
        (("b", "c"), 2),
        (("a",), 3),
        (("e",), None),
    ]
    assert "first in line 1" in document.issues[1].text
    assert "!secret" in document.issues[2].text


def test_parse_only_comments() -> None:
    """A file of comments is an empty configuration."""
    assert parse("# nothing\n", HERE).values == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("off", "off"),
        ("no", "no"),
        ("yes", "yes"),
        ("0", 0),
        ("-12", -12),
        ("010", "010"),
        ("0o10", "0o10"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        ("1e3", "1e3"),
        ("1.0e-07", 1e-7),
        (".5", 0.5),
        ("-.inf", "-.inf"),
        ("1.0e+999", "1.0e+999"),
        ("2026-01-31", "2026-01-31"),
        ("picamera:0", "picamera:0"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_parse_plain_words(text: str, value: object) -> None:
    """Unquoted words are what YAML 1.1 and 1.2 both read."""
    got = plain(text)
    assert (got, type(got)) == (value, type(value))


def test_parse_quoted_words() -> None:
    """Quoted words are texts."""
    document = parse("a: '0'\nb: \"true\"\nc: !!str 5\n", HERE)
    assert document.values == {"a": "0", "b": "true", "c": "5"}
    assert not document.issues


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(min_size=1, max_size=8), VALUES, min_size=1))
@settings(deadline=None)
def test_parse_output_of_pyyaml(values: dict[str, object]) -> None:
    """What PyYAML dumps is read back."""
    assert parse(yaml.safe_dump(values), HERE).values == values


@given(st.binary(max_size=300) | st.text("abc:-[]{}&*!|>'\"%@`#,? \n\t\\0", max_size=80))
@settings(deadline=None, max_examples=400)
def test_parse_any_text(content: bytes | str) -> None:
    """Any text is parsed or raises ConfigError."""
    text = content if isinstance(content, str) else content.decode("latin-1")
    # Any other exception would come through and fail the test.
    with contextlib.suppress(ConfigError):
        assert isinstance(parse(text, HERE).values, dict)
