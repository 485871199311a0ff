"""The documents for readers, and the code blocks in them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
DOCUMENTS: Final = tuple(
    sorted(path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
)

ELSEWHERE: Final = {
    "make demo": "tests/integration/test_packaging.py",
    "make deb SUITE=bookworm ARCH=arm64": "tests/deb/test_package.py",
    "sudo apt install ./edgepose_*~bookworm_arm64.deb": "tests/deb/test_package.py",
    "sudo apt install ./edgepose_*~bookworm_arm64.deb mosquitto": "tests/deb/test_package.py",
    "sudo edgepose setup": "tests/integration/test_setup.py",
    "make install": "tests/systemd/test_service.py",
    "make uninstall": "tests/systemd/test_service.py",
    "make setup": "Makefile",
    "make test-fast": "Makefile",
    "make test": ".ci/run",
    "make lint": "Makefile",
    "make docs": "tests/unit/test_documents.py",
    "pip install .": "tests/integration/test_packaging.py",
    "pytest tests/fuzz": ".ci/run",
    ".venv/bin/python -m tools.instructions": "tools/bench.py",
    "edgepose benchmark": "tests/integration/test_benchmark_latency.py",
}
"""Commands too slow for the tests of the documents, and the file that runs them."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced code block; `language` is empty for output and diagrams."""

    document: Path
    language: str
    text: str


def blocks(*languages: str) -> list[Block]:
    """Return the code blocks of all documents in these languages; all if none is given."""
    return [
        Block(document, language, text)
        for document in DOCUMENTS
        for language, text in re.findall(
            r"^```(\w*)\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL
        )
        if not languages or language in languages
    ]


def automations() -> list[Block]:
    """Return the triggers of automations in Home Assistant."""
    return [block for block in blocks("yaml") if block.text.startswith("triggers:")]


def configurations() -> list[Block]:
    """Return the examples of a configuration."""
    return [block for block in blocks("yaml") if block not in automations()]


def commands() -> list[str]:
    """Return every command of the shell blocks, each once."""
    lines = (line for block in blocks("sh") for line in block.text.splitlines())
    return list(dict.fromkeys(line for line in lines if line))


def pipelines() -> list[str]:
    """Return the commands whose output another program reads, which test_examples.py runs."""
    return [line for line in commands() if " | " in line]


def example(name: str) -> Path:
    """Return a file of docs/examples."""
    return ROOT / "docs/examples" / name
