"""On-demand features of a prediction, computed again by the code that was kept with its model."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from noria.audit.records import Feature, Prediction
from noria.errors import NoriaError
from noria.features.agreeing import agree, on_demand_tolerances, tolerances
from noria.features.code_bundle import load_functions
from noria.features.declarations import ViewSpec
from noria.features.on_demand import OnDemandSpec
from noria.features.on_demand_tables import add_on_demand
from noria.records import Version
from noria.registry.store import Registry

__all__ = ["compute_on_demand"]


def compute_on_demand(
    specs: Sequence[OnDemandSpec],
    prediction: Prediction,
    used: Mapping[str, float | str | None],
    looked_up: Sequence[Feature],
    *,
    views: Sequence[ViewSpec],
    model: Version,
    registry: Registry,
) -> tuple[Feature, ...]:
    """Compute on-demand features of what the request said and of the views' values from raw rows.

    Parameters
    ----------
    specs
        Those of the release.
    used
        Features as they were logged.
    looked_up
        Those of the views, computed again.
    """
    if not specs:
        return ()
    again = _compute(specs, prediction, looked_up, model, registry)
    allowed = on_demand_tolerances(specs, tolerances(views))
    made = []
    for name in (name for spec in specs for name in spec.columns):
        offline = again.get(name)
        equal = agree(offline, used.get(name), allowed[name]) if name in again else None
        made.append(Feature(name=name, used=used.get(name), offline=offline, equal=equal))
    return tuple(made)


def _compute(
    specs: Sequence[OnDemandSpec],
    prediction: Prediction,
    looked_up: Sequence[Feature],
    model: Version,
    registry: Registry,
) -> dict[str, float | None]:
    """Give what can be computed: nothing where the code is gone, or a value that is read is not known."""
    values = {each.name: each.offline for each in looked_up if each.equal is not None}
    read = {name for spec in specs for name in spec.features}
    columns = {name: pa.array([value], pa.float64()) for name, value in values.items() if name in read}
    for spec in specs:
        columns |= {name: pa.array([prediction.inputs.get(name)], pa.float64()) for name in spec.numbers}
        texts = {name: prediction.inputs.get(name) for name in spec.texts}
        columns |= {
            name: pa.array([None if text is None else str(text)], pa.string()) for name, text in texts.items()
        }
    try:
        bundle = registry.read_code(model)
        functions = () if bundle is None else load_functions(bundle)
        table = pa.table(columns)
        for bound in functions:
            if set(bound.spec.inputs) <= set(table.column_names):
                table, _ = add_on_demand(table, [bound], as_served=True)
    except NoriaError:
        return {}  # what is wrong with the code is told by the digests of the model's parts
    made = [name for spec in specs for name in spec.columns if name in table.column_names]
    return {name: None if (value := table[name][0].as_py()) != value else value for name in made}
