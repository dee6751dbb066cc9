"""The catalog: what was backed up, when, from what, and where it lies.

Models, migrations, and rules as functions over a session. A rule changes rows
and never commits: the caller opens one transaction (`Catalog.write`) around it.
"""
