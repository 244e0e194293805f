"""How long each server was dark: its agent's own port, and Core's word for it, looked at every 0.2 s."""

from __future__ import annotations

import socket
import threading
import time
from collections import defaultdict
from types import TracebackType

from tests.e2e.bed import install
from tests.e2e.bed.bed import Bed
from tests.e2e.bed.settings import CORE, Machine

EVERY = 0.2


class Probe:
    """Runs in threads while a scenario does its work."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.silent: dict[str, float] = defaultdict(float)
        """Server -> seconds its agent's port refused."""
        self.longest: dict[str, float] = defaultdict(float)
        """Server -> the longest such time without a break."""
        self.not_ok: dict[str, float] = defaultdict(float)
        """Server -> seconds Core did not call it Ok, Core's own silence left out."""
        self.core_silent = 0.0
        self.answers = 0
        """Of Core: a probe that never got one proves nothing."""

    def __enter__(self) -> Probe:
        looks = [lambda s=s: self._port(s) for s in self._bed.servers]
        for look in (*looks, self._core):
            thread = threading.Thread(target=self._repeat, args=(look,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(5)

    def _repeat(self, look: object) -> None:
        assert callable(look)
        while not self._stop.is_set():
            began = time.monotonic()
            look()
            self._stop.wait(max(0.0, EVERY - (time.monotonic() - began)))

    def _port(self, server: Machine) -> None:
        began = time.monotonic()
        while not self._stop.is_set():
            try:
                socket.create_connection((server.address, 8120), timeout=1).close()
                break
            except OSError:
                self._stop.wait(EVERY / 4)
        else:
            return
        dark = time.monotonic() - began
        if dark > EVERY / 4:
            self.silent[server.name] += dark
            self.longest[server.name] = max(self.longest[server.name], dark)

    def _core(self) -> None:
        began = time.monotonic()
        try:
            states = install.states(self._bed.headers)
        except (OSError, ValueError):
            states = None
        self._stop.wait(max(0.0, EVERY - (time.monotonic() - began)))
        spent = time.monotonic() - began
        if states is None:
            self.core_silent += spent
            return
        self.answers += 1
        for name, (state, _) in states.items():
            if state != "Ok":
                self.not_ok[name] += spent

    def lines(self) -> list[str]:
        """A line for each server."""
        names = [*(s.name for s in self._bed.servers), "Local"]
        found = [
            f"{n}: port silent {self.longest[n]:.1f} s, not Ok {self.not_ok[n]:.1f} s" for n in names if n != "Local"
        ]
        return [f"Core ({CORE}) silent {self.core_silent:.1f} s", *found, f"Local: not Ok {self.not_ok['Local']:.1f} s"]
