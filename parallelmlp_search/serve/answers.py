"""Answers to requests, as JSON or CSV."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
from starlette.responses import Response

from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.inference.requests import Answer
from parallelmlp_search.serve.bodies import CSV, JSON
from parallelmlp_search.serve.errors import RequestError

WARNINGS_HEADER = "x-pmlp-warnings"
"""Header with the warnings of an answer in CSV, as a JSON array."""

_MAX_HEADER = 4000


class AnswerWriter:
    """Writes the predictions of a model.

    Parameters
    ----------
    model
        The model.
    target
        Name of its target.
    """

    def __init__(self, model: TrainedModel, target: str) -> None:
        self._model, self._target = model, target
        self._classes = [] if model.classes is None else [str(name) for name in model.classes]

    def response(self, answer: Answer, kind: str) -> Response:
        """Return predictions as JSON or CSV."""
        if kind == JSON:
            return json_response(self._content(answer))
        headers = {}
        if answer.notes:
            kept = list(answer.notes)
            while len(json.dumps(kept)) > _MAX_HEADER:
                kept.pop()
            headers[WARNINGS_HEADER] = json.dumps(kept)
        return Response(self._table(answer), media_type=CSV, headers=headers)

    def _content(self, answer: Answer) -> dict[str, Any]:
        values = answer.values
        content: dict[str, Any] = {"predictions": self._predictions(answer)}
        if self._classes:
            content["probabilities"] = [
                dict(zip(self._classes, row, strict=True)) for row in values.T.tolist()
            ]
        if answer.notes:
            content["warnings"] = answer.notes
        return content

    def _predictions(self, answer: Answer) -> list[Any]:
        """Classes, 0 and 1 by label, numbers, or lists of numbers if there are several outputs."""
        values, model = answer.values, self._model
        if model.task == "multilabel":
            rows = model.has_labels(values).T.tolist()
            return [dict(zip(self._classes, row, strict=True)) for row in rows]
        if model.classes is not None:
            labels: list[Any] = model.classes[model.class_numbers(values)].tolist()
            return labels
        found: list[Any] = (values[0] if model.flat_target else values.T).tolist()
        if not np.isfinite(values).all():  # JSON has no infinities
            found = json.loads(json.dumps(found), parse_constant=lambda _: None)
        return found

    def _table(self, answer: Answer) -> bytes:
        """CSV with the columns of ``pmlp predict``, followed by those of ``pmlp predict --proba``."""
        values = answer.values.T
        if self._model.task == "multilabel":
            frame = pd.DataFrame(self._model.has_labels(answer.values).T, columns=self._classes)
            for name, column in zip(self._classes, answer.values, strict=True):
                frame[f"{name}_probability"] = column
        elif self._classes:
            name = self._target
            while name in self._classes:
                name += "_"
            frame = pd.DataFrame(values, columns=self._classes)
            frame.insert(0, name, self._predictions(answer))
        else:
            frame = pd.DataFrame(values, columns=self._model.output_columns(self._target))
        return frame.to_csv(index=False).encode("utf-8", errors="replace")


def json_response(content: Any, status: int = 200) -> Response:
    """Return a value as JSON in ASCII, which also holds half a character from a request."""
    return Response(json.dumps(content, allow_nan=False), status, media_type=JSON)


def error_response(error: RequestError) -> Response:
    """Return the sentence of an error, as FastAPI does for its own."""
    return json_response({"detail": str(error)}, error.status)
