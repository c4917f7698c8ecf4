# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names and answers of the Hugging Face hub, and of mirrors that speak like it.

A repository is a git repository: a branch is a moving name of a commit. Large files are in LFS, which names them by their
SHA-256; small ones have git's own SHA-1 of a blob. Shapes as in the hub's API and its Python client huggingface_hub 1.x/2.x
(``/api/models/…``, headers ``X-Repo-Commit``, ``X-Linked-Etag``, ``X-Linked-Size``, ``X-Error-Code``). Date: 2026-11.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, replace
from typing import Any, Iterable, Mapping, Optional, Sequence

from .errors import AikitError

DEFAULT_URL = "https://huggingface.co"
DEFAULT_REVISION = "main"
SCHEME = "huggingface://"
FORMS = (
    "Write huggingface://NAMESPACE/REPOSITORY/FILE, huggingface://NAMESPACE/REPOSITORY/BRANCH/FILE, "
    "huggingface://NAMESPACE/REPOSITORY@REVISION/FOLDER/FILE, or huggingface://NAMESPACE/REPOSITORY for all of its files."
)

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LINK = re.compile(r'<([^<>\s]+)>\s*;[^,]*\brel="?next"?', re.IGNORECASE)
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-~")


@dataclass(frozen=True)
class HubName:
    """A file of a repository, or with an empty ``path`` all of its files."""

    repository: str
    revision: str = DEFAULT_REVISION
    path: str = ""

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return bool(_COMMIT.fullmatch(self.revision))

    @property
    def text(self) -> str:
        """The one form that can name every file."""
        return f"{SCHEME}{self.repository}@{quote(self.revision, '')}{'/' if self.path else ''}{self.path}"

    def at(self, commit: str) -> "HubName":
        return replace(self, revision=commit)


@dataclass(frozen=True)
class HubFile:
    """What the hub says of a file. ``sha256`` is empty for files that are not in LFS; those have a ``git_id``."""

    path: str
    size_bytes: Optional[int]
    sha256: str = ""
    git_id: str = ""

    @property
    def hidden(self) -> bool:
        """Whether it is the repository's own, not the model's: such files are companions of a model, which AIKit's images have too."""
        return any(part.startswith(".") for part in self.path.split("/"))


def parse(source: str) -> HubName:
    """Read a ``huggingface://`` source; every form of AIKit's, and one with folders.

    A revision behind ``@`` (or ``:``) makes all that follows a path. ``%2F`` in it is a slash of a branch's name.
    """
    rest = source[len(SCHEME) :] if source.startswith(SCHEME) else source
    parts = rest.split("/")
    if not all(parts) or len(parts) < 2:
        raise AikitError(f"{source!r} names no repository.", FORMS)
    repository, mark, revision = re.fullmatch(r"([^@:]*)([@:]?)(.*)", parts[1], re.DOTALL).groups()  # type: ignore[union-attr]
    path = "/".join(parts[2:])
    if mark and not revision:
        raise AikitError(f"{source!r} has no revision behind the {mark}.", FORMS)
    if not mark:
        if len(parts) > 4:
            raise AikitError(
                f"{source!r} has {len(parts)} parts, and which of them is the branch is not clear.",
                f"Write {SCHEME}{parts[0]}/{parts[1]}@{DEFAULT_REVISION}/{path}, with the revision that you want.",
            )
        if len(parts) == 4:
            revision, path = parts[2], parts[3]
    for part in (parts[0], repository):
        if not _PART.fullmatch(part) or ".." in part or part.endswith((".git", ".", "-")):
            raise AikitError(f"{source!r}: {part!r} is no name of the hub.", FORMS)
    name = HubName(f"{parts[0]}/{repository}", unquote(revision) or DEFAULT_REVISION, unquote(path))
    if not name.revision.isprintable() or " " in name.revision or ".." in name.revision or name.revision.startswith(("/", "-")):
        raise AikitError(f"{source!r}: {name.revision!r} is no branch, tag or commit.", FORMS)
    if name.path and not safe_path(name.path):
        raise AikitError(f"{source!r}: {name.path!r} is no path of a file.", FORMS)
    return name


def safe_path(path: str) -> bool:
    """Whether a path leads to a file below a folder, and only there."""
    parts = path.split("/")
    return path.isprintable() and "\\" not in path and all(part not in ("", ".", "..") and len(part.encode()) <= 200 for part in parts)


def check_url(text: str, option: str = "hub_url") -> str:
    """The address of the hub or of a mirror, without a slash at its end."""
    url = text.strip().rstrip("/")
    if not re.fullmatch(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~%/-]*)?", url):
        shown = re.sub(r"//[^/@]*@", "//***@", url)
        raise AikitError(f"{option}: {shown[:200]!r} is no address of a hub.", f"Write it like {DEFAULT_URL}, without user and query.")
    return url


def file_url(hub: str, name: HubName) -> str:
    return f"{hub}/{name.repository}/resolve/{quote(name.revision, '')}/{quote(name.path)}"


def revision_url(hub: str, name: HubName) -> str:
    return f"{hub}/api/models/{name.repository}/revision/{quote(name.revision, '')}"


def tree_url(hub: str, name: HubName) -> str:
    return f"{hub}/api/models/{name.repository}/tree/{quote(name.revision, '')}?recursive=true"


def next_page(link: str) -> str:
    """The address of the next page out of a ``Link`` header, empty where there is none."""
    found = _LINK.search(link)
    return found.group(1) if found else ""


def parse_commit(document: Any, name: HubName) -> str:
    """The commit that a branch or tag is at, from the answer about a revision."""
    commit = document.get("sha") if isinstance(document, dict) else None
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise AikitError(f"{name.text}: the hub's answer about the revision names no commit.", "Check hub_url: is it a hub?")
    return commit


def parse_tree(document: Any, name: HubName) -> list[HubFile]:
    """The files of one page of a listing. ``.gitattributes`` is git's alone."""
    if not isinstance(document, list):
        raise AikitError(f"{name.text}: the hub's list of files is no list.", "Check hub_url: is it a hub?")
    found = []
    for entry in document:
        if not isinstance(entry, dict) or entry.get("type") != "file":
            continue
        path = entry.get("path")
        if not isinstance(path, str) or not safe_path(path):
            raise AikitError(
                f"{name.text}: the hub lists a file with the name {str(path)[:200]!r}, which leads elsewhere.",
                "Name the files that you want instead.",
            )
        if path == ".gitattributes":
            continue
        lfs = entry.get("lfs")
        lfs = lfs if isinstance(lfs, dict) else {}
        digest = _sha256(lfs.get("oid") or lfs.get("sha256"))
        git_id = entry.get("oid") if not digest else ""
        size = lfs.get("size", entry.get("size")) if digest else entry.get("size")
        found.append(HubFile(path, _size(size), digest, git_id if isinstance(git_id, str) and _COMMIT.fullmatch(git_id) else ""))
    return found


def parse_headers(headers: Mapping[str, str], name: HubName) -> tuple[HubFile, str]:
    """The file and its commit, from the headers with which the hub answers for a file.

    :param headers: with names in lower case.
    """
    commit = headers.get("x-repo-commit", "").strip()
    if not _COMMIT.fullmatch(commit):
        raise AikitError(f"{name.text}: the server does not say at which commit the file is.", "Check hub_url: is it a hub, or a mirror of one?")
    tag = _etag(headers.get("x-linked-etag") or headers.get("etag", ""))
    size = headers.get("x-linked-size") or ("" if "x-linked-etag" in headers else headers.get("content-length", ""))
    digest = _sha256(tag)
    return HubFile(name.path, _size(int(size) if size.isascii() and size.isdigit() else None), digest, tag if _COMMIT.fullmatch(tag) else ""), commit


def linked_sha256(headers: Mapping[str, str]) -> str:
    """The SHA-256 that a hub tells of a file that is asked for by its https:// address; empty where the server is no hub."""
    return _sha256(_etag(headers.get("x-linked-etag", ""))) if _COMMIT.fullmatch(headers.get("x-repo-commit", "")) else ""


def choose(files: Sequence[HubFile], include: Sequence[str], name: HubName) -> list[HubFile]:
    """The files that one of the patterns matches, by path or by name; all without patterns. Hidden ones are never chosen."""
    files = [entry for entry in files if not entry.hidden]
    chosen = [entry for entry in files if not include or matches(entry.path, include)]
    if not chosen:
        names = ", ".join(entry.path for entry in files[:10]) + (", …" if len(files) > 10 else "")
        what = f"no file that include ({', '.join(include)}) names" if include else "no files"
        raise AikitError(f"{name.text} has {what}{f'; it has: {names}' if names else ''}.", "Check include, and the revision.")
    return sorted(chosen, key=lambda entry: entry.path)


def matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path.rpartition("/")[2], pattern) for pattern in patterns)


def refusal(name: HubName, status: int, headers: Mapping[str, str], token: bool) -> AikitError:
    """What to tell people of an answer that another attempt will not mend. The hub names its reasons in a header."""
    code = headers.get("x-error-code", "")
    said = re.sub(r"[^\x20-\x7e]+", " ", headers.get("x-error-message", ""))[:300].strip()
    answer = f"HTTP status {status}{f', {code}' if re.fullmatch('[A-Za-z]{1,40}', code) else ''}{f': {said}' if said else ''}".rstrip(".")
    give = "Give a `token` of an account that may read it (for the builds of role inference: inference_model_token)."
    if code == "GatedRepo":
        page = f"{DEFAULT_URL}/{name.repository}"
        account = "with the account that the token belongs to." if token else "and give a `token` of that account."
        hint = f"Accept its terms at {page} {account}" if token else f"Accept its terms at {page}, {account}"
        return AikitError(f"{name.repository} is gated ({answer}).", hint)
    if code == "RevisionNotFound":
        return AikitError(f"{name.repository} has no revision {name.revision} ({answer}).", "Name a branch, a tag or a commit of it.")
    if code == "EntryNotFound":
        return AikitError(
            f"{name.repository} has no file {name.path} at {name.revision} ({answer}).",
            f"Check the name, capitals included. A file in a folder is {SCHEME}{name.repository}@{quote(name.revision, '')}/FOLDER/FILE.",
        )
    if code == "RepoNotFound" or status == 404:
        hint = "Check the name, and whether the token may read it." if token else f"Check the name. If the repository is private: {give}"
        return AikitError(f"The hub has no repository {name.repository}, or does not show it ({answer}).", hint)
    if status == 401:
        return AikitError(f"{name.text} needs a login ({answer}).", "The token was not accepted: is it still valid?" if token else give)
    if status == 403:
        return AikitError(f"{name.text} is not allowed ({answer}).", "May the token read this repository?" if token else give)
    return AikitError(f"{name.text} cannot be read ({answer}).", "Open the repository's page to see what the hub says.")


def quote(text: str, safe: str = "/") -> str:
    """Percent-encoded, as UTF-8."""
    return "".join(char if char in _PLAIN or char in safe else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "replace")) for char in text)


def unquote(text: str) -> str:
    return re.sub("(?:%[0-9A-Fa-f]{2})+", lambda found: bytes.fromhex(found.group().replace("%", "")).decode("utf-8", "replace"), text)


def _etag(text: str) -> str:
    tag = text.strip()
    return (tag[2:] if tag.startswith("W/") else tag).strip('"')


def _sha256(value: Any) -> str:
    text = value[7:] if isinstance(value, str) and value.startswith("sha256:") else value
    return text if isinstance(text, str) and _SHA256.fullmatch(text) else ""


def _size(value: Any) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None
