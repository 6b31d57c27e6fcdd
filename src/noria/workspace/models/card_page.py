"""A model card as a page of HTML: one file, nothing fetched, no script; what people wrote is text."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from noria.workspace.models.card_parts import Bar

if TYPE_CHECKING:
    from noria.workspace.models.cards import ModelCard

__all__ = ["render_card"]

_HERE = Path(__file__).parents[1] / "pages"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_BARS_HIGH = 34.0


def render_card(card: "ModelCard") -> bytes:
    """Give the page of a card."""
    most = max((each.share for part in card.parts for each in part.bars), default=0.0) or 1.0
    text = _template().render(
        card=card,
        policy=_POLICY,
        style=(_HERE / "model_card.css").read_text(encoding="utf-8"),
        width=lambda bar: f"{bar.share / most:.1%}",
        columns=_columns,
    )
    return bytes(text.encode())


@cache
def _template() -> Any:
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("model_card.html.j2")


def _columns(bar: Bar) -> list[dict[str, Any]]:
    """Give the little bars of an input's effects, above and below a line in the middle."""
    most = max((abs(mean) for _, mean in bar.effects), default=0.0) or 1.0
    middle = _BARS_HIGH / 2
    return [
        {
            "x": 12 * place,
            "y": round(middle - (mean / most * middle if mean > 0 else 0), 2),
            "height": round(max(abs(mean) / most * middle, 0.75), 2),
            "kind": "up" if mean > 0 else "down",
            "told": f"{label}: {mean:+.3g}",
        }
        for place, (label, mean) in enumerate(bar.effects)
    ]
