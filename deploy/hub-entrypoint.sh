#!/bin/sh
# Makes a hub of the volumes when there is none, or upgrades its catalog, then serves. A
# repository is made for a catalog without any; those that there are stay as they are.
# SENDENSE_HUB_CATALOG_URL and SENDENSE_HUB_CATALOG_PASSWORD_FILE put the catalog on a server.
set -eu
ready_file=/run/sendense/hub-ready.json
sendense-hub init --state-dir /var/lib/sendense --repository /var/lib/sendense-repository --if-none
rm -f "$ready_file"
exec sendense-hub serve --config /var/lib/sendense/hub.toml --ready-file "$ready_file" "$@"
