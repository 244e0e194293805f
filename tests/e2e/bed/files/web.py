"""The download site: github.com, raw.githubusercontent.com and api.github.com, told apart by the Host header.

Files beside the sites change what it does, read at every request: `fail` (a status for everything), `kib_per_second`
(slow downloads), `wrong` (every release asset is this file's bytes instead)."""

import hashlib
import http.server
import json
import os
import re
import ssl
import sys
import threading
import time

ROOT = "/www"
RELEASES = f"{ROOT}/github.com/moghtech/komodo/releases/download"


def setting(name):
    try:
        with open(f"{ROOT}/{name}") as file:
            return file.read().strip()
    except OSError:
        return ""


def digest(path, known={}):
    key = (path, os.stat(path).st_mtime_ns)
    if key not in known:
        with open(path, "rb") as file:
            known[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return known[key]


def release(tag):
    folder = f"{RELEASES}/{tag}"
    if not os.path.isdir(folder):
        return None
    assets = [{"name": name, "digest": f"sha256:{digest(f'{folder}/{name}')}"} for name in sorted(os.listdir(folder))]
    return {"tag_name": tag, "assets": assets}


class Site(http.server.SimpleHTTPRequestHandler):
    def host(self):
        return (self.headers.get("Host") or "").partition(":")[0]

    def translate_path(self, path):
        path = os.path.normpath(f"{ROOT}/{self.host()}{path.partition('?')[0]}")
        if not path.startswith(f"{ROOT}/{self.host()}/") or not os.path.isfile(path):
            return "/nonexistent"
        return f"{ROOT}/wrong" if path.startswith(RELEASES) and os.path.exists(f"{ROOT}/wrong") else path

    def copyfile(self, source, outputfile):
        rate = float(setting("kib_per_second") or 0)
        while chunk := source.read(65536):
            outputfile.write(chunk)
            if rate:
                time.sleep(len(chunk) / 1024 / rate)

    def do_GET(self):
        if status := setting("fail"):
            return self.send_error(int(status))
        if self.host() != "api.github.com":
            return super().do_GET()
        found = re.fullmatch(r"/repos/moghtech/komodo/releases/(?:tags/(v[\d.]+)|latest)", self.path)
        answer = release(found.group(1) or setting("latest")) if found else None
        body = json.dumps(answer or {"message": "Not Found"}).encode()
        self.send_response(200 if answer else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        sys.stderr.write(f"{self.client_address[0]} {getattr(self, 'headers', None) and self.host()} {format % args}\n")


if __name__ == "__main__":
    for path in (f"{RELEASES}/{tag}" for tag in os.listdir(RELEASES)):
        for name in os.listdir(path):
            threading.Thread(target=digest, args=(f"{path}/{name}",)).start()  # the first question need not wait for it
    site = http.server.ThreadingHTTPServer(("0.0.0.0", 443), Site)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/etc/kue/srv.crt", "/etc/kue/srv.key")
    site.socket = context.wrap_socket(site.socket, server_side=True, do_handshake_on_connect=False)
    site.serve_forever()
