"""Container health check: `hub_health.py READY_FILE` asks the hub over grpc.health.v1.

Exit code 0 when it serves.
"""

import json
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 5.0


def main(ready_file: Path) -> int:
    try:
        address = json.loads(ready_file.read_text())["address"]
        with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S
            )
    except (OSError, ValueError, KeyError) as error:
        print(f"not ready: {error}")
        return 1
    except grpc.RpcError as error:
        print(f"no answer at {address}: {error.code().name}")
        return 1
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    print(f"{address}: {status}")
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
