"""What is known of why a model scores as it does, as values: JSON-able, kept beside the version."""

from typing import Literal

import msgspec

from noria.evaluation.intervals import Interval

__all__ = ["Effect", "Explanation", "InputExplanation", "Method", "Unit"]

Method = Literal["tree_shap", "sampled_shapley"]
Unit = Literal["log_odds", "raw", "score"]


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What an input adds, on average, where its value lies in a span, is a category, or is missing.

    Parameters
    ----------
    low, high
        Of the values seen in the span; None of a category and of what is missing.
    category
        None of a number; of a category that is missing or was unknown in training, as of a number that is
        missing, all three are None.
    rows, mean
        How many rows, and the mean of the contributions.
    """

    low: float | None = None
    high: float | None = None
    category: str | None = None
    rows: int
    mean: float


class InputExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """How much a model depends on an input, and how.

    Parameters
    ----------
    mean_absolute
        Mean of the absolute contributions, in the explanation's unit.
    permuted
        By how much the log loss rises when the input's values are put in random order among the rows, with
        the 95 % interval over the repeats; None where no rows were held back.
    """

    name: str
    kind: str
    mean_absolute: float
    permuted: Interval | None
    effects: tuple[Effect, ...]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What a model version depends on, over rows; it holds no row.

    Parameters
    ----------
    model : str
        The digest of the version.
    unit
        Of contributions: those of a row and `base` add up to the log-odds of its score, to the raw output of
        its trees, or to the score itself.
    method
        `tree_shap`, exact, or `sampled_shapley`, over sampled orders of the inputs.
    base
        What contributions start from.
    rows, rows_from
        How many rows contributions were computed for, and whether those were held back from training.
    permuted_rows, repeats, seed
        Of the permutations.
    inputs
        The most important first.
    """

    model: str
    method: Method
    unit: Unit
    base: float
    rows: int
    rows_from: Literal["held_back", "training"]
    permuted_rows: int
    repeats: int
    seed: int
    inputs: tuple[InputExplanation, ...]
