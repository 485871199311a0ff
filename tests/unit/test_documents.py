"""The documents against the code: generated parts, links, messages, error texts, figures."""

import ast
import json
import re
from pathlib import Path

import msgspec
import pytest

from edgepose.messages import AcceleratorMessage, EventMessage, PoseMessage
from edgepose.mqtt.commands import CAMERA_COMMANDS, NODE_COMMANDS
from edgepose.mqtt.topics import Topics
from tests.documents import DOCUMENTS, ELSEWHERE, ROOT, blocks, commands
from tools import generate_docs

README_LINES = 170


@pytest.mark.parametrize("path", generate_docs.documents(), ids=lambda path: path.name)
def test_documents_generated_files_are_current(path: Path) -> None:
    """The files are those that `make docs` writes."""
    written, expected = path.read_text(), generate_docs.documents()[path]
    hint = f"{path.name} is out of date; run `make docs`"
    pinned = f"msgspec=={msgspec.__version__}" in (ROOT / "constraints/dev.txt").read_text()
    if path.suffix == ".json" and not pinned:
        pytest.skip("versions of msgspec write the same types in different ways")
    assert written == expected, hint


def test_readme_is_short_and_starts_with_sentence_and_image() -> None:
    """The README fits on a few screens; details are in docs/."""
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= README_LINES
    assert text.index("![") < text.index("## ")


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_documents_links_exist(document: Path) -> None:
    """Relative links name a file, and their fragments a heading of it."""
    folder = (ROOT / document).parent
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        file, _, fragment = target.partition("#")
        linked = folder / file if file else ROOT / document
        assert linked.exists(), target
        if fragment:
            assert fragment in _anchors(linked.read_text()), target


def test_readme_links_every_document() -> None:
    """The README has a link to every document."""
    text = (ROOT / "README.md").read_text()
    for document in DOCUMENTS:
        if document.name not in {"README.md", "SECURITY.md"}:
            assert f"]({document})" in text, document


def test_documents_code_blocks_are_tested() -> None:
    """Commands, configurations and messages are marked as such; the rest is output or a diagram."""
    assert {block.language for block in blocks()} == {"", "sh", "yaml", "json"}


def test_documents_commands_tested_elsewhere() -> None:
    """No exception remains for a command that no document has, and its test exists."""
    for command, file in ELSEWHERE.items():
        assert command in commands()
        assert (ROOT / file).is_file()


def test_documents_messages_are_valid() -> None:
    """Every JSON example has all fields of its message, but for those that may be unset."""
    kinds = []
    for block in blocks("json"):
        fields = set(json.loads(block.text))
        (kind,) = (
            kind
            for kind in (PoseMessage, EventMessage, AcceleratorMessage)
            if fields == set(kind.__struct_fields__) - _unset(kind, fields)
        )
        msgspec.json.decode(block.text, type=kind)
        kinds.append(kind)
    assert set(kinds) == {PoseMessage, EventMessage, AcceleratorMessage}


def _unset(kind: type[msgspec.Struct], fields: set[str]) -> set[str]:
    """Return the fields that an example of a message leaves out and may."""
    optional = {f.name for f in msgspec.structs.fields(kind) if f.default is msgspec.UNSET}
    return optional - fields


def test_documents_topics_are_complete() -> None:
    """The table of topics has every topic that the code publishes."""
    text = (ROOT / "docs/mqtt-topics.md").read_text()
    topics = Topics(node="n", base="b")
    camera = (topics.poses, topics.presence, topics.count, topics.event, topics.status)
    names = [topics.availability, topics.info, topics.stats, topics.accelerator]
    names += [topic("camera") for topic in (*camera, topics.enabled)]
    names += [topics.node_state(name) for name in ("pose_threshold", "smoothing")]
    names.append(topics.camera_state("camera", "max_fps"))
    names += [topics.command("camera", name) for name in CAMERA_COMMANDS]
    names += [topics.command(None, name) for name in NODE_COMMANDS]
    for name in names:
        shown = name.removeprefix("b/n/").replace("camera/", "<camera>/")
        assert f"| `{shown}` |" in text


def test_documents_error_texts_exist_in_code() -> None:
    """The error texts in docs/troubleshooting.md occur in the code."""
    texts = _texts_of_the_code()
    page = (ROOT / "docs/troubleshooting.md").read_text()
    for quoted in re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE):
        pattern = re.compile(".*".join(re.escape(p) for p in quoted.removeprefix("…: ").split("…")))
        assert any(pattern.search(text) for text in texts), quoted


def test_readme_model_sizes_and_accuracy() -> None:
    """Sizes are those of the files, accuracy and latency those of the measurements."""
    measured = (ROOT / "models/README.md").read_text()
    result = json.loads((ROOT / "docs/results/x86-64-epyc-2-cores.json").read_text())
    rows = re.findall(
        r"^\| `([\w-]+)`.*? \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$",
        (ROOT / "README.md").read_text(),
        re.MULTILINE,
    )
    bundled = {path.stem: path.stat().st_size for path in (ROOT / "models").glob("*.tflite")}
    assert {name for name, *_ in rows} == set(bundled)
    for name, megabytes, single, multi, latency_ms in rows:
        assert megabytes == f"{bundled[name] / 1e6:.1f}"
        (line,) = re.findall(
            rf"^\| {name} \| ({single} .*? \| {multi} .*)$", measured, re.MULTILINE
        )
        assert line
        (p50,) = (
            row["latency_ms"]["p50"]
            for row in result["latency"]
            if (row["model"], row["engine"], row["threads"]) == (name, "litert", 2)
        )
        assert latency_ms == f"{p50:.1f}"


def _anchors(text: str) -> set[str]:
    """Return the fragments of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _texts_of_the_code() -> set[str]:
    """Return every string of the package, with `…` for each formatted value."""
    texts = set()
    for path in (ROOT / "edgepose").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (
                    str(part.value) if isinstance(part, ast.Constant) else "…"
                    for part in node.values
                )
                texts.add(re.sub(r"%[.\d]*[sdf]", "…", "".join(parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(re.sub(r"%[.\d]*[sdf]", "…", node.value))
    return texts
