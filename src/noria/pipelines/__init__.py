"""Work as functions: steps whose results are kept, pipelines made of them, and where they run."""

from noria.pipelines.declarations import Pipeline, Resources, Step, StepRun, given, pipeline, step
from noria.pipelines.schedules import Schedule

__all__ = ["Pipeline", "Resources", "Schedule", "Step", "StepRun", "given", "pipeline", "step"]
