"""`docs/benchmark.schema.json` accepts documents and rejects invalid ones, as `read` does."""

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from edgepose.benchmark import results
from edgepose.benchmark.results import encode
from tests.benchmark_documents import accuracy_row, document, latency_row, pipeline_row
from tests.requirements import missing

SCHEMA = Path(__file__).parents[2] / "docs" / "benchmark.schema.json"


@pytest.fixture
def jsonschema() -> Any:
    if importlib.util.find_spec("jsonschema") is None:
        missing("jsonschema is not installed; it checks the published schema")
    return importlib.import_module("jsonschema")


def full(folder: Path) -> dict[str, Any]:
    refused = latency_row(latency_ms=None, rounds=None, not_run="no such operator")
    written = document(
        folder,
        latency=(latency_row(), refused, latency_row(map=40.0, map_protocol="single")),
        accuracy=(accuracy_row(),),
        pipeline=(pipeline_row(),),
        edge_tpus=(results.EdgeTpuPort(bus="usb", usb_mbit_per_s=5000),),
    )
    data = json.loads(encode(written))
    assert isinstance(data, dict)
    return data


def test_schema_accepts_document(tmp_path: Path, jsonschema: Any) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(full(tmp_path), schema, jsonschema.Draft202012Validator)


def damaged(data: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    *parents, last = path.split("/")
    place: Any = data
    for key in parents:
        place = place[int(key) if key.isdigit() else key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", 2),
        ("kind", "other"),
        ("machine", None),
        ("latency/0/model", 3),
        ("latency/0/latency_ms/p50", -1.0),
        ("latency/0/latency_ms/p99", None),
        ("latency/0/threads", 0),
        ("latency/0/doubtful", "spread"),
        ("accuracy/0/ap", "high"),
        ("pipeline/0/pipeline_to_invoke_ratio", None),
        ("pipeline/0/stages_ms/invoke/share", 1.5),
        ("before/throttling", 5),
        ("created_at", None),
    ],
)
def test_schema_rejects_damaged_document(
    tmp_path: Path, path: str, value: object, jsonschema: Any
) -> None:
    data = damaged(full(tmp_path / "pi"), path, value)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json.loads(SCHEMA.read_text()))
    # `read` rejects it too.
    file = tmp_path / "damaged.json"
    file.write_text(json.dumps(data))
    with pytest.raises(OSError, match=r"damaged\.json"):
        results.read(file)


def test_schema_accepts_unknown_fields(tmp_path: Path, jsonschema: Any) -> None:
    data = damaged(full(tmp_path / "pi"), "latency/0/joules", 0.2)
    jsonschema.validate(data, json.loads(SCHEMA.read_text()))
    file = tmp_path / "later.json"
    file.write_text(json.dumps(data))
    assert results.read(file).latency[0].threads == 1
