"""`noria record`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options
from noria.errors import ConfigError

if TYPE_CHECKING:
    from noria.workspace.recording import Recorded

__all__ = ["record"]


def record(
    prediction_id: Annotated[str | None, Parameter(name="PREDICTION_ID")] = None,
    outcome: Annotated[str | None, Parameter(name="OUTCOME")] = None,
    /,
    *,
    file: Annotated[list[Path], Parameter(name="--file", negative="", consume_multiple=True)] = [],  # noqa: B006
    known_at: str | None = None,
    deployment: str | None = None,
    options: Options = DEFAULT,
) -> None:
    """Record what became of predictions. Of several outcomes of one the latest known counts.

    Parameters
    ----------
    prediction_id
        The id that the prediction was answered under.
    outcome
        A number such as 1, a text for a label, or none where it is known that none will come.
    file
        Instead: files with columns prediction_id, outcome and, if it is there, known_at.
    known_at
        Since when it is known, such as 2026-07-01T12:00Z. Default: now.
    deployment
        Whose, such as late@production. Default: whoever answered it.
    """
    from noria.cli import screen

    if bool(file) == (prediction_id is not None) or (prediction_id is not None and outcome is None):
        raise ConfigError("give PREDICTION_ID and OUTCOME, or `--file FILE...`")
    with options.open() as project:
        if prediction_id is None:
            if known_at is not None:
                raise ConfigError("with `--file` the instant is the column known_at")
            made = project.record([str(each) for each in file], deployment=deployment)
        else:
            value = _value(outcome or "")
            made = project.record(prediction_id, value, known_at=known_at, deployment=deployment)
    if options.json:
        screen.json(made)
        return
    _show(made)


def _value(text: str) -> float | str | None:
    if text.lower() in ("none", "null"):
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _show(made: "Recorded") -> None:
    from noria.cli import screen

    whose = ", ".join(made.deployments) or "nothing"
    before = f", {made.repeated:,} of them before" if made.repeated else ""
    screen.line(f"{screen.count(made.recorded, 'outcome')} of {whose} on record{before}.")
    if made.unknown:
        screen.line(
            f"{made.unknown:,} of them of predictions that are not known there; they count once those are."
        )
