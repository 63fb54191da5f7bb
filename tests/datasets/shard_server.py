"""An HTTP server on the loopback address that serves a folder, with the faults of real networks."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class ShardServer:
    """Serves a folder at `url`.

    Attributes:
        url: of the folder.
        faults: for each file name, what happens to the next requests: "500", "cut" (the connection breaks off in the
            middle), "flip" (a bit is another one), "slow" (ten parts with a pause before each), "silent" (in the
            middle, nothing comes any more); then it is served.
        requests: how often each file name was asked for.
        hold: requests wait until it is set.
        pause: seconds before each part.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.faults: dict[str, list[str]] = {}
        self.requests: dict[str, int] = defaultdict(int)
        self.hold = threading.Event()
        self.hold.set()
        self.pause = 0.0
        self.end = threading.Event()  # of the server


@contextmanager
def serve(folder: Path) -> Iterator[ShardServer]:
    """A server in a thread, within the `with` block."""
    with _Server(("127.0.0.1", 0), partial(_Handler, directory=str(folder))) as server:
        served = server.served = ShardServer(f"http://127.0.0.1:{server.server_port}", folder)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            served.hold.set()
            served.end.set()
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    served: ShardServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing is printed for a client that was killed."""


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        served = self.server.served
        name = self.path.rpartition("/")[2]
        served.requests[name] += 1
        served.hold.wait()
        fault = served.faults[name].pop(0) if served.faults.get(name) else ""
        if fault == "500":
            self.send_error(500)
        elif fault:
            data = bytearray((served.folder / name).read_bytes())
            data[len(data) // 2] ^= fault == "flip"
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if fault == "slow":
                part = len(data) // 10 + 1
                for start in range(0, len(data), part):
                    time.sleep(served.pause)
                    self.wfile.write(data[start : start + part])
            else:
                self.wfile.write(data if fault == "flip" else data[: len(data) // 2])
            if fault == "silent":
                served.end.wait()
            self.close_connection = True
        else:
            super().do_GET()
