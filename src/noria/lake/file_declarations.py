"""A folder of files as a project declares it. Nothing here loads an engine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from noria.errors import ConfigError
from noria.lake.declarations import Dataset

__all__ = ["Files"]


@dataclass(frozen=True, slots=True)
class Files:
    """Images, texts, documents: each kept by its content, beside a table that says what they are.

    The table has a row for each change of a file: `path`, `revision` (1, 2, ... of this path), `state`
    (`present` or `removed`), `sha256`, `media_type`, `size_bytes`, `event_at` (when the file was written),
    `known_at`, `metadata` (JSON).

    Parameters
    ----------
    name
        The table's name, usable in SQL.
    folder
        A pattern of the files, below the project's folder: `scans/**/*.png`.
    describe
        Gives what is to be known about a file besides, as values that JSON has.
    owner, description, tags
        For people who look for data.

    Raises
    ------
    ConfigError
        If the name cannot be, or the pattern leaves the project's folder.

    Examples
    --------
    >>> Files("scans", folder="scans/**/*.png").dataset.keys
    ('path', 'revision')
    """

    stands_for_version: ClassVar[bool] = True  # to a step it is handed as the rows of its newest version

    name: str
    folder: str = field(kw_only=True)
    describe: Callable[[Path], Mapping[str, Any]] | None = field(default=None, kw_only=True)
    owner: str | None = field(default=None, kw_only=True)
    description: str | None = field(default=None, kw_only=True)
    tags: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        self.dataset  # noqa: B018 - refuses a name that cannot be
        if not self.folder or Path(self.folder).is_absolute() or ".." in Path(self.folder).parts:
            raise ConfigError(
                f"files {self.name!r}: the folder is {self.folder!r}; give a pattern below the project's "
                f'folder, such as "{self.name}/**/*"'
            )

    @property
    def dataset(self) -> Dataset:
        """The table that says what the files are."""
        return Dataset(
            self.name,
            key=("path", "revision"),
            event_at="event_at",
            schema={
                "path": "string",
                "revision": "int64",
                "state": "string",
                "sha256": "string",
                "media_type": "string",
                "size_bytes": "int64",
                "event_at": "timestamp[us, tz=UTC]",
                "metadata": "string",
            },
            max_rejected_share=1.0,  # a file that cannot be read is set aside, whatever the others are
            files=self.folder,
            owner=self.owner,
            description=self.description,
            tags=self.tags,
        )
