"""A vSphere site: sessions, inventory, snapshots, changed areas. The agent's only pyVmomi."""
