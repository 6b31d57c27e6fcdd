"""Settings under which LightGBM gives the same bytes again."""

from typing import Any

from noria.errors import ConfigError

__all__ = ["lightgbm_params"]

_FIXED = {
    "deterministic": True,
    "force_row_wise": True,  # without a choice, LightGBM times both ways and takes the quicker
    "verbosity": -1,
}


def lightgbm_params(*, seed: int, threads: int, **params: Any) -> dict[str, Any]:
    """Give parameters for a binary model that is the same for the same rows, seed and threads.

    Parameters
    ----------
    seed : int
        Of all that is random in LightGBM.
    threads : int
        How many it uses: sums are split among them, so another number may give another model.
    params
        Anything else LightGBM knows; they may replace `objective`, none of the fixed ones.

    Raises
    ------
    ConfigError
        If one of `params` would undo what makes models repeatable.

    Examples
    --------
    >>> lightgbm_params(seed=7, threads=1, num_leaves=15)["num_leaves"]
    15
    """
    fixed = {**_FIXED, "seed": seed, "num_threads": threads}
    undone = sorted(name for name in params if name in fixed and params[name] != fixed[name])
    if undone:
        raise ConfigError(f"{', '.join(undone)} may not be set: models would not be the same again")
    return {"objective": "binary", **params, **fixed}
