"""What a site does wrong on request: named faults with typed options, on one board."""
