"""The commands as a cyclopts application; each is imported when it is called."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cyclopts import App

from noria.cli.commands import COMMANDS

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

    from noria.cli.help_pages import HelpPages

__all__ = ["application"]

_NOUNS = {
    "run": "What ran: list, search, show, diff, leaderboard, picture; watch, logs, retry, cancel, reproduce.",
    "pipeline": "Pipelines: list, show, run.",
    "stream": "Streams of events: list, push, consume.",
    "dataset": "Datasets: what there is, where it comes from, what was rejected.",
    "feature": "Feature views: list, show, get, trace, compare, materialize.",
    "model": "Models: list, show, card, history, compare, explain; restore, alias, tag.",
    "table": "Tables and models of the warehouse: show.",
    "dashboard": "Pages of charts and tables: list, build.",
    "import": "What is kept elsewhere, taken in: mlflow, export.",
    "backup": "The whole project, kept: FOLDER, check, list.",
    "ledger": "The record of everything: verify.",
    "light": "The file of a model as a service: MODEL, list, log.",
    "user": "Who may ask the control plane: add, list, remove, token.",
    "key": "Who may ask a server for predictions: add, list, revoke.",
    "artifact": "Files of runs: prune.",
}


class _LazyHelp:
    """`HelpPages`, imported once a page is shown."""

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        self._pages()(console, options, panel)

    def render_usage(self, console: "Console", options: "ConsoleOptions", usage: Any) -> None:
        self._pages().render_usage(console, options, usage)

    def render_description(self, console: "Console", options: "ConsoleOptions", description: Any) -> None:
        self._pages().render_description(console, options, description)

    def _pages(self) -> "HelpPages":
        from noria.cli.help_pages import HelpPages

        return HelpPages()


def application() -> App:
    """Make the application. It raises errors instead of printing them: `entry.main` does that."""
    app = App(
        name="noria",
        help="The whole MLOps loop in one library.",
        help_format="plaintext",
        help_formatter=_LazyHelp(),
        version_flags=(),
        print_error=False,
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
        verbose=False,
    )
    nouns = {noun: App(name=noun, help=about, version_flags=()) for noun, about in _NOUNS.items()}
    for noun in nouns.values():
        app.command(noun)
    for each in COMMANDS:
        if each.words in nouns:  # `noria backup FOLDER` beside `noria backup list`
            module, _, name = each.target.partition(":")
            nouns[each.words].default(getattr(import_module(f"noria.cli.{module}"), name))
            continue
        place = app if each.noun is None else nouns[each.noun]
        place.command(f"noria.cli.{each.target}", name=each.name, help=each.about)
    return app
