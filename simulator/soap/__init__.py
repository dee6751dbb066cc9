"""The vSphere API of a standalone ESXi host: SOAP over HTTPS."""
