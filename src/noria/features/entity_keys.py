"""Keys of the online store for many entities at once."""

import pyarrow as pa
import pyarrow.compute as pc

from noria.features.online_format import LONGEST_ENTITY, entity_key

__all__ = ["entity_keys"]


def entity_keys(texts: pa.Array) -> pa.Array:
    """Give `entity_key` of each text, as binary.

    Examples
    --------
    >>> entity_keys(pa.array(["UA", "B6"])).to_pylist()
    [b'=UA', b'=B6']
    """
    longest = pc.max(pc.binary_length(texts)).as_py() or 0
    if longest > LONGEST_ENTITY:
        return pa.array([entity_key(text) for text in texts.to_pylist()], pa.binary())
    return pc.binary_join_element_wise("=", texts.cast(pa.string()), "").cast(pa.binary())
