"""What a model depends on, in words and figures for its card."""

from typing import TYPE_CHECKING

from noria.explain.records import Effect, Explanation
from noria.records import Version
from noria.training.explanations import find_explanation, read_explanation
from noria.workspace.models.card_parts import Bar, CardPart, figure, interval

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["METHODS", "UNITS", "effect_label", "explained_part", "rows_told", "shares_of"]

METHODS = {
    "linear_shap": "Shapley values of a linear model, exact",
    "sampled_shapley": "Shapley values, sampled",
    "tree_shap": "Shapley values of the trees, exact",
}
UNITS = {
    "log": "the logarithm of the score",
    "log_odds": "log-odds of the score",
    "logits": "logits, of which softmax makes the scores",
    "raw": "the raw output of the trees",
    "score": "the score",
}
_SHOWN = 12


def explained_part(project: "Project", version: Version) -> CardPart:
    """Give the part of a card that tells what a model depends on. Raises `DigestMismatch`."""
    title = "What it depends on"
    if find_explanation(project.ledger, version) is None:
        events = project.ledger.list_events(verb="model.unexplained", subject=version.ref)
        told = [f"It could not be explained: {each.payload['reason']}." for each in events]
        return CardPart(title=title, texts=tuple(told) or ("No explanation was recorded of it.",))
    found = read_explanation(project.ledger, project.registry, version)
    shares = shares_of(found)
    bars = [
        Bar(
            name=each.name,
            share=shares[each.name],
            told="" if each.permuted is None
            else f"{figure(each.permuted.mean)} ({interval(each.permuted.low, each.permuted.high)})",
            effects=tuple((effect_label(effect), effect.mean) for effect in each.effects),
        )
        for each in found.inputs[:_SHOWN]
    ]  # fmt: skip
    left = len(found.inputs) - len(bars)
    texts = [
        f"{METHODS[found.method]}, over {rows_told(found)}: what inputs add, from a base of "
        f"{figure(found.base)}, is in {UNITS[found.unit]}. A share is an input's part of all that is "
        "added, up or down."
    ]
    if found.repeats:
        texts.append(
            f"Beside it: by how much the log loss of {found.permuted_rows:,} of these rows rises when the "
            f"input's values are shuffled, with the 95 % interval over {found.repeats} shuffles. Of inputs "
            "that say the same, each may look unimportant."
        )
    if left > 0:
        texts.append(f"{left} more inputs add less than these.")
    return CardPart(title=title, texts=tuple(texts), bars=tuple(bars))


def rows_told(found: Explanation) -> str:
    """Say which rows an explanation is over."""
    where = "held-back rows" if found.rows_from == "held_back" else "rows that it learned from"
    return f"{found.rows:,} {where}"


def shares_of(found: Explanation) -> dict[str, float]:
    """Give each input's part of the sum of mean absolute contributions."""
    total = sum(each.mean_absolute for each in found.inputs)
    return {each.name: each.mean_absolute / total if total else 0.0 for each in found.inputs}


def effect_label(effect: Effect) -> str:
    """Say of which values an effect is."""
    if effect.category is not None:
        return effect.category
    if effect.low is None or effect.high is None:
        return "missing"
    return figure(effect.low) if effect.low == effect.high else interval(effect.low, effect.high)
