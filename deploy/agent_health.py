"""Container health check: `agent_health.py CONFIG` asks the hub whether the site's agent is there.

Exit code 0 when it is connected.
"""

import sys
from pathlib import Path

from agent.config import load_config
from sendense import Client, SendenseError
from shared.errors import ConfigurationError

TIMEOUT_S = 5.0


def main(config: Path) -> int:
    try:
        settings, _ = load_config(config)
        with Client(settings.hub_address, timeout_s=TIMEOUT_S) as client:
            connected = client.get_agent(settings.site).connected
    except (ConfigurationError, SendenseError) as error:
        print(error)
        return 1
    print(f"site {settings.site}: {'connected' if connected else 'not connected'}")
    return 0 if connected else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
