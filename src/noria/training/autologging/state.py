"""What is on in this process: looked up at each fit, so that workers of other processes log nothing."""

from noria.training.autologging.options import Options

__all__ = ["options_for", "put_options"]

_ON: list[Options] = []  # one, or none


def put_options(options: Options | None) -> None:
    """Say what is logged from now on; None: nothing."""
    _ON[:] = [] if options is None else [options]


def options_for(framework: str) -> Options | None:
    """Give what is wanted of a framework; None: nothing."""
    found = _ON[0] if _ON else None
    return found if found is not None and framework in found.frameworks else None
