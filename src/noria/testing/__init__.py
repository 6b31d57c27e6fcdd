"""Contract tests that ship: a backend is whatever passes its suite against the real thing.

Import a suite from its file, subclass it as `Test...` and supply its fixture. Needs pytest.
"""

__all__: list[str] = []
