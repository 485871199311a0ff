"""What a benchmark found, as text, JSON, Markdown or CSV."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from edgepose.benchmark.accuracy import RESAMPLES, SEED, Evaluation, Figures, Result
from edgepose.build import LoadedModel


class Interval(NamedTuple):
    """Both ends of a 95% interval."""

    low: float
    high: float


Value = str | int | float | Interval | None
Row = Mapping[str, Value]

FIGURES: Final = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar": "AR"}
DIFFERENCE: Final = "ap_difference"

_INTERVAL: Final = "_interval_95"
"""Ends the key of the interval that belongs to a figure."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column for people: the key of a row's value, its title, and how the value is written.

    The interval of the figure stands beside it where the row has one.
    """

    key: str
    title: str
    written: Callable[[float], str] | None = None

    def cell(self, row: Row) -> str:
        """Return the text of one cell."""
        value = row.get(self.key)
        if value is None or isinstance(value, Interval):
            return "-"
        if self.written is None or isinstance(value, str):
            return str(value)
        text = self.written(value)
        interval = row.get(self.key + _INTERVAL)
        if isinstance(interval, Interval):
            text += f" [{self.written(interval.low)}, {self.written(interval.high)}]"
        return text


@dataclass(frozen=True, slots=True)
class Section:
    """One table: what it is about, its columns for people, and its rows.

    Rows hold more than the columns show: JSON and CSV give every key. `kind` names the list that
    the rows belong to in JSON.
    """

    kind: str
    title: str
    about: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All tables of one run, and what is to be said about them once."""

    sections: tuple[Section, ...]
    notes: tuple[str, ...]

    def rendered(self, output_format: str) -> str:
        """Return the report as `table`, `json`, `markdown` or `csv`, with a newline at its end."""
        writers = {
            "table": self._as_table,
            "json": self._as_json,
            "markdown": self._as_markdown,
            "csv": self._as_csv,
        }
        return writers[output_format]().rstrip("\n") + "\n"

    def _as_table(self) -> str:
        blocks = []
        for section in self.sections:
            lines = [[column.title for column in section.columns], *_cells(section)]
            widths = [max(map(len, texts)) for texts in zip(*lines, strict=True)]
            blocks.append(f"{section.title}: {section.about}\n" + _aligned(lines, widths))
        return "\n\n".join((*blocks, "\n".join(self.notes)))

    def _as_markdown(self) -> str:
        blocks = []
        for section in self.sections:
            titles = [column.title for column in section.columns]
            rows = [titles, ["---", *("---:" for _ in titles[1:])], *_cells(section)]
            table = "\n".join(f"| {' | '.join(map(_escaped, row))} |" for row in rows)
            blocks.append(f"### {section.title}\n\n{section.about}\n\n{table}")
        return "\n\n".join((*blocks, "\n".join(f"- {note}" for note in self.notes)))

    def _as_json(self) -> str:
        tables: dict[str, list[dict[str, object]]] = {}
        for section in self.sections:
            tables.setdefault(section.kind, []).extend(
                {"about": section.about, **row} for row in section.rows
            )
        return json.dumps({**tables, "notes": self.notes}, indent=2, ensure_ascii=False)

    def _as_csv(self) -> str:
        rows = [_flat(row) for section in self.sections for row in section.rows]
        keys = dict.fromkeys(key for row in rows for key in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(keys), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def accuracy_sections(
    evaluation: Evaluation,
    models: Sequence[LoadedModel],
    labels: Sequence[str],
    against: int | None = None,
) -> tuple[Section, ...]:
    """Return one table a protocol; `against` is the model that the others are compared with."""
    return tuple(
        _accuracy_section(result, models, labels, against, len(evaluation.left_out))
        for result in evaluation.results
    )


def accuracy_notes(pycocotools: str, against: str | None, left_out: int) -> tuple[str, ...]:
    """Return how the figures came about."""
    notes = [
        (
            f"AP and AR (pycocotools {pycocotools}): average precision and recall x 100, mean over "
            "OKS .50 to .95. No pose threshold applies."
        ),
        f"In brackets: 95% interval, bootstrap over pictures ({RESAMPLES} resamples, seed {SEED}).",
    ]
    if against is not None:
        notes.append(
            f"To {against}: difference in AP on the same pictures, with its own (paired) interval."
        )
    if left_out:
        notes.append(f"{left_out} pictures could not be used and are left out for every model.")
    return tuple(notes)


def _accuracy_section(
    result: Result,
    models: Sequence[LoadedModel],
    labels: Sequence[str],
    against: int | None,
    left_out: int,
) -> Section:
    columns = [
        Column("model", "model"),
        Column("bytes", "MB", _megabytes),
        *(Column(key, title, _plain) for key, title in FIGURES.items()),
    ]
    if against is not None:
        columns.append(Column(DIFFERENCE, f"AP to {labels[against]}", _signed))
    rows = []
    for index, (model, label, score) in enumerate(zip(models, labels, result.scores, strict=True)):
        row: dict[str, Value] = {
            "model": label,
            "bytes": model.path.stat().st_size,
            "device": model.device,
            "protocol": result.protocol.name,
            "pictures": result.pictures,
            "persons": result.persons,
            "left_out": left_out,
        }
        for place, key in enumerate(Figures._fields):
            row[key] = _percent(score.figures[place])
            row[key + _INTERVAL] = _interval(score.interval(place))
        if against is not None:
            value, interval = score.difference(result.scores[against])
            itself = index == against
            row["against"] = labels[against]
            row[DIFFERENCE] = None if itself else _percent(value)
            row[DIFFERENCE + _INTERVAL] = None if itself else _interval(interval)
        rows.append(row)
    return Section(
        "accuracy",
        result.protocol.name,
        f"{result.protocol.description}. {result.pictures} pictures, {result.persons} persons",
        tuple(columns),
        tuple(rows),
    )


def _cells(section: Section) -> list[list[str]]:
    return [[column.cell(row) for column in section.columns] for row in section.rows]


def _aligned(lines: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    return "\n".join(
        "  ".join(
            # Names to the left, figures to the right.
            text.rjust(width) if index else text.ljust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _flat(row: Row) -> dict[str, Value]:
    """Return a row with an interval as two values."""
    flat: dict[str, Value] = {}
    for key, value in row.items():
        if key.endswith(_INTERVAL):
            low, high = value if isinstance(value, Interval) else (None, None)
            flat[f"{key}_low"], flat[f"{key}_high"] = low, high
        else:
            flat[key] = value
    return flat


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _percent(share: float) -> float:
    return round(share * 100, 3)


def _interval(ends: tuple[float, float] | None) -> Interval | None:
    return None if ends is None else Interval(_percent(ends[0]), _percent(ends[1]))


def _plain(value: float) -> str:
    return f"{value:.1f}"


def _signed(value: float) -> str:
    return f"{value:+.1f}"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.1f}"
