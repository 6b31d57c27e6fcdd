"""Models and their versions as people call them."""

from datetime import datetime
from enum import StrEnum

import msgspec

from noria.errors import ConfigError
from noria.records import VersionId

__all__ = ["CataloguedVersion", "RegisteredModel", "Stage"]


class Stage(StrEnum):
    """What somebody says of a version. It moves no pointer: what answers is told by environments."""

    NONE = "None"
    STAGING = "Staging"
    PRODUCTION = "Production"
    ARCHIVED = "Archived"

    @classmethod
    def read(cls, text: str) -> "Stage":
        """Give the stage of a name, in any case.

        Raises
        ------
        ConfigError
            If there is no such stage.

        Examples
        --------
        >>> Stage.read("PRODUCTION").value
        'Production'
        """
        for each in cls:
            if each.lower() == text.lower():
                return each
        raise ConfigError(f"Invalid Model Version stage: {text[:40]!r}; it is one of {', '.join(cls)}")

    @property
    def is_active(self) -> bool:
        """Whether a version takes the place of others in it."""
        return self in {Stage.STAGING, Stage.PRODUCTION}


class CataloguedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a model and what is said of it."""

    id: VersionId
    model: str  # its name as it is shown now
    number: int
    source: str  # as it was registered
    location: str  # where its files are loaded from
    run: str | None  # it may be one of elsewhere
    logged_model: str | None
    run_link: str | None
    description: str | None
    stage: Stage
    created_at: datetime
    updated_at: datetime
    tags: dict[str, str]
    aliases: tuple[str, ...]
    status: str = "READY"  # of its registration, as MLflow calls it
    status_message: str | None = None
    owner: str | None = None  # who registered it, where that is known


class RegisteredModel(msgspec.Struct, frozen=True, kw_only=True):
    """A name under which versions of a model are found, and what is said of it."""

    name: str
    ledger_name: str  # that of its versions on record
    description: str | None
    created_at: datetime
    updated_at: datetime
    tags: dict[str, str]
    aliases: dict[str, int]
    latest: tuple[CataloguedVersion, ...]  # of each stage, by stage
