# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stands for pip's bootstrap script in the cache of ansible-test, made from what Python itself brings.

ansible-test calls it with the options for pip's own installer; two of them name packages that ensurepip does not know.
"""

from __future__ import annotations

import subprocess
import sys

arguments = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
subprocess.run([sys.executable, "-m", "ensurepip", "--upgrade"], check=True)
if arguments:
    subprocess.run([sys.executable, "-m", "pip", "install", *arguments], check=True)
