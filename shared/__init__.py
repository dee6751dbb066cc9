"""What hub and agent both need and the public package does not."""
