# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[1] / "tools/stale-data"


def run(*words):
    done = subprocess.run([sys.executable, str(TOOL), *map(str, words)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_tables_older_than_six_months_are_listed_oldest_first(tmp_path):
    (tmp_path / "data_new.py").write_text('"""New."""\n\nREVIEWED = "2026-11-01"\n')
    (tmp_path / "data_old.py").write_text('REVIEWED = "2026-02-01"\n')
    (tmp_path / "data_older.py").write_text('REVIEWED = "2025-02-01"\nraise SystemExit("a table is read, not run")\n')
    (tmp_path / "data_undated.py").write_text("FACTS = {}\n")
    (tmp_path / "data_variables.py").write_text("NAMES = {}\n")
    (tmp_path / "code.py").write_text("")
    assert run(tmp_path, "2026-11-25") == [
        "data_undated.py: compared with its sources at an unknown date: it has no REVIEWED",
        "data_older.py: compared with its sources 2025-02-01, 662 days ago",
        "data_old.py: compared with its sources 2026-02-01, 297 days ago",
    ]
    (tmp_path / "data_undated.py").unlink()
    assert run(tmp_path, "2025-03-01") == ["All tables were compared with their sources within six months."]


def test_our_own_tables_can_be_read():
    assert run()
