"""The catalog of an earlier system: read as it is, and written into ours."""
