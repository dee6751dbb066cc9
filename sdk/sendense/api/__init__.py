"""The RPCs as methods, one file for each area of the API; `sendense.Client` has them all."""
