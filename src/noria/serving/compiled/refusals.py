"""What is not compiled, and rows that a compiled model refuses as the original does."""

from noria.errors import ConfigError, SourceError

__all__ = ["NotCompiled", "RowsRefused"]


class NotCompiled(ConfigError):
    """An estimator has no compiled form; the message says why."""


class RowsRefused(SourceError):
    """Rows hold a value that the model takes none of; the message names its column, never the value."""
