"""What frameworks train becomes runs by itself: `noria.autolog()` turns it on.

A file for each framework says what is told of a fit; `sessions.py` is where a fit meets its run, `switch.py`
turns all of it on and off, `import_hook.py` waits for frameworks that are not imported yet.
"""

from noria.training.autologging.options import FRAMEWORKS

__all__ = ["FRAMEWORKS"]
