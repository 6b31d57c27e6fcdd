"""What the Jinja of a dbt project says, rendered to plain SQL. Nothing of the project is run.

Understood are `ref`, `source`, `config`, `var`, `is_incremental`, `this`, and what Jinja itself has.
"""

import re
from collections.abc import Set
from pathlib import Path
from typing import Any

from jinja2 import TemplateSyntaxError, Undefined
from jinja2.exceptions import SecurityError, TemplateError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from noria.errors import ConfigError
from noria.warehouse.dbt_properties import Properties

__all__ = ["Renderer"]

_NO_VALUE = object()
_FAULTS = (  # of what a template computes
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    SecurityError,
    TemplateError,
    TypeError,
    ValueError,
)


class _Unknown(Undefined):
    """A name that is none of dbt's that are understood: using it in any way refuses the model."""

    def _refused(self, *_: Any, **__: Any) -> Any:
        raise UndefinedError(f"it uses {self._undefined_name!r}")

    __call__ = __getitem__ = __str__ = __iter__ = __bool__ = __len__ = _refused

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("__", "jinja_")) or name in ("unsafe_callable", "alters_data"):  # Jinja asks
            raise AttributeError(name)
        raise UndefinedError(f"it uses {self._undefined_name}.{name}")


class Renderer:
    """Renders the files of one project.

    Parameters
    ----------
    models
        The names of the models' files.

    Attributes
    ----------
    referred
        What `ref` has named.
    """

    def __init__(self, properties: Properties, models: Set[str]) -> None:
        self._properties, self._models = properties, models
        self.referred: set[str] = set()

    def render(self, path: Path, name: str, said: dict[str, Any]) -> str:
        """Give the SQL that a file stands for, and put what it says by `config` into `said`.

        Raises
        ------
        ConfigError
            If it uses what is not understood, or cannot be rendered.
        """
        environment = ImmutableSandboxedEnvironment(undefined=_Unknown, extensions=["jinja2.ext.do"])

        def configure(*positional: Any, **named: Any) -> str:
            for each in positional:
                said.update(each)
            said.update(named)
            return ""

        known: dict[str, Any] = {
            "ref": self._ref, "source": self._source, "config": configure, "var": self._var,
            "is_incremental": lambda: False, "this": name, "execute": False,
        }  # fmt: skip
        environment.globals |= known
        try:
            text = environment.from_string(path.read_text(encoding="utf-8")).render()
        except ConfigError:
            raise
        except TemplateSyntaxError as error:
            raise ConfigError(f"line {error.lineno}: {error.message}") from error
        except UndefinedError as error:
            raise ConfigError(
                f"{error.message}; noria understands {', '.join(sorted(known))}: write it as plain SQL"
            ) from error
        except _FAULTS as error:
            raise ConfigError(f"it cannot be rendered: {error}") from error
        return re.sub(r"\A(\s*--[^\n]*\n)+", lambda found: "\n" * found[0].count("\n"), text)

    def _ref(self, *names: str, v: Any = None, version: Any = None) -> str:
        told = f"ref({', '.join(map(repr, names))})"
        if not 1 <= len(names) <= 2 or not all(isinstance(each, str) for each in names):
            raise ConfigError(f"{told} names no model; write ref('model'), or ref('package', 'model')")
        if len(names) == 2 and names[0] != self._properties.name:
            raise ConfigError(
                f"{told} names a model of the package {names[0]!r}; noria reads the models of "
                f"{self._properties.name!r} alone: have its table in the lake, and write its name"
            )
        name, wanted = names[-1].lower(), v if v is not None else version
        if wanted is None:
            found = self._properties.newest.get(name, name)
        elif (name, str(wanted)) in self._properties.versions:
            found = self._properties.versions[name, str(wanted)]
        else:
            there = [number for model, number in self._properties.versions if model == name]
            raise ConfigError(
                f"{told} wants version {wanted}, which no file of properties declares; "
                f"declared are {', '.join(there) or 'none'}"
            )
        self.referred.add(found)
        return found

    def _source(self, group: str, table: str) -> str:
        found = self._properties.source(group, table)
        if found in self._models:
            raise ConfigError(
                f"source({group!r}, {table!r}) is the lake's table {found!r}, and a model makes one of that "
                "name; ingest the source under another name, and give that as its `identifier`"
            )
        return found

    def _var(self, wanted: str, default: Any = _NO_VALUE) -> Any:
        if wanted in self._properties.variables:
            return self._properties.variables[wanted]
        if default is _NO_VALUE:
            raise ConfigError(f"var({wanted!r}) is set nowhere; set it in dbt_project.yml, or give a default")
        return default
