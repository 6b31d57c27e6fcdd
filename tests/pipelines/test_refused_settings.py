"""Settings of steps and pipelines that there are not, or that cannot be kept."""

from datetime import timedelta
from typing import Any

import pytest
from tests.pipelines.drawn_steps import number

from noria.errors import ConfigError
from noria.pipelines import declarations
from noria.pipelines.declarations import Pipeline, pipeline
from noria.pipelines.tracing import draw

DECLARING: Any = declarations  # what is called below is wrong, and type checkers would say so


def plain(x: int) -> int:
    return x


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"retry": 2},
            "@step takes no 'retry' (did you mean 'retries'?); it takes name, cpus, gpus, memory,",
        ),
        ({"time_out": "1m"}, "(did you mean 'timeout'?)"),
        ({"zzz": 1, "caches": True}, "takes no 'zzz', 'caches' (did you mean 'cache'?); it takes name"),
    ],
)
def test_a_misspelt_setting_of_a_step_is_named_with_the_nearest_and_all(
    settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        DECLARING.step(**settings)
    assert told in str(caught.value)
    assert str(caught.value).endswith("retries, backoff, executor, cache, files")


def test_a_misspelt_setting_of_a_pipeline_is_named_with_the_nearest_and_all() -> None:
    told = "@pipeline takes no 'deadlin' (did you mean 'deadline'?); it takes name, deadline, executor"
    with pytest.raises(ConfigError) as caught:
        DECLARING.pipeline(plain, deadlin="2h")
    assert str(caught.value) == told


def nested(*, outer: str | None, inner: str | None) -> Pipeline[[], int]:
    """Give a pipeline with another one in it."""

    @pipeline(deadline=inner)
    def within() -> int:
        return number(1)

    @pipeline(deadline=outer)
    def around() -> int:
        return within()

    return around


@pytest.mark.parametrize(("outer", "has"), [(None, "none"), ("2h", "7200 s")])
def test_a_nested_deadline_that_nobody_would_keep_is_refused(outer: str | None, has: str) -> None:
    with pytest.raises(ConfigError) as caught:
        draw(nested(outer=outer, inner="1h"))
    told = str(caught.value)
    assert "the nested pipeline 'within' has a deadline of 3600 s" in told
    assert f"that of 'around' is {has}" in told
    assert "give 'around' a deadline that is no longer, or the steps of 'within' a timeout" in told


@pytest.mark.parametrize(("outer", "inner"), [("1h", "1h"), ("30m", "1h"), ("1h", None), (None, None)])
def test_a_nested_deadline_that_the_run_keeps_anyway_is_taken(outer: str | None, inner: str | None) -> None:
    graph = draw(nested(outer=outer, inner=inner))
    assert graph.deadline == {"1h": timedelta(hours=1), "30m": timedelta(minutes=30), None: None}[outer]
