"""Which version of a model somebody means: by number, by environment, as MLflow writes it."""

from typing import TYPE_CHECKING

from noria.errors import ConfigError, NotFound
from noria.records import Version, VersionRef
from noria.registry.catalogue import ModelCatalogue
from noria.registry.catalogue_records import CataloguedVersion, RegisteredModel
from noria.registry.catalogue_rules import checked_number
from noria.registry.labels import find_model, get_model, read_versions
from noria.registry.sources import ModelReference, find_reference
from noria.registry.tables import model_versions

if TYPE_CHECKING:
    from noria.workspace.project import Project

__all__ = ["find_label", "find_registered", "find_version", "parse_reference", "reference_of"]


def parse_reference(reference: str) -> VersionRef:
    """Read `NAME`, `NAME:3` or `NAME@ENVIRONMENT`. Raises `ConfigError`."""
    try:
        return VersionRef.parse(reference)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def find_version(project: "Project", reference: str) -> Version:
    """Give the model version that `NAME`, `NAME:3`, `NAME@ENVIRONMENT` or `models:/...` names.

    Names are those that the catalogue shows; a version whose label somebody deleted is still found by its
    number, under the name that it has on record.

    Raises
    ------
    NotFound
        If there is none; says what exists, and whether an alias is called so.
    ConfigError
        If it is no reference.
    """
    named = find_reference(reference)
    if named is not None:
        return project.ledger.get_version_by_id(_referred(project, named))
    wanted = parse_reference(reference)
    if wanted.environment is not None:
        return _standing(project, wanted.name, wanted.environment, reference)
    found = _labelled(project, wanted.name, wanted.number)
    return _unlabelled(project, wanted) if found is None else project.ledger.get_version_by_id(found)


def reference_of(project: "Project", version: Version) -> str:
    """Give how people name a version now; as it is on record, where its label was deleted."""
    label = find_label(project, version)
    if label is None or find_registered(project, label) is None or "@" in label.model:
        return version.ref
    return f"{label.model}:{label.number}"


def find_label(project: "Project", version: Version) -> CataloguedVersion | None:
    """Give what the catalogue says of a version; None if its label was deleted, or it never had one."""
    with project.ledger.database.read() as connection:
        query = model_versions.select().where(
            model_versions.c.version == version.id, model_versions.c.deleted_at.is_(None)
        )
        if connection.execute(query).first() is None:
            return None
        return read_versions(connection, [version.id])[0]


def find_registered(project: "Project", label: CataloguedVersion | None) -> RegisteredModel | None:
    """Give what the catalogue says of the model that a label belongs to; None if that was deleted."""
    try:
        return None if label is None else ModelCatalogue(project.ledger).get(label.model)
    except NotFound:
        return None


def _unlabelled(project: "Project", wanted: VersionRef) -> Version:
    """Give a version of the ledger whose label is not there; another model may have its name by now."""
    with project.ledger.database.read() as connection:
        model = find_model(connection, wanted.name)
    name = wanted.name if model is None else model.ledger_name
    try:
        return project.registry.get(name if wanted.number is None else f"{name}:{wanted.number}")
    except NotFound:
        if name == wanted.name:
            raise
    numbers = [each.number for each in project.ledger.list_versions(kind="model", name=name)]
    told = wanted.name if wanted.number is None else f"{wanted.name}:{wanted.number}"
    raise NotFound("model", told, [f"{wanted.name}:{each}" for each in numbers])


def _labelled(project: "Project", name: str, number: int | None) -> str | None:
    """Give the id of a version by the catalogue's name, and the newest without a number."""
    with project.ledger.database.read() as connection:
        try:
            model = get_model(connection, name)
        except NotFound:
            return None
        query = model_versions.select().where(
            model_versions.c.model == model.id, model_versions.c.deleted_at.is_(None)
        )
        if number is not None:
            query = query.where(model_versions.c.number == checked_number(number))
        row = connection.execute(query.order_by(model_versions.c.number.desc()).limit(1)).first()
        return None if row is None else str(row.version)


def _standing(project: "Project", name: str, environment: str, reference: str) -> Version:
    from noria.deploy.releases import find_standing

    try:
        project.environment(environment)
    except NotFound as error:
        aliases = _aliases(project, name)
        if environment in aliases:
            error.add_note(
                f"{environment!r} is an alias of model {name!r}, a label for {name}:{aliases[environment]}, "
                f"and no environment: write {name}:{aliases[environment]}, or models:/{name}@{environment}"
            )
        raise
    standing = find_standing(project.ledger, environment=environment, deployment=name)
    if standing is None:
        if _labelled(project, name, None) is None:
            project.registry.get(name)  # says what models there are
        pointers = project.ledger.list_pointers()
        unmoved = NotFound("deployment", reference, {f"{each.name}@{each.environment}" for each in pointers})
        if environment in (aliases := _aliases(project, name)):
            unmoved.add_note(
                f"{environment!r} is also an alias, of {name}:{aliases[environment]}, which moves nothing; "
                f"models:/{name}@{environment} names that"
            )
        raise unmoved
    return standing.model


def _aliases(project: "Project", name: str) -> dict[str, int]:
    try:
        return ModelCatalogue(project.ledger).get(name).aliases
    except (NotFound, ConfigError):
        return {}


def _referred(project: "Project", named: ModelReference) -> str:
    from noria.registry.catalogue_records import Stage

    catalogue = ModelCatalogue(project.ledger)
    if named.alias is not None:
        return catalogue.get_aliased(named.name, named.alias).id
    if named.number is None:
        stages = set(Stage) if named.stage is None else {Stage.read(named.stage)}
        found = [each for each in catalogue.get(named.name).latest if each.stage in stages]
        if not found:
            of_stage = "" if named.stage is None else f" in stage {named.stage!r}"
            raise NotFound("model", f"{named.name}{of_stage}")
        return max(found, key=lambda each: each.number).id
    id = _labelled(project, named.name, named.number)
    if id is None:
        catalogue.get(named.name)
        raise NotFound("model", f"{named.name}:{named.number}")
    return id
