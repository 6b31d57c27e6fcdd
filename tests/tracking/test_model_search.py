"""Searches of logged models on both databases, against what a plain program finds."""

import math
from datetime import UTC, datetime

import pytest

from noria.clock import to_micros
from noria.errors import BadFilter
from noria.ledger.store import Ledger
from noria.records import RunId
from noria.tracking.experiments import ExperimentBook
from noria.tracking.models.logged_models import LoggedModels
from noria.tracking.models.records import ModelPoint, ModelStatus
from noria.tracking.models.search import ModelOrder, ModelPage, OnDataset, search_models
from noria.tracking.records import MetricPoint
from noria.tracking.run_desk import RunDesk


class Shelf:
    """Five models of two experiments: a, b, c, d in the first, e in the second."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.models = ledger, LoggedModels(ledger)
        self.run: RunId = RunDesk(ledger).start("0").info.id
        self.other = int(ExperimentBook(ledger).create("other").id)
        self.ids: dict[str, str] = {}
        self._add("a", type="tree", params={"depth": "3"}, tags={"team": "Ops"})
        self._add("b", type="tree", params={"depth": "10"}, tags={"team": "ops", "odd one": "50%"})
        self._add("c", type=None, tags={"team": "web"})
        self._add("d", type="net")
        self._add("e", type="net", experiment=str(self.other))
        self.point("a", 0.9, at=1, dataset=OnDataset("train", "1"))
        self.point("a", 0.7, at=2, dataset=OnDataset("test", "1"))
        self.point("b", 0.8, at=1, dataset=OnDataset("test", "1"))
        self.point("b", 0.6, at=2, dataset=OnDataset("test", "2"))
        self.point("c", math.nan, at=1)
        self.point("e", 0.99, at=1)
        self.models.finish(self.ids["a"], ModelStatus.READY)
        self.models.finish(self.ids["b"], ModelStatus.FAILED)

    def _add(
        self,
        name: str,
        *,
        type: str | None,
        experiment: str = "0",
        params: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        source = self.run if name in {"a", "b"} else None
        made = self.models.create(
            experiment, name=name, type=type, source_run=source, params=params, tags=tags
        )
        self.ids[name] = made.id

    def point(self, name: str, value: float, *, at: int, dataset: OnDataset | None = None) -> None:
        point = MetricPoint(name="acc", value=value, step=0, at_us=at)
        told = ModelPoint(model=self.ids[name], run=self.run, point=point)
        if dataset is not None:
            told = ModelPoint(
                model=self.ids[name],
                run=self.run,
                point=point,
                dataset_name=dataset.name,
                dataset_digest=dataset.digest,
            )
        self.models.log_points([told])

    def page(
        self,
        filter: str = "",
        *,
        experiments: tuple[int, ...] = (0,),
        datasets: tuple[OnDataset, ...] = (),
        order_by: tuple[ModelOrder, ...] = (),
        limit: int = 100,
        page: str | None = None,
    ) -> ModelPage:
        with self.ledger.database.read() as connection:
            return search_models(
                connection,
                experiments,
                filter=filter,
                datasets=datasets,
                order_by=order_by,
                limit=limit,
                page=page,
            )

    def names(self, page: ModelPage) -> str:
        of_ids = {id: name for name, id in self.ids.items()}
        return "".join(of_ids[each] for each in page.models)


@pytest.fixture
def shelf(either_ledger: Ledger) -> Shelf:
    return Shelf(either_ledger)


FOUND = {
    "": "dcba",
    "name = 'a'": "a",
    "name != 'a' AND attributes.name != 'b'": "dc",
    "name IN ('a', 'd', 'x')": "da",
    "name NOT IN ('a', 'd')": "cb",
    "name LIKE 'A%'": "",
    "name ILIKE 'A%'": "a",
    "model_type = 'tree'": "ba",
    "model_type != 'tree'": "d",
    "status = 'READY'": "a",
    "status = 'LOGGED_MODEL_READY'": "a",
    "status IN ('READY', 'LOGGED_MODEL_PENDING')": "dca",
    "status LIKE 'FAIL%'": "b",
    "creation_timestamp > 0": "dcba",
    "creation_time < 0.5": "",
    "last_updated_timestamp >= 1e300": "",
    "metrics.acc > 0.85": "a",
    "metrics.acc < 0.75": "ba",
    "metrics.acc != 0.9": "ba",
    "metrics.acc = 0.9 AND metrics.acc = 0.7": "a",
    "metrics.none > 0": "",
    "params.depth = '3'": "a",
    "params.depth IN ('3', '10')": "ba",
    "params.depth IS NULL": "dc",
    "tags.team LIKE 'o%'": "b",
    "tags.team ILIKE 'o%'": "ba",
    "tags.`odd one` = '50%' AND tags.team IS NOT NULL": "b",
}


def test_filters_find_what_they_say(shelf: Shelf) -> None:
    assert {each: shelf.names(shelf.page(each)) for each in FOUND} == FOUND


def test_a_model_is_found_by_its_id_its_run_and_its_instant(shelf: Shelf) -> None:
    made = shelf.models.get(shelf.ids["b"])
    ms = to_micros(made.created_at) // 1_000
    assert shelf.names(shelf.page(f"model_id = '{made.id}'")) == "b"
    assert shelf.names(shelf.page(f"source_run_id = '{shelf.run}' AND name = 'b'")) == "b"
    assert shelf.names(shelf.page(f"creation_timestamp = {ms} AND name = 'b'")) == "b"
    assert shelf.names(shelf.page(f"creation_timestamp > {ms} AND name = 'b'")) == ""
    assert shelf.names(shelf.page(f"creation_timestamp >= {ms} AND name = 'b'")) == "b"
    assert shelf.names(shelf.page(f"creation_timestamp < {ms}.5 AND name = 'b'")) == "b"
    assert shelf.names(shelf.page(f"last_updated_timestamp < {to_micros(datetime.now(UTC))}")) == "dcba"


def test_several_experiments_are_searched_and_deleted_models_are_not(shelf: Shelf) -> None:
    assert shelf.names(shelf.page(experiments=(shelf.other, 0, 7, 0))) == "edcba"
    assert shelf.names(shelf.page(experiments=())) == ""
    shelf.models.delete(shelf.ids["c"])
    assert shelf.names(shelf.page()) == "dba"


def test_datasets_hold_metrics_to_them(shelf: Shelf) -> None:
    test, first = OnDataset("test"), OnDataset("test", "1")
    assert shelf.names(shelf.page("metrics.acc > 0.75", datasets=(test,))) == "b"
    assert shelf.names(shelf.page("metrics.acc < 0.75", datasets=(first,))) == "a"
    assert shelf.names(shelf.page("metrics.acc > 0.85", datasets=(first, OnDataset("train")))) == "a"
    assert shelf.names(shelf.page(datasets=(test,))) == "ba"
    assert shelf.names(shelf.page("params.depth = '3'", datasets=(OnDataset("train"),))) == "a"
    assert shelf.names(shelf.page(datasets=(OnDataset("none"),))) == ""


@pytest.mark.parametrize("is_descending", [False, True])
def test_order_is_that_of_the_latest_point_and_what_lacks_it_comes_last(
    shelf: Shelf, is_descending: bool
) -> None:
    def sorted_by(key: str, dataset: OnDataset | None = None) -> str:
        return shelf.names(shelf.page(order_by=(ModelOrder(key, is_descending, dataset),)))

    assert sorted_by("metrics.acc") == ("abcd" if is_descending else "bacd")
    assert sorted_by("metrics.acc", OnDataset("test", "1")) == ("badc" if is_descending else "abdc")
    assert sorted_by("metrics.acc", OnDataset("train")) == "adcb"
    assert sorted_by("name") == ("dcba" if is_descending else "abcd")
    assert sorted_by("attributes.model_type") == ("badc" if is_descending else "dbac")
    assert sorted_by("creation_time") == ("dcba" if is_descending else "abcd")
    ids = sorted((shelf.ids[each], each) for each in "abcd")
    assert sorted_by("model_id") == "".join(each for _, each in ids)[:: -1 if is_descending else 1]


@pytest.mark.parametrize(
    "order_by",
    [
        (),
        (ModelOrder("metrics.acc", is_descending=True),),
        (ModelOrder("model_type"), ModelOrder("metrics.acc", dataset=OnDataset("test"))),
        (ModelOrder("status"), ModelOrder("source_run_id"), ModelOrder("name", is_descending=True)),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_join_without_a_gap(shelf: Shelf, order_by: tuple[ModelOrder, ...], limit: int) -> None:
    experiments = (0, shelf.other)
    whole = shelf.page(experiments=experiments, order_by=order_by)
    assert whole.next_page is None
    found: list[str] = []
    page = None
    while True:
        got = shelf.page(experiments=experiments, order_by=order_by, limit=limit, page=page)
        found += got.models
        page = got.next_page
        if page is None:
            break
        assert len(got.models) == limit
        shelf._add(f"n{len(found)}", type="new")  # what is made meanwhile moves nothing
    assert [each for each in found if each in whole.models] == list(whole.models)
    assert len(found) == len(set(found))


def test_a_page_of_another_search_is_refused(shelf: Shelf) -> None:
    page = shelf.page(limit=1).next_page
    for other in (
        {"filter": "name = 'a'"},
        {"experiments": (0, 1)},
        {"datasets": (OnDataset("test"),)},
        {"order_by": (ModelOrder("name"),)},
    ):
        with pytest.raises(BadFilter, match="page token"):
            shelf.page(limit=1, page=page, **other)
    with pytest.raises(BadFilter, match="page token"):
        shelf.page(page="bm9uc2Vuc2U=")


def test_what_is_no_filter_is_refused(shelf: Shelf) -> None:
    for wrong in (
        "name = a",
        "colour = 'x'",
        "name > 'a'",
        "metrics.acc = 'x'",
        "metrics.acc IS NULL",
        "datasets.name = 'x'",
        "name = 'a' OR name = 'b'",
        "a.b.c = 'x'",
    ):
        with pytest.raises(BadFilter, match="filter"):
            shelf.page(wrong)


def test_what_is_no_order_is_refused(shelf: Shelf) -> None:
    for wrong in (
        ModelOrder("colour"),
        ModelOrder("params.a"),
        ModelOrder(""),
        ModelOrder("name DESC"),
        ModelOrder("name", dataset=OnDataset("x")),
    ):
        with pytest.raises(BadFilter, match="order_by"):
            shelf.page(order_by=(wrong,))


def test_too_much_at_once_is_refused(shelf: Shelf) -> None:
    for limit in (0, -1, 50_001):
        with pytest.raises(BadFilter, match="limit"):
            shelf.page(limit=limit)
    shelf.page(limit=50_000, order_by=tuple(ModelOrder(f"metrics.{each}") for each in range(16)))
    with pytest.raises(BadFilter, match="at most 16"):
        shelf.page(order_by=tuple(ModelOrder(f"metrics.{each}") for each in range(17)))
    shelf.page("metrics.acc > 0", datasets=tuple(OnDataset(str(each), "x") for each in range(100)))
    with pytest.raises(BadFilter, match="at most 100"):
        shelf.page(datasets=tuple(OnDataset(str(each)) for each in range(101)))
