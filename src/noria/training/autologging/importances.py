"""How much each input counts for a model of trees: as a table, and as a picture."""

from collections.abc import Mapping, Sequence
from html import escape

from noria.tracking.active_run import ActiveRun
from noria.training.autologging.plain_values import plain

__all__ = ["bars", "log_importances"]

_BARS, _ROW, _LABEL, _WIDTH, _MARGIN = 30, 18, 220, 640, 24
_LABEL_CHARS = 32


def log_importances(run: ActiveRun, names: Sequence[str], kinds: Mapping[str, Sequence[float]]) -> None:
    """Keep `feature_importance.parquet`, a row for each input, and a picture of the greatest.

    Parameters
    ----------
    kinds
        Each kind of importance, such as "gain"; the rows are ordered by the last one.
    """
    import pyarrow as pa

    *_, last = kinds
    order = sorted(range(len(names)), key=lambda place: (-kinds[last][place], place))
    columns = {"feature": pa.array([names[place] for place in order], pa.string())}
    for kind, values in kinds.items():
        columns[kind] = pa.array([float(values[place]) for place in order], pa.float64())
    run.log_table(pa.table(columns), "feature_importance.parquet")
    shown = [(names[place], float(kinds[last][place])) for place in order[:_BARS]]
    run.log_text(bars(f"Feature importance ({last})", shown), "feature_importance.svg")


def bars(title: str, figures: Sequence[tuple[str, float]]) -> str:
    """Draw bars as SVG, the first on top; the same figures give the same text."""
    most = max((value for _, value in figures), default=0.0) or 1.0
    height = _MARGIN * 2 + _ROW * len(figures)
    room = _WIDTH - _LABEL - 90
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="18" font-size="14" font-weight="bold" fill="#222222">{escape(title)}</text>',
    ]
    for place, (name, value) in enumerate(figures):
        top = _MARGIN + 6 + place * _ROW
        width = max(room * value / most, 0.0)
        label = str(plain(name))
        label = label if len(label) <= _LABEL_CHARS else f"{label[: _LABEL_CHARS - 1]}…"
        lines += [
            f'<text x="{_LABEL - 6}" y="{top + 12}" text-anchor="end" fill="#222222">{escape(label)}</text>',
            f'<rect x="{_LABEL}" y="{top + 2}" width="{width:.1f}" height="{_ROW - 5}" fill="#2f6f9f"/>',
            f'<text x="{_LABEL + width + 6:.1f}" y="{top + 12}" fill="#555555">{value:.6g}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
