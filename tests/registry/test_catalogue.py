"""Models by the names that people give them: labels beside the versions on record, on both databases."""

import threading
from typing import Any

import pytest
from tests.registry.conftest import Shelf
from tests.registry.test_model_versions import (  # noqa: F401 - fixtures
    booster,
    matrix,
    profile,
    register,
    rows,
)

from noria.errors import BadFilter, ConfigError, Conflict, NotFound
from noria.registry.catalogue_records import Stage
from noria.registry.store import Registry


def _verbs(shelf: Shelf, *nouns: str) -> list[tuple[str, str, dict[str, Any]]]:
    found = [event for noun in nouns for event in shelf.ledger.list_events(verb=f"{noun}.*")]
    return [(each.verb, each.subject, each.payload) for each in sorted(found, key=lambda each: each.seq)]


def _among_threads(count: int, work: Any) -> list[Any]:
    given: list[Any] = []

    def perform(number: int) -> None:
        try:
            given.append(work(number))
        except Conflict as err:
            given.append(err)

    threads = [threading.Thread(target=perform, args=(number,)) for number in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return given


def test_a_model_keeps_what_is_said_of_it(shelf: Shelf) -> None:
    made = shelf.models.create("flights", description="late or not", tags={"team": "ops", "b": "ü"})
    assert shelf.models.get("flights") == made
    assert (made.ledger_name, made.tags) == ("flights", {"b": "ü", "team": "ops"})
    assert (made.aliases, made.latest) == ({}, ())
    assert shelf.models.describe("flights", "on time or not").description == "on time or not"
    assert shelf.models.describe("flights", None).description is None
    shelf.models.put_tag("flights", "team", "data")
    shelf.models.remove_tag("flights", "b")
    shelf.models.remove_tag("flights", "never there")
    found = shelf.models.get("flights")
    assert found.tags == {"team": "data"}
    assert found.updated_at >= made.updated_at
    assert [verb for verb, _, _ in _verbs(shelf, "model")] == [
        "model.created",
        "model.described",
        "model.described",
    ]


def test_a_name_is_taken_until_its_model_is_deleted_and_the_next_one_begins_anew(shelf: Shelf) -> None:
    shelf.models.create("flights")
    with pytest.raises(Conflict, match="already exists"):
        shelf.models.create("flights")
    assert shelf.made("flights", 2) == [1, 2]
    shelf.models.put_alias("flights", "champion", 2)
    shelf.models.delete("flights")
    with pytest.raises(NotFound, match="'flights'"):
        shelf.models.get("flights")
    with pytest.raises(NotFound):
        shelf.versions.register("flights", "s3://bucket/x")
    assert shelf.versions.search().versions == []
    again = shelf.models.create("flights")
    assert (again.ledger_name, again.aliases, again.latest) == ("flights~2", {}, ())
    assert shelf.made("flights") == [1]
    shelf.models.delete("flights")
    assert shelf.models.create("flights").ledger_name == "flights~3"
    refs = [each.ref for each in shelf.ledger.list_versions(kind="model")]
    assert refs == ["flights:1", "flights:2", "flights~2:1"]
    assert shelf.ledger.verify().ok
    assert _verbs(shelf, "model")[2] == ("model.deleted", "flights", {"name": "flights", "versions": 2})


def test_a_renamed_model_keeps_its_versions_and_frees_its_name(shelf: Shelf) -> None:
    shelf.models.create("flights")
    shelf.models.create("trains")
    shelf.made("flights", 2)
    before = shelf.versions.get("flights", 1)
    renamed = shelf.models.rename("flights", "planes")
    assert (renamed.name, renamed.ledger_name, renamed.latest[0].number) == ("planes", "flights", 2)
    assert shelf.versions.get("planes", 1).updated_at > before.updated_at
    with pytest.raises(NotFound):
        shelf.versions.get("flights", 1)
    assert shelf.made("planes") == [3]
    assert shelf.models.create("flights").ledger_name == "flights~2"
    with pytest.raises(Conflict, match="name=trains"):
        shelf.models.rename("planes", "trains")
    assert shelf.models.rename("planes", "planes").name == "planes"
    told = [each for each in _verbs(shelf, "model") if each[0] == "model.renamed"]
    assert told == [("model.renamed", "flights", {"name": "planes", "before": "flights"})]


def test_what_can_be_no_name_is_refused(shelf: Shelf) -> None:
    shelf.models.create("flights")
    for name in ("", "  ", "a/b", "a:b", "..", ".", "..a", "\0", "a\0b", "x" * 257):
        for work in (
            lambda: shelf.models.create(name),  # noqa: B023
            lambda: shelf.models.get(name),  # noqa: B023
            lambda: shelf.models.rename("flights", name),  # noqa: B023
            lambda: shelf.versions.register(name, "s3://bucket/x"),  # noqa: B023
        ):
            with pytest.raises(ConfigError):
                work()
    assert [each.name for each in shelf.models.search().models] == ["flights"]


def test_any_other_text_is_a_name(shelf: Shelf) -> None:
    for name in ("x" * 256, "größe 模型", "a@b", "a%2Fb", "a~2", "'; DROP TABLE x", "a.b"):
        shelf.models.create(name)
        assert shelf.made(name) == [1]
        ref = shelf.ledger.list_versions(kind="model", name=name.replace("@", "~"))[0].ref
        assert shelf.registry.get(ref).number == 1
        shelf.models.delete(name)
        assert shelf.models.create(name).latest == ()


def test_tags_and_aliases_have_limits(shelf: Shelf) -> None:
    shelf.models.create("flights", tags={"k" * 250: "v" * 100_000})
    shelf.made("flights")
    for name, value in (("k" * 251, ""), ("k", "v" * 100_001), ("", ""), ("k", "\0"), ("\0", "v")):
        for put in (
            lambda: shelf.models.put_tag("flights", name, value),  # noqa: B023
            lambda: shelf.versions.put_tag("flights", 1, name, value),  # noqa: B023
            lambda: shelf.models.create("trains", tags={name: value}),  # noqa: B023
            lambda: shelf.versions.register("flights", "s3://b/x", tags={name: value}),  # noqa: B023
        ):
            with pytest.raises(ConfigError):
                put()
    assert shelf.made("flights") == [2]
    shelf.models.put_alias("flights", "a" * 255, 1)
    for alias in ("a" * 256, "", "a b", "a.b", "latest", "LATEST", "v1", "V12", "a/b", "a\n"):
        with pytest.raises(ConfigError):
            shelf.models.put_alias("flights", alias, 1)
    for alias in ("version", "v", "v1a", "größe", "-", "_"):
        shelf.models.put_alias("flights", alias, 1)
        assert shelf.models.get_aliased("flights", alias).number == 1


def test_an_alias_names_one_version_at_a_time(shelf: Shelf) -> None:
    shelf.models.create("flights")
    shelf.made("flights", 3)
    shelf.models.put_alias("flights", "champion", 1)
    shelf.models.put_alias("flights", "champion", 1)
    shelf.models.put_alias("flights", "champion", 3)
    shelf.models.put_alias("flights", "best", 3)
    assert shelf.models.get("flights").aliases == {"best": 3, "champion": 3}
    assert shelf.versions.get("flights", 3).aliases == ("best", "champion")
    assert shelf.versions.get("flights", 1).aliases == ()
    with pytest.raises(NotFound):
        shelf.models.put_alias("flights", "champion", 4)
    with pytest.raises(NotFound, match="alias"):
        shelf.models.get_aliased("flights", "never")
    with pytest.raises(NotFound, match="model"):
        shelf.models.get_aliased("trains", "champion")
    shelf.models.remove_alias("flights", "best")
    shelf.models.remove_alias("flights", "best")
    shelf.versions.delete("flights", 3)
    assert shelf.models.get("flights").aliases == {}
    told = [(verb, payload) for verb, _, payload in _verbs(shelf, "model")][1:]
    assert told == [
        ("model.alias_set", {"alias": "champion", "version": 1, "before": None}),
        ("model.alias_set", {"alias": "champion", "version": 3, "before": 1}),
        ("model.alias_set", {"alias": "best", "version": 3, "before": None}),
        ("model.alias_removed", {"alias": "best", "version": 3}),
    ]


def test_stages_are_told_and_move_nothing(shelf: Shelf) -> None:
    shelf.models.create("flights")
    shelf.made("flights", 3)
    assert Stage.read("pRODUCTION") is Stage.PRODUCTION
    with pytest.raises(ConfigError, match="None, Staging, Production, Archived"):
        Stage.read("Live")
    shelf.versions.put_stage("flights", 1, Stage.PRODUCTION)
    shelf.versions.put_stage("flights", 2, Stage.PRODUCTION)
    latest = shelf.versions.latest("flights")
    assert [(each.stage, each.number) for each in latest] == [(Stage.NONE, 3), (Stage.PRODUCTION, 2)]
    found = shelf.versions.put_stage("flights", 3, Stage.PRODUCTION, archive_others=True)
    assert (found.stage, found.number) == (Stage.PRODUCTION, 3)
    latest = shelf.versions.latest("flights", [Stage.PRODUCTION, Stage.ARCHIVED])
    assert [(each.stage, each.number) for each in latest] == [(Stage.PRODUCTION, 3), (Stage.ARCHIVED, 2)]
    assert shelf.versions.get("flights", 1).stage is Stage.ARCHIVED
    assert shelf.versions.latest("flights", [Stage.STAGING]) == []
    for stage in (Stage.NONE, Stage.ARCHIVED):
        with pytest.raises(ConfigError, match="not an Active stage"):
            shelf.versions.put_stage("flights", 1, stage, archive_others=True)
    assert [(subject, payload) for _, subject, payload in _verbs(shelf, "model_version")] == [
        ("flights:1", {"stage": "Production", "before": "None"}),
        ("flights:2", {"stage": "Production", "before": "None"}),
        ("flights:3", {"stage": "Production", "before": "None"}),
        ("flights:1", {"stage": "Archived", "before": "Production"}),
        ("flights:2", {"stage": "Archived", "before": "Production"}),
    ]
    assert shelf.ledger.list_pointers() == []


def test_a_deleted_version_is_on_record_and_its_number_is_not_given_again(shelf: Shelf) -> None:
    shelf.models.create("flights")
    shelf.made("flights", 2)
    shelf.versions.put_tag("flights", 2, "a", "b")
    shelf.versions.delete("flights", 2)
    for work in (
        lambda: shelf.versions.get("flights", 2),
        lambda: shelf.versions.delete("flights", 2),
        lambda: shelf.versions.describe("flights", 2, "x"),
        lambda: shelf.versions.put_tag("flights", 2, "a", "b"),
        lambda: shelf.versions.remove_tag("flights", 2, "a"),
        lambda: shelf.versions.put_stage("flights", 2, Stage.STAGING),
        lambda: shelf.models.put_alias("flights", "a", 2),
        lambda: shelf.versions.get("flights", 0),
        lambda: shelf.versions.get("flights", 10**40),
    ):
        with pytest.raises(NotFound):
            work()
    assert [each.number for each in shelf.models.get("flights").latest] == [1]
    assert shelf.made("flights") == [3]
    assert [each.number for each in shelf.versions.search().versions] == [3, 1]
    assert shelf.registry.get("flights:2").number == 2
    assert shelf.ledger.verify().ok


def test_two_make_one_model_and_eight_register_versions_without_a_gap(shelf: Shelf) -> None:
    given = _among_threads(8, lambda _: shelf.models.create("flights").name)
    assert sorted(type(each) is Conflict for each in given) == [False] + [True] * 7
    given = _among_threads(
        8, lambda number: shelf.versions.register("flights", f"s3://b/{number % 2}").number
    )
    assert sorted(given) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert shelf.ledger.verify().ok


def test_searches_find_sort_and_page(shelf: Shelf) -> None:
    for number, name in enumerate(["b", "a", "Big", "c_d"]):
        shelf.models.create(name, tags={"team": "ops" if number % 2 else "data", "n": str(number)})
    search = shelf.models.search
    assert [each.name for each in search().models] == ["Big", "a", "b", "c_d"]
    assert [each.name for each in search(filter="name LIKE 'b%'").models] == ["b"]
    assert [each.name for each in search(filter="name ILIKE 'B%'").models] == ["Big", "b"]
    assert [each.name for each in search(filter="name IN ('a', 'b', 'x')").models] == ["a", "b"]
    assert [each.name for each in search(filter="tags.team = 'ops' and tag.n != '1'").models] == ["c_d"]
    assert [each.name for each in search(order_by=["creation_timestamp DESC"]).models] == [
        "c_d", "Big", "a", "b"]  # fmt: skip
    shelf.models.describe("a", "newest")
    assert search(order_by=["timestamp DESC"], limit=1).models[0].name == "a"
    shelf.models.delete("b")
    names, page = [], None
    while True:
        found = search(limit=1, page=page, order_by=["name DESC"])
        names += [each.name for each in found.models]
        page = found.next_page
        if page is None:
            break
        with pytest.raises(BadFilter, match="page token"):
            search(limit=1, page=page)
    assert names == ["c_d", "a", "Big"]
    for wrong in (
        "run_id = 'x'",
        "name = 1",
        "name > 'a'",
        "creation_timestamp > 1",
        "metrics.a > 1",
        "name",
    ):
        with pytest.raises(BadFilter):
            search(filter=wrong)
    for limit in (0, 1_001):
        with pytest.raises(BadFilter):
            search(limit=limit)


def test_versions_are_found_by_what_is_said_of_them(shelf: Shelf) -> None:
    shelf.models.create("flights")
    shelf.models.create("trains")
    run = shelf.run("model/MLmodel")
    shelf.versions.register("flights", f"runs:/{run}/model", run=run, tags={"lang": "en"})
    shelf.made("flights", 10)
    shelf.made("trains", 2)

    def found(filter: str = "", *order_by: str) -> list[tuple[str, int]]:
        page = shelf.versions.search(filter=filter, order_by=order_by)
        return [(each.model, each.number) for each in page.versions]

    assert found()[:3] == [("trains", 2), ("trains", 1), ("flights", 11)]
    assert found("name = 'flights' AND version_number > 9", "version_number") == [
        ("flights", 10), ("flights", 11)]  # fmt: skip
    assert found(f"run_id = '{run}'") == found(f"run_id IN ('{run}', 'x')") == [("flights", 1)]
    assert found("source_path LIKE 's3://%/trains'") == [("trains", 2), ("trains", 1)]
    assert found("tags.lang = 'en'") == found("tags.lang LIKE 'e%'") == [("flights", 1)]
    assert found("tags.lang != 'en'") == []
    assert found("", "name DESC", "creation_timestamp")[:3] == [
        ("trains", 1), ("trains", 2), ("flights", 1)]  # fmt: skip
    assert found("", "run_id DESC")[0] == ("flights", 1)
    shelf.models.rename("trains", "rail")
    assert found("name = 'rail'") == [("rail", 2), ("rail", 1)]
    for wrong in ("version_number = '1'", "version_number > 1.5", "version_number = 99999999999999999999"):
        with pytest.raises(BadFilter):
            found(wrong)
    numbers, page = [], None
    while True:
        part = shelf.versions.search(filter="name = 'flights'", limit=4, page=page)
        numbers += [each.number for each in part.versions]
        page = part.next_page
        if page is None:
            break
    assert numbers == list(range(11, 0, -1))


def test_prompts_are_found_only_where_they_are_asked_for(shelf: Shelf) -> None:
    is_prompt = "tag.`mlflow.prompt.is_prompt`"
    shelf.models.create("flights")
    shelf.models.create("greeting", tags={"mlflow.prompt.is_prompt": "true"})
    for filter in ("", f"{is_prompt} != 'true'", f"{is_prompt} = 'false'"):
        assert [each.name for each in shelf.models.search(filter=filter).models] == ["flights"]
    found = shelf.models.search(filter=f"{is_prompt} = 'true'")
    assert [each.name for each in found.models] == ["greeting"]


def test_a_native_version_is_one_of_its_model(
    shelf: Shelf,
    booster: Any,  # noqa: F811
    rows: Any,  # noqa: F811
    profile: Any,  # noqa: F811
) -> None:
    def made(auc: float) -> int:
        version = register(shelf.registry, booster, rows, profile, metrics={"auc": auc})
        assert isinstance(shelf.registry, Registry)
        return version.number

    assert made(0.1) == made(0.1) == 1
    found = shelf.versions.get("late_parcel", 1)
    assert (found.source, found.location) == ("noria:/model/late_parcel:1", "noria:/model/late_parcel:1")
    assert shelf.made("late_parcel") == [2]
    shelf.models.rename("late_parcel", "parcels")
    assert made(0.2) == 3
    assert [each.number for each in shelf.models.get("parcels").latest] == [3]
    shelf.models.delete("parcels")
    assert shelf.models.create("parcels").ledger_name == "parcels"
    assert made(0.3) == 4
    names = {each.name: [one.number for one in each.latest] for each in shelf.models.search().models}
    assert names == {"parcels": [], "parcels~2": [4]}
    assert shelf.registry.get("late_parcel").number == 4
    assert shelf.ledger.verify().ok
