# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""containerd's config.toml on disk: have containerd read the new one, keep the old one, replace it whole."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
import time
from typing import Any, Callable, Optional, Sequence

from .._core import containerd_config
from .._core.errors import AikitError
from .._core.plan import Action, Plan, report
from .files import write_atomic

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]


def ensure(
    path: str, containerd: str, backup: bool, run: Run, check_mode: bool, proc: str = "/proc", absent: bool = False, record: str = ""
) -> dict[str, Any]:
    """The result of module containerd_cdi. ``containerd``: the program; ``record``: the file that says when the setting was made."""
    path = os.path.realpath(path)
    text = _read(path)
    if absent:
        new = containerd_config.disable_cdi(text or "")
        if new == (text or ""):
            return report(Plan(), path=path, backup_file="", restart_needed=False)
        return _written(path, text, new, False, backup, check_mode)
    before = _ask([containerd, "config", "default"], path, path, run) if text is None else _dump(containerd, path, path, run)
    if containerd_config.enabled(before):
        return report(Plan(), path=path, backup_file="", restart_needed=bool(record) and _is_older(record, proc))
    if not containerd_config.knows(before):
        raise AikitError(
            f"{containerd} does not know enable_cdi: CDI came with containerd 1.7, or its CRI plugin is disabled in {path}.",
            "Nothing was changed. Install containerd 1.7 or newer, with its CRI plugin.",
        )
    new = containerd_config.enable_cdi(text, path)
    with tempfile.TemporaryDirectory(prefix="aikit-fleet-") as folder:
        trial = os.path.join(folder, "config.toml")
        with open(trial, "w", encoding="utf-8") as handle:
            handle.write(new)
        containerd_config.check("" if text is None else before, _dump(containerd, trial, path, run), path, trial)
    if record and not check_mode:
        # First: a run that ends here is one whose restart is owed
        write_atomic(record, b"", 0o644)
    return _written(path, text, new, True, backup, check_mode)


def _written(path: str, text: Optional[str], new: str, wanted: bool, backup: bool, check_mode: bool) -> dict[str, Any]:
    kept = ""
    if not check_mode:
        if text is not None and backup:
            kept = f"{path}.{time.strftime('%Y-%m-%dT%H-%M-%S')}~"
            write_atomic(kept, text.encode(), os.stat(path).st_mode & 0o7777)
        write_atomic(path, new.encode(), 0o644 if text is None else os.stat(path).st_mode & 0o7777, keep=text is not None)
    plan = Plan((Action("set" if wanted else "clear", "enable_cdi", f"in {path}"),), {"enable_cdi": not wanted}, {"enable_cdi": wanted})
    return report(plan, path=path, backup_file=kept, restart_needed=True)


def _read(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise AikitError(f"{path} is no UTF-8 text.", containerd_config.HINT) from None


def _dump(containerd: str, file: str, path: str, run: Run) -> str:
    return _ask([containerd, "--config", file, "config", "dump"], file, path, run)


def _ask(argv: Sequence[str], file: str, path: str, run: Run) -> str:
    status, output, errors = run(argv)
    if status != 0:
        raise AikitError(f"containerd cannot read {path}: {_last((errors or output).replace(file, path))}.", containerd_config.HINT)
    return output


def _is_older(path: str, proc: str) -> bool:
    """Whether a containerd runs that started before the file was written."""
    try:
        written = os.stat(path).st_mtime
        with open(os.path.join(proc, "stat"), encoding="utf-8") as handle:
            booted = next(int(line.split()[1]) for line in handle if line.startswith("btime "))
    except (OSError, StopIteration):
        return False
    for directory in glob.glob(os.path.join(proc, "[0-9]*")):
        with contextlib.suppress(OSError, IndexError, ValueError):
            with open(os.path.join(directory, "comm"), encoding="utf-8") as handle:
                if handle.read().strip() != "containerd" or not os.path.samefile(os.path.join(directory, "root"), os.path.join(proc, "self/root")):
                    continue
            with open(os.path.join(directory, "stat"), encoding="utf-8", errors="replace") as handle:
                ticks = int(handle.read().rpartition(")")[2].split()[19])
            # Both clocks tell whole seconds
            if booted + ticks / os.sysconf("SC_CLK_TCK") + 2 < written:
                return True
    return False


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "no output"
