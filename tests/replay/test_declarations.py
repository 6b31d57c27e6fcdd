"""What a replay can live through."""

from dataclasses import replace
from importlib import import_module

import pytest

import noria
from noria.errors import ConfigError

tiny = import_module("tests.projects.tiny.tiny")  # a user's project, which is typed as it likes


def test_a_view_of_a_query_is_refused() -> None:
    query = noria.Query("slow", "select 1", key="id", event_at="at", known_at="at")
    view = noria.FeatureView("slow", source=query, entity="id", features={"n": noria.agg.count("1d")})
    with pytest.raises(ConfigError, match="rows of 'slow', which is no dataset"):
        replace(tiny.weeks, training=replace(tiny.late_parcel, features=(view,)))
