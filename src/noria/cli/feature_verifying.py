"""`noria feature verify`."""

from typing import Annotated

from cyclopts import Parameter

from noria.cli.options import DEFAULT, Options

__all__ = ["verify"]


def verify(
    deployment: Annotated[str, Parameter(name="DEPLOYMENT")],
    environment: Annotated[str, Parameter(name="ENVIRONMENT")] = "production",
    /,
    *,
    most: Annotated[int, Parameter(name="--most", help="Predictions, chosen by their ids.")] = 1_000,
    since: Annotated[
        str | None, Parameter(name="--since", help="Logged after this instant. Default: all that is shipped.")
    ] = None,
    options: Options = DEFAULT,
) -> int:
    """Compute features that a deployment served again offline. Exits with 1 if any was wrong.

    Parameters
    ----------
    deployment
        Its name.
    environment
        Where it is.
    """
    from noria.cli import screen
    from noria.cli.features import instant_of

    with options.open() as project:
        found = project.features.verify(deployment, environment, since=instant_of(since), most=most)
    if options.json:
        screen.json(found)
        return 1 if found.is_broken else 0
    screen.line(f"{environment}/{deployment}: {found.told()}.", style="bold" if found.is_broken else "")
    if found.views:
        screen.table(
            ["view", "predictions", "late", "by at most", "wrong", "features", "such as"],
            [
                (
                    each.view,
                    screen.number(each.rows),
                    screen.number(each.late),
                    f"{each.late_s:.1f} s" if each.late else "",
                    screen.number(each.differing + each.unexamined),
                    ", ".join(each.columns),
                    ", ".join(each.examples[:2]),
                )
                for each in found.views
            ],
            right=["predictions", "late", "by at most", "wrong"],
        )
    return 1 if found.is_broken else 0
