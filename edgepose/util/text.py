"""Text from outside, such as names of files, in messages and on terminals."""

import unicodedata


def valid_text(text: str) -> str:
    r"""Return a text that every encoding of Unicode can hold.

    Bytes that are not UTF-8, as in the name of a file, are written as `\xff`.
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        # Half of a pair from an escape sequence, which is no byte of a name.
        return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """Return a text with control characters escaped, so that it stays in its line.

    Spaces of any kind and bytes that are not UTF-8 stay, as in the name of a file.
    """
    return "".join(
        char
        if char.isprintable() or unicodedata.category(char) in ("Zs", "Cs")
        else ascii(char)[1:-1]
        for char in text
    )
