"""Feast repositories read without Feast, and without running their code; written as noria's declarations."""

from noria.features.feast.importing import Imported, import_feast
from noria.features.feast.records import Note

__all__ = ["Imported", "Note", "import_feast"]
