"""The catalog with 1,000,000 disk rows, measured on each engine."""
