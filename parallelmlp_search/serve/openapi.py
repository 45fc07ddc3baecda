"""OpenAPI description of the path /predict, made from the columns and the classes of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.serve.bodies import CSV, JSON, Limits
from parallelmlp_search.serve.columns import ServedColumn
from parallelmlp_search.serve.errors import STATUSES

_REASONS = {
    400: "The body is no JSON, or no CSV table.",
    406: "The client accepts neither JSON nor CSV.",
    413: "The body has too many bytes or rows.",
    415: "The body is of another type.",
    422: "A column is missing, or there are no rows.",
    500: "An error of the server.",
}


def components(
    model: TrainedModel, columns: Sequence[ServedColumn], limits: Limits
) -> dict[str, dict[str, Any]]:
    """Return the schemas of a row, of a request and of its answer.

    Parameters
    ----------
    model
        The model.
    columns
        Columns of a request.
    limits
        Limits of a request.

    Returns
    -------
    dict
        Schema by name.
    """
    row = {
        "type": "object",
        "properties": {column.name: column.schema for column in columns},
        "required": [column.name for column in columns],
        "additionalProperties": True,
        "examples": [{column.name: column.example for column in columns}],
    }
    rows = {"type": "array", "items": _reference("Row"), "minItems": 1, "maxItems": limits.max_rows}
    prediction: dict[str, Any] = {"type": "number"}
    answer: dict[str, Any] = {
        "type": "object",
        "properties": {
            "predictions": {"type": "array", "description": "One for each row."},
            "warnings": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Columns with cells that could not be read; they count as missing.",
            },
        },
        "required": ["predictions"],
    }
    if model.classes is not None:
        prediction = {"enum": model.classes.tolist()}
        names = [str(name) for name in model.classes]
        if model.task == "multilabel":
            properties = {name: {"enum": [0, 1]} for name in names}
            prediction = {"type": "object", "properties": properties, "required": names}
        answer["properties"]["probabilities"] = {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {name: {"type": "number", "minimum": 0, "maximum": 1} for name in names},
                "required": names,
            },
        }
        answer["required"].append("probabilities")
    elif not model.flat_target:
        prediction = {"type": "array", "items": {"type": "number"}}
    answer["properties"]["predictions"]["items"] = prediction
    error = {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}
    return {
        "Row": row,
        "Rows": {"anyOf": [_reference("Row"), rows]},
        "Predictions": answer,
        "Error": error,
    }


def predict_operation() -> dict[str, Any]:
    """Return the parameters of FastAPI that describe the path /predict."""
    failed = {JSON: {"schema": _reference("Error")}}
    return {
        "summary": "Predict rows",
        "description": "Takes one row as a JSON object, several as an array of objects, or a CSV table "
        "with a header. Other columns are ignored; unseen categories and cells that cannot be read count as "
        "missing.",
        "openapi_extra": {
            "requestBody": {
                "required": True,
                "content": {
                    JSON: {"schema": _reference("Rows")},
                    CSV: {"schema": {"type": "string"}},
                },
            }
        },
        "responses": {
            200: {
                "description": "Predictions of the rows in their order.",
                "content": {
                    JSON: {"schema": _reference("Predictions")},
                    CSV: {"schema": {"type": "string"}},
                },
            },
            **{
                status: {"description": _REASONS[status], "content": failed}
                for status in sorted({*STATUSES.values()} & _REASONS.keys())
            },
        },
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
