"""Measurements of the product against qemu-img. Nothing here is a test, and no test measures time."""
