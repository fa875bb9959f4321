"""What was trained, in words and as a schema: for GET /model, for the page, and for /docs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.predicting import Predictor
from engine.rows import RowProcessing
from engine.writing import Style
from serving.inputs import EXPECTED, FIELD, FORMATS
from serving.limits import Limits

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
EXPLAIN: Schema = {"type": "boolean", "default": False, "description": "whether records also say which words decided"}


def describe(predictor: Predictor, limits: Limits) -> dict[str, Any]:
    """What GET /model answers. What the task does not have is left out."""
    processing, data, about = predictor.processing, predictor.params.data, predictor.about
    tags = getattr(data, "tags", [])
    known = {
        "classes": getattr(data, "classes", []),
        "label_columns": getattr(data, "label_columns", []),
        "tags": tags,
        "tag_types": sorted({tag[2:] for tag in tags if tag[1:2] == "-"}),
        "columns": processing.describe_columns() if isinstance(processing, RowProcessing) else [],
        "explains": predictor.can_explain,
        "writes": Style._field_defaults if processing.writes else {},
    }
    return {
        "task": predictor.task,
        "accepts": processing.accepts,
        **{name: value for name, value in known.items() if value},
        "weights": Path(about.path).name,
        "epoch": about.epoch,
        "trained": about.trained,
        "metrics": about.metrics,
        "limits": {name: getattr(limits, name) for name in ("body_bytes", "inputs", "pixels", "characters")},
    }


def describe_predict(predictor: Predictor, limits: Limits) -> Schema:
    """POST /predict in OpenAPI."""
    accepts = predictor.processing.accepts
    answer = {"schema": {"$ref": "#/components/schemas/Predictions"}}
    statuses = {
        "200": "A record for each input, in order. An input that cannot be read has an `error`; others are answered.",
        "422": "None of the inputs could be answered, or the body does not have the expected fields.",
        "400": "The body is not JSON, or no form, or cut off.",
        "408": "The body did not arrive in time.",
        "413": f"More than {limits.body_bytes:,} bytes, or more than {limits.inputs} inputs.",
        "415": "Another Content-Type was expected.",
        "429": "Too many inputs are waiting.",
    }
    return {
        "summary": "Answer",
        "description": f"Expects {EXPECTED[accepts]}. Requests that arrive together are computed as one batch.",
        "operationId": "predict",
        "requestBody": {"required": True, "content": _describe_request(predictor, limits)},
        "responses": {
            status: {
                "description": text,
                "content": {"application/json": answer if status == "200" else ERROR},
            }
            for status, text in statuses.items()
        },
    }


def describe_write() -> Schema:
    """POST /write in OpenAPI."""
    properties: Schema = {"prompt": {**TEXT, "description": "what the text begins with; may be empty"}}
    for name, default in Style._field_defaults.items():
        properties[name] = {"type": "integer" if isinstance(default, int) else "number", "default": default}
    body = {"type": "object", "properties": properties, "required": ["prompt"], "additionalProperties": False}
    example = {"prompt": "ROMEO:", "length": 500, "temperature": 0.8}
    return {
        "summary": "Go on from a beginning",
        "description": "The answer is text, which arrives while it is written.",
        "operationId": "write",
        "requestBody": {"required": True, "content": {"application/json": {"schema": body, "example": example}}},
        "responses": {
            "200": {"description": "The text behind the prompt", "content": {"text/plain": {"schema": TEXT}}},
            "4XX": {"description": "What was wrong, and what was expected", "content": {"application/json": ERROR}},
        },
    }


def _describe_request(predictor: Predictor, limits: Limits) -> Schema:
    accepts = predictor.processing.accepts
    if accepts == "images":
        about = f"Photos: {', '.join(FORMATS)}, of {limits.pixels:,} pixels at most"
        photo = {"type": "string", "contentMediaType": "application/octet-stream"}
        files = {"type": "array", "items": photo, "minItems": 1, "maxItems": limits.inputs, "description": about}
        return {"multipart/form-data": {"schema": _closed({FIELD: files})}}
    if accepts == "texts":
        words = {"type": "array", "items": TEXT, "description": "the words of a text"}
        item: Schema = {"oneOf": [{**TEXT, "maxLength": limits.characters}, words]}
        example: Any = "Anna Smith lives in London ."
    else:
        assert isinstance(predictor.processing, RowProcessing)
        columns = predictor.processing.describe_columns()
        properties = {column["name"]: _describe_column(column) for column in columns}
        item = {"type": "object", "properties": properties, "required": [*properties]}
        example = {column["name"]: _example(column) for column in columns}
    inputs = {"type": "array", "items": item, "minItems": 1, "maxItems": limits.inputs}
    schema = _closed({"inputs": inputs})
    if predictor.can_explain:
        schema["properties"]["explain"] = EXPLAIN
    return {"application/json": {"schema": schema, "example": {"inputs": [example]}}}


def _example(column: dict[str, Any]) -> Any:
    if column["kind"] == "number":
        return column.get("mean", 0)
    return next(filter(None, column.get("words", [])), "")


def _describe_column(column: dict[str, Any]) -> Schema:
    if column["kind"] == "number":
        return {"type": ["number", "null"], "description": "null, or an empty text, is a missing value"}
    about = f"one of {', '.join(filter(None, column['words'][:50]))}" if column.get("words") else "a word"
    return {"type": "string", "description": about}


def _closed(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


RECORD: Schema = {
    "type": "object",
    "description": "An input that cannot be read has `input` and `error` only. A task may add fields of its own.",
    "properties": {
        "input": {"description": "the text or row, or the file name of a photo"},
        "prediction": {"description": "a class, a list of labels or of tags, a number, or an object of numbers"},
        "probability": {"type": ["number", "null"], "description": "of the prediction; null for numbers"},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
        "words": {"type": "array", "items": TEXT, "description": "of a text, one for each tag or influence"},
        "influence": {
            "type": "array",
            "items": {"type": "number"},
            "description": "of each word: positive for the prediction, negative against it",
        },
        "word_spans": {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer"}},
            "description": "the first character of each word, and the last + 1",
        },
        "spans": {
            "type": "array",
            "description": "names found in a text; start and end count its characters",
            "items": {
                "type": "object",
                "properties": {
                    "type": TEXT,
                    "text": TEXT,
                    "start": {"type": "integer"},
                    "end": {"type": "integer"},
                    "words": {
                        "type": "array",
                        "items": {"type": "integer"},
                        "description": "the first, and the last + 1",
                    },
                },
            },
        },
        "error": TEXT,
    },
    "required": ["input"],
}
SCHEMAS: Schema = {
    "Record": RECORD,
    "Predictions": {
        "type": "object",
        "properties": {"predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Record"}}},
        "required": ["predictions"],
    },
    "Error": {
        "type": "object",
        "properties": {
            "error": {**TEXT, "description": "what was wrong, and what was expected"},
            "predictions": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/Record"},
                "description": "if each input failed for a reason of its own",
            },
        },
        "required": ["error"],
    },
}
ERROR: Schema = {"schema": {"$ref": "#/components/schemas/Error"}}
