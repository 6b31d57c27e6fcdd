"""Dashboards: files of SQL and Vega-Lite, built into one page that needs no network.

`declared` reads them, `content` holds what a build found, `charts`, `page` and `pictures` draw it.
"""
