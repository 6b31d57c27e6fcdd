"""A client that logs metrics until it has logged all, and notes each that the server has acknowledged.

`python kill_clients.py PORT RUN NAME FIRST LAST NOTES`: steps from FIRST to before LAST. It asks again where
no answer came, so that a point may be sent twice.
"""

import http.client
import json
import os
import sys
import time

_PAUSE_S = 0.02


def main() -> None:
    port, run, name, first, last, notes = sys.argv[1:]
    noted = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    connection: http.client.HTTPConnection | None = None
    step = int(first)
    while step < int(last):
        body = json.dumps({"run_id": run, "key": name, "value": step / 3, "timestamp": step, "step": step})
        try:
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
            connection.request(
                "POST", "/api/2.0/mlflow/runs/log-metric", body, {"content-type": "application/json"}
            )
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection = None
            time.sleep(_PAUSE_S)
            continue
        if answer.status != 200:
            raise SystemExit(f"{answer.status} for step {step}")
        os.write(noted, f"{step}\n".encode())
        step += 1


if __name__ == "__main__":
    main()
