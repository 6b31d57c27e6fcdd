"""A feature's definition as a version: immutable, numbered, recorded once, read by what is made with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from noria.features.telling import rule_of
from noria.records import digest_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from noria.features.declarations import FeatureView
    from noria.features.on_demand import OnDemand
    from noria.ledger.store import Ledger
    from noria.records import Version

__all__ = ["VIEW_KIND", "list_view_versions", "record_on_demand", "record_view"]

VIEW_KIND = "feature_view"


def record_view(
    ledger: Ledger,
    view: FeatureView,
    *,
    run: str | None = None,
    cause: str | None = None,
    at: datetime | None = None,
) -> Version:
    """Put a view's definition on record; the same definition again gives the version that it has.

    Its digest is that of the definition. Owner, description and tags are kept as they were then: they are no
    part of it, so that to change them is no new version.
    """
    digest = view.spec().digest
    known = ledger.find_version(VIEW_KIND, view.name, sha256=digest)
    if known is not None:
        return known
    return _record(ledger, view.name, digest, _facts(view), run=run, cause=cause, at=at)


def record_on_demand(
    ledger: Ledger,
    feature: OnDemand,
    *,
    code: str,
    run: str | None = None,
    cause: str | None = None,
    at: datetime | None = None,
) -> Version:
    """Put an on-demand feature's definition on record, like a view's: it is one of the same kind.

    Parameters
    ----------
    code : str
        The digest of the code that it reaches, which is a part of the definition.
    """
    spec = feature.spec()
    digest = digest_of({"definition": spec.digest, "code": code})
    known = ledger.find_version(VIEW_KIND, feature.name, sha256=digest)
    if known is not None:
        return known
    facts = {
        "on_demand": spec.digest,
        "definition": msgspec.to_builtins(spec),
        "code": code,
        "rules": dict.fromkeys(spec.outputs, f"on demand: {spec.function} in {spec.module}"),
        "owner": feature.owner,
        "description": feature.description,
        "tags": list(feature.tags),
    }
    return _record(ledger, feature.name, digest, facts, run=run, cause=cause, at=at)


def list_view_versions(ledger: Ledger, name: str) -> list[Version]:
    """List the definitions of a view or an on-demand feature that are on record, the oldest first."""
    return ledger.list_versions(kind=VIEW_KIND, name=name)


def _record(
    ledger: Ledger,
    name: str,
    digest: str,
    facts: Mapping[str, Any],
    *,
    run: str | None,
    cause: str | None,
    at: datetime | None,
) -> Version:
    uri = f"definition:{VIEW_KIND}/{name}"  # the whole of it is in the facts
    return ledger.record_version(
        VIEW_KIND, name, sha256=digest, uri=uri, run=run, facts=facts, cause=cause, at=at
    )


def _facts(view: FeatureView) -> Mapping[str, Any]:
    spec = view.spec()
    described = {each.name: view.description_of(each.name) for each in spec.features}
    return {
        "definition": msgspec.to_builtins(spec),
        "rules": {each.name: rule_of(each.aggregation) for each in spec.features},
        "owner": view.owner,
        "description": view.description,
        "tags": list(view.tags),
        "descriptions": {name: told for name, told in described.items() if told is not None},
    }
