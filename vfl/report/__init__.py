"""The report of a run: one HTML file that needs no network, no script and no other file.

`vfl.report.figures` draws (the only file that imports matplotlib), `vfl.report.page` sets the page (the
only file that imports jinja2). Both are imported by whoever writes a report, not with this package.
"""
