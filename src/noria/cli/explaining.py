"""`noria explain`."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

if TYPE_CHECKING:
    from noria.serving.explaining.records import Explained

__all__ = ["explain"]


def explain(
    prediction_id: Annotated[str, Parameter(name="PREDICTION_ID")],
    /,
    *,
    top: int = 8,
    environment: str | None = None,
    options: Options = DEFAULT,
) -> None:
    """Tell what each input added to the score of a prediction that was answered.

    By the version that answered it, and the values that it saw.

    Parameters
    ----------
    prediction_id
        As it was sent, or given back with the answer.
    top
        So many inputs, those that added most, up or down; the others are one line.
    environment
        production, or production/late_arrival, where several logged the same id.
    """
    from noria.cli import screen
    from noria.errors import ConfigError

    if top < 1:
        raise ConfigError(f"--top is {top}; give 1 or more")
    with options.open() as project:
        found = project.explain(prediction_id, deployment=environment)
    if options.json:
        from noria.serving.wire.explanations import told

        screen.json(told(found, top=top))
        return
    _show(found, top)


def _show(found: "Explained", top: int) -> None:
    from noria.cli import screen
    from noria.workspace.models.explained import METHODS, UNITS

    screen.line(
        f"What inputs added to the score of {found.prediction_id} by {found.model}:{found.version}: "
        f"{METHODS[found.method]}. Base and inputs add up to {UNITS[found.unit]}."
    )
    for number in found.numbers:
        label = f"{number.label}: " if number.label else ""
        screen.heading(f"{label}score {number.score:.4f}")
        rows = [(each.name, each.value, f"{each.contribution:+.4f}") for each in number.contributions[:top]]
        others = number.contributions[top:]
        if others:
            left = sum(each.contribution for each in others)
            rows.append((f"{len(others)} other inputs", "", f"{left:+.4f}"))
        rows += [("base", "", f"{number.base:+.4f}"), ("together", "", f"{number.total:+.4f}")]
        screen.table(["input", "value", "adds"], rows, right=["value", "adds"])
