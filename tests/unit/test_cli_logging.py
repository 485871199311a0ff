"""What stands in a log line stays in it."""

import logging

from edgepose.cli._options import SingleLineFormatter


def shown(text: str) -> str:
    record = logging.LogRecord("edgepose", logging.WARNING, "", 0, "%s", (text,), None)
    return SingleLineFormatter("%(levelname)s %(message)s").format(record)


def test_single_line_formatter_printable_text() -> None:
    """Printable text is unchanged."""
    assert shown("camera Küche: délivre à nouveau") == "WARNING camera Küche: délivre à nouveau"


def test_single_line_formatter_control_characters() -> None:
    """Text from outside can neither start a log line nor move the cursor."""
    assert shown("bad\r\nERROR all is lost\x1b[2J") == (
        "WARNING bad\\r\n  ERROR all is lost\\x1b[2J"
    )
