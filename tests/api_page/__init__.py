"""What docs/api.md promises, read from the page and compared with what a hub answers."""
