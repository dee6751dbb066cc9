"""The Sendense hub: catalog, repository and the gRPC services."""
