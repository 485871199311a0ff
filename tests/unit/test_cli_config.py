"""`edgepose config` and `edgepose models`: stdout, stderr and exit code."""

import json
from pathlib import Path

import msgspec
import pytest
import yaml

from edgepose.cli.main import run_command
from edgepose.config.loader import load_config
from edgepose.config.reference import sample_path, sample_text
from edgepose.config.schema import Config

pytestmark = pytest.mark.usefixtures("no_user_files")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = run_command(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_config_check_valid_file(capsys: pytest.CaptureFixture[str]) -> None:
    """A valid file is reported on stderr, with exit code 0."""
    path = str(sample_path())
    assert run(capsys, "config", "check", "-c", path) == (0, "", f"{path}: no errors\n")


def test_config_check_invalid_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All errors are listed, with exit code 2."""
    path = tmp_path / "c.yaml"
    path.write_text("acelerator: cpu\nlog: {level: loud}\n")
    code, out, err = run(capsys, "config", "check", "-c", str(path))
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"edgepose: 2 errors in {path}:",
        f"  {path}:1: acelerator: unknown key; did you mean 'accelerator'?",
        f"  {path}:2: log.level: expected debug, info, warning or error, got 'loud'",
    ]


def test_config_check_in_a_deleted_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names what is missing, which the system's does not."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    code, out, err = run(capsys, "config", "check")
    assert (code, out) == (1, "")
    assert err == "edgepose: the current directory was deleted; change to another one\n"
    monkeypatch.chdir("/")


@pytest.mark.parametrize("command", ["check", "show"])
def test_config_missing_file(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing file is an error of one line, with exit code 2."""
    code, out, err = run(capsys, "config", command, "-c", "/does/not/exist.yaml")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "No such file" in err


def test_config_show_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file in use is printed on stderr."""
    assert run(capsys, "config", "check")[2] == "built-in defaults: no errors\n"
    (tmp_path / "etc.yaml").write_text("node: machine\n")
    _, out, err = run(capsys, "config", "show")
    assert (yaml.safe_load(out)["node"], err) == ("machine", f"# {tmp_path / 'etc.yaml'}\n")
    own = tmp_path / "config-home" / "edgepose" / "config.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("node: mine\n")
    assert yaml.safe_load(run(capsys, "config", "show")[1])["node"] == "mine"


def test_config_show_derived_values_and_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Derived values are filled in, secrets are masked."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "node: gym\n"
        "cameras: [{source: 'rtsp://u:hunter2@cam/1'}]\n"
        "mqtt: {url: 'mqtt://me@broker', password: hunter2}\n"
        "smoothing: {preset: off}\n"
    )
    for words, read in (((), yaml.safe_load), (("--format", "json"), json.loads)):
        code, out, _ = run(capsys, "config", "show", "-c", str(path), *words)
        assert code == 0
        assert "hunter2" not in out
        shown = read(out)
        assert shown["cameras"][0]["source"] == "rtsp://u:********@cam/1"
        assert shown["mqtt"]["client_id"] == "edgepose-gym"
        assert shown["mqtt"]["username"] == "me"
        assert shown["smoothing"]["preset"] == "off"
        assert shown["presence"] == msgspec.structs.asdict(Config().presence)


def test_config_show_output_is_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output can be used as a configuration file."""
    path = tmp_path / "shown.yaml"
    path.write_text(run(capsys, "config", "show")[1])
    again = load_config(path)
    assert again.model == Config().model
    assert again.node == Config().node_name


def test_config_sample(capsys: pytest.CaptureFixture[str]) -> None:
    """The sample is `config.yaml`."""
    assert run(capsys, "config", "sample") == (0, sample_text(), "")


def test_config_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """The output is a JSON Schema with all keys."""
    code, out, err = run(capsys, "config", "schema")
    assert (code, err) == (0, "")
    assert set(json.loads(out)["properties"]) == set(Config.__struct_fields__)


def test_models_list_as_table_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "models", "list")
    assert (code, err) == (0, "")
    first, *rows = out.splitlines()
    assert first.split() == ["name", "input", "runs", "on", "MB", "status"]
    code, out, _ = run(capsys, "models", "list", "--format", "json")
    models = json.loads(out)
    assert [row.split()[0] for row in rows] == [model["name"] for model in models]
    default = next(model for model in models if model["name"] == Config().model.name)
    assert default["path"] is not None
    coral = next(m for m in models if m["name"] == "movenet-lightning-int8-edgetpu")
    assert (coral["path"], coral["get"]) == (
        None,
        "edgepose models pull movenet-lightning-int8-edgetpu",
    )


def test_models_info_by_name_and_by_path(capsys: pytest.CaptureFixture[str]) -> None:
    name = Config().model.name
    code, out, _ = run(capsys, "models", "info", name, "--format", "json")
    by_name = json.loads(out)
    assert (code, by_name["name"]) == (0, name)
    code, out, _ = run(capsys, "models", "info", by_name["path"], "--format", "json")
    by_path = json.loads(out)
    assert (code, by_path["sha256"], by_path["same_as"]) == (0, by_name["sha256"], [name])
    assert by_name["sha256"] in run(capsys, "models", "info", name)[1]


def test_models_verify_reads_installed_files(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = run(capsys, "models", "verify", "--format", "json")
    rows = {row["name"]: row["status"] for row in json.loads(out)}
    assert (code, err) == (0, "")
    assert rows[Config().model.name] == "ok"
    assert "movenet-lightning-int8-edgetpu" not in rows


def test_models_verify_missing_file_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "models", "verify", "movenet-lightning-int8-edgetpu")
    assert code == 1
    assert out.splitlines()[1].split() == ["movenet-lightning-int8-edgetpu", "missing"]
    assert "edgepose models pull movenet-lightning-int8-edgetpu" in err
