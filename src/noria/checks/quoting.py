"""Names and texts in SQL."""

__all__ = ["quoted", "quoted_text"]


def quoted(name: str) -> str:
    """Write a name, so that SQL takes it as it is.

    Examples
    --------
    >>> quoted('my "own" column')
    '"my ""own"" column"'
    """
    return '"' + name.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """Write a text as a literal.

    Examples
    --------
    >>> quoted_text("o'clock")
    "'o''clock'"
    """
    return "'" + text.replace("'", "''") + "'"
