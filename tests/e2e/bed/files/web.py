"""The download site: github.com, raw.githubusercontent.com and api.github.com, distinguished by the Host header.

Files next to the sites change its behaviour and are read at every request: `fail` (the status of every answer),
`kib_per_second` (slow downloads), `wrong` (the content of every release asset)."""

import functools
import hashlib
import http.server
import json
import re
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path("/www")
RELEASES = ROOT / "github.com/moghtech/komodo/releases/download"


def setting(name: str) -> str:
    try:
        return (ROOT / name).read_text().strip()
    except OSError:
        return ""


@functools.cache
def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def release(tag: str) -> dict[str, Any] | None:
    folder = RELEASES / tag
    if not tag or not folder.is_dir():
        return None
    assets = [{"name": p.name, "digest": f"sha256:{digest(p)}"} for p in sorted(folder.iterdir())]
    return {"tag_name": tag, "assets": assets}


class Site(http.server.SimpleHTTPRequestHandler):
    def host(self) -> str:
        return (self.headers.get("Host") or "").partition(":")[0]

    def translate_path(self, path: str) -> str:
        site = (ROOT / self.host()).resolve()
        file = (site / path.partition("?")[0].lstrip("/")).resolve()
        if not self.host() or not file.is_relative_to(site) or not file.is_file():
            return "/nonexistent"
        wrong = ROOT / "wrong"
        return str(wrong if file.is_relative_to(RELEASES) and wrong.exists() else file)

    def copyfile(self, source: Any, outputfile: Any) -> None:
        rate = float(setting("kib_per_second") or 0)
        while chunk := source.read(65536):
            outputfile.write(chunk)
            if rate:
                time.sleep(len(chunk) / 1024 / rate)

    def do_GET(self) -> None:
        if status := setting("fail"):
            self.send_error(int(status))
            return
        if self.host() != "api.github.com":
            super().do_GET()
            return
        found = re.fullmatch(r"/repos/moghtech/komodo/releases/(?:tags/(v[\d.]+)|latest)", self.path)
        answer = release(found.group(1) or setting("latest")) if found else None
        body = json.dumps(answer or {"message": "Not Found"}).encode()
        self.send_response(200 if answer else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        where = self.host() if hasattr(self, "headers") else "-"
        sys.stderr.write(f"{self.client_address[0]} {where} {format % args}\n")


if __name__ == "__main__":
    for asset in RELEASES.glob("*/*"):  # the first request need not wait for it
        threading.Thread(target=digest, args=(asset,)).start()
    site = http.server.ThreadingHTTPServer(("0.0.0.0", 443), Site)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/etc/kue/srv.crt", "/etc/kue/srv.key")
    site.socket = context.wrap_socket(site.socket, server_side=True, do_handshake_on_connect=False)
    site.serve_forever()
