"""The page at `/docs`: what models take and give, and a form to try them. It asks no other host."""

import base64
import hashlib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from urllib.parse import quote

import orjson

from noria.serving.binding import RequestColumn
from noria.serving.http.openapi import DescribedModel, example_row
from noria.serving.wire.plain import kind_of

__all__ = ["docs_page"]

_HERE = Path(__file__).parent
_PLACE = re.compile("@(title|models|script)@")


def docs_page(
    models: Sequence[DescribedModel], *, title: str, address: str = ""
) -> tuple[bytes, Mapping[str, str]]:
    """Write the page.

    Parameters
    ----------
    models
        By whatever names the server answers.
    title
        Its heading.
    address
        How this server is reached, for the commands: `http://host:port`, and a prefix where there is one.

    Returns
    -------
    tuple of bytes and mapping of str to str
        HTML in UTF-8, and the headers that go with it: nothing runs in it but its own script.
    """
    shown = "\n".join(_model(each, number, address) for number, each in enumerate(models))
    parts = {
        "title": escape(title),
        "models": shown or "<p>No model is served yet.</p>",
        "script": _script(),
    }
    page = _PLACE.sub(lambda place: parts[place[1]], _template())  # at once: names may look like places
    return page.encode(), _headers()


@cache
def _template() -> str:
    return (_HERE / "docs_page.html").read_text(encoding="utf-8")


@cache
def _script() -> str:
    return (_HERE / "docs_page.js").read_text(encoding="utf-8")


@cache
def _headers() -> Mapping[str, str]:
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
    }


def _model(model: DescribedModel, number: int, address: str) -> str:
    base = f"models/{quote(model.name, safe='')}"
    path = f"{base}/predict"
    row = example_row(model)
    command = (
        f"curl {shlex.quote(f'{address}/{path}')} -H 'content-type: application/json' \\\n"
        f"  -d {shlex.quote(orjson.dumps(row).decode())}"
    )
    columns = "".join(
        f"<tr><td><code>{escape(each.name)}</code></td><td>{escape(kind_of(each))}</td>"
        f"<td>{escape(each.datatype)}</td><td>{'may be left out' if each.optional else ''}</td></tr>"
        for each in model.columns
    )
    has_labels = any(each.labels for each in model.outputs)
    titles = f"<th>output</th><th>datatype</th>{'<th>labels</th>' if has_labels else ''}"
    outputs = "".join(
        f"<tr><td><code>{escape(each.name)}</code></td><td>{escape(each.datatype)}"
        f"{f' × {each.width}' if each.width else ''}</td>"
        f"{f'<td>{escape(_joined(each.labels))}</td>' if has_labels else ''}</tr>"
        for each in model.outputs
    )
    versions = ", ".join(map(str, model.versions))
    return f"""<section aria-labelledby="m{number}">
<h2 id="m{number}">{escape(model.name)}</h2>
<p class="quiet">version {escape(versions)}</p>
<h3>Takes</h3>
<div class="wide"><table><thead><tr><th>column</th><th>of</th><th>datatype</th><th></th></tr></thead>
<tbody>{columns}</tbody></table></div>
<h3>Gives</h3>
<div class="wide"><table><thead><tr>{titles}</tr></thead>
<tbody>{outputs}</tbody></table></div>
<h3>By curl</h3>
<pre id="c{number}" tabindex="0">{escape(command)}</pre>
<button type="button" class="copy" data-of="c{number}" hidden>Copy</button>
<h3>Try it</h3>
<form action="{escape(path)}" method="post">
<p class="quiet">What is sent is answered and logged like any other request; an explanation is not
logged. An empty field is missing.</p>
<div class="fields">{"".join(_field(each, row[each.name]) for each in model.columns)}</div>
<button type="submit">Predict</button>
<button type="submit" formaction="{escape(base)}/explain">Explain</button>
<output aria-live="polite"></output>
</form>
</section>"""


def _joined(labels: Iterable[str]) -> str:
    return ", ".join(labels)


def _field(column: RequestColumn, value: object) -> str:
    is_text = column.is_text and isinstance(value, str)
    shown = value if is_text else "" if value is None else orjson.dumps(value).decode()
    optional = ' data-optional="1"' if column.optional else ""
    return (
        f"<label>{escape(column.name)} ({escape(kind_of(column))})"
        f'<input name="{escape(column.name)}" value="{escape(str(shown))}" '
        f'data-kind="{"text" if column.is_text else "json"}"{optional} autocomplete="off"></label>'
    )
