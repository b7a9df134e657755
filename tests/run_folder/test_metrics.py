"""The types of metrics.json: they agree with the JSON Schema, and files come back as they were written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import jsonschema
import pytest
from example_run import METRICS, changed

from lshbench.errors import UsageError
from lshbench.run_folder import Run, RunMetrics, metrics_schema
from lshbench.run_folder.metrics import CodeMetrics, Record
from lshbench.types import MOST_BITS

SCHEMA = metrics_schema()
TYPES = {"string": str, "integer": int, "number": float, "boolean": bool, "null": NoneType}


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    return SCHEMA["$defs"][name] if name else schema


def parts_of(hint: Any) -> set[Any]:
    """Return the alternatives of a type; literals count as the type of their values."""
    if get_origin(hint) in (Union, UnionType):
        return set().union(*(parts_of(part) for part in get_args(hint)))
    return {type(value) for value in get_args(hint)} if get_origin(hint) is Literal else {hint}


def disagreements(hint: Any, schema: dict[str, Any], where: str) -> list[str]:
    """Return where a type and a schema differ: in keys, in what is required, or in the values' types."""
    schema = resolved(schema)
    options = [option for option in schema.get("oneOf", ()) if option != {"type": "null"}]
    if options:
        optional = get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)
        rest = next(part for part in get_args(hint) if part is not NoneType)
        return [*([] if optional else [f"{where} is never None"]), *disagreements(rest, options[0], where)]
    required: tuple[str, ...] = ()
    if get_origin(hint) is Annotated:
        hint, required = get_args(hint)
    kinds = schema.get("type", [])
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    if "object" in kinds:
        if (NoneType in parts_of(hint)) != ("null" in kinds):
            return [f"{where} may be None in one of them only"]
        hint = next(part for part in parts_of(hint) if part is not NoneType)
        if get_origin(hint) is Mapping:
            values = get_args(hint)[1]
            below = [*schema.get("properties", {}).values(), schema.get("additionalProperties", {})]
            wrong = [] if set(schema.get("required", ())) == set(required) else [f"{where} requires other keys"]
            if values is Any or not isinstance(below[-1], dict):
                return wrong
            union = not isinstance(values, type) and get_origin(values) is UnionType and len(get_args(values)) > 2
            return wrong + ([] if union else [bad for one in below if one for bad in disagreements(values, one, where)])
        assert issubclass(hint, Record), where
        keys = hint.keys()
        wrong = [f"{where}.{key} in one of them only" for key in set(keys) ^ set(schema["properties"])]
        wrong += [f"{where}.{key} is not required" for key in set(keys) - set(schema["required"])]
        for key in set(keys) & set(schema["properties"]):
            wrong += disagreements(keys[key][1], schema["properties"][key], f"{where}.{key}")
        return wrong
    if "array" in kinds:
        return disagreements(get_args(hint)[0], schema["items"], f"{where}[]")
    if literals := schema.get("enum", [schema["const"]] if "const" in schema else None):
        same = set(get_args(hint)) == set(literals) or {type(value) for value in literals} == {hint}
        return [] if same else [f"{where} has other values"]
    expected = {TYPES[kind] for kind in kinds}
    return [] if parts_of(hint) == expected else [f"{where}: {parts_of(hint)} and {expected}"]


def test_types_and_schema_agree() -> None:
    assert disagreements(RunMetrics, SCHEMA, "") == []


def test_the_schema_allows_the_lengths_that_codes_may_have() -> None:
    bits = SCHEMA["properties"]["method"]["properties"]["bits"]
    assert (bits["minimum"], bits["maximum"]) == (1, MOST_BITS)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("dataset/properties/gallery", {"type": "string"}),
        ("dataset/properties/backbone", {"type": "string"}),
        ("protocol/properties/classes/required", ["queries"]),
        ("ranking", {"enum": ["hamming"]}),
        ("search/properties/extra", {"type": "integer"}),
        ("codes/required", ["bit_balance"]),
        ("ties/additionalProperties/properties/expected", {"type": "number"}),
        ("reference/properties/cosine", {"$ref": "#/$defs/headline"}),
    ],
)
def test_a_schema_that_disagrees_is_seen(path: str, value: object) -> None:
    assert disagreements(RunMetrics, changed(f"properties/{path}", value, SCHEMA), "")


def test_a_file_comes_back_as_it_was_written() -> None:
    metrics = RunMetrics.from_json(json.loads(json.dumps(METRICS)))
    assert metrics.search.recall_at_10_cosine == 0.9
    assert metrics.protocol.classes["train"].largest == 500
    assert metrics.to_json() == METRICS
    assert RunMetrics.from_json(metrics.to_json()) == metrics
    jsonschema.validate(metrics.to_json(), SCHEMA)


def test_codes_without_bits_have_no_figures() -> None:
    assert set(CodeMetrics().to_json()) == set(METRICS["codes"])
    assert set(CodeMetrics().to_json().values()) == {None}


def test_a_run_of_an_earlier_version_has_no_classifier() -> None:
    assert RunMetrics.from_json(changed("reference/classifier", KeyError)).reference.classifier is None


def test_keys_that_are_not_known_are_ignored() -> None:
    assert RunMetrics.from_json(changed("dataset/colour", "red") | {"new": 1}).to_json() == METRICS


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("method/bits", "64", "method.bits is '64'"),
        ("method/bits", KeyError, "method.bits is missing"),
        ("method/supervision", "some", "method.supervision is 'some'"),
        ("dataset/gallery", 1.5, "dataset.gallery is 1.5"),
        ("dataset/gallery", True, "dataset.gallery is True"),
        ("metrics/mAP", [1], r"metrics.mAP is \[1\]"),
        ("metrics/mAP", KeyError, "metrics.mAP is missing"),
        ("reference/cosine/P@50", KeyError, "reference.cosine.P@50 is missing"),
        ("reference/classifier/accuracy", KeyError, "reference.classifier.accuracy is missing"),
        ("ties/mAP", {"expected": 0.3}, "ties.mAP.optimistic is missing"),
        ("codes/buckets", 3, "codes.buckets is 3"),
        ("search", [], r"search is \[\]"),
        ("command", ["lshbench", 1], r"command\[1\] is 1"),
        ("environment/directory", KeyError, "environment.directory is missing"),
    ],
)
def test_a_damaged_file_is_named_with_the_field(tmp_path: Path, path: str, value: object, message: str) -> None:
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(changed(path, value)))
    with pytest.raises(UsageError, match=f"{file} is damaged: {message}"):
        Run.open(tmp_path)
