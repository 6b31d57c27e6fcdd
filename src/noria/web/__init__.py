"""Pages of experiments, runs and models, which `noria up` serves to browsers; they only read.

`noria.web.mounting` is what `noria up` is given; it loads the rest when the first page is asked for.
"""

__all__: list[str] = []
