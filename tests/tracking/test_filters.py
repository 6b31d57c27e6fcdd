import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import BadFilter
from noria.tracking.searches.filters import (
    EXPERIMENTS,
    MAX_CONDITIONS,
    MAX_ORDERS,
    MAX_TEXT_CHARS,
    Condition,
    Entity,
    Operator,
    Order,
    parse_filter,
    parse_order,
)

METRIC, PARAM, TAG, ATTRIBUTE, DATASET = Entity


def _one(text: str) -> Condition:
    (condition,) = parse_filter(text)
    return condition


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("metrics.loss < 0.5", Condition(METRIC, "loss", Operator.LT, 0.5)),
        ("metric.loss>=-1e-3", Condition(METRIC, "loss", Operator.GE, -0.001)),
        ("metrics.a.b.c != .5", Condition(METRIC, "a.b.c", Operator.NE, 0.5)),
        ("metrics.1st = 5.", Condition(METRIC, "1st", Operator.EQ, 5.0)),
        ("metrics.é = +7", Condition(METRIC, "é", Operator.EQ, 7)),
        ("metrics.`odd one/x` <= 1", Condition(METRIC, "odd one/x", Operator.LE, 1)),
        ('`metrics`."odd one" > 1', Condition(METRIC, "odd one", Operator.GT, 1)),
        ("params.x = 'it''s'", Condition(PARAM, "x", Operator.EQ, "it's")),
        ('parameters.x != "it\'s"', Condition(PARAM, "x", Operator.NE, "it's")),
        ("param.x like '%\\_'", Condition(PARAM, "x", Operator.LIKE, "%\\_")),
        ("parameter.x ILike 'A'", Condition(PARAM, "x", Operator.ILIKE, "A")),
        ("tags.mlflow.parentRunId = 'x'", Condition(TAG, "mlflow.parentRunId", Operator.EQ, "x")),
        ("tag.x is null", Condition(TAG, "x", Operator.IS_NULL)),
        ("tags.x IS  NOT\nNULL", Condition(TAG, "x", Operator.IS_NOT_NULL)),
        ("run_id IN ('b', \"a\",'b')", Condition(ATTRIBUTE, "run_id", Operator.IN, ("b", "a"))),
        ("run.run_id not in('a')", Condition(ATTRIBUTE, "run_id", Operator.NOT_IN, ("a",))),
        ("attr.status = 'FINISHED'", Condition(ATTRIBUTE, "status", Operator.EQ, "FINISHED")),
        ("Created > 5", Condition(ATTRIBUTE, "start_time", Operator.GT, 5)),
        ("attributes.\"Run name\" = ''", Condition(ATTRIBUTE, "run_name", Operator.EQ, "")),
        ("dataset.context IN ('train')", Condition(DATASET, "context", Operator.IN, ("train",))),
        ("end_time < 99999999999999999999", Condition(ATTRIBUTE, "end_time", Operator.LT, 1e20)),
    ],
)
def test_a_condition_is_read(text: str, wanted: Condition) -> None:
    assert _one(text) == wanted
    assert _one(f"\n {text}\t") == wanted


def test_conditions_are_joined_by_and_in_any_case_and_an_empty_filter_has_none() -> None:
    found = parse_filter("params.a='x'AND params.b = \"y\" anD metrics.and = 1")
    assert [each.key for each in found] == ["a", "b", "and"]
    assert parse_filter("") == parse_filter(" \n") == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("metrics.a > 1 OR metrics.b > 1", "found 'OR metrics.b > 1' at character 15, wanted AND"),
        ("metrics.a > 1 metrics.b > 1", "wanted AND"),
        ("metrics.a > 1 AND", "found its end, wanted a name"),
        ("AND metrics.a > 1", "one of the attributes"),
        ("(metrics.a > 1)", "wanted a name"),
        ("metrics.a > '1'", "wanted a number"),
        ("metrics.a > nan", "wanted a number"),
        ("metrics.a > 1x", "wanted a number"),
        ("metrics.a > 1.2.3", "wanted a number"),
        ("metrics.a > ٣", "wanted a number"),
        ("metrics.a == 1", "wanted a number"),
        ("metrics.a <> 1", "wanted a number"),
        ("metrics.a LIKE 'x'", "for metrics.a: = != > >= < <="),
        ("metrics.a IS NULL", "for metrics.a"),
        ("metrics.val-loss > 1", "metrics.`odd-one`"),
        ("metrics. > 1", "quoted"),
        ("metrics.`a > 1", "closing `"),
        ("params.a = 5", "wanted a text in quotes"),
        ("params.a = x", "wanted a text in quotes"),
        ("params.a > 'x'", "for params.a: = != LIKE ILIKE IS NULL IS NOT NULL"),
        ("params.a = 'x", "closing '"),
        ("params.a = 'it's'", "wanted AND"),
        ("params.a IN ('x')", "for params.a"),
        ("params.a IS", "an operator"),
        ("params.a NOT LIKE 'x'", "an operator"),
        ("tags.a RLIKE 'x'", "an operator"),
        ("status IN ('FINISHED')", "for attributes.status"),
        ("run_id IN ()", "wanted a text in quotes"),
        ("run_id IN ('a' 'b')", "a comma or )"),
        ("run_id IN ('a',", "wanted a text in quotes"),
        ("run_id IN 'a'", "a list in parentheses"),
        ("run_id = ('a')", "wanted a text in quotes"),
        ("start_time = '5'", "wanted a number"),
        ("nothing = 'x'", "one of the attributes of runs: run_id, run_name"),
        ("things.a = 'x'", "one of metrics, params, tags, attributes, datasets, a dot and a key"),
        ("datasets.source = 'x'", "one of the datasets of runs: name, digest, context"),
        ("params.a = 'x\0'", "a NUL"),
        ("params.a = '\ud800'", "half a character"),
        ("params.a = 'x'; DROP TABLE runs", "wanted AND"),
        ("params.a = 'x' -- more", "wanted AND"),
        (f"params.a LIKE '{'%' * 10_001}'", "a pattern of at most 10,000 characters"),
    ],
)
def test_what_is_no_filter_is_refused_with_what_was_found_and_wanted(text: str, says: str) -> None:
    with pytest.raises(BadFilter) as caught:
        parse_filter(text)
    assert says in str(caught.value)
    assert str(caught.value).startswith("filter: found ")


def test_the_limits_hold_at_and_beyond() -> None:
    one = "metrics.a > 1"
    assert len(parse_filter(" AND ".join([one] * MAX_CONDITIONS))) == MAX_CONDITIONS
    with pytest.raises(BadFilter, match=f"at most {MAX_CONDITIONS} conditions"):
        parse_filter(" AND ".join([one] * (MAX_CONDITIONS + 1)))
    assert parse_filter(one.ljust(MAX_TEXT_CHARS))
    with pytest.raises(BadFilter, match="200,001 characters"):
        parse_filter(one.ljust(MAX_TEXT_CHARS + 1))
    ids = ",".join(f"'{n}'" for n in range(10_001))
    with pytest.raises(BadFilter, match="at most 10000 values"):
        parse_filter(f"run_id IN ({ids})")
    assert len(parse_order([f"metrics.m{n}" for n in range(MAX_ORDERS)])) == MAX_ORDERS
    with pytest.raises(BadFilter, match=f"at most {MAX_ORDERS} keys"):
        parse_order([f"metrics.m{n}" for n in range(MAX_ORDERS + 1)])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("metrics.loss", Order(METRIC, "loss")),
        ("metrics.`odd one` desc", Order(METRIC, "odd one", is_descending=True)),
        (' tags."a b"  ASC ', Order(TAG, "a b")),
        ("params.x DESC", Order(PARAM, "x", is_descending=True)),
        ("created Desc", Order(ATTRIBUTE, "start_time", is_descending=True)),
        ("attributes.end_time", Order(ATTRIBUTE, "end_time")),
    ],
)
def test_an_order_is_read(text: str, wanted: Order) -> None:
    assert parse_order([text]) == (wanted,)


@pytest.mark.parametrize(
    "texts",
    [["metrics.a UP"], ["metrics.a DESC DESC"], [""], ["metrics.a, metrics.b"], ["metrics.a = 1"],
     ["datasets.name"], ["nothing"], ["metrics.a", "metric.a DESC"], ["created", "start_time"],
     ["a" * 1_001]],
)  # fmt: skip
def test_what_is_no_order_is_refused(texts: list[str]) -> None:
    with pytest.raises(BadFilter, match=r"^order_by: found "):
        parse_order(texts)


def test_another_grammar_knows_other_keys() -> None:
    found = parse_filter("name LIKE 'a%' AND tags.team = 'x' AND experiment_id IN ('1')", EXPERIMENTS)
    assert [each.key for each in found] == ["name", "team", "experiment_id"]
    with pytest.raises(BadFilter, match="one of tags, attributes, a dot and a key"):
        parse_filter("metrics.a > 1", EXPERIMENTS)
    with pytest.raises(BadFilter, match="attributes of experiments: name, experiment_id"):
        parse_filter("run_id = 'a'", EXPERIMENTS)
    with pytest.raises(BadFilter, match="something to sort by"):
        parse_order(["tags.team"], EXPERIMENTS)


_PIECES = st.sampled_from(
    ["metrics", "params", "tags", ".", "a", "`", "'", '"', " ", "=", "!=", "<", "LIKE", "IN", "NOT", "IS",
     "NULL", "(", ")", ",", "AND", "OR", "5", "-", "e", "1e9", "run_id", "start_time", "\\", "%", "\n", "é",
     "''", "\0"]
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(_PIECES, max_size=40).map("".join)))
def test_any_text_gives_conditions_or_the_error(text: str) -> None:
    for parse in (lambda: parse_filter(text), lambda: parse_order([text])):
        try:
            found = parse()
        except BadFilter as error:
            assert len(str(error)) < 1_000
        else:
            assert all(isinstance(each, Condition | Order) for each in found)


_KEYS = st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text)


@given(_KEYS, st.text().filter(lambda text: "\0" not in text))
def test_any_key_and_any_text_can_be_quoted(key: str, value: str) -> None:
    quoted, text = key.replace("`", "``"), value.replace("'", "''")
    assert _one(f"tags.`{quoted}` = '{text}'") == Condition(TAG, key, Operator.EQ, value)
    assert parse_order([f"tags.`{quoted}` DESC"]) == (Order(TAG, key, is_descending=True),)


@pytest.mark.parametrize(
    "piece",
    [
        "'",
        "`",
        "a",
        "9",
        "(",
        " ",
        "AND ",
        ".",
        "-",
        "''",
        "a.",
        "metrics.a > 1 AND ",
        "run_id IN ('a',",
        "'a',",
    ],
)
def test_time_grows_with_the_length_and_no_faster(piece: str) -> None:
    for opening in ("", "run_id IN (", "params.a = '", "metrics.a > ", "metrics.`"):
        text = (opening + piece * (MAX_TEXT_CHARS // len(piece)))[:MAX_TEXT_CHARS]
        began = time.process_time()
        try:
            parse_filter(text)
        except BadFilter as error:
            assert len(str(error)) < 1_000
        assert time.process_time() - began < 1  # at most 0.02 measured
