"""Programs around the product: the demo, and what it shares with the benchmark."""
