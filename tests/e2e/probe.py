"""Measures downtime every 0.2 s: the port of each agent, and the status that Core reports."""

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
    """Measures in threads while a scenario runs."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.down_in_all: dict[str, float] = defaultdict(float)
        """Server -> seconds for which its agent's port refused connections."""
        self.longest: dict[str, float] = defaultdict(float)
        """Server -> the longest uninterrupted downtime of the port in seconds."""
        self.not_ok: dict[str, float] = defaultdict(float)
        """Server -> seconds for which Core did not report Ok, without Core's own downtime."""
        self.core_down = 0.0
        self.answers = 0
        """How often Core answered: a probe without any answer proves nothing."""

    def __enter__(self) -> Probe:
        probes = [lambda s=s: self._port(s) for s in self._bed.servers]
        for probe in (*probes, self._core):
            thread = threading.Thread(target=self._repeat, args=(probe,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(5)

    def _repeat(self, probe: object) -> None:
        assert callable(probe)
        while not self._stop.is_set():
            began = time.monotonic()
            probe()
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
        down = time.monotonic() - began
        if down > EVERY / 4:
            self.down_in_all[server.name] += down
            self.longest[server.name] = max(self.longest[server.name], down)

    def _core(self) -> None:
        began = time.monotonic()
        try:
            states = install.states(self._bed.headers)
        except (OSError, ValueError):
            states = None
        self._stop.wait(max(0.0, EVERY - (time.monotonic() - began)))
        spent = time.monotonic() - began
        if states is None:
            self.core_down += spent
            return
        self.answers += 1
        for name, (state, _) in states.items():
            if state != "Ok":
                self.not_ok[name] += spent

    def lines(self) -> list[str]:
        """A line for each server."""
        names = [*(s.name for s in self._bed.servers), "Local"]
        found = [
            f"{n}: port down {self.longest[n]:.1f} s, not Ok {self.not_ok[n]:.1f} s" for n in names if n != "Local"
        ]
        return [f"Core ({CORE}) down {self.core_down:.1f} s", *found, f"Local: not Ok {self.not_ok['Local']:.1f} s"]
