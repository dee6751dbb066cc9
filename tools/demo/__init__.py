"""The demo: a simulated site, a hub and an agent do the main job, and every byte is checked."""
