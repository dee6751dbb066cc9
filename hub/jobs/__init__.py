"""Jobs: what happens between a request, the agent that serves it, and the catalog."""
