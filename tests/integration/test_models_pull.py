"""`edgepose models pull` from a local HTTP server with the faults of networks."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from edgepose.cli.main import run_command
from edgepose.errors import ModelFileError, ModelHashError, UsageError
from edgepose.registry.download import pull
from edgepose.registry.registry import ModelEntry, add_to_manifest, git_blob_sha1
from tests.builders import model_entry

CONTENT = b"\x1c\0\0\0TFL3" + os.urandom(300_000)
FILE = "tiny.tflite"

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Answers each request with the next of `answers`, and repeats the last one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = [whole]
        self.paths: list[str] = []
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def send(
    handler: BaseHTTPRequestHandler,
    body: bytes,
    *,
    status: int = 200,
    length: int | None = None,
    **headers: str,
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


def whole(handler: BaseHTTPRequestHandler) -> None:
    send(handler, CONTENT)


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    send(handler, CONTENT[:2000], length=len(CONTENT))


def other_file(handler: BaseHTTPRequestHandler) -> None:
    send(handler, CONTENT[:8] + b"x" * (len(CONTENT) - 8))


def silent_after(count: int) -> Answer:
    """Send some bytes and then nothing, with the connection open, until the test ends."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:count])
        handler.wfile.flush()
        assert isinstance(handler.server, Server)
        handler.server.release.wait(60)

    return answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, name="http-server", daemon=True)
        thread.start()
        yield running
        running.release.set()
        running.shutdown()
        thread.join(10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "models"


def entry_of(server: Server | None, **changes: object) -> ModelEntry:
    urls = () if server is None else (f"{server.url}/a/{FILE}?lite-format=tflite",)
    return msgspec.structs.replace(model_entry(CONTENT), **{"urls": urls, **changes})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- valid responses


def test_download_valid_file_once(server: Server, folder: Path) -> None:
    received: list[int] = []
    path = pull(entry_of(server), folder, progress=received.append)
    assert path.read_bytes() == CONTENT
    assert names(folder) == [FILE]
    assert path.stat().st_mode & 0o777 == 0o644
    assert received == sorted(received)
    assert received[-1] == len(CONTENT)
    pull(entry_of(server), folder)
    assert server.paths == [f"/a/{FILE}?lite-format=tflite"]


def test_download_follows_redirect(server: Server, folder: Path) -> None:
    server.answers = [lambda h: send(h, b"", status=302, Location="/elsewhere"), whole]
    assert pull(entry_of(server), folder).read_bytes() == CONTENT
    assert server.paths[-1] == "/elsewhere"


def test_download_replaces_damaged_file(server: Server, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(CONTENT[:-1] + b"\0\0"[:1])
    (folder / FILE).write_bytes(b"z" * len(CONTENT))
    assert pull(entry_of(server), folder).read_bytes() == CONTENT


def test_download_file_with_git_blob_id(server: Server, folder: Path, tmp_path: Path) -> None:
    same = tmp_path / "same"
    same.write_bytes(CONTENT)
    entry = entry_of(server, bytes=None, sha256=None, git_blob_sha1=git_blob_sha1(same))
    assert pull(entry, folder).read_bytes() == CONTENT
    server.answers = [other_file]
    with pytest.raises(ModelHashError, match="git blob id"):
        pull(entry, tmp_path / "other")
    assert names(tmp_path / "other") == []


# --- invalid responses


def test_download_wrong_hash_is_deleted_and_reported(server: Server, folder: Path) -> None:
    server.answers = [other_file]
    with pytest.raises(ModelHashError, match="damaged or another file, and not used") as caught:
        pull(entry_of(server), folder)
    assert hashlib.sha256(CONTENT).hexdigest() in str(caught.value)
    assert names(folder) == []


def test_download_tries_second_url_after_wrong_hash(server: Server, folder: Path) -> None:
    server.answers = [other_file, whole]
    urls = (f"{server.url}/wrong", f"{server.url}/right")
    assert pull(entry_of(server, urls=urls), folder).read_bytes() == CONTENT
    assert server.paths == ["/wrong", "/right"]


def test_download_web_page(server: Server, folder: Path) -> None:
    """The login page of a network is named as one."""
    server.answers = [lambda h: send(h, b"<html>please log in</html>")]
    with pytest.raises(ModelFileError, match=r"tflite: expected a TFLite model .* a web page"):
        pull(entry_of(server), folder)
    assert names(folder) == []


def test_download_endless_response(server: Server, folder: Path) -> None:
    """It is cut off at the listed size."""

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT + b"x" * 500_000)
        handler.close_connection = True

    server.answers = [endless]
    with pytest.raises(ModelFileError, match="the server sent more"):
        pull(entry_of(server), folder)
    assert names(folder) == []


def test_download_interrupted_starts_again(server: Server, folder: Path) -> None:
    """A part of a file is deleted; the next run starts from the beginning."""
    server.answers = [cut_off, whole]
    with pytest.raises(ModelFileError, match="got 2,000: truncated"):
        pull(entry_of(server), folder)
    assert names(folder) == []
    assert pull(entry_of(server), folder).read_bytes() == CONTENT


def test_download_silent_server(server: Server, folder: Path) -> None:
    server.answers = [silent_after(5000)]
    with pytest.raises(ModelFileError, match="timed out"):
        pull(entry_of(server), folder, timeout_s=0.3)
    assert names(folder) == []


def test_download_server_too_slow(server: Server, folder: Path) -> None:
    """A byte now and then never reaches the timeout of the socket, and would take years."""
    clock = iter(range(0, 10**9, 1000))
    with pytest.raises(ModelFileError, match=r"only \d+ bytes came in 1000 s"):
        pull(entry_of(server), folder, clock=lambda: float(next(clock)))
    assert names(folder) == []


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_download_http_error_has_status_code(server: Server, folder: Path, status: int) -> None:
    server.answers = [lambda h: send(h, b"", status=status)]
    with pytest.raises(ModelFileError, match=f"HTTP Error {status}"):
        pull(entry_of(server), folder)
    assert names(folder) == []


def test_download_invalid_http_response(server: Server, folder: Path) -> None:
    def nonsense(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\0\1\2 nonsense\r\n\r\n")
        handler.close_connection = True

    server.answers = [nonsense]
    with pytest.raises(ModelFileError, match="could not be downloaded"):
        pull(entry_of(server), folder)


# --- no network


def test_download_offline_names_file_and_folder(folder: Path) -> None:
    entry = entry_of(None, urls=("http://127.0.0.1:9/there.tflite",))
    with pytest.raises(ModelFileError) as caught:
        pull(entry, folder)
    text = str(caught.value)
    assert "Connection refused" in text
    assert "download http://127.0.0.1:9/there.tflite on another computer and copy it to " in text
    assert f"{folder / FILE} (sha256 {entry.sha256})" in text
    assert "`edgepose models pull tiny --from FOLDER`" in text


def test_download_origin_folder(folder: Path, tmp_path: Path) -> None:
    """A folder replaces the network."""
    (tmp_path / FILE).write_bytes(CONTENT)
    assert pull(entry_of(None), folder, origin=str(tmp_path)).read_bytes() == CONTENT
    assert names(folder) == [FILE]


def test_download_origin_folder_with_wrong_file(folder: Path, tmp_path: Path) -> None:
    """It is rejected and stays in the folder."""
    (tmp_path / FILE).write_bytes(CONTENT[:8] + b"x" * (len(CONTENT) - 8))
    with pytest.raises(ModelHashError, match="damaged or another file"):
        pull(entry_of(None), folder, origin=str(tmp_path))
    assert (tmp_path / FILE).exists()
    assert names(folder) == []


def test_download_origin_folder_without_file(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=rf"{FILE}.*No such file"):
        pull(entry_of(None), folder, origin=str(tmp_path))


def test_download_mirror_uses_plain_file_name(server: Server, folder: Path) -> None:
    pull(entry_of(None), folder, origin=f"{server.url}/mirror/")
    assert server.paths == [f"/mirror/{FILE}"]


@pytest.mark.parametrize("origin", ["ftp://host/x", "nowhere/at/all", "file:///no/such/folder"])
def test_download_invalid_origin(folder: Path, origin: str) -> None:
    with pytest.raises(UsageError, match="a folder or an http"):
        pull(entry_of(None), folder, origin=origin)


def test_download_model_without_url(folder: Path) -> None:
    with pytest.raises(ModelFileError, match="`edgepose models build tiny`"):
        pull(entry_of(None), folder)


# --- the folder


def test_download_two_at_once(server: Server, folder: Path) -> None:
    """Their files do not mix."""
    server.answers = [silent_after(5000), whole]
    received = threading.Event()

    def pull_slowly() -> None:
        with pytest.raises(ModelFileError):
            pull(entry_of(server), folder, progress=lambda _done: received.set(), timeout_s=5)

    first = threading.Thread(target=pull_slowly, name="first-pull")
    first.start()
    assert received.wait(60)
    assert pull(entry_of(server), folder).read_bytes() == CONTENT
    server.release.set()
    first.join(60)
    assert not first.is_alive()
    assert names(folder) == [FILE]


def test_download_folder_cannot_be_created(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelFileError, match="models cannot be stored there"):
        pull(entry_of(server), tmp_path / "file" / "models")


# --- the command


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = run_command(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEPOSE_MODELS", str(folder))
    monkeypatch.delenv("EDGEPOSE_MODELS_FROM", raising=False)
    folder.mkdir(parents=True)
    return folder


def test_models_pull_prints_path(
    server: Server, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_to_manifest(home, entry_of(server))
    assert run(capsys, "models", "pull", "tiny") == (0, f"{home / FILE}\n", "")
    code, out, _ = run(capsys, "models", "verify", "tiny")
    assert code == 0
    assert out.splitlines()[1].split() == ["tiny", "ok", str(home / FILE)]
    (home / FILE).write_bytes(b"x" * len(CONTENT))
    code, out, err = run(capsys, "models", "verify", "tiny")
    assert code == 1
    assert out.splitlines()[1].split() == ["tiny", "bad", str(home / FILE)]
    assert err.startswith(f"edgepose: {home / FILE}: ")


def test_models_pull_origin_flag_and_environment(
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / FILE).write_bytes(CONTENT)
    add_to_manifest(home, entry_of(None, urls=("http://127.0.0.1:9/x",)))
    assert run(capsys, "models", "pull", "tiny", "--from", str(stick))[0] == 0
    (home / FILE).unlink()
    monkeypatch.setenv("EDGEPOSE_MODELS_FROM", str(stick))
    assert run(capsys, "models", "pull", "tiny")[0] == 0
    assert (home / FILE).read_bytes() == CONTENT


def test_models_pull_continues_after_failure(
    server: Server, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_to_manifest(
        home, entry_of(None, name="gone", file="gone.tflite", urls=("http://127.0.0.1:9/",))
    )
    add_to_manifest(home, entry_of(server))
    code, out, err = run(capsys, "models", "pull", "gone", "tiny")
    assert (code, out) == (1, f"{home / FILE}\n")
    assert err.startswith("edgepose: gone could not be downloaded")
    assert "Traceback" not in err


def test_models_pull_usage_errors(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, text in (
        (("pull",), "Missing argument"),
        (("pull", "movenet-lightnin-int8"), "did you mean"),
        (("info", "nothing"), "there is no model"),
        (("verify", "nothing"), "there is no model"),
        (("pull", "movenet-lightning-int8-edgetpu", "--from", "ftp://x"), "a folder or an http"),
    ):
        code, out, err = run(capsys, "models", *words)
        assert (code, out) == (2, "")
        assert text in err
        assert len(err.splitlines()) == 1
