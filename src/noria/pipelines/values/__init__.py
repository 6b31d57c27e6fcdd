"""Values as bytes: equal values have equal bytes in every process, and come back as they were."""

from noria.pipelines.values.codec import Format, Payload, digest, dump, load, summary

__all__ = ["Format", "Payload", "digest", "dump", "load", "summary"]
