"""What stands in a log line stays in it."""

import logging

from edgepose.cli._options import SingleLineFormatter


def shown(text: str) -> str:
    record = logging.LogRecord("edgepose", logging.WARNING, "", 0, "%s", (text,), None)
    return SingleLineFormatter("%(levelname)s %(message)s").format(record)


def test_text_is_shown_as_it_is() -> None:
    assert shown("camera Küche: délivre à nouveau") == "WARNING camera Küche: délivre à nouveau"


def test_nothing_from_outside_forges_a_line_or_moves_the_cursor() -> None:
    assert shown("bad\r\nERROR all is lost\x1b[2J") == (
        "WARNING bad\\r\n  ERROR all is lost\\x1b[2J"
    )
