"""The `sendense` command: what people type; it uses only the public client."""
