"""A real Prometheus scrapes a worker, and its promtool accepts the metrics."""

import json
import urllib.request
from pathlib import Path

import pytest
from tests.servers.prometheus import check_metrics, prometheus
from tests.serving.served import numeric, served


def test_prometheus_scrapes_what_promtool_accepts(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = numeric(tmp_path)
    tensors = [
        {"name": name, "datatype": kind, "shape": [1], "data": values[:1]}
        for name, (kind, values) in model.columns.items()
    ]
    body = json.dumps({"inputs": tensors}).encode()
    with (
        served(model, folder=tmp_path / "server") as address,
        prometheus(
            tmp_path_factory.mktemp("prometheus") / "data", [f"{address.host}:{address.port}"]
        ) as scraper,
    ):
        for _ in range(7):
            with urllib.request.urlopen(
                f"{address}/v2/models/{model.name}/infer", body, timeout=10
            ) as answer:
                assert answer.status == 200
        with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
            check_metrics(answer.read())
        scraper.wait_for("up == 1")
        (requests,) = scraper.wait_for('sum(noria_requests_total{status="200"}) == 7')
        assert requests["value"][1] == "7"
        assert scraper.wait_for("histogram_quantile(0.99, sum by (le) (noria_request_seconds_bucket)) > 0")
