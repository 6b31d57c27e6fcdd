"""A model with on-demand features lives through a replay: served as trained, whatever becomes of the code."""

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.projects.on_demand import add_on_demand, change_units

import noria
from noria.audit.trace import verify_trace
from noria.clock import from_micros, to_micros
from noria.deploy.releases import find_standing, read_release, serve_route
from noria.deploy.shipping import prediction_table
from noria.deploy.supervisor import Supervisor
from noria.errors import DeploymentError
from noria.features.code_bundle import read_bundle, write_bundle
from noria.features.on_demand import OnDemandSpec
from noria.features.on_demand_tables import add_on_demand as add_on_demand_columns
from noria.records import sha256_hex
from noria.serving.client import InferError
from noria.serving.logs.log import decode_frame
from noria.serving.records import ROUTE_FILE, Route, RouteEntry, Samples, read_record
from noria.streams.spool import read_spool
from noria.workspace.features.on_demand import differing_on_demand

Rows = dict[str, list[Any]]
COLUMNS = ["effort__load", "effort__uphill", "effort__after", "strain__per_parcel"]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = Path(__file__).parents[1] / "projects" / "tiny"
    folder = Path(shutil.copytree(tiny, tmp_path_factory.mktemp("on_demand") / "tiny"))
    add_on_demand(folder)
    done = subprocess.run(
        [sys.executable, "-m", "noria", "replay", "--project", str(folder)],
        cwd=folder.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copied(lived: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(lived, tmp_path / "tiny"))


def test_served_values_are_those_computed_offline(lived: Path) -> None:
    with noria.open(lived) as project:
        days = project.ledger.list_events(verb="replay.day_done")
        assert sum(each.payload["parity_rows"] for each in days) > 500
        assert [each.payload["parity_differences"] for each in days] == [0] * len(days)
        logged = project.lake.read("predictions")
    features = logged["features"].combine_chunks()
    weights = logged["inputs"].combine_chunks().field("weight").to_numpy()
    load = features.field("effort__load").to_numpy(zero_copy_only=False)
    unlucky = weights == 13
    assert unlucky.sum() > 5
    assert np.isnan(load[unlucky]).all()
    assert (load[~unlucky] == np.sqrt(weights[~unlucky]) * 1.5).all()
    assert {"district__late_12h", *COLUMNS} <= {each.name for each in features.type}


def test_what_only_an_on_demand_feature_reads_is_no_input_of_the_model(lived: Path) -> None:
    with noria.open(lived) as project:
        model = project.ledger.get_version("model", "late_parcel")
        manifest = project.registry.read_manifest(model)
        assert manifest.signature.names == (
            "district", "courier__parcels_24h", "courier__late_3d", "courier__last_delay", *COLUMNS
        )  # fmt: skip
        bundle = project.registry.read_code(model)
        assert bundle is not None
        assert set(bundle.sources) == {"tiny", "parcelkit", "parcelkit.load", "parcelkit.units"}
        facts = model.facts["on_demand"]
        assert list(facts) == ["effort"]  # `strain` was not called with what is missing
        ((why, count),) = facts["effort"].items()
        assert why.startswith("ValueError in tiny.py line ")
        assert count > 5
        samples = project.registry.load(model).samples.column_names
        assert {"weight", "district__late_12h", *COLUMNS} <= set(samples)


def test_a_release_names_the_features_and_their_code(lived: Path) -> None:
    with noria.open(lived) as project:
        standing = find_standing(project.ledger, environment="production", deployment="late_parcel")
        assert standing is not None
        release = read_release(standing.release)
        bundle = project.registry.read_code(standing.model)
        assert bundle is not None
        assert release.on_demand_code == bundle.digest
        assert [each.name for each in release.on_demand] == ["effort", "strain"]
        assert {each.name for each in release.views} == {"courier", "district"}


def test_who_used_one_is_on_record_as_of_a_view(lived: Path) -> None:
    with noria.open(lived) as project:
        versions = [each.ref for each in project.ledger.list_versions(kind="model", name="late_parcel")]
        for wanted in ("effort", "strain__per_parcel"):
            told = project.features.readers(wanted)
            name = wanted.partition("__")[0]
            assert (told.trainings, told.definitions) == (("late_parcel",), (f"{name}:1",))
            assert [each.model for each in told.models] == versions
            assert told.training_sets
            assert {each.definition for each in told.deployments} == {f"{name}:1"}
            assert sum(each.rows for each in told.requests) > 0
        assert project.features.show_on_demand("effort").versions == tuple(reversed(versions))


def test_a_trace_computes_the_features_again(lived: Path) -> None:
    with noria.open(lived) as project:
        rows = project.lake.read("predictions")
        weights = rows["inputs"].combine_chunks().field("weight")
        for wanted in (13.0, 20.0):
            found = rows.filter(pc.and_(pc.equal(weights, wanted), rows["answered"]))
            traced = project.trace(found["prediction_id"][0].as_py())
            features = {each.name: each for each in traced.features}
            assert all(each.equal for each in traced.features), traced.features
            assert (features["effort__load"].offline is None) == (wanted == 13.0)
            assert set(COLUMNS) <= set(features)


def test_a_training_is_reproduced_with_its_code(lived: Path) -> None:
    with noria.open(lived) as project:
        fit = project.ledger.list_runs(kind="train")[0]
        found = project.runs.reproduce(fit.id)
        assert found.verdict == "bit-equal", found


@pytest.fixture
def served(copied: Path) -> Iterator[tuple[noria.Project, Supervisor]]:
    """Serve what stands in production, once the project's code is another."""
    change_units(copied)
    with noria.open(copied) as project:
        supervisor = project.supervisor("production")
        place = project.deployment("production", "late_parcel", supervisor=supervisor)
        pointer = project.ledger.find_pointer("production", "late_parcel")
        assert pointer is not None
        route = project.ledger.get_version_by_id(pointer.version)
        with supervisor:
            supervisor.start(serve_route(project.ledger, route, fetch=place.fetch, samples=place.samples))
            yield project, supervisor


def asked(supervisor: Supervisor, project: noria.Project, rows: Rows, name: str, *, releases: int = 1) -> Any:
    """Ask, and give what was logged once so many releases have scored: shadows do after the answer."""
    day = project.ledger.list_events(verb="replay.day_done")[-1]
    at = to_micros(day.at) - 1
    with supervisor.client() as client:
        count = len(rows["weight"])
        client.infer("late_parcel", rows, ids=[f"{name}-{row}" for row in range(count)], at=from_micros(at))
    until = time.monotonic() + 10
    while True:
        payloads = [payload for _, payload in read_spool(supervisor.folder / "late_parcel" / "spool")]
        frames = [frame for frame in map(decode_frame, payloads) if f"{name}-0" in frame.ids]
        if sum(len(frame.releases) for frame in frames) >= releases or time.monotonic() > until:
            return prediction_table(frames)
        time.sleep(0.01)


def test_a_version_serves_with_its_code_when_the_projects_is_another(
    served: tuple[noria.Project, Supervisor],
) -> None:
    project, supervisor = served
    rows: Rows = {
        "weight": [4.0, 13.0, None],
        "district": ["hill", "hill", None],
        "courier": ["ada", "ben", "cleo"],
    }
    table = asked(supervisor, project, rows, "later")
    features = table["features"].combine_chunks()
    assert features.field("effort__load").to_pylist()[:3] == [3.0, None, None]  # 2 * 1.5, not 2 * 40
    assert features.field("effort__uphill").to_pylist()[:3] == [1.0, None, 0.0]
    maps = Path(f"/proc/{supervisor.pids[0]}/maps").read_text(encoding="utf-8")
    assert not [each for each in ("duckdb", "deltalake", "pyarrow", "sqlalchemy") if each in maps]
    with supervisor.client() as client:
        described = client.get("/v2/models/late_parcel")
    assert [each["name"] for each in described["inputs"]] == ["district", "courier", "weight"]
    with urlopen(f"{supervisor.address}/metrics") as answer:
        counted = [line for line in answer.read().decode().splitlines() if 'feature="effort"' in line]
    assert any("on_demand_failed_rows_total" in line and line.endswith(" 1.0") for line in counted)
    assert "effort: ValueError in tiny.py line" in supervisor.log_tail()
    assert "unlucky" not in supervisor.log_tail()  # what an error says may be data


def test_a_request_without_the_field_is_told(served: tuple[noria.Project, Supervisor]) -> None:
    _, supervisor = served
    with supervisor.client() as client, pytest.raises(InferError, match="inputs are missing: weight"):
        client.infer("late_parcel", {"district": ["hill"], "courier": ["ada"]}, ids=["x"])


def test_a_worker_refuses_changed_code_and_goes_on_with_the_old(
    served: tuple[noria.Project, Supervisor], tmp_path: Path
) -> None:
    project, supervisor = served
    route = read_record(supervisor.folder / "late_parcel" / ROUTE_FILE, Route)
    (model,) = route.models
    assert model.code is not None and model.code_digest is not None
    data = Path(model.code).read_bytes()
    other = tmp_path / "other.zip"

    def tried(code: bytes, *, digest: str | None = None, specs: Any = None) -> str:
        other.write_bytes(code)
        changed = msgspec.structs.replace(
            model, code=str(other), code_digest=digest or sha256_hex(code), on_demand=specs or model.on_demand
        )
        with pytest.raises(DeploymentError) as refused:
            supervisor.swap(msgspec.structs.replace(route, number=route.number + 1, models=(changed,)))
        return str(refused.value)

    bundle = read_bundle(data)
    units = bundle.sources["parcelkit.units"][0].replace(b"FACTOR = 1.5", b"FACTOR = 1.6")
    sources = {**bundle.sources, "parcelkit.units": (units, False)}
    told = tried(write_bundle(bundle.on_demand, sources, {"numpy": "0.1"}))
    assert "'effort' gives other values than were stored with the version" in told
    assert "it was trained with numpy 0.1 (here: " in told
    assert "digest" in tried(data + b" ", digest=model.code_digest)
    assert "is of other on-demand features than its release" in tried(data, specs=refusing(model.on_demand))
    del sources["parcelkit.units"]
    assert "ModuleNotFoundError" in tried(write_bundle(bundle.on_demand, sources, {}))
    assert "are no code of on-demand features" in tried(b"no zip")
    rows: Rows = {"weight": [4.0], "district": ["hill"], "courier": ["ada"]}
    table = asked(supervisor, project, rows, "still")
    assert table["features"].combine_chunks().field("effort__load").to_pylist() == [3.0]


def refusing(specs: Sequence[OnDemandSpec]) -> tuple[OnDemandSpec, ...]:
    return tuple(msgspec.structs.replace(each, errors="refuse") for each in specs)


def test_a_feature_that_refuses_a_row_refuses_its_request_and_no_other(
    served: tuple[noria.Project, Supervisor], tmp_path: Path
) -> None:
    project, supervisor = served
    route = read_record(supervisor.folder / "late_parcel" / ROUTE_FILE, Route)
    (model,) = route.models
    assert model.code is not None
    bundle = read_bundle(Path(model.code).read_bytes())
    code = write_bundle(refusing(bundle.on_demand), bundle.sources, {})
    (tmp_path / "refusing.zip").write_bytes(code)
    # A row that was trained on is refused by none: these are samples without one.
    kept = np.frombuffer(model.samples.numbers["weight"]) != 13
    samples = Samples(
        matrix=np.frombuffer(model.samples.matrix).reshape(len(kept), -1)[kept].tobytes(),
        scores=np.frombuffer(model.samples.scores)[kept].tobytes(),
        numbers={name: np.frombuffer(each)[kept].tobytes() for name, each in model.samples.numbers.items()},
        texts={
            name: [each for each, is_kept in zip(values, kept, strict=True) if is_kept]
            for name, values in model.samples.texts.items()
        },
    )
    strict = msgspec.structs.replace(
        model, on_demand=refusing(model.on_demand), code=str(tmp_path / "refusing.zip"),
        code_digest=sha256_hex(code), samples=samples, release="late_parcel:98", version=98,
    )  # fmt: skip
    rows: Rows = {"weight": [4.0, 13.0], "district": ["hill", "hill"], "courier": ["ada", "ben"]}
    for mode in ("answer", "shadow"):
        entries = [RouteEntry(release="late_parcel:98", mode="answer" if mode == "answer" else "shadow")]
        if mode == "shadow":
            entries += route.entries
        number = route.number + 1 + (mode == "shadow")
        changed = msgspec.structs.replace(
            route, number=number, entries=tuple(entries), models=(model, strict)
        )
        supervisor.swap(changed)
        if mode == "answer":
            with pytest.raises(
                InferError, match=r"'effort' cannot be computed for row 1 \(ValueError in tiny.py"
            ):
                asked(supervisor, project, rows, "refused")
            assert asked(
                supervisor, project, {name: each[:1] for name, each in rows.items()}, "fine"
            ).num_rows
    assert (
        asked(supervisor, project, rows, "shadowed", releases=2).num_rows == 4
    )  # a trial refuses nothing that is answered


def test_champion_and_challenger_serve_side_by_side_each_with_its_code(
    served: tuple[noria.Project, Supervisor], tmp_path: Path
) -> None:
    project, supervisor = served
    route = read_record(supervisor.folder / "late_parcel" / ROUTE_FILE, Route)
    (model,) = route.models
    assert model.code is not None
    bundle = read_bundle(Path(model.code).read_bytes())
    units = bundle.sources["parcelkit.units"][0].replace(b"FACTOR = 1.5", b"FACTOR = 3.0")
    code = write_bundle(bundle.on_demand, {**bundle.sources, "parcelkit.units": (units, False)}, {})
    (tmp_path / "challenger.zip").write_bytes(code)
    numbers = {name: np.frombuffer(values) for name, values in model.samples.numbers.items()}
    for name in ("effort__load", "effort__after", "strain__per_parcel"):
        numbers[name] = numbers[name] * 2  # exact
    numbers["effort__after"] = numbers["effort__load"] * numbers["district__late_12h"]
    numbers["strain__per_parcel"] = numbers["effort__load"] / (1 + numbers["courier__parcels_24h"])
    samples = msgspec.structs.replace(
        model.samples, numbers={name: values.tobytes() for name, values in numbers.items()}
    )
    challenger = msgspec.structs.replace(
        model, release="late_parcel:99", version=99, code=str(tmp_path / "challenger.zip"),
        code_digest=sha256_hex(code), samples=samples,
    )  # fmt: skip
    entries = (*route.entries, RouteEntry(release="late_parcel:99", mode="shadow"))
    supervisor.swap(
        msgspec.structs.replace(route, number=route.number + 1, entries=entries, models=(model, challenger))
    )
    rows: Rows = {"weight": [4.0, 9.0], "district": ["hill", "docks"], "courier": ["ada", "ben"]}
    table = asked(supervisor, project, rows, "both", releases=2)
    load = table["features"].combine_chunks().field("effort__load").to_pylist()
    by_version = {
        version: [
            value for value, each in zip(load, table["version"].to_pylist(), strict=True) if each == version
        ]
        for version in (model.version, 99)
    }
    assert by_version == {model.version: [3.0, 4.5], 99: [6.0, 9.0]}


def test_logged_values_are_verified_by_the_code_of_their_release(lived: Path) -> None:
    with noria.open(lived) as project:
        standing = find_standing(project.ledger, environment="production", deployment="late_parcel")
        assert standing is not None
        release = read_release(standing.release)
        rows = project.lake.read("predictions")
        rows = rows.filter(pc.equal(rows["release"], standing.release.ref))
        assert rows.num_rows > 20
        agreed = list(differing_on_demand(project, release, rows))
        assert [(spec.name, places, columns) for spec, places, columns in agreed] == [
            ("effort", [], ()), ("strain", [], ())
        ]  # fmt: skip
        inputs = rows["inputs"].combine_chunks()
        names = [each.name for each in inputs.type]
        weights = pc.add(inputs.field("weight"), pa.array([0.0] * 7 + [1.0] + [0.0] * (rows.num_rows - 8)))
        heavier = pa.StructArray.from_arrays(
            [weights if name == "weight" else inputs.field(name) for name in names], names=names
        )
        changed = rows.set_column(rows.column_names.index("inputs"), "inputs", heavier)
        effort, strain = differing_on_demand(project, release, changed)
        assert effort[1] == strain[1] == [7]
        assert "effort__load" in effort[2]


def test_a_subject_leaves_the_samples_of_on_demand_features_too(copied: Path) -> None:
    parcel = "p00900"
    with noria.open(copied) as project:
        before = {each.ref: sampled(project, each.ref) for each in project.registry.list_models()}
        first = project.forget("parcels", "parcel_id", [parcel], reason="article 17")
        second = project.forget("deliveries", "parcel_id", [parcel], reason="article 17")
        assert second.left == ()
        changed = {each.name for each in (*first.of("samples"), *second.of("samples"))}
        after = {ref: sampled(project, ref) for ref in before}
        assert changed
        assert {ref for ref in before if after[ref] < before[ref]} == changed
        place = project.deployment("production", "late_parcel", supervisor=None)
        pointer = project.ledger.find_pointer("production", "late_parcel")
        assert pointer is not None
        route = project.ledger.get_version_by_id(pointer.version)
        with project.supervisor("production") as supervisor:
            supervisor.start(serve_route(project.ledger, route, fetch=place.fetch, samples=place.samples))
        traced = project.trace(project.lake.read("predictions")["prediction_id"][0].as_py())
        assert all(each.equal for each in traced.features)
        lines = verify_trace(
            traced, ledger=project.ledger, lake=project.lake, trainings=project.declarations.trainings
        )
        assert [line.what for line in lines if not line.ok] == []
        assert any(line.what.endswith("its code") for line in lines)


def sampled(project: noria.Project, ref: str) -> int:
    return int(project.registry.load(project.registry.get(ref)).samples.num_rows)


def test_a_version_computes_rows_with_its_own_code(copied: Path) -> None:
    change_units(copied)
    rows = pa.table({
        "weight": [4.0, 13.0], "district": ["hill", "hill"], "effort__load": [0.0, 0.0],
        "district__late_12h": [0.5, 0.5], "district__delay_3d": [1.0, 1.0],
        "courier__parcels_24h": [1.0, 1.0], "courier__late_3d": [1.0, 1.0], "courier__last_delay": [1.0, 1.0],
    })  # fmt: skip
    with noria.open(copied) as project:
        made = project.registry.add_on_demand(project.registry.get("late_parcel"), rows)
        assert made["effort__load"].to_numpy()[0] == 3.0
        effort = project.declarations.on_demand["effort"]
        now, _ = add_on_demand_columns(rows, [effort.bound()])
        assert now["effort__load"].to_numpy()[0] == 80.0


def test_code_that_changes_in_the_middle_is_judged_and_tried_against_the_old(tmp_path: Path) -> None:
    tiny = Path(__file__).parents[1] / "projects" / "tiny"
    folder = Path(shutil.copytree(tiny, tmp_path / "tiny"))
    add_on_demand(folder)
    replay = [sys.executable, "-m", "noria", "replay", "--project", str(folder)]
    for more in (["--until", "2024-02-14"], []):
        done = subprocess.run([*replay, *more], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        change_units(folder)
    with noria.open(folder) as project:
        days = project.ledger.list_events(verb="replay.day_done")
        assert [each.payload["parity_differences"] for each in days] == [0] * len(days)
        models = project.registry.list_models()
        codes = [
            bundle.digest
            for each in models
            if (bundle := project.registry.read_code(project.registry.get(each.ref))) is not None
        ]
        assert len(set(codes)) == 2
        logged = project.lake.read("predictions")
        tried = {each.payload["release"] for each in project.ledger.list_events(verb="canary.*")}
        assert tried
    weights = logged["inputs"].combine_chunks().field("weight").to_numpy()
    load = logged["features"].combine_chunks().field("effort__load").to_numpy(zero_copy_only=False)
    found: dict[int, set[float]] = {}
    for version, factor in zip(
        logged["version"].to_pylist(), np.round(load / np.sqrt(weights), 6), strict=True
    ):
        if not np.isnan(factor):
            found.setdefault(version, set()).add(float(factor))
    assert all(len(each) == 1 for each in found.values())
    assert {factor for each in found.values() for factor in each} == {1.5, 40.0}
    asked = Counter(zip(logged["environment"].to_pylist(), logged["prediction_id"].to_pylist(), strict=True))
    assert max(asked.values()) == 2  # both were asked of it, each with its code
