"""A look at a site that changes nothing: what backups would meet there, and how fast it reads."""
