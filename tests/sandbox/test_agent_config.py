"""The sandbox's agents read their files as the real ones do: folders, byte order marks, backups next to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.periphery.config import load


@pytest.mark.parametrize("major", [1, 2])
def test_a_folder_stands_for_its_configs_and_backups_are_left_out(major: int, tmp_path: Path) -> None:
    (tmp_path / "a.config.toml").write_text('passkeys = ["a"]\nport = 8121\n')
    (tmp_path / "periphery.config.toml").write_bytes('\ufeffpasskeys = ["b"]\r\n'.encode())
    (tmp_path / "periphery.config.toml.bak_v1").write_text('passkeys = ["old"]\n')
    (tmp_path / "other.toml").write_text("port = 1\n")
    config = load(major, [str(tmp_path)], {}, Path)
    assert config.port == 8121
    assert "old" not in config.values["passkeys"]
    assert "b" in config.values["passkeys"]
    assert config.said == [f"WARN: Unsupported file type at {tmp_path}/periphery.config.toml.bak_v1"]
