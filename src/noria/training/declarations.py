"""How a model is declared: which rows, which label, which inputs, which function. No engine is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from noria.errors import ConfigError
from noria.features.fields import Field, category
from noria.features.on_demand import OnDemand, fields_of, on_demand_of, views_of

if TYPE_CHECKING:
    from noria.features.declarations import FeatureView
    from noria.lake.declarations import Dataset
    from noria.training.records import Estimator, TrainingRun, TrainingSet
    from noria.value.declarations import Objective

__all__ = ["Field", "Label", "Spine", "Training", "category", "train"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Spine:
    """The rows to predict: one per thing, each at the instant of its prediction.

    Parameters
    ----------
    source : Dataset
        Holds them.
    id : str
        The column that names a row; it is the prediction id.
    at : str
        The column with the instant at which the prediction is made: nothing known later is used.
    """

    source: Dataset
    id: str = field(kw_only=True)
    at: str = field(kw_only=True)

    def __post_init__(self) -> None:
        for name, value in (("id", self.id), ("at", self.at)):
            if not value:
                raise ConfigError(f"the spine's {name} is empty; name a column of its source")


@dataclass(frozen=True, slots=True)
class Label:
    """What is predicted: a column of 0 and 1, known from the instant its dataset says.

    Parameters
    ----------
    name : str
        What the outcome is called.
    source : Dataset
        Where outcomes land; a correction is a later `known_at` and wins from then on.
    column : str
        Its 0, 1, or null where the outcome stays unknown.
    on : str
        The column of `source` that holds the spine's id.
    """

    name: str
    source: Dataset = field(kw_only=True)
    column: str = field(kw_only=True)
    on: str = field(kw_only=True)

    def __post_init__(self) -> None:
        for name, value in (("name", self.name), ("column", self.column), ("on", self.on)):
            if not value:
                raise ConfigError(f"label {self.name!r} has an empty {name}")


@dataclass(frozen=True, slots=True)
class Training:
    """A model's declaration: calling it calls the function that fits the model.

    Made by `train`. Inputs of the model are `fields`, then the features of `features`, in their order. What
    on-demand features read is asked for and looked up too, and is no input of the model by that.
    """

    stands_for_version: ClassVar[bool] = True  # to a step it is handed as the newest version of its model

    name: str
    spine: Spine
    label: Label
    fields: tuple[Field, ...]
    features: tuple[FeatureView | OnDemand, ...]
    objective: Objective | None
    seed: int
    function: Callable[[TrainingSet, TrainingRun], Estimator]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"training {self.name!r}: a name has lower-case letters, digits and underscores"
            )
        if not self.input_names:
            raise ConfigError(f"training {self.name!r} has no inputs; give fields or features")
        names = self.input_names
        twice = sorted({each for each in names if names.count(each) > 1})
        if twice:
            raise ConfigError(f"training {self.name!r} reads a column twice: {', '.join(twice)}")
        if self.seed < 0:
            raise ConfigError(f"training {self.name!r} has seed {self.seed}; wanted 0 or more")
        for view in self.features:
            for feature in () if isinstance(view, OnDemand) else view.spec().features:
                if feature.type == "list":
                    raise ConfigError(
                        f"training {self.name!r} reads feature {feature.name!r} of view {view.name!r}, a "
                        "list; models read numbers, texts and vectors: give it a view of its own"
                    )
        kinds = {each.name: each.kind for each in self.fields}
        for each in fields_of(self.features):
            if kinds.setdefault(each.name, each.kind) != each.kind:
                raise ConfigError(
                    f"training {self.name!r} and an on-demand feature read {each.name!r}, one as a number "
                    "and one as a text; declare it alike"
                )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """`<view>__<feature>` of all features that the model reads, in order; a vector gives its elements."""
        return tuple(
            name
            for each in self.features
            for name in (each.columns if isinstance(each, OnDemand) else each.spec().model_columns)
        )

    @property
    def views(self) -> tuple[FeatureView, ...]:
        """Every view that is looked up: those of `features`, and those that on-demand features read."""
        return views_of(self.features)

    @property
    def on_demand(self) -> tuple[OnDemand, ...]:
        """Every on-demand feature that is computed, each behind those that it reads."""
        return on_demand_of(self.features)

    @property
    def request_fields(self) -> tuple[Field, ...]:
        """Columns that come with the request: those of the model, and those of on-demand features."""
        named = {each.name: each for each in (*self.fields, *fields_of(self.features))}
        return tuple(named.values())

    @property
    def input_names(self) -> tuple[str, ...]:
        """Every column that the model reads, in its order."""
        return tuple(each.name for each in self.fields) + self.feature_names

    def __call__(self, data: TrainingSet, run: TrainingRun) -> Estimator:
        """Fit the model."""
        return self.function(data, run)


def train(
    name: str,
    *,
    spine: Spine,
    label: Label,
    fields: Sequence[str | Field] = (),
    features: Sequence[FeatureView | OnDemand] = (),
    objective: Objective | None = None,
    seed: int = 0,
) -> Callable[[Callable[[TrainingSet, TrainingRun], Estimator]], Training]:
    """Declare that the decorated function fits the model `name`.

    Parameters
    ----------
    name : str
        Lower-case letters, digits and underscores.
    spine : Spine
        The rows to predict.
    label : Label
        What is predicted.
    fields : sequence of str or Field
        Columns of the spine that come with a request: a plain name is a number, `category(name)` a text.
    features : sequence of FeatureView or OnDemand
        Looked up as of each row's instant, or computed of what comes with the request and what was looked up.
    objective : Objective, optional
        What a right or wrong decision pays.
    seed : int
        Given to the function as `run.seed`.

    Raises
    ------
    ConfigError
        If the name or the inputs make no sense.
    """
    columns = tuple(Field(each) if isinstance(each, str) else each for each in fields)

    def declare(function: Callable[[TrainingSet, TrainingRun], Estimator]) -> Training:
        return Training(
            name=name,
            spine=spine,
            label=label,
            fields=columns,
            features=tuple(features),
            objective=objective,
            seed=seed,
            function=function,
        )

    return declare
