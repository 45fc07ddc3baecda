"""Requests and answers of the application, without a server."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallelmlp_search import ParallelMLPClassifier, ParallelMLPRegressor, load
from parallelmlp_search.data import read_table
from parallelmlp_search.inference import Ensemble, TrainedModel
from parallelmlp_search.serve.app import MAX_SHARED_ROWS, create_app
from parallelmlp_search.serve.bodies import Limits
from parallelmlp_search.serve.metrics import Metrics
from tests.serve.client import Client, Reply, rows_of
from tests.serve.conftest import SEARCH, offers, people

Clients = Callable[..., Client]


def probabilities(reply: Reply) -> np.ndarray[Any, Any]:
    assert reply.status == 200, reply.body
    return np.array([list(row.values()) for row in reply.content["probabilities"]])


@pytest.mark.parametrize("n_rows", [1, 3, MAX_SHARED_ROWS, MAX_SHARED_ROWS + 1, 200])
def test_answers_are_the_predictions_of_the_estimator(
    n_rows: int, people_run: Path, client_of: Clients
) -> None:
    model, frame = load(people_run), people().head(n_rows)
    rows = rows_of(frame)
    reply = client_of(people_run).post(rows[0] if n_rows == 1 else rows)
    np.testing.assert_array_equal(probabilities(reply), model.predict_proba(frame))
    assert reply.content["predictions"] == model.predict(frame).tolist()
    assert list(reply.content["probabilities"][0]) == ["no", "yes"]
    assert "warnings" not in reply.content
    assert abs(probabilities(reply) - model.predict_proba(frame.iloc[::-1])).max() > 0.01 or n_rows == 1


@pytest.mark.parametrize("kind", ["labels", "numbers"])
def test_several_targets_are_answered_by_name(kind: str, tmp_path: Path, client_of: Clients) -> None:
    frame, run = people(120), tmp_path / "run"
    target = pd.DataFrame({"fit": frame["hours"] > 40, "old": frame["age"] > 50}).astype(int)
    if kind == "labels":
        model: Any = ParallelMLPClassifier(**SEARCH, run_directory=run).fit(frame, target)
    else:
        model = ParallelMLPRegressor(**SEARCH, run_directory=run).fit(frame, target)
    client, rows = client_of(run), rows_of(frame.head(3))
    predicted = model.predict(frame.head(3))
    table = pd.read_csv(io.StringIO(client.post(rows, accept="text/csv").body.decode()))
    np.testing.assert_allclose(table[["fit", "old"]], predicted, rtol=1e-12)
    content = client.post(rows).content
    schema = client.get("/openapi.json").content["components"]["schemas"]["Predictions"]
    item = schema["properties"]["predictions"]["items"]
    if kind == "labels":
        assert content["predictions"] == [{"fit": a, "old": b} for a, b in predicted.tolist()]
        found = [list(row.values()) for row in content["probabilities"]]
        np.testing.assert_array_equal(found, model.predict_proba(frame.head(3)))
        np.testing.assert_allclose(table[["fit_probability", "old_probability"]], found, rtol=1e-12)
        assert item["properties"]["fit"] == {"enum": [0, 1]}
    else:
        assert content["predictions"] == predicted.tolist()
        assert item["type"] == "array"
    assert client.get("/schema").content["outputs"] == ["fit", "old"]


@pytest.mark.parametrize("n_rows", [1, 2, 9, 40])
def test_cells_with_readers_are_read_as_in_a_table(n_rows: int, offers_run: Path, client_of: Clients) -> None:
    model, frame = load(offers_run), offers().tail(n_rows)
    assert set(model.columns_["kind"]) == {"currency", "duration", "list", "datetime", "text"}
    reply = client_of(offers_run).post(rows_of(frame))
    np.testing.assert_array_equal(reply.content["predictions"], model.predict(frame))
    numbers = [1250.0, 1800, ["red", "old"], "2021-05-01", "warm and dry"]
    row = dict(zip(frame.columns, numbers, strict=True))
    found = client_of(offers_run).post(row).content
    assert found == {"predictions": model.predict(pd.DataFrame([row])).tolist()}


def test_csv_is_read_as_pmlp_predict_reads_it(people_run: Path, client_of: Clients, tmp_path: Path) -> None:
    model, frame = load(people_run), people().head(30)
    for delimiter, decimal in ((",", "."), (";", ",")):
        others = frame.assign(pays="?", extra=1)
        others.to_csv(tmp_path / "rows.csv", index=False, sep=delimiter, decimal=decimal)
        body = (tmp_path / "rows.csv").read_bytes()
        reply = client_of(people_run).post(body, content_type="text/csv; charset=utf-8", accept="text/csv")
        assert reply.headers["content-type"] == "text/csv; charset=utf-8"
        table = pd.read_csv(io.BytesIO(reply.body))
        expected = model.predict_proba(read_table(tmp_path / "rows.csv")[frame.columns])
        assert list(table.columns) == ["pays", "no", "yes"]
        np.testing.assert_array_equal(table[["no", "yes"]], expected)
        assert table["pays"].tolist() == model.predict(frame).tolist()


def test_json_can_be_answered_in_csv_and_the_other_way_round(people_run: Path, client_of: Clients) -> None:
    frame, client = people().head(4), client_of(people_run)
    as_json = client.post(frame.to_csv(index=False).encode(), content_type="text/csv")
    as_csv = client.post(rows_of(frame), accept="text/csv, application/json;q=0.5")
    table = pd.read_csv(io.BytesIO(as_csv.body))
    np.testing.assert_allclose(probabilities(as_json), table[["no", "yes"]], rtol=1e-12)


def test_concurrent_requests_share_batches(people_run: Path, client_of: Clients) -> None:
    model, frame, client = load(people_run), people(), client_of(people_run)
    rows = rows_of(frame)

    async def all_at_once() -> list[Reply]:
        return await asyncio.gather(*(client.send("POST", "/predict", row) for row in rows))

    replies = asyncio.run(all_at_once())
    found = np.concatenate([probabilities(reply) for reply in replies])
    # products of other numbers of rows are rounded differently in single precision
    np.testing.assert_allclose(found, model.predict_proba(frame), atol=2e-6)
    counters = client.get("/metrics").body.decode()
    assert "pmlp_batch_rows_sum 400\n" in counters
    (batches,) = (line for line in counters.splitlines() if line.startswith("pmlp_batch_rows_count"))
    assert int(batches.split()[1]) < 20


def test_cells_that_cannot_be_read_count_as_missing_with_a_warning(
    people_run: Path, client_of: Clients
) -> None:
    client, row = client_of(people_run), rows_of(people().head(1))[0]
    odd = row | {"age": "many", "since": [1], "town": "Paris", "hours": "41.5", "unknown": 3}
    reply = client.post([odd, row])
    assert reply.content["warnings"] == [
        "column 'age' was numeric in training, but 'many' cannot be read as such; it counts as missing",
        "column 'since' was datetime in training, but '[1]' cannot be read as such; it counts as missing",
    ]
    plain = client.post([row | {"age": None, "since": None, "town": None, "hours": 41.5}, row])
    assert reply.content["probabilities"] == plain.content["probabilities"]
    as_csv = client.post(odd, accept="text/csv")
    assert json.loads(as_csv.headers["x-pmlp-warnings"])[0].startswith("column 'age' was numeric")
    assert "pmlp_warnings_total 2\n" in client.get("/metrics").body.decode()


ROW = {"age": 30, "hours": 40, "town": "Bern", "member": True, "since": "2020-01-01"}


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"{", {}, 400, "the body is not JSON: Expecting property name enclosed in double quotes"),
        (b"", {}, 400, "the body is not JSON: Expecting value"),
        (b"\xff\xfe\xfa", {}, 400, "the body is not JSON: "),
        (b"[" * 100_000, {}, 400, "the body is not JSON: "),
        (b"9" * 5000, {}, 400, "the body is not JSON: "),
        (b"3", {}, 422, "the body must be a JSON object with a value for each column, but is a number"),
        (b"[1]", {}, 422, "element 1 of the array must be a JSON object with a value for each column"),
        (b"[]", {}, 422, "the body has no rows: send at least one"),
        (b"{}", {}, 422, "no column 'age' (and 4 more) in the rows: write null for a value"),
        ({"Age": 3} | {k: v for k, v in ROW.items() if k != "age"}, {}, 422, "did you mean 'Age'?"),
        ([ROW] * 501, {}, 413, "a request may have 500 rows, but this one has 501: send them in several"),
        (b" " * 1_000_001, {}, 413, "a body may have 1,000,000 bytes, but this one has 1,000,001 or more"),
        (b" ", {"content_length": "99999999"}, 413, "but this one has 99,999,999 or more"),
        (ROW, {"content_type": "text/plain"}, 415, "application/json or text/csv, but is 'text/plain'"),
        (ROW, {"content_encoding": "gzip"}, 415, "the body must not be compressed, but is 'gzip'"),
        (ROW, {"accept": "image/png"}, 406, "but the client accepts 'image/png'"),
        (b"age,hours\n", {"content_type": "text/csv"}, 400, "'body' has a header, but no rows"),
        (b"", {"content_type": "text/csv"}, 400, "'body' is empty"),
        (b"a,b\n1,2\n", {"content_type": "text/csv"}, 422, "no column 'age' (and 4 more) in the table"),
        (b"a\n" + b"1\n" * 501, {"content_type": "text/csv"}, 413, "this one has 501"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(
    body: Any, headers: dict[str, str], status: int, message: str, people_run: Path, client_of: Clients
) -> None:
    client = client_of(people_run)
    reply = client.post(body, **headers)
    assert reply.status == status
    assert message in reply.detail
    assert "\n" not in reply.detail
    counters = client.get("/metrics").body.decode()
    assert f'pmlp_requests_total{{status="{status}"}} 1\n' in counters
    assert client.post(ROW).status == 200


def test_bodies_in_parts_are_limited_too(people_run: Path, client_of: Clients) -> None:
    client = client_of(people_run, max_bytes=300)
    assert client.post(ROW, parts=7).status == 200
    assert client.post([ROW] * 5, parts=7).status == 413


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def module_client(people_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(create_app(people_run, Limits(10_000, 100), Metrics(tmp_path_factory.mktemp("counters"))))


@pytest.fixture(scope="module")
def model(people_run: Path) -> TrainedModel:
    return load(people_run).model_


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=60)
    | JSON_VALUES.map(lambda value: json.dumps(value).encode())
    | st.lists(st.fixed_dictionaries(dict.fromkeys(ROW, JSON_VALUES)), max_size=20).map(
        lambda rows: json.dumps(rows).encode()
    ),
    kind=st.sampled_from(["application/json", "text/csv", "text/csv;header=absent", "x", ""]),
)
def test_any_body_has_an_answer(module_client: Client, body: bytes, kind: str) -> None:
    reply = module_client.post(body, content_type=kind)
    assert reply.status in (200, 400, 413, 415, 422)
    if reply.status == 200:
        assert np.isfinite(probabilities(reply)).all()
    else:
        assert reply.detail


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.fixed_dictionaries(dict.fromkeys(ROW, JSON_VALUES)), min_size=1, max_size=6))
def test_any_cells_are_read_as_in_a_table(
    module_client: Client, model: TrainedModel, rows: list[dict[str, Any]]
) -> None:
    body = json.dumps(rows)
    frame = pd.DataFrame(json.loads(body), dtype=object)
    found = probabilities(module_client.post(body.encode()))
    np.testing.assert_array_equal(found, model.predictions(frame).T)


def test_half_a_character_is_answered(people_run: Path, client_of: Clients) -> None:
    client = client_of(people_run)
    reply = client.post(json.dumps(ROW | {"age": "\ud800", "town": "\udfff"}).encode())
    assert reply.content["warnings"][0].startswith(r"column 'age' was numeric in training, but '\ud800'")
    assert client.post(b'{"\\ud800": 1}').status == 422


def test_the_description_names_columns_classes_and_limits(people_run: Path, client_of: Clients) -> None:
    client = client_of(people_run)
    facts = client.get("/schema").content
    assert (facts["task"], facts["classes"], facts["max_rows"]) == ("binary", ["no", "yes"], 500)
    columns = {column["name"]: column for column in facts["columns"]}
    kinds = {name: column["kind"] for name, column in columns.items()}
    assert kinds == {
        "age": "numeric", "hours": "numeric", "town": "categorical", "member": "boolean", "since": "datetime",
    }  # fmt: skip
    assert columns["member"]["types"][0] == "boolean"
    assert 30 < columns["age"]["example"] < 70
    assert columns["age"]["values"] == "18 … 89"
    example = {name: column["example"] for name, column in columns.items()}
    reply = client.post(example)
    assert reply.status == 200
    assert "warnings" not in reply.content


def test_every_kind_of_column_has_an_example_that_is_read(offers_run: Path, client_of: Clients) -> None:
    client = client_of(offers_run)
    row = client.get("/openapi.json").content["components"]["schemas"]["Row"]
    assert row["required"] == list(offers().columns)
    assert row["properties"]["tags"]["type"] == ["array", "string", "null"]
    (example,) = row["examples"]
    reply = client.post(example)
    assert list(reply.content) == ["predictions"], reply.content


def test_openapi_describes_what_is_sent(people_run: Path, client_of: Clients) -> None:
    client = client_of(people_run)
    document = client.get("/openapi.json").content
    assert set(document["paths"]) == {"/predict", "/health", "/schema", "/metrics"}
    operation = document["paths"]["/predict"]["post"]
    assert set(operation["responses"]) == {"200", "400", "406", "413", "415", "422", "500"}
    assert set(operation["requestBody"]["content"]) == {"application/json", "text/csv"}
    schemas = document["components"]["schemas"]
    predictions = schemas["Predictions"]["properties"]["predictions"]
    assert predictions["items"] == {"enum": ["no", "yes"]}
    assert client.get("/health").content == {"status": "ok"}
    assert client.get("/docs").status == 200
    assert client.get("/").headers["location"] == "/docs"
    assert client.get("/predict").status == 405
    assert client.get("/nothing").content == {"detail": "Not Found"}


def test_a_failure_is_a_sentence_for_the_client_and_a_traceback_in_the_log(
    people_run: Path, client_of: Clients, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    client = client_of(people_run)
    monkeypatch.setattr(Ensemble, "predictions_of", fail)
    reply = client.post(ROW)
    assert reply.status == 500
    assert reply.detail == "an error of the server: its log has the details"
    assert "secret" in caplog.text
    monkeypatch.undo()
    assert client.post(ROW).status == 200
