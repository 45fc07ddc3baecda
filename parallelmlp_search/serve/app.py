"""The application: paths to predict, to describe the model, and to watch the server."""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import PlainTextResponse, RedirectResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from parallelmlp_search import __version__
from parallelmlp_search.exceptions import PMLPError, PMLPWarning, one_line
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.inference.requests import Answer, RequestPredictor, Row
from parallelmlp_search.runs import load_model
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.serve.answers import AnswerWriter, error_response
from parallelmlp_search.serve.batching import Batcher
from parallelmlp_search.serve.bodies import (
    CSV,
    Limits,
    answer_type,
    check_columns,
    content_type,
    csv_frame,
    json_rows,
    read_body,
)
from parallelmlp_search.serve.columns import served_columns
from parallelmlp_search.serve.errors import RequestError
from parallelmlp_search.serve.metrics import MEDIA_TYPE, Metrics
from parallelmlp_search.serve.openapi import components, predict_operation

MAX_SHARED_ROWS = 16
"""Rows of a JSON request up to which it is computed together with others."""

PREDICT = "/predict"

logger = logging.getLogger("uvicorn.error")


class PredictionService:
    """Predicts the rows of requests and counts them.

    JSON requests of few rows are batched in the event loop. All others take longer, so they are computed in a
    thread, one after another, as ``pmlp predict`` would.

    Parameters
    ----------
    model, target
        The model, and the name of its target.
    limits
        Limits of requests.
    metrics
        Counters.
    """

    def __init__(self, model: TrainedModel, target: str, limits: Limits, metrics: Metrics) -> None:
        self.model, self.limits, self.metrics = model, limits, metrics
        self.predictor = RequestPredictor(model)
        self._writer = AnswerWriter(model, target)
        self._is_shared = RequestPredictor.can_predict(model)
        self._batcher: Batcher[Any, Answer] = Batcher(
            self.predictor.answers, lambda n_rows: metrics.observe("pmlp_batch_rows", n_rows)
        )
        self._thread = ThreadPoolExecutor(1)

    async def respond(self, request: Request) -> Response:
        """Answer a request to predict, whatever it holds."""
        began = time.perf_counter()
        try:
            response = await self._predict(request)
        except RequestError as error:
            response = self._refuse(error)
        except ClientDisconnect:
            response = self._refuse(RequestError("disconnected", "the client has gone"))
        except Exception:
            logger.exception("a prediction failed")
            response = self._refuse(
                RequestError("internal", "an error of the server: its log has the details")
            )
        self.metrics.count("pmlp_requests_total", str(response.status_code))
        self.metrics.observe("pmlp_request_seconds", time.perf_counter() - began)
        return response

    def _refuse(self, error: RequestError) -> Response:
        self.metrics.count("pmlp_errors_total", error.kind)
        return error_response(error)

    async def _predict(self, request: Request) -> Response:
        kind, wanted = content_type(request), answer_type(request)
        body = await read_body(request, self.limits)
        answer = await (self._of_csv(body) if kind == CSV else self._of_json(body))
        self.metrics.count("pmlp_rows_total", amount=answer.values.shape[1])
        if answer.notes:
            self.metrics.count("pmlp_warnings_total")
        return self._writer.response(answer, wanted)

    async def _of_json(self, body: bytes) -> Answer:
        rows = json_rows(body)
        self.limits.check_rows(len(rows))
        checked = check_columns(rows, self.predictor.needed)
        if len(rows) <= MAX_SHARED_ROWS and self._is_shared:
            return await self._batcher.answer(checked)
        return await self._in_thread(lambda: self._frame(checked))

    def _frame(self, rows: Sequence[Row]) -> pd.DataFrame:
        frame = pd.DataFrame(list(rows))
        if self.model.folds[0].encoder.named:
            return frame
        return frame.reindex(columns=self.model.feature_names)  # columns without names are found by place

    async def _of_csv(self, body: bytes) -> Answer:
        return await self._in_thread(lambda: csv_frame(body, self.limits))

    async def _in_thread(self, table: Callable[[], pd.DataFrame]) -> Answer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._answer, table)

    def _answer(self, table: Callable[[], pd.DataFrame]) -> Answer:
        """Predict the rows of a table. Only one thread records warnings, which all threads share."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PMLPWarning)
            frame = table()
            self.limits.check_rows(len(frame))
            self.metrics.observe("pmlp_batch_rows", len(frame))
            try:
                values = self.model.predictions(frame)
            except PMLPError as error:
                raise RequestError("rows", one_line(error)) from None
        found = [str(one.message) for one in caught if issubclass(one.category, PMLPWarning)]
        return Answer(values, list(dict.fromkeys(found)))


class Application(FastAPI):
    """FastAPI application whose path /predict is answered before its middleware and its dependencies.

    Parameters
    ----------
    service
        Predictions.
    **options
        Parameters of FastAPI.
    """

    def __init__(self, service: PredictionService, **options: Any) -> None:
        super().__init__(**options)
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and scope["path"] == PREDICT and scope["method"] == "POST":
            response = await self._service.respond(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(run: Path, limits: Limits, metrics: Metrics) -> FastAPI:
    """Return the application that serves the model of a run.

    Parameters
    ----------
    run
        Folder of the run.
    limits, metrics
        Limits of requests, and counters.

    Returns
    -------
    fastapi.FastAPI
    """
    directory = RunDirectory.open(run)
    model, result = load_model(directory), directory.result()
    source = directory.info().get("source") or {}
    target = str(source.get("target") or model.target_name or "prediction")
    service = PredictionService(model, target, limits, metrics)
    columns = served_columns(model, service.predictor.needed, directory.columns())
    facts = {
        "run": directory.path.resolve().name,
        "version": __version__,
        "task": model.task,
        "target": target,
        "classes": None if model.classes is None else model.classes.tolist(),
        "outputs": None if model.output_names is None else list(model.output_names),
        "metric": result["metric"],
        "honest_score": None if result["honest"] is None else result["honest"]["score"],
        "max_rows": limits.max_rows,
        "max_bytes": limits.max_bytes,
    }
    app = Application(service, title=f"Predictions of {target}", version=__version__, redoc_url=None)
    app.add_api_route(
        "/predict",
        service.respond,
        methods=["POST"],
        operation_id="predict",
        response_model=None,
        **predict_operation(),
    )
    _add_facts(app, facts, [column.to_dict() for column in columns], metrics)
    score = (
        facts["metric"] if facts["honest_score"] is None else f"{facts['metric']} {facts['honest_score']:.4g}"
    )
    schemas = components(model, columns, limits)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=app.title,
                version=app.version,
                description=f"Model of the run {facts['run']!r}: {model.task}, honest {score}.",
                routes=app.routes,
            )
            found.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _add_facts(
    app: FastAPI, facts: Mapping[str, Any], columns: list[dict[str, Any]], metrics: Metrics
) -> None:
    """Add the paths that take no rows."""

    @app.get("/health", summary="Say that the server answers")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/schema", summary="Describe the model and its columns")
    async def schema() -> dict[str, Any]:
        return {**facts, "columns": columns}

    @app.get(
        "/metrics", summary="Count requests, in the format of Prometheus", response_class=PlainTextResponse
    )
    async def counters() -> Response:
        return Response(metrics.text(), media_type=MEDIA_TYPE)

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        return RedirectResponse("/docs")
