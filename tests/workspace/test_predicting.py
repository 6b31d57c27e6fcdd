"""Batches: as a server answers, in parts, once, whatever goes wrong in between."""

import importlib
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.servers.ray_cluster import RayCluster, ray_cluster
from tests.workspace import batches
from tests.workspace.batches import NUMBERS, rows_of, trained, words_of

import noria
from noria.deploy.supervisor import Supervisor
from noria.errors import ConfigError, Conflict, NotFound, SourceError
from noria.serving.features.online import OnlineFeatures
from noria.workspace.predicting import inputs
from noria.workspace.project import Project

__all__ = ["ray_cluster"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with noria.open(trained(tmp_path_factory.mktemp("batches") / "project")) as opened:
        yield opened


def predicted(project: Project, model: Any, rows: Any, output: Path | str, **wishes: Any) -> pa.Table:
    """Score rows; give the output."""
    made = project.predict(model, rows, output=output, executor="inline", **wishes)
    assert made.rows > 0
    return pq.read_table(made.output)


def served(supervisor: Supervisor, name: str, rows: pa.Table) -> dict[str, list[Any]]:
    """Ask a worker for rows; give its outputs by name, vectors row by row."""
    tensors = [
        {
            "name": each, "shape": [rows.num_rows], "data": rows[each].to_pylist(),
            "datatype": "BYTES" if pa.types.is_string(rows.schema.field(each).type) else "FP64",
        }
        for each in rows.column_names
    ]  # fmt: skip
    for tensor in tensors:
        tensor["data"] = [None if value != value else value for value in tensor["data"]]
    place = f"{supervisor.address}/v2/models/{name}/infer"
    body = json.dumps({"inputs": tensors}).encode()
    with urllib.request.urlopen(urllib.request.Request(place, body, method="POST")) as answer:
        outputs = json.load(answer)["outputs"]
    found = {}
    for each in outputs:
        width = each["shape"][1] if len(each["shape"]) > 1 else 0
        data = each["data"]
        found[each["name"]] = [data[at : at + width] for at in range(0, len(data), width)] if width else data
    return found


def scores_of(project: Project, rows: pa.Table) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = project.load_model("trees").estimator.predict(
        rows.to_pandas()[NUMBERS].to_numpy(), num_threads=1
    )
    return found


@pytest.mark.parametrize("name", ["trees", "mixed"])
def test_rows_get_what_a_worker_answers_to_the_bit(project: Project, tmp_path: Path, name: str) -> None:
    rows = rows_of(200) if name == "trees" else words_of(200)
    move = project.deploy(name, to="production")
    asked = rows.drop_columns(["order"]) if name == "trees" else rows
    with project.supervisor("production") as supervisor:
        supervisor.start(move.route)
        answers = served(supervisor, name, asked)
    pq.write_table(rows, tmp_path / "in.parquet")
    found = predicted(project, f"{name}@production", tmp_path / "in.parquet", tmp_path / "out", log=True)
    for output in move.route.models[0].outputs:
        assert found[output.name].to_pylist() == answers[output.name], output
    logged = project.query(f"from predictions where deployment = '{name}' and environment = 'production'")
    assert logged["prediction_id"].to_pylist() == found["prediction_id"].to_pylist()
    assert set(logged["route_number"].to_pylist()) == {move.route.number}
    assert set(logged["release"].to_pylist()) == {move.route.models[0].release}
    assert logged["latency_us"].null_count == 200


def test_every_kind_of_input_and_output_gives_the_same(project: Project, tmp_path: Path) -> None:
    rows = rows_of(500)
    wanted = scores_of(project, rows)
    pq.write_table(rows, tmp_path / "in.parquet", row_group_size=100)
    pacsv.write_csv(rows, tmp_path / "in.csv")
    with (tmp_path / "in.jsonl").open("w") as file:
        for row in rows.append_column("other", [[{"a": 1}]] * 500).to_pylist():
            file.write(json.dumps({k: None if v != v else v for k, v in row.items()}) + "\n")
    orders = noria.Dataset("orders", key="order", event_at="at")
    at = pa.array([0] * 500, pa.timestamp("us", "UTC"))
    project.lake.ingest(orders, rows.append_column("at", at), batch=1)
    (tmp_path / "folder").mkdir()
    pq.write_table(rows.slice(0, 200), tmp_path / "folder/1.parquet")
    pacsv.write_csv(rows.slice(200), tmp_path / "folder/2.csv")
    given: dict[str, tuple[Any, dict[str, Any]]] = {
        "parquet": (tmp_path / "in.parquet", {}),
        "csv": (str(tmp_path / "in.csv"), {}),
        "jsonl": (tmp_path / "in.jsonl", {}),
        "folder": (tmp_path / "folder", {}),
        "dataset": ("orders:1", {}),
        "query": ('select * exclude ("at") from orders', {"sql": True}),
        "frame": (rows.to_pandas(), {}),
    }
    for name, (what, wishes) in given.items():
        found = predicted(project, "trees", what, tmp_path / f"{name}.parquet", id="order", **wishes)
        found = found.sort_by("prediction_id")
        order = np.argsort(rows["order"].to_pylist())
        assert found["prediction_id"].to_pylist() == sorted(rows["order"].to_pylist()), name
        np.testing.assert_array_equal(found["score"].to_numpy(), wanted[order], err_msg=name)
    made = project.predict("trees", "orders", output=tmp_path / "o.csv", id="order", executor="inline")
    np.testing.assert_array_equal(pacsv.read_csv(made.output)["score"].to_numpy(), wanted)
    lineage = {
        project.ledger.get_version_by_id(edge.version).kind: edge
        for edge in project.ledger.list_edges(run=made.run)
    }
    assert {"model", "release", "dataset", "predictions"} <= lineage.keys()
    made = project.predict("trees", "orders", output=tmp_path / "o.jsonl", keep="x0", executor="inline")
    lines = [json.loads(each) for each in Path(made.output).read_text().splitlines()]
    assert [each["score"] for each in lines] == wanted.tolist()
    assert list(lines[0]) == ["prediction_id", "x0", "score"]


def test_a_batch_in_processes_is_made_of_parts_and_done_once(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "ROWS_PER_PART", 1_000)
    rows = rows_of(3_500)
    pq.write_table(rows, tmp_path / "in.parquet", row_group_size=500)
    made = project.predict("trees:1", tmp_path / "in.parquet", output=tmp_path / "out", workers=2)
    assert (made.rows, made.parts, made.parts_before) == (3_500, 4, 0)
    found = pq.read_table(tmp_path / "out")
    np.testing.assert_array_equal(found["score"].to_numpy(), scores_of(project, rows))
    prefix = found["prediction_id"][0].as_py().rpartition("-")[0]
    assert found["prediction_id"].to_pylist() == [f"{prefix}-{each}" for each in range(3_500)]
    again = project.predict("trees:1", tmp_path / "in.parquet", output=tmp_path / "out", workers=2)
    assert again.was_there and again.rows == 3_500
    with pytest.raises(Conflict, match="there already"):
        project.predict("trees:1", tmp_path / "in.parquet", output=tmp_path / "out", id="order")
    over = project.predict(
        "trees:1", tmp_path / "in.parquet", output=tmp_path / "out", id="order", replace=True, workers=2
    )
    assert not over.was_there and pq.read_table(tmp_path / "out")["prediction_id"][3].as_py() == "o3"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in.parquet", "out"]


@pytest.mark.parametrize("output", ["out/", "table:killed"])
def test_a_killed_batch_goes_on_and_doubles_nothing(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    rows = rows_of(8_000, seed=len(output))
    pq.write_table(rows, tmp_path / "in.parquet", row_group_size=1_000)
    place = output if output.startswith("table:") else f"{tmp_path}/{output}"
    command = [sys.executable, batches.__file__, str(project.root), str(tmp_path / "in.parquet"), place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        done = next(int(line.split()[1]) for line in child.stdout if line.startswith("scoring"))
        child.send_signal(signal.SIGKILL)
    assert 0 < done < 8_000 and child.returncode == -signal.SIGKILL
    assert output.startswith("table:") or not Path(place).exists()
    monkeypatch.setattr(inputs, "ROWS_PER_PART", 1_000)
    before = project.query("select count(*) n from predictions")["n"][0].as_py() if _has_log(project) else 0
    made = project.predict(
        "trees", tmp_path / "in.parquet", output=place, id="order", log=True, executor="inline"
    )
    assert made.parts_before >= 1 and made.rows == 8_000 and made.logged + made.known == 8_000
    wanted = sorted(zip(rows["order"].to_pylist(), scores_of(project, rows).tolist(), strict=True))
    match output:
        case "out/":
            found = pq.read_table(place)
        case _:
            found = project.query("from killed")
    got = zip(found["prediction_id"].to_pylist(), found["score"].to_pylist(), strict=True)
    assert sorted(got) == wanted
    counted = (
        "select count(*) n, count(distinct prediction_id) m from predictions where environment = 'batch'"
    )
    logged = project.query(counted).to_pylist()[0]
    assert logged["n"] == logged["m"] == 8_000  # by id: what another batch has logged is not logged again
    assert before <= 8_000 + 400  # with what other tests served


def _has_log(project: Project) -> bool:
    return project.lake.exists("predictions")


def test_a_row_of_the_wrong_type_is_told_and_limited(project: Project, tmp_path: Path) -> None:
    lines = ["x0,x1,x2,x3,order", "1,2,3,4,a", "1,two,3,4,b", "1,2,3,4,", "5,,3,4,c"]
    (tmp_path / "in.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out.parquet"
    with pytest.raises(SourceError, match=r"more than 1 of 4 rows.*--max-rejected") as error:
        project.predict(
            "trees", tmp_path / "in.csv", output=out, id="order", max_rejected=0.4, executor="inline"
        )
    assert not out.exists() and "rejected.jsonl" in error.value.__notes__[0]
    made = project.predict(
        "trees", tmp_path / "in.csv", output=out, id="order", max_rejected=0.5, executor="inline"
    )
    assert (made.rows, made.rejected) == (2, 2)
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "in.csv", "out.parquet", "out.parquet.rejected.jsonl"
    ]  # fmt: skip
    assert pq.read_table(out)["prediction_id"].to_pylist() == ["a", "c"]
    told = [json.loads(each) for each in Path(str(made.rejected_path)).read_text().splitlines()]
    assert "x1" in told[0]["reason"] and "two" in told[0]["raw"]
    assert "names its prediction" in told[1]["reason"] and told[1]["values"]["x3"] == 4


def test_numbers_may_be_written_as_true_and_false(project: Project, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("x0,x1,x2,x3\nTrue,2,true,4\nFalse,2,false,4\n,2,,4\n")
    (tmp_path / "in.jsonl").write_text(
        '{"x0": true, "x1": 2, "x2": true, "x3": 4}\n{"x0": false, "x1": 2, "x2": false, "x3": 4}\n'
        '{"x0": null, "x1": 2, "x2": null, "x3": 4}\n'
    )
    rows = pa.table({"x0": [1.0, 0.0, None], "x1": [2.0] * 3, "x2": [1.0, 0.0, None], "x3": [4.0] * 3})
    for name in ("in.csv", "in.jsonl"):
        found = predicted(project, "trees", tmp_path / name, tmp_path / f"{name}.parquet")
        assert found["score"].to_pylist() == scores_of(project, rows).tolist()


def test_rows_by_which_a_model_fails_are_found(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(project.root))
    models = importlib.import_module("models_of_batches")
    example = {"x": [1.0, 2.0], "word": ["a", "b"]}
    project.models.register(models.Halved(), name="halved", example=pa.table(example))
    rows = pa.table(
        {"x": np.arange(300.0), "word": ["bad" if each in (3, 200) else "ok" for each in range(300)]}
    )
    made = project.predict("halved", rows, output=tmp_path / "o", max_rejected=0.01, executor="inline")
    assert (made.rows, made.rejected) == (298, 2)
    found = pq.read_table(tmp_path / "o")
    places = [int(each.rpartition("-")[2]) for each in found["prediction_id"].to_pylist()]
    assert found["score"].to_pylist() == [place / 2 for place in places] and {3, 200}.isdisjoint(places)
    with pytest.raises(SourceError, match="more than 0 of 300 rows"):
        project.predict("halved", rows, output=tmp_path / "p", executor="inline")


def test_what_cannot_work_is_refused_before_anything_is_done(project: Project, tmp_path: Path) -> None:
    rows = rows_of(10)
    out = tmp_path / "never"
    wrong = rows.set_column(0, "x0", pa.array(["a"] * 10)).drop_columns(["x3"])
    with pytest.raises(SourceError, match=r"lacks 'x3'; has 'x0' as string, wanted is a number"):
        project.predict("trees", wrong, output=out)
    with pytest.raises(SourceError, match="lacks 'nobody', which `id` names"):
        project.predict("trees", rows, output=out, id="nobody")
    with pytest.raises(ConfigError, match="reads no feature view"):
        project.predict("trees", rows, output=out, at="order")
    with pytest.raises(ConfigError, match="'score' would be a column of the input and one of the pred"):
        project.predict("trees", rows.append_column("score", rows["x0"]), output=out, keep="*")
    with pytest.raises(NotFound, match="nowhere"):
        project.predict("trees", "nowhere", output=out)
    with pytest.raises(SourceError, match="cannot be read"):
        project.predict("trees", tmp_path / "no.parquet", output=out)
    (tmp_path / "no.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(SourceError, match="no Parquet file"):
        project.predict("trees", tmp_path / "no.parquet", output=out)
    with pytest.raises(ConfigError, match="tells no format"):
        project.predict("trees", rows, output=tmp_path / "never.xml")
    with pytest.raises(ConfigError, match="share, from 0 to 1"):
        project.predict("trees", rows, output=out, max_rejected=5)
    assert not out.exists() and not project.ledger.list_versions(kind="predictions", name="never")
    assert [each.name for each in tmp_path.iterdir()] == ["no.parquet"]


def test_a_model_file_is_registered_once(project: Project, tmp_path: Path) -> None:
    rows = rows_of(50)
    project.load_model("trees").estimator.save_model(tmp_path / "kept-away.txt")
    for number in range(2):
        made = project.predict(
            tmp_path / "kept-away.txt", rows_of(50, seed=3 + number), output=tmp_path / f"{number}"
        )
        assert (made.model, made.version) == ("kept-away", 1)
    np.testing.assert_array_equal(pq.read_table(tmp_path / "0")["score"].to_numpy(), scores_of(project, rows))
    with pytest.raises(ConfigError, match="tells no model"):
        (tmp_path / "model.bin").write_bytes(b"x")
        project.predict(tmp_path / "model.bin", rows, output=tmp_path / "n")


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4), at_once=st.integers(1, 50))
def test_in_which_parts_it_is_done_makes_no_difference(
    project: Project, tmp_path_factory: pytest.TempPathFactory, sizes: list[int], at_once: int
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    rows = rows_of(sum(sizes))
    start = 0
    for number, size in enumerate(sizes):
        pq.write_table(rows.slice(start, size), folder / f"{number}.parquet", row_group_size=7)
        start += size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "ROWS_PER_PART", at_once)
        found = predicted(project, "trees", f"{folder}/*.parquet", folder / "out", keep=["order"])
    assert found["order"].to_pylist() == rows["order"].to_pylist()
    np.testing.assert_array_equal(found["score"].to_numpy(), scores_of(project, rows))


def test_ids_that_come_again_are_logged_once(project: Project, tmp_path: Path) -> None:
    rows = rows_of(60, seed=9).set_column(4, "order", pa.array([f"again{each % 40}" for each in range(60)]))
    made = project.predict("trees", rows, output=tmp_path / "o", id="order", log=True, executor="inline")
    assert (made.rows, made.logged, made.known, made.changed) == (60, 40, 20, 20)  # other rows, one id
    same = project.predict("trees", rows, output=tmp_path / "p", id="order", log=True, executor="inline")
    assert (same.logged, same.known) == (0, 60)
    found = project.query("select count(*) n from predictions where prediction_id like 'again%'")
    assert found["n"].to_pylist() == [40]
    for number in range(2):  # the same rows without ids, into two places
        other = project.predict("trees", rows, output=tmp_path / f"{number}", log=True, executor="inline")
        assert (other.logged, other.known) == ((60, 0) if number == 0 else (0, 60))
    traced = project.trace("again3")
    assert (traced.prediction.id, traced.model.ref) == ("again3", "trees:1")
    assert traced.route.version.ref == "batch.trees:1"


def test_features_are_what_was_known_then_or_what_the_store_holds(lived_copy: Path, tmp_path: Path) -> None:
    with noria.open(lived_copy) as lived:
        logged = lived.query(
            'select prediction_id, "at", inputs.courier, inputs.district, inputs.weight, score, release, '
            "version from predictions where environment = 'production' and answered "
            'order by "at" desc limit 200'
        )
        logged = logged.filter(pc.equal(logged["release"], logged["release"][0]))
        release = f"release:{logged['release'][0].as_py()}"
        as_of = predicted(
            lived, release, logged, tmp_path / "then", id="prediction_id", at="at", keep=["version"]
        )
        assert as_of["prediction_id"].to_pylist() == logged["prediction_id"].to_pylist()
        np.testing.assert_allclose(as_of["score"].to_numpy(), logged["score"].to_numpy(), rtol=1e-9)
        now = predicted(lived, "late_parcel@production", logged, tmp_path / "now", log=True)
        position = OnlineFeatures(lived.settings.stores.online, root=lived.root).position()
        stands = pa.array([position] * logged.num_rows, pa.timestamp("us", "UTC"))
        then = logged.set_column(1, "at", stands)
        same = predicted(lived, "late_parcel@production", then, tmp_path / "same", at="at")
        np.testing.assert_allclose(now["score"].to_numpy(), same["score"].to_numpy(), rtol=1e-9)
        features = lived.query(
            f"select features.courier__last_delay from predictions where prediction_id = '{now[0][0]}'"
        )
        assert features.num_rows == 1


def test_ray_scores_the_same(
    ray_cluster: RayCluster, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "ROWS_PER_PART", 1_000)
    rows = rows_of(3_000)
    pq.write_table(rows, tmp_path / "in.parquet", row_group_size=1_000)
    made = project.predict("trees", tmp_path / "in.parquet", output=tmp_path / "o", executor=ray_cluster.url)
    assert made.parts == 3
    np.testing.assert_array_equal(pq.read_table(tmp_path / "o")["score"].to_numpy(), scores_of(project, rows))


def test_two_processes_do_not_make_one_output(project: Project, tmp_path: Path) -> None:
    pq.write_table(rows_of(8_000), tmp_path / "in.parquet", row_group_size=1_000)
    out = tmp_path / "out"
    command = [sys.executable, batches.__file__, str(project.root), str(tmp_path / "in.parquet"), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert any(line.startswith("scoring") for line in child.stdout)
        child.send_signal(signal.SIGSTOP)
        with pytest.raises(Conflict, match="another process makes this output"):
            project.predict("trees", tmp_path / "in.parquet", output=out, executor="inline")
        child.kill()


@pytest.mark.soak
@pytest.mark.parametrize("output", ["out/", "out.parquet", "table:often"])
def test_batches_that_are_killed_at_random_instants_are_whole_in_the_end(tmp_path: Path, output: str) -> None:
    root = trained(tmp_path / "project")
    rows = rows_of(60_000, seed=11)
    pq.write_table(rows, tmp_path / "in.parquet", row_group_size=1_000)
    place = output if output.startswith("table:") else f"{tmp_path}/{output}"
    command = [sys.executable, batches.__file__, str(root), str(tmp_path / "in.parquet"), place]
    random = np.random.default_rng(len(output))
    kills = 0
    for _ in range(100):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            alive_s, first_at = (
                float(random.uniform(0, 0.25)) * (1 + kills / 10),
                0.0,
            )  # from its first word on
            for _ in child.stdout:
                first_at = first_at or time.monotonic()
                if time.monotonic() - first_at > alive_s:
                    child.kill()
                    break
            else:
                if child.wait() == 0:
                    break
        kills += 1
    with noria.open(root) as opened:
        found = opened.query("from often") if output.startswith("table:") else pq.read_table(place)
        got = zip(found["prediction_id"].to_pylist(), found["score"].to_pylist(), strict=True)
        wanted = zip(rows["order"].to_pylist(), scores_of(opened, rows).tolist(), strict=True)
        assert sorted(got) == sorted(wanted)
        logged = opened.query("select count(*) n, count(distinct prediction_id) m from predictions")
        assert logged.to_pylist() == [{"n": 60_000, "m": 60_000}]
        assert opened.ledger.verify().ok
    assert kills >= 10
    print(f"{output}: whole after {kills} kills")


@pytest.mark.soak
def test_five_million_rows_take_no_more_memory_than_few(project: Project, tmp_path: Path) -> None:
    peaks = {}
    for count in (500_000, 5_000_000):
        path = tmp_path / f"{count}.parquet"
        some = rows_of(500_000)
        with pq.ParquetWriter(path, some.schema) as writer:
            for _ in range(count // 500_000):
                writer.write_table(some, row_group_size=131_072)
        code = (
            "import re, sys, noria\n"
            "from pathlib import Path\n"
            "with noria.open(sys.argv[1]) as project:\n"
            "    project.predict('trees', sys.argv[2], output=sys.argv[3], executor='inline')\n"
            "print(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        )
        arguments = [str(project.root), str(path), str(tmp_path / f"{count}.out.parquet")]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
        )
        peaks[count] = int(done.stdout.split()[-1]) * 1_024 / 1e6
    print(f"peak memory in MB by rows: {peaks}")
    assert peaks[5_000_000] < 500 and peaks[5_000_000] < peaks[500_000] + 60


def test_the_command_scores_and_says_so(project: Project, tmp_path: Path, noria: Any) -> None:
    pq.write_table(rows_of(100), tmp_path / "in.parquet")
    told = noria("predict", "trees", "--input", tmp_path / "in.parquet", "--output", tmp_path / "o.csv",
                 "--executor", "inline", "--project", project.root)  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "trees:1 scored 100 rows" in told.stdout
    told = noria("predict", "trees", "--output", "o.csv", "--project", project.root)
    assert told.returncode == 2 or "--input" in told.stderr
