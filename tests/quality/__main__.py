"""`make quality`: measure, and print the tables of the documents.

Each measurement is a module beside this one. `--write` puts its table into its document, between
`<!-- begin of the table NAME by make quality -->` and `<!-- end -->`.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Final

from tests.conftest import HAS_SHARED, ROOT
from tests.quality import ghosts, images, smoothing, subject, tracking, turned

MEASUREMENTS: Final[dict[str, tuple[str, Callable[[], str]]]] = {
    "tracking": ("people.md", tracking.table),
    "smoothing": ("people.md", smoothing.table),
    "images": ("models.md", images.table),
    "ghosts": ("models.md", ghosts.table),
    "turned": ("single-pose.md", turned.table),
    "subject": ("single-pose.md", subject.table),
}
"""By name: the document, and the function that measures and returns the table."""
END: Final = "<!-- end -->\n"


def main() -> None:
    """Print the tables, and write them into their documents if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(MEASUREMENTS)}; all if none is given"
    )
    parser.add_argument("--write", action="store_true", help="write the tables into the documents")
    options = parser.parse_args()
    if unknown := set(options.names) - set(MEASUREMENTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    # The others need the images and clips beside a developer's checkout.
    for name in options.names or (MEASUREMENTS if HAS_SHARED else ["tracking"]):
        document, measure = MEASUREMENTS[name]
        table = measure()
        sys.stdout.write(table)
        if options.write:
            write(name, document, table)


def write(name: str, document: str, table: str) -> None:
    """Replace a table of a document in docs/."""
    path = ROOT / "docs" / document
    begin = f"<!-- begin of the table {name} by make quality -->\n"
    before, found, rest = path.read_text().partition(begin)
    if not (found and END in rest):
        raise SystemExit(f"docs/{document} has no table {name}: {begin.strip()} ... {END.strip()}")
    path.write_text(before + begin + table + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
