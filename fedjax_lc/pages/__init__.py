"""The report that travels: runs, sweeps and figures as one HTML page that needs neither network nor Python.

`gather` reads what is to be shown, `embed` makes it plain and small, `figures` reads the facts of a recipe, and `page`
puts all of it into the page, whose template, style and script are files of `assets/`.
"""
