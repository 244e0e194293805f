"""Prints docs/checks.md: `python -m komodo.checks > docs/checks.md`."""

from __future__ import annotations

import sys

from komodo.checks.all import GROUPS
from komodo.checks.registry import page

sys.stdout.write(page(GROUPS))
