"""OpenLineage events of runs, to a file or a URL."""

from noria.pipelines.openlineage.emitter import Lineage, LineageEmitter, end_event, start_event

__all__ = ["Lineage", "LineageEmitter", "end_event", "start_event"]
