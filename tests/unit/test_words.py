"""Plain technical English in the package and the documents: none of the banned words."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

from tests.documents import DOCUMENTS, ROOT

BANNED = re.compile(
    r"(?i)\b(pictures?|somebody|nobody|whoever|anybody|says?|said|tells?|told|hears?|heard"
    r"|spool|by itself|of its own|stands? in|stand-ins?|cannot be meant|no use|as it is(?=[.,;]))\b"
)
"""Words for which the table in CONTRIBUTING.md has the field's term."""
ALLOWED = {
    "'nobody'|or nobody|`nobody`": "a payload of the topic posture",
    "stand in front of": "people before a camera",
    "'pictures'": "the field of the benchmark's results, which other programs read",
}
DOCUMENT_FILES = [ROOT / "config.yaml", *map(ROOT.joinpath, DOCUMENTS)]
FILES = DOCUMENT_FILES + sorted(ROOT.glob("edgepose/**/*.py"))


def text_of(path: Path) -> str:
    """Return a document without the table of words, or the comments and strings of a module."""
    source = path.read_text()
    if path in DOCUMENT_FILES:
        return source.partition("## Words")[0]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    nodes = ast.walk(ast.parse(source))
    return " ".join(comments + [repr(n.value) for n in nodes if isinstance(n, ast.Constant)])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_words_of_documents_comments_and_strings(path: Path) -> None:
    text = re.sub("|".join(ALLOWED), "", " ".join(text_of(path).replace(r"\n", " ").split()))
    assert [text[max(0, m.start() - 40) : m.end() + 40] for m in BANNED.finditer(text)] == []
