"""Passwords are in no output, wherever they are in a configuration or address."""

import json
import logging
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast
from urllib.parse import quote, urlsplit

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgepose.build import source_opener
from edgepose.cli.main import run_command
from edgepose.config.loader import load_config
from edgepose.config.source_uri import OPTIONS, SourceUri, parse_source_uri
from edgepose.errors import ConfigError, EdgeposeError, SecretFileError, UsageError
from edgepose.mqtt.local_broker import free_port
from edgepose.mqtt.options import ConnectOptions
from edgepose.mqtt.url import BrokerAddress, parse_broker_url
from edgepose.sinks.mqtt import MqttPublisher
from edgepose.util.redact import MASK, masked_url
from edgepose.util.secrets import Secret, read_password_file
from tests.fuzz.effort import examples

MARK = "kH7qZ"
"""What no message would hold by chance; every password below has it at either end or inside."""

SAFE = "abcXYZ019-._~"
ODD = SAFE + "!$'()*+,;:/?#[]@&= %\"<>\\^`{|}äß"
PASSWORDS = st.builds(
    lambda before, after: f"{before}{MARK}{after}",
    st.text(SAFE, max_size=6),
    st.text(SAFE, max_size=6),
)
ODD_PASSWORDS = st.builds(
    lambda before, after: f"{before}{MARK}{after}",
    st.text(ODD, max_size=6),
    st.text(ODD, max_size=6),
)
LETTERS = "QZJ96"
"""In no message by chance, nor are three characters with one of them."""
UNESCAPED = st.text(f"{LETTERS}@/#?:&=%+ ;,[]\\'\"!$.-_~", min_size=3, max_size=12)
PARAMETERS = ("password", "passwd", "pass", "pwd", "token", "apikey", "api_key", "auth", "loginpas")
USERS = st.text("abcz019_", max_size=5)

# Valid and invalid forms; {p} is the password.
LOGINS = (
    "rtsp://{u}:{p}@cam/live",
    "RTSPS://{u}:{p}@cam:554/live?rotate=90",
    "rtsp://{u}:{p}@[::1]:554/live",
    "rtsp:/{u}:{p}@cam/live",
    "rtsp//{u}:{p}@cam/live",
    "rtsp:{u}:{p}@cam/live",
    "rtps://{u}:{p}@cam/live",
    "http://{u}:{p}@cam/live",
    "//{u}:{p}@cam/live",
    "{u}:{p}@cam/live",
    "rtsp://{u}:{p}@cam:99999/live",
    "rtsp://{u}:{p}@",
    "rtsp://{u}:{p}@cam/live?rotate=7",
    "rtsp://{u}:{p}@cam/live?mirror=1&mirror=1",
    "mqtt://{u}:{p}@h",
    "mqtts://{u}:{p}@h:8883/x",
    "mqtt://{u}:{p}@h:port",
    "mqtt:{u}:{p}@h",
    "mqt://{u}:{p}@h",
)
QUERIES = tuple(
    form.replace("{n}", name)
    for name in PARAMETERS
    for form in (
        "rtsp://cam/live?user=x&{n}={p}&stream=0",
        "rtsp://cam/user=admin_{n}={p}",
        "rtsp://cam/live#{n}={p}",
        "rtsp://cam/live;{n}={p}",
        "rtsp://cam/live?{n}={p}&rotate=7",
        "/videos/a.mp4?{n}={p}",
        "synthetic:?{n}={p}",
        "picamera:0?{n}={p}",
        "mqtt://h?{n}={p}",
        "mqtt://h/{n}={p}",
    )
)


def all_texts_of(text: str) -> str:
    """Return all texts of a source or broker address, valid or not, and of its error."""
    texts = [masked_url(text)]
    for parse in (parse_source_uri, parse_broker_url):
        try:
            parsed = parse(text)
        except (UsageError, ConfigError) as error:
            texts += [str(error), repr(error)]
        else:
            texts += [str(parsed), repr(parsed), f"{parsed}"]
    return "\n".join(texts)


def config_texts(path: Path, tree: Mapping[str, object]) -> str:
    """Return all texts of a configuration."""
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), "utf-8")
    try:
        config = load_config(path)
    except ConfigError as error:
        return f"{error}\n{error!r}"
    shown = config.masked_values()
    return "\n".join((repr(config), str(config), json.dumps(shown), yaml.safe_dump(shown)))


@examples(250)
@given(form=st.sampled_from(LOGINS), user=USERS, password=ODD_PASSWORDS)
def test_masked_url_login(form: str, user: str, password: str) -> None:
    """No form of a login shows the password."""
    text = form.format(u=user, p=password)
    assert MARK not in all_texts_of(text)
    assert MASK in masked_url(text)


@examples(1000)
@given(
    form=st.sampled_from([form for form in LOGINS if "99999" not in form]),
    user=st.text("abc[]._-~'! ", max_size=4),
    password=UNESCAPED,
)
def test_login_no_piece_of_password(form: str, user: str, password: str) -> None:
    """No three characters of a password are shown, not even as a host, a port or an option."""
    text = form.format(u=user, p=password)
    shown = all_texts_of(text)
    try:
        uri = parse_source_uri(text)
    except UsageError:
        pass
    else:
        # What an error of the source calls the host, as other parsers do.
        parts = urlsplit(uri.target if uri.kind == "rtsp" else "")
        shown += f"\n{parts.hostname} {parts.port}"
    pieces = (password[start : start + 3] for start in range(len(password) - 2))
    for piece in pieces:
        if any(letter in piece for letter in LETTERS):
            assert piece.casefold() not in shown.casefold()


@examples(300)
@given(form=st.sampled_from(QUERIES), password=PASSWORDS)
def test_masked_url_parameters(form: str, password: str) -> None:
    """No parameter shows a password."""
    text = form.format(p=password)
    assert MARK not in all_texts_of(text)
    assert MASK in masked_url(text)


@examples(300)
@given(form=st.sampled_from((*LOGINS, *QUERIES)), user=USERS, password=PASSWORDS)
def test_config_password_in_any_key(tmp_path: Path, form: str, user: str, password: str) -> None:
    """A password in any key is in no output."""
    text = form.format(u=user, p=password)
    path = tmp_path / "config.yaml"
    trees: tuple[Mapping[str, object], ...] = (
        {"cameras": [{"source": text}]},
        {"cameras": [text]},
        {"cameras": text},
        {"mqtt": {"url": text}},
        {"mqtt": text},
        {"mqtt": {"tls": text}},
        {"mqtt": {"keepalive_s": text}},
        {"accelerator": text},
        {text: 1},
    )
    for tree in trees:
        assert MARK not in config_texts(path, tree), tree
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert MARK not in str(caught.value)


@examples(150)
@given(
    password=ODD_PASSWORDS,
    with_user=st.booleans(),
    wrong=st.sampled_from(
        [None, {"url": 5}, {"user": "x"}, {"password_file": "f"}, {"tls": {"insecure": True}}]
    ),
)
def test_config_password_key(
    tmp_path: Path, password: str, with_user: bool, wrong: Mapping[str, object] | None
) -> None:
    """The value of `password` is in no output, valid or not."""
    user = {"username": "u"} if with_user else {}
    login = {"password": password, **user, **(wrong or {})}
    assert MARK not in config_texts(tmp_path / "c.yaml", {"mqtt": login})
    camera = {"source": "rtsp://cam/live", **login}
    assert MARK not in config_texts(tmp_path / "c.yaml", {"cameras": [camera]})


@pytest.mark.parametrize(
    "text",
    [
        "mqtt:\n  password:{p}\n",
        "mqtt:\n  username: u\n  password:{p}\n",
        "mqtt: {{password:{p}}}",
        "mqtt: {{password: [{p}]}}",
        "mqtt: {{password: {{{p}: 1}}}}",
        "mqtt: {{password: !secret {p}}}",
        "mqtt: {{password: {p}, password: {p}2}}",
        "mqtt: {{passwort: {p}}}",
        "mqtt: {{password_file: [{p}]}}",
        "password: {p}",
        "mqtt: [password, {p}]",
        "mqtt: {{password: '{p}\n",
        "mqtt: {{password: @{p}}}",
    ],
)
def test_config_misspelled_password_key(tmp_path: Path, text: str) -> None:
    """`password:secret` without the space is one word to YAML, and was quoted in the error."""
    path = tmp_path / "config.yaml"
    path.write_text(text.format(p=MARK))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert MARK not in str(caught.value)


def test_config_show_and_check_mask_secrets(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither command prints a password."""
    path = tmp_path / "config.yaml"
    path.write_text(
        f"cameras:\n- {{name: a, source: 'rtsp://u:{MARK}@cam/x?token={MARK}'}}\n"
        f"- {{name: b, source: 'rtsp://cam/user=u_password={MARK}_1.sdp'}}\n"
        f"mqtt: {{username: u, password: {MARK}}}\n"
    )
    for arguments in (["show"], ["show", "--format", "json"], ["check"]):
        assert run_command(["config", *arguments, "-c", str(path)]) == 0
    out, err = capfd.readouterr()
    assert MARK not in out + err
    assert out.count(f"u:{MASK}@cam") == 2


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--source", "{url}"],
        ["run", "--source", "synthetic:", "--mqtt", "{url}"],
        ["run", "--model", "{url}"],
        ["run", "--accelerator", "{url}"],
        ["run", "-c", "{url}"],
        ["run", "{url}"],
        ["{url}"],
        ["estimate", "{url}"],
        ["benchmark", "--pipeline", "--source", "{url}", "--min-runs", "{url}"],
        ["benchmark", "compare", "{url}", "{url}"],
        ["models", "info", "{url}"],
        ["models", "pull", "{url}"],
        ["models", "pull", "movenet-lightning-int8-edgetpu", "--from", "{url}"],
        ["config", "check", "-c", "{url}"],
        ["replay", "{url}"],
        ["replay", "{url}", "--mqtt", "{url}"],
        ["demo", "--seconds", "{url}"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("debug", [[], ["--debug"]], ids=["", "debug"])
def test_command_line_masks_secrets(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    debug: list[str],
) -> None:
    """A URL in any place of a command line is not printed with its password."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEPOSE_MODELS", str(tmp_path))
    for scheme in ("rtps", "mqtt", "http"):
        url = f"{scheme}://u:a/{MARK}@{MARK}b@127.0.0.1:0/x"
        assert run_command([*debug, *(word.format(url=url) for word in words)]) != 0
    out, err = capfd.readouterr()
    assert MARK not in out + err
    assert err


def test_mqtt_connect_failure_masks_secrets(caplog: pytest.LogCaptureFixture) -> None:
    """No log line of a failed connection has the password."""
    caplog.set_level(logging.DEBUG)
    secret = Secret(MARK)
    address = BrokerAddress("127.0.0.1", free_port(), username="u")
    options = ConnectOptions(address, "c", lambda: secret)
    with pytest.raises(EdgeposeError) as caught:
        MqttPublisher(options)
    text = "\n".join(
        (
            str(caught.value), repr(caught.value), caplog.text, repr(secret), str(secret),
            f"{secret:>20}", repr(options), str(options),
        )
    )  # fmt: skip
    assert MARK not in text
    assert "refuses connections" in text


def test_rtsp_failure_masks_secrets(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """No log line of a failed stream has the password."""
    caplog.set_level(logging.DEBUG)
    url = f"rtsp://u:{MARK}@127.0.0.1:{free_port()}/live?token={MARK}"
    config = load_config(None, {"cameras.0.source": url})
    opener = source_opener(config.cameras[0])
    with pytest.raises(EdgeposeError) as caught:
        next(opener().frames())
    out, err = capfd.readouterr()
    assert MARK not in "\n".join((str(caught.value), repr(caught.value), caplog.text, out, err))


@pytest.mark.parametrize(
    "origin",
    [
        f"http://u:{MARK}@host/models",
        f"https://u:a@{MARK}/b@host",
        f"https://host/models?token={MARK}",
        f"ftp://u:{MARK}@host",
    ],
)
def test_models_pull_masks_secrets(
    tmp_path: Path, origin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A password in the address of models is refused and not shown."""
    name = "movenet-lightning-int8-edgetpu"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPOSE_MODELS", str(tmp_path))
        assert run_command(["models", "pull", name, "--from", origin]) == 2
    assert MARK not in "".join(capsys.readouterr())


@pytest.fixture
def new_opener() -> Iterator[None]:
    """Make urllib read the environment again, which it does once."""
    urllib.request.install_opener(cast("urllib.request.OpenerDirector", None))
    yield
    urllib.request.install_opener(cast("urllib.request.OpenerDirector", None))


@pytest.mark.usefixtures("new_opener")
def test_models_pull_masks_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The password of a proxy is not shown if its address is invalid."""
    monkeypatch.setenv("EDGEPOSE_MODELS", str(tmp_path))
    monkeypatch.setenv("http_proxy", f"http://u:a@b:{MARK}/c")
    monkeypatch.delenv("no_proxy", raising=False)
    arguments = ["pull", "movenet-lightning-int8-edgetpu", "--from", "http://192.0.2.1/models"]
    assert run_command(["models", *arguments]) == 1
    out, err = capsys.readouterr()
    assert "that of the proxy, is invalid" in err
    assert MARK not in out + err


@pytest.mark.parametrize("content", [f"{MARK}\n{MARK}\n", f"\n{MARK}"])
def test_password_file_error_masks_secrets(tmp_path: Path, content: str) -> None:
    """An error about the file does not quote it."""
    path = tmp_path / "password"
    path.write_text(content)
    with pytest.raises(SecretFileError) as caught:
        read_password_file(path)
    assert MARK not in str(caught.value)


# -- addresses of any shape


TEXTS = st.text(max_size=60) | st.text("rtspmqhicae:/@?#&=.[]%0189 ~-_\\", max_size=40)


@examples(500)
@given(text=TEXTS | st.binary(max_size=30).map(lambda b: b.decode("utf-8", "surrogateescape")))
def test_parse_broker_url_any_text(text: str) -> None:
    """Any text is an address or a ConfigError."""
    texts = all_texts_of(text)
    assert texts.isprintable() or "\n" in texts


@examples(300)
@given(text=TEXTS)
def test_masked_url_is_idempotent(text: str) -> None:
    """Masking twice is the same as once."""
    once = masked_url(text)
    assert masked_url(once) == once


@examples(200)
@given(
    host=st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z]{2,4})?", fullmatch=True)
    | st.ip_addresses().map(lambda address: str(address).split("%")[0]),
    port=st.integers(1, 65535),
    tls=st.booleans(),
    username=st.none()
    | st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8),
)
def test_broker_address_round_trip(host: str, port: int, tls: bool, username: str | None) -> None:
    """A printed address is parsed to the same address."""
    address = BrokerAddress(host, port, tls, username)
    assert parse_broker_url(str(address)) == address


@examples(200)
@given(
    path=st.from_regex(r"/nowhere/[a-zA-Z0-9 ._,+-]{1,20}", fullmatch=True),
    user=USERS.filter(bool),
    loop=st.booleans(),
    rotate=st.sampled_from([0, 90, 180, 270]),
    number=st.integers(0, 999),
)
def test_source_uri_round_trip(path: str, user: str, loop: bool, rotate: int, number: int) -> None:
    """A printed source is parsed to the same source."""
    options = {"loop": loop, "rotate": rotate}
    query = "&".join(f"{name}={value:d}" for name, value in options.items())
    for text, kind in (
        (path.strip(), "path"),
        (f"/dev/video{number}", "v4l2"),
        (f"picamera:{number}", "picamera"),
        ("synthetic:", "synthetic"),
    ):
        uri = parse_source_uri(f"{text}?{query}")
        assert (uri.kind, dict(uri.options)) == (kind, options)
        assert parse_source_uri(str(uri)) == SourceUri(uri.kind, uri.target)
    url = f"rtsp://{user}@cam:554/{quote(path)}"
    uri = parse_source_uri(url)
    assert (uri.kind, uri.target, str(uri)) == ("rtsp", url, url)
    assert set(options) <= set(OPTIONS)
