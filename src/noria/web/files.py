"""The page of one file of a run: the beginning of it, shown as text, a table or an image and never run."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from noria.errors import NotFound
from noria.tracking.artifact_paths import checked_path
from noria.tracking.artifacts import Artifact
from noria.web.rendering import page
from noria.web.runs import find_folder
from noria.workspace.project import Project

__all__ = ["FilePages", "Preview", "preview_of"]

_MOST_BYTES = 16 << 20  # of a file that is read for a preview: it is verified as a whole
_TEXT_BYTES, _JSON_BYTES, _IMAGE_BYTES = 64 << 10, 256 << 10, 8 << 20
_ROWS, _COLUMNS, _CELL_CHARS = 50, 30, 200
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Preview:
    """What is shown of a file.

    Attributes
    ----------
    kind
        `text`, `table`, `image`, or `none`: then `told` says why.
    is_cut
        Whether there is more than is shown.
    """

    kind: str
    text: str = ""
    rows: tuple[tuple[str, ...], ...] = ()
    is_cut: bool = False
    told: str = ""


class FilePages:
    """Answers requests for it."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def show(self, request: Request) -> Response:
        """Show the beginning of a file."""
        project = self._project
        run = project.runs.get(request.path_params["id"])
        path = request.query_params.get("path", "")
        if not path:
            raise NotFound("file", path)
        root = find_folder(project, run)
        artifact = project.artifacts.get(f"{root}/{checked_path(path)}")
        values = {"run": run, "path": path, "artifact": artifact, "preview": self._preview(artifact)}
        return page(request, "file", values, project=project.settings.project.name)

    def _preview(self, artifact: Artifact) -> Preview:
        if artifact.size_bytes > _MOST_BYTES:
            return Preview("none", told="It is too large to be shown here.")
        return preview_of(self._project.artifacts.fetch(artifact), artifact.path)


def preview_of(file: Path, name: str) -> Preview:
    """Give what is shown of a file, by its name and what is in it."""
    suffix = Path(name).suffix.lower()
    with file.open("rb") as opened:
        data = opened.read(_JSON_BYTES + 1)
    size = file.stat().st_size
    if suffix == ".png":
        is_shown = data.startswith(_PNG) and size <= _IMAGE_BYTES
        return Preview("image") if is_shown else Preview("none", told="It is no PNG that can be shown here.")
    text = _text(data[:_TEXT_BYTES])
    if text is None:
        return Preview("none", told="It is no text, and is not shown.")
    found = None
    if suffix == ".json" and size <= _JSON_BYTES:
        found = _laid_out(data)
    elif suffix in {".csv", ".tsv"}:
        found = _table(text, "\t" if suffix == ".tsv" else ",", is_whole=size <= _TEXT_BYTES)
    return found or Preview("text", text, is_cut=size > _TEXT_BYTES)


def _laid_out(data: bytes) -> Preview | None:
    """Lay JSON out for reading; None if it is none."""
    try:
        text = json.dumps(json.loads(data), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    return Preview("text", text[:_JSON_BYTES], is_cut=len(text) > _JSON_BYTES)


def _text(data: bytes) -> str | None:
    """Read the beginning of a text, None if it is none; a sign that is cut at its end is left out."""
    if b"\0" in data:
        return None
    for cut in range(4):
        try:
            return data[: len(data) - cut].decode("utf-8-sig")
        except UnicodeDecodeError as err:
            if err.start < len(data) - 4:
                return None
    return None


def _table(text: str, delimiter: str, *, is_whole: bool) -> Preview | None:
    """Read the first rows of a table; None if it is none."""
    if not is_whole:
        text = text[: text.rfind("\n") + 1]
    rows: list[tuple[str, ...]] = []
    is_cut = not is_whole
    try:
        for row in csv.reader(io.StringIO(text), delimiter=delimiter):
            if len(rows) > _ROWS:
                is_cut = True
                break
            is_cut = is_cut or len(row) > _COLUMNS
            rows.append(tuple(each[:_CELL_CHARS] for each in row[:_COLUMNS]))
    except csv.Error:
        return None
    return Preview("table", rows=tuple(rows), is_cut=is_cut) if rows else None
