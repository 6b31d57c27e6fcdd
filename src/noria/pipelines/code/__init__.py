"""The code that a step reaches, by digests, and which line of it has changed."""

from noria.pipelines.code.changes import first_change
from noria.pipelines.code.project import ProjectCode, StepCode

__all__ = ["ProjectCode", "StepCode", "first_change"]
