"""Ask for /health at a fixed pace, in a process of its own, whose own work delays no answer.

``python -m tests.drills.overload.health HOST:PORT``, until its input ends; then it prints a JSON
list: seconds since the start, milliseconds of the answer, jobs waiting, jobs running.
"""

import http.client
import json
import sys
import threading
import time

INTERVAL_SECONDS = 0.05


def probe(connection: http.client.HTTPConnection) -> tuple[float, int, int]:
    """Ask once; return milliseconds, jobs waiting and jobs running."""
    started = time.perf_counter()
    connection.request("GET", "/health")
    with connection.getresponse() as answer:
        content = answer.read()
    milliseconds = 1000 * (time.perf_counter() - started)
    body = json.loads(content)
    return milliseconds, int(body["queue"]["depth"]), int(body["running"])


def main() -> None:
    ended = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    connection = http.client.HTTPConnection(sys.argv[1], timeout=30)
    print("ready", flush=True)
    begun = due = time.monotonic()
    samples = []
    while not ended.is_set():
        samples.append((time.monotonic() - begun, *probe(connection)))
        # A slow answer delays the next question and does not make the pace faster after it.
        due = max(due + INTERVAL_SECONDS, time.monotonic())
        ended.wait(due - time.monotonic())
    json.dump(samples, sys.stdout)


if __name__ == "__main__":
    main()
