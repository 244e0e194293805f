"""Dumps that are proven, and dumps that prove nothing: over real SSH against the sandbox's database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from activities.core_access import login_for
from model.errors import CommandFailed, DatabaseDenied, DumpRejected, UpgradeError
