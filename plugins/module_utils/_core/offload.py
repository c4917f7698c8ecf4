# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a server's log proves about where the model's weights lie.

``evidence(text)`` reads the log of llama-server, of LocalAI with any of its backends, or of vLLM, with whatever a log
collector put around the lines, and gives one of six verdicts:

=========== ============================================================================================================
proven      every layer and nearly all weight bytes that do work lie in the memory of a real GPU
partial     some layers, experts or the KV cache stayed in host memory (or on a software renderer)
cpu         the log says positively that the GPU has no part of the weights
software    the "GPU" is a software renderer such as llvmpipe
failed      the model did not load, or the server gave up afterwards
unverified  the log does not say; silence is never ``cpu``
=========== ============================================================================================================

How it decides, for each process and its last complete load (dry runs and draft models do not count):

* A buffer lies on a GPU when its name belongs to a device that the log declares ("using device X", "found N X
  devices", Vulkan's and Metal's device lines). Everything else is host memory, whatever it is called: CPU_REPACK, AMX
  or tomorrow's name. Only logs that declare no device at all fall back to numbered names (CUDA0) and the phrases of
  the early generations ("VRAM used").
* "offloaded N/M" repeats what was asked for, clamped to M, and is printed even where no GPU exists. It is never enough:
  weight bytes on the GPU must go with it. N < M is partial; so are layers that overflow, tensors that were overridden
  to the host and a KV cache in host memory, which puts the attention on the CPU.
* At N = M the bytes are weighed. Token embeddings always stay in host memory, and with a tied output matrix they
  are loaded twice. So it is proven when the GPU holds 90 % of the file, or when the host holds at most 10 %
  of all weights, or when the GPU holds at least as much as the host and the host's part is no bigger than this model's
  embeddings can be (1.5 GiB where the log does not give their size). Otherwise something bigger than
  embeddings stayed behind (experts, or an output matrix that this GPU cannot take), and that is partial.
* A process of llama-server loads once. What it writes after its model is loaded quotes clients (a rejected grammar is
  printed raw, "got exception:" repeats a request), so it is no evidence of the load; a failure then has to stand where
  llama.cpp puts it, at the start of the line.
* Several models (llama-server's router, LocalAI's backends) are judged one by one; the worst verdict counts and the
  reasons name the model.

Every line is looked at once and cut at 16 KiB, so time grows with the length of the text and not with what it holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Optional

from . import data_offload
from .log_lines import SAME, Line, unwrap

VERDICTS = ("proven", "partial", "cpu", "software", "failed", "unverified")
# Worst first: what several models of one server come to
_SEVERITY = ("failed", "cpu", "software", "unverified", "partial", "proven")

_LINES = re.compile(r"[^\n]+")
_LINE_LIMIT = 16 * 1024
# Text is searched for the phrases in blocks of this size; only lines of blocks that hold one are looked at
_BLOCK = 64 * 1024
# So many lines at the start are looked at in any case: they show what kind of server wrote the log
_MEET_LINES = 2000
_QUOTE_LIMIT = 200
_STREAM_LIMIT = 256
_ITEM_LIMIT = 64

_HOST_SHARE_NORMAL = 0.10
_FILE_SHARE_PROVEN = 0.90
_KV_SHARE_NORMAL = 0.05
_EMBEDDINGS_UNKNOWN_MIB = 1536.0


@dataclass(frozen=True)
class Evidence:
    """The verdict and what it rests on (JSON types in :meth:`as_dict`).

    ``devices``: ``{name, description, software}``. ``buffers``: ``{name, kind, size_mib, place, model}`` with kind model,
    kv, rs, compute, output or encoder (the compute buffer of an image encoder), and place gpu, software or host. ``failure`` is the
    kind of failure: oom, ram, init, driver, arch, crash, model, config or load.
    """

    verdict: str
    reasons: tuple[str, ...] = ()
    layers_offloaded: Optional[int] = None
    layers_total: Optional[int] = None
    devices: tuple[Mapping[str, Any], ...] = ()
    buffers: tuple[Mapping[str, Any], ...] = ()
    failure: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "layers_offloaded": self.layers_offloaded,
            "layers_total": self.layers_total,
            "devices": [dict(device) for device in self.devices],
            "buffers": [dict(buffer) for buffer in self.buffers],
            "failure": self.failure,
        }


def evidence(text: str, one_run: bool = False) -> Evidence:
    """Judge the log ``text``. Never raises on what a log may hold.

    With ``one_run`` the text is the log of one run of a container whose server answers: what a llama-server writes after
    its model is loaded says nothing of the load, and clients have a part in it, so it is not read.
    """
    reader = _Reader(one_run)
    position = 0
    while position < len(text) and not reader.done:
        newline = text.find("\n", position + _BLOCK)
        end = len(text) if newline < 0 else newline
        # A line longer than the limit is not kept, so a block does not need its rest
        block = text[position : min(end, position + _BLOCK + _LINE_LIMIT)]
        present = tuple(needle for needle in _NEEDLES if needle in block)
        if present or reader.lines < _MEET_LINES:
            for match in _LINES.finditer(block):
                reader.feed(match.group()[:_LINE_LIMIT], present)
        position = end + 1
    return reader.verdict()


# --- what one process said -------------------------------------------------------------------------------------------


@dataclass
class _Device:
    name: str
    description: str = ""
    software: bool = False


@dataclass
class _Failure:
    kind: str
    final: bool
    words: str
    quote: str


@dataclass
class _Load:
    """One load of one model."""

    draft: bool = False
    asked: bool = False
    dry: bool = False
    offloaded: Optional[int] = None
    total: Optional[int] = None
    sizes: dict[tuple[str, str], float] = field(default_factory=dict)
    vram_mib: Optional[float] = None
    using: dict[str, _Device] = field(default_factory=dict)
    failures: list[_Failure] = field(default_factory=list)
    overridden: int = 0
    context: bool = False
    vocabulary: int = 0
    embedding: int = 0
    blocks: int = 0
    per_layer_embedding: int = 0
    file_mib: float = 0.0

    @property
    def body(self) -> bool:
        return self.offloaded is not None or bool(self.sizes) or self.vram_mib is not None or bool(self.failures)

    @property
    def counts(self) -> bool:
        """Whether this load put (or failed to put) the model itself into memory."""
        if self.draft or not self.body:
            return False
        weights = [size for (_name, kind), size in self.sizes.items() if kind == "model"]
        return bool(self.failures) or not (self.dry or (weights and not any(weights)))


@dataclass
class _Stream:
    """One process: a server, or a child that a server started for a model."""

    name: str = ""
    instance: str = ""
    load: _Load = field(default_factory=_Load)
    main: Optional[_Load] = None
    draft_next: bool = False
    families: dict[str, None] = field(default_factory=dict)
    family: str = ""
    devices: dict[str, _Device] = field(default_factory=dict)
    listed: dict[str, str] = field(default_factory=dict)
    last_device: Optional[_Device] = None
    init: list[_Failure] = field(default_factory=list)
    no_gpu: list[str] = field(default_factory=list)
    overflow: dict[str, int] = field(default_factory=dict)
    verbosity: Optional[int] = None
    started: bool = False
    ready: bool = False
    closed: bool = False
    backend: str = ""
    python_gpu: list[str] = field(default_factory=list)
    python_cpu: list[str] = field(default_factory=list)

    def result(self) -> Optional[_Load]:
        """The load that counts: the newest that put the model into memory, or the newest that was asked for."""
        if self.load.counts or (self.load.asked and not self.load.draft and not self.load.dry):
            return self.load
        return self.main

    @property
    def evident(self) -> bool:
        return bool(self.result() or self.python_gpu or self.python_cpu or self.init or self.no_gpu or self.devices)


_OFFLOADED = re.compile(r"offloaded\s{1,8}(\d{1,7})/(\d{1,7})\s{1,8}layers to GPU")
_BUFFER = re.compile(r"buffer size\s{0,16}=\s{0,16}(\d{1,12}(?:\.\d{1,6})?)\s{0,4}Mi?B")
_ENCODER = re.compile(r"\b(?:\w{1,16}_compute_meta|clip_\w{1,32}):")
_USING = re.compile(r"using device (\S{1,128}) \((.{0,512})\) - (\d{1,9}) MiB free")
_FOUND = re.compile(r"[Ff]ound (\d{1,4}) ([A-Z]\w{1,31}) devices?\b")
_VULKAN = re.compile(r"\b(Vulkan\d{1,3}): (.{1,256})\Z|(?:\A|: |\s)(\d{1,3}) = (.{1,256})\Z")
_NUMBERED = re.compile(r"\bDevice (\d{1,3}): ([^,]{1,256})")
_LISTED = re.compile(r"(\w{1,64})\s{0,32}: (.{1,256}) \(\d{1,9} MiB, \d{1,9} MiB free\)")
_OVERFLOW = re.compile(r"(\d{1,6}) layers \(\s{0,8}(\d{1,6}) overflowing\)")
_VRAM = re.compile(r"VRAM used:?\s{0,8}=?\s{0,8}(\d{1,9}(?:\.\d{1,4})?)\s?Mi?B(?: \(model: (\d{1,9}(?:\.\d{1,4})?))?")
_NUMBER = re.compile(r"=\s{0,32}(\d{1,12})\b")
_SIZE = re.compile(r"=\s{0,32}(\d{1,9}(?:\.\d{1,4})?) ([MG])i?B")
_VERBOSITY = re.compile(r"verbosity = (\d{1,3})")
_SPAWN = re.compile(r"with name=(.{1,256}?) on port (\d{1,5})")
_EXIT = re.compile(r"instance name=(.{1,256}?) exited with status (-?\d{1,9})")
_INIT = re.compile(r"failed to initialize (\w{1,32}): (.{0,256})")
_PROBABLE = re.compile(r"[A-Za-z]{1,16}\d{1,3}(?:_Mapped|_Split)?\Z")
# What only llama-server itself writes once its model is in memory
_READY = re.compile(
    r"(?:srv\s{1,8})?(?:main|llama_server|update_slots|init|load_model): (?:all slots are idle|model loaded)\s{0,8}\Z"
    r"|slot\s{1,8}print_timing: "
)
# What llama.cpp puts before the words of an error: srv, names of functions, a source file and its line
_HEAD = re.compile(r"(?:(?:srv|slot|que|cmn)\s{1,8})?(?:[\w./:+()-]{1,200}:\s{1,8}){0,3}\Z")
# What may follow a device's own name in the name of a buffer
_OF_DEVICE = re.compile(r"(?:_Mapped|_Split|_Private)?(?:\Z|\[)")
_RUN_SH = re.compile(r"/backends/([\w.+-]{1,128})/")
_VLLM_SIZE = re.compile(r"(?:take|took|memory:)\s{1,4}(\d{1,6}(?:\.\d{1,4})?)\s?Gi?B")
_VLLM_TOKENS = re.compile(r"GPU KV cache size:\s{1,4}([\d,]{1,16}) tokens")
_VLLM_BLOCKS = re.compile(r"GPU blocks: (\d{1,9})")
_CPU_OFFLOAD = re.compile(r"cpu_offload_gb\W{1,4}(\d{1,6}(?:\.\d{1,3})?)")
_BACKEND_VARIANT = re.compile(r"attempting to load with (\w{1,32}) variant")


class _Reader:
    """Feeds lines to the processes that wrote them. One pass; memory does not grow with the text."""

    def __init__(self, one_run: bool = False) -> None:
        self.one_run = one_run
        self.done = False
        self.streams: dict[tuple[str, str], _Stream] = {}
        self.ports: dict[tuple[str, str], str] = {}
        self.hosts: dict[str, _LocalAI] = {}
        self.lines = 0
        self.overfull = False
        self.latest: dict[str, tuple[str, str]] = {}

    def feed(self, raw: str, needles: tuple[str, ...]) -> None:
        """Take one line that may hold some of ``needles``."""
        if self.done:
            return
        self.lines += 1
        if not any(needle in raw for needle in needles):
            if self.lines <= _MEET_LINES:
                for line in unwrap(raw):
                    self._meet(line)
            return
        for line in unwrap(raw):
            stream = self._meet(line)
            # The words after "got exception:" are a client's as often as the server's
            if stream is None or "got exception:" in line.text:
                continue
            for needle, handler, localai in _HANDLERS:
                # A process that has its model still starts children and ends; only in a mixed log can it be a new one
                if stream.closed and (self.one_run or handler not in _AFTER):
                    continue
                if needle in line.text and (localai or not line.level):
                    handler(self, stream, line)
            if not (stream.closed and self.one_run):
                self.on_failure(stream, line)
            if not line.level and _READY.match(line.text):
                self._close(line.host, stream)
                if self.done:
                    return

    def _close(self, host: str, stream: _Stream) -> None:
        """A process of llama-server loads once; a child may be started again, on another port."""
        if stream.name:
            stream.closed = bool(stream.instance or stream.name.startswith("port "))
        elif not (host in self.hosts and self.hosts[host].seen):
            stream.closed = True
            self.done = self.one_run

    def _meet(self, line: Line) -> Optional[_Stream]:
        """The process that wrote ``line``; None when there are more processes than any server has."""
        if line.level or line.child and not line.child.startswith("port "):
            server = self._server(line.host)
            server.seen = True
            server.debug = server.debug or line.level == "debug" or not line.level
        name, instance = line.child, line.instance
        if name == SAME:
            name, latest = self.latest.get(line.host, (SAME, instance))
            instance = instance or latest
        elif name and len(self.latest) < _STREAM_LIMIT:
            self.latest[line.host] = (name, instance)
        root = self.streams.get((line.host, ""))
        if name.startswith("port ") and root is not None and root.closed:
            # A server that has a model of its own starts no children: these are a client's words
            return None
        child = self.ports.get((line.host, instance), name) if name else ""
        key = (line.host, child)
        stream = self.streams.get(key)
        if stream is None:
            if len(self.streams) >= _STREAM_LIMIT:
                self.overfull = True
                return None
            stream = self.streams[key] = _Stream(child, instance)
            self._adopt(line.host, stream)
        elif instance and stream.instance != instance:
            stream = self.streams[key] = _Stream(child, instance)
            self._adopt(line.host, stream)
        return stream

    def _adopt(self, host: str, stream: _Stream) -> None:
        server = self.hosts.get(host)
        if server is not None and stream.name and not stream.name.startswith("port "):
            stream.backend, server.pending, server.waiting, server.failures = server.pending, "", False, []

    def _server(self, host: str) -> "_LocalAI":
        if host not in self.hosts and len(self.hosts) < _STREAM_LIMIT:
            self.hosts[host] = _LocalAI()
        return self.hosts.get(host) or _LocalAI()

    def _restart(self, host: str) -> _Stream:
        """A server started: nothing that an earlier one of the same container said still holds."""
        for key in [key for key in self.streams if key[0] == host]:
            del self.streams[key]
        fresh = self.streams[(host, "")] = _Stream()
        return fresh

    # --- loads

    def _begin(self, stream: _Stream, asked: bool = False) -> _Load:
        """A line that only stands at the head of a load. What follows a finished load is a new one."""
        load = stream.load
        if load.body or (asked and load.asked):
            if load.counts:
                stream.main = load
            load = stream.load = _Load()
            stream.ready = False
        load.asked = load.asked or asked
        if stream.draft_next:
            load.draft, stream.draft_next = True, False
        return load

    def _weights(self, stream: _Stream) -> _Load:
        """A line of the loader's body; weights after a context belong to another load."""
        if stream.load.context:
            self._begin(stream)
        return stream.load

    def on_initializing(self, stream: _Stream, line: Line) -> None:
        # Devices may be listed before this line (when the options ask for them); a load cannot
        children = not line.child and any(host == line.host and child for host, child in self.streams)
        if stream.load.body or stream.load.asked or stream.ready or stream.main or children:
            if line.child:
                stream = self.streams[(line.host, stream.name)] = _Stream(stream.name, stream.instance)
            else:
                stream = self._restart(line.host)
        stream.started = True

    def on_localai_start(self, stream: _Stream, line: Line) -> None:
        if line.level:
            self._restart(line.host)
            self.hosts[line.host] = _LocalAI(seen=True, debug=self._server(line.host).debug)

    def on_spawn(self, stream: _Stream, line: Line) -> None:
        match = _SPAWN.search(line.text)
        if match and not line.child and len(self.streams) < _STREAM_LIMIT and len(self.ports) < 4096:
            name, port = match.group(1), match.group(2)
            self.ports[(line.host, port)] = name
            self.streams[(line.host, name)] = _Stream(name, port)

    def on_exit(self, stream: _Stream, line: Line) -> None:
        match = _EXIT.search(line.text)
        child = self.streams.get((line.host, match.group(1))) if match and not line.child else None
        if child is not None and match is not None and match.group(2) != "0" and not child.load.failures:
            child.load.failures.append(_Failure("crash", True, "the model's process ended by itself", _quote(line.text)))

    def on_head(self, stream: _Stream, line: Line) -> None:
        self._begin(stream)

    def on_model_asked(self, stream: _Stream, line: Line) -> None:
        if "failed" not in line.text:
            self._begin(stream, asked=True)
            stream.overflow.clear()
            stream.started = True

    def on_draft(self, stream: _Stream, line: Line) -> None:
        stream.draft_next = True
        self._begin(stream)

    def on_fit(self, stream: _Stream, line: Line) -> None:
        stream.overflow.clear()

    def on_overflow(self, stream: _Stream, line: Line) -> None:
        match = _OVERFLOW.search(line.text)
        device = line.text.partition("- ")[2].split(None, 1)
        if match and device and len(stream.overflow) < _ITEM_LIMIT:
            stream.overflow[device[0][:_ITEM_LIMIT]] = int(match.group(2))

    def on_no_alloc(self, stream: _Stream, line: Line) -> None:
        match = _NUMBER.search(line.text)
        if match and match.group(1) == "1":
            self._begin(stream).dry = True

    def on_offloaded(self, stream: _Stream, line: Line) -> None:
        match = _OFFLOADED.search(line.text)
        if match:
            load = self._weights(stream)
            if load.offloaded is not None or any(kind == "model" for _name, kind in load.sizes):
                load = self._begin(stream)
            load.offloaded, load.total = int(match.group(1)), int(match.group(2))

    def on_buffer(self, stream: _Stream, line: Line) -> None:
        match = _BUFFER.search(line.text)
        if not match:
            return
        words = line.text[: match.start()].rsplit(None, 3)[-3:]
        if not words:
            return
        # "load_tensors: CUDA0 model buffer size" or, in early 2024, "llm_load_tensors: CUDA0 buffer size"
        if len(words) > 1 and not words[-2].endswith(":"):
            name, kind = words[-2], words[-1].lower()
        else:
            name, kind = words[-1], "model"
        if kind not in ("model", "kv", "rs", "compute", "output"):
            return
        if _ENCODER.search(line.text):
            # An image encoder beside the model has a buffer of the same name, and a size of its own
            if kind == "compute" and stream.load.context and len(stream.load.sizes) < _ITEM_LIMIT:
                stream.load.sizes[name[:_ITEM_LIMIT], "encoder"] = float(match.group(1))
            return
        load = self._weights(stream) if kind == "model" else stream.load
        load.context = load.context or kind != "model"
        load.failures = [failure for failure in load.failures if failure.final]
        key = (name[:_ITEM_LIMIT], kind)
        if key in load.sizes or len(load.sizes) < _ITEM_LIMIT:
            size = float(match.group(1))
            # The compute buffer is reserved several times over; the last is the one that stays
            load.sizes[key] = size if kind == "compute" else load.sizes.get(key, 0.0) + size

    def on_vram(self, stream: _Stream, line: Line) -> None:
        match = _VRAM.search(line.text)
        if match:
            if stream.load.vram_mib is None:
                stream.load.vram_mib = float(match.group(1))
            if match.group(2):
                stream.load.vram_mib = float(match.group(2))

    def on_override(self, stream: _Stream, line: Line) -> None:
        target = line.text.rpartition(" overridden to ")[2].split(" ")[0]
        if target and not _PROBABLE.match(target):
            stream.load.overridden += 1

    def on_fact(self, stream: _Stream, line: Line) -> None:
        head, _equals, _rest = line.text.partition("=")
        name = (head.split() or [""])[-1]
        number = _NUMBER.search(line.text)
        if number is None:
            return
        value = int(number.group(1))
        load = stream.load
        if name == "n_vocab":
            load.vocabulary = value
        elif name == "n_embd":
            load.embedding = value
        elif name == "n_layer":
            load.blocks = value
        elif ".embedding_length_per_layer_input " in head:
            load.per_layer_embedding = value

    def on_file_size(self, stream: _Stream, line: Line) -> None:
        match = _SIZE.search(line.text)
        if match:
            stream.load.file_mib = float(match.group(1)) * (1024.0 if match.group(2) == "G" else 1.0)

    # --- devices

    def _fresh(self, stream: _Stream) -> None:
        """Devices are counted once per process: after a load, these lines come from a new one in the same log."""
        if stream.load.context or (stream.load.body and stream.ready) or any(failure.final for failure in stream.load.failures):
            stream.main, stream.load = None, _Load()
            stream.families.clear()
            stream.devices.clear()
            stream.init.clear()
            stream.no_gpu.clear()
            stream.ready = False

    def _declare(self, stream: _Stream, name: str, description: str) -> None:
        if len(stream.devices) >= _ITEM_LIMIT and name not in stream.devices:
            return
        device = _Device(name, description.strip()[:_QUOTE_LIMIT], _is_software(description))
        stream.devices[name] = stream.last_device = device

    def on_using(self, stream: _Stream, line: Line) -> None:
        match = _USING.search(line.text)
        if not match or len(stream.load.using) >= _ITEM_LIMIT:
            return
        inner = match.group(2)
        description, gap, bus = inner.rpartition(") (")
        name = match.group(1)
        known = description if gap and ")" not in bus else inner
        load = self._begin(stream)
        load.using[name] = _Device(name, known, _is_software(known))

    def on_found(self, stream: _Stream, line: Line) -> None:
        match = _FOUND.search(line.text)
        if not match:
            return
        self._fresh(stream)
        if match.group(1) == "0":
            _add(stream.no_gpu, f"the server found no {match.group(2)} device")
        elif len(stream.families) < _ITEM_LIMIT:
            stream.families[match.group(2)] = None
            stream.family = match.group(2)

    def on_numbered(self, stream: _Stream, line: Line) -> None:
        match = _NUMBERED.search(line.text)
        if match and stream.family:
            self._declare(stream, f"{stream.family}{match.group(1)}", match.group(2))

    def on_vulkan(self, stream: _Stream, line: Line) -> None:
        match = _VULKAN.search(line.text.split(" | ", 1)[0])
        if match:
            if match.group(1):
                self._declare(stream, match.group(1), match.group(2))
            else:
                self._declare(stream, f"Vulkan{match.group(3)}", match.group(4))

    def on_device_is_cpu(self, stream: _Stream, line: Line) -> None:
        if stream.last_device is not None:
            stream.last_device.software = True
        else:
            self._declare(stream, "Vulkan0", "a device of type CPU")
            stream.devices["Vulkan0"].software = True

    def on_vulkaninfo(self, stream: _Stream, line: Line) -> None:
        number, _equals, description = line.text.partition("GPU id = ")[2].partition(" ")
        if number.isdigit():
            description = description.strip()
            self._declare(stream, f"Vulkan{number}", description[1:-1] if description[:1] == "(" else description)

    def on_metal(self, stream: _Stream, line: Line) -> None:
        self._fresh(stream)
        stream.families["Metal"] = stream.families["MTL"] = None

    def on_listed(self, stream: _Stream, line: Line) -> None:
        match = _LISTED.match(line.text.partition("- ")[2])
        if match and len(stream.listed) < _ITEM_LIMIT:
            stream.listed[match.group(1)] = match.group(2)

    def on_no_gpu(self, stream: _Stream, line: Line) -> None:
        self._fresh(stream)
        _add(stream.no_gpu, f'the server says "{_quote(line.text).rstrip(".")}"')

    def on_init_failure(self, stream: _Stream, line: Line) -> None:
        match = _INIT.search(line.text)
        if not match or match.group(1) == "NVML":
            return
        self._fresh(stream)
        kind, words = "init", "it could not be initialised"
        for phrase, cause, meaning in data_offload.INIT_CAUSES:
            if phrase in match.group(2):
                kind, words = cause, meaning
                break
        if len(stream.init) < _ITEM_LIMIT:
            stream.init.append(_Failure(kind, False, f"{match.group(1)} is not usable: {words}", _quote(line.text)))

    # --- state

    def on_ready(self, stream: _Stream, line: Line) -> None:
        if not stream.ready:
            # Whatever went wrong on the way, the model is in memory now
            stream.load.failures.clear()
            stream.ready = True

    def on_verbosity(self, stream: _Stream, line: Line) -> None:
        match = _VERBOSITY.search(line.text)
        if match:
            stream.verbosity = int(match.group(1))

    def on_failure(self, stream: _Stream, line: Line) -> None:
        if line.level in ("debug", "info"):
            return
        for phrase, kind, final, words in data_offload.FAILURES:
            if phrase in line.text:
                break
        else:
            return
        if stream.ready and not line.level and not _HEAD.match(line.text.partition(phrase)[0]):
            # Since the model is loaded, lines quote what clients send
            return
        if "pinned" in line.text or (kind == "load" and "exception: {" in line.text):
            return
        found = _Failure(kind, final, words, _quote(line.text))
        server = self.hosts.get(line.host)
        failures = server.failures if line.level and server is not None else stream.load.failures
        if len(failures) < _ITEM_LIMIT:
            failures.append(found)

    # --- LocalAI and Python backends

    def on_backend_start(self, stream: _Stream, line: Line) -> None:
        if not line.level:
            return
        server = self._server(line.host)
        server.waiting, server.failures = True, []
        match = _RUN_SH.search(line.text)
        server.pending = match.group(1) if match else ""

    def on_backend_variant(self, stream: _Stream, line: Line) -> None:
        match = _BACKEND_VARIANT.search(line.text)
        if match and line.level:
            server = self._server(line.host)
            server.waiting, server.failures = True, []
            server.pending = f"cpu-{match.group(1)}" if match.group(1) not in ("CUDA", "HIPBLAS", "SYCL", "Vulkan") else match.group(1).lower()

    def on_backend_registered(self, stream: _Stream, line: Line) -> None:
        match = _RUN_SH.search(line.text)
        if match and line.level:
            self._server(line.host).registered[match.group(1)[:_ITEM_LIMIT]] = None

    def on_no_embedded_cuda(self, stream: _Stream, line: Line) -> None:
        self._server(line.host).whole_build = True

    def on_detection(self, stream: _Stream, line: Line) -> None:
        if not line.level:
            return
        server, text = self._server(line.host), line.text
        if "Default capability (no GPU detected)" in text:
            server.no_detection = True
        elif 'gpuVendor=""' in text or 'GPU vendor gpuVendor=""' in text:
            _add(server.notes, "LocalAI detected no GPU vendor")
        elif "Total available VRAM" in text and re.search(r'vram="?0"?(?:\s|\Z)', text):
            _add(server.notes, "LocalAI sees 0 bytes of VRAM")
        elif "GPU device found but no CUDA backend present" in text:
            _add(server.disproof, "LocalAI found a GPU, but this image has no CUDA backend")
        elif "defaulting to CPU" in text:
            _add(
                server.disproof,
                "LocalAI chose the CPU because it read less than 4 GiB of VRAM (LOCALAI_FORCE_META_BACKEND_CAPABILITY=nvidia overrides it)",
            )

    def on_platform(self, stream: _Stream, line: Line) -> None:
        word = line.text.partition("detected platform ")[2].strip(" .")[:32].lower()
        if word.startswith("cpu"):
            _add(stream.python_cpu, "vLLM runs on its CPU platform")

    def on_cpu_worker(self, stream: _Stream, line: Line) -> None:
        _add(stream.python_cpu, "vLLM runs on its CPU platform")

    def on_vllm(self, stream: _Stream, line: Line) -> None:
        text = line.text
        tokens, blocks, size = _VLLM_TOKENS.search(text), _VLLM_BLOCKS.search(text), _VLLM_SIZE.search(text)
        if tokens and tokens.group(1).replace(",", "").strip("0"):
            _add(stream.python_gpu, f"vLLM keeps a KV cache for {tokens.group(1)} tokens on the GPU")
        elif blocks and int(blocks.group(1)):
            _add(stream.python_gpu, f"vLLM keeps {blocks.group(1)} KV blocks on the GPU")
        elif size and float(size.group(1)) > 0 and "KV cache memory" not in text:
            _add(stream.python_gpu, f"vLLM's model weights take {size.group(1)} GiB of GPU memory")
        elif size and float(size.group(1)) > 0:
            _add(stream.python_gpu, f"vLLM has {size.group(1)} GiB of GPU memory for its KV cache")

    def on_cpu_offload(self, stream: _Stream, line: Line) -> None:
        match = _CPU_OFFLOAD.search(line.text)
        if match and float(match.group(1)) > 0:
            stream.load.overridden += 1

    # --- the end

    def verdict(self) -> Evidence:
        found = []
        for host, streams in self._relevant().items():
            server = self.hosts.get(host) or _LocalAI()
            if server.waiting and not server.failures:
                # A load that LocalAI began and no backend has spoken of: with one model it is that model's newest
                named = [stream for stream in streams if stream.name]
                waiting = _Stream(named[0].name if len(named) == 1 else "", backend=server.pending)
                streams = [waiting] if len(named) < 2 else [*streams, waiting]
            found += [(stream, _judge(stream, server)) for stream in streams]
            if server.failures:
                found.append((_Stream(), _failed(server.failures)))
        if not found:
            return Evidence("unverified", self._silence())
        worst = min(found, key=lambda pair: _SEVERITY.index(pair[1].verdict))
        if len(found) == 1:
            result = worst[1]
            return result if result.reasons else _with_reasons(result, self._silence())
        reasons = []
        for stream, result in sorted(found, key=lambda pair: _SEVERITY.index(pair[1].verdict)):
            label = stream.name or ("the newest load" if stream.backend else "the server")
            reasons += [f"{label}: {reason}" for reason in result.reasons or self._silence()]
        devices: dict[str, Mapping[str, Any]] = {}
        buffers: list[Mapping[str, Any]] = []
        for stream, result in found:
            devices.update({device["name"]: device for device in result.devices})
            buffers += [{**buffer, "model": stream.name} for buffer in result.buffers]
        return Evidence(
            worst[1].verdict,
            tuple(reasons),
            worst[1].layers_offloaded,
            worst[1].layers_total,
            tuple(devices.values()),
            tuple(buffers),
            worst[1].failure,
        )

    def _relevant(self) -> dict[str, list[_Stream]]:
        """By host, the processes that speak for the models; a parent that only starts children does not."""
        result: dict[str, list[_Stream]] = {}
        for (host, child), stream in self.streams.items():
            localai = host in self.hosts and self.hosts[host].seen
            parent = not child and any(other[0] == host and other[1] for other in self.streams)
            # LocalAI's unframed lines are prompts and answers, which prove nothing; a router speaks only of itself
            if not parent or (not localai and stream.result() is not None):
                result.setdefault(host, []).append(stream)
        telling = {host: streams for host, streams in result.items() if any(stream.evident or stream.name for stream in streams) or host in self.hosts}
        return telling or result

    def _silence(self) -> tuple[str, ...]:
        """Why the log proves nothing, as well as it can be told."""
        reasons = []
        verbosities = [stream.verbosity for stream in self.streams.values() if stream.verbosity is not None]
        localai = [server for server in self.hosts.values() if server.seen]
        if not self.lines:
            reasons.append("The log is empty.")
        elif verbosities and min(verbosities) < 4:
            reasons.append(
                f"The server logs at verbosity {min(verbosities)}, which hides where the weights go; set LLAMA_ARG_LOG_VERBOSITY=4 and start it again."
            )
        elif localai and not any(server.debug for server in localai):
            reasons.append("LocalAI's debug log is off, so its backends' lines are missing; set LOCALAI_LOG_LEVEL=debug and start it again.")
        elif localai and not any(key[1] for key in self.streams) and not any(server.waiting for server in localai):
            reasons.append("LocalAI has not loaded the model yet; it loads at the first request, or at start with LOCALAI_LOAD_TO_MEMORY.")
        elif localai and any(key[1] for key in self.streams):
            reasons.append(
                'The backend\'s log has no line about devices or layers; newer llama.cpp backends need options: ["verbosity:4"] in the model\'s config, '
                "others never say."
            )
        elif any(stream.ready for stream in self.streams.values()) and not any(stream.started for stream in self.streams.values()):
            reasons.append("The log begins after the model was loaded; the lines about the load were rotated out or cut off.")
        else:
            reasons.append("The log holds no line that says where the weights are.")
        for server in localai:
            reasons += [f"{note}." for note in server.notes]
        if self.overfull:
            reasons.append(f"The log mixes more than {_STREAM_LIMIT} processes; the rest was not read.")
        return tuple(reasons)


@dataclass
class _LocalAI:
    """What LocalAI itself said in one log."""

    seen: bool = False
    debug: bool = False
    waiting: bool = False
    pending: str = ""
    whole_build: bool = False
    no_detection: bool = False
    registered: dict[str, None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    disproof: list[str] = field(default_factory=list)
    failures: list[_Failure] = field(default_factory=list)


# --- judging ---------------------------------------------------------------------------------------------------------


def _is_software(description: str) -> bool:
    return any(name in description for name in data_offload.SOFTWARE_RENDERERS)


def _add(notes: list[str], note: str) -> None:
    if note not in notes and len(notes) < _ITEM_LIMIT:
        notes.append(note)


def _quote(text: str) -> str:
    clean = "".join(char if char.isprintable() else " " for char in text[: 2 * _QUOTE_LIMIT]).strip()
    return clean if len(clean) <= _QUOTE_LIMIT else clean[: _QUOTE_LIMIT - 1] + "…"


def _with_reasons(result: Evidence, reasons: tuple[str, ...]) -> Evidence:
    return Evidence(result.verdict, reasons, result.layers_offloaded, result.layers_total, result.devices, result.buffers, result.failure)


class _Places:
    """Which buffers lie on which device, by what this log calls a device."""

    def __init__(self, stream: _Stream, load: _Load) -> None:
        self.devices: dict[str, _Device] = {}
        self.remote: list[str] = []
        for device in (load.using or stream.devices).values():
            known = stream.devices.get(device.name)
            description = device.description or (known.description if known else "") or stream.listed.get(device.name, "")
            software = device.software or bool(known and known.software) or _is_software(stream.listed.get(device.name, ""))
            self.devices[device.name] = _Device(device.name, description, software)
        self.families = dict.fromkeys(list(stream.families) + [name.rstrip("0123456789") for name in self.devices])
        # Lines about devices were printed, if only to say that there are none
        self.declared = bool(self.devices or self.families or stream.init or stream.no_gpu)
        self.guessed: list[str] = []
        self._places: dict[str, str] = {}

    def of(self, name: str) -> str:
        if name not in self._places:
            self._places[name] = self._find(name)
        return self._places[name]

    def device_of(self, name: str) -> Optional[_Device]:
        """The device whose own name the buffer carries (MTL0_Mapped is on MTL0)."""
        if name.endswith("_Host"):
            return None
        for device in self.devices.values():
            rest = name[len(device.name) :] if name.startswith(device.name) else None
            if rest is not None and _OF_DEVICE.match(rest):
                return device
        return self.devices.get(data_offload.DEVICE_OF_BUFFER.get(name, ""))

    def _find(self, name: str) -> str:
        # Pinned memory of a device is host memory, and so are the libraries that compute on the CPU
        if name.endswith("_Host") or name.startswith(data_offload.HOST_DEVICES):
            return "host"
        own = self.device_of(name)
        if own is not None:
            return "software" if own.software else "gpu"
        all_software = bool(self.devices) and all(device.software for device in self.devices.values())
        for family in self.families:
            if family and name.startswith(family) and self._of_family(name[len(family) :]):
                return "software" if all_software else "gpu"
        if not self.declared and (name in data_offload.EARLY_DEVICE_BUFFERS or _PROBABLE.match(name)):
            _add(self.guessed, name)
            return "gpu"
        return "host"

    @staticmethod
    def _of_family(rest: str) -> bool:
        """CUDA0 and CUDA_Split belong to CUDA; CUDA_Host is pinned host memory."""
        return bool(_OF_DEVICE.match(rest.lstrip("0123456789")))


def _judge(stream: _Stream, server: _LocalAI) -> Evidence:
    load = stream.result() or _Load()
    places = _Places(stream, load)
    sums = {"gpu": 0.0, "software": 0.0, "host": 0.0}
    for (name, kind), size in load.sizes.items():
        place = places.of(name)
        if kind == "model":
            sums[place] += size
    if not any(sums.values()) and load.vram_mib is not None:
        sums["gpu"] = load.vram_mib
    verdict, reasons, failure = _weigh(stream, server, load, places, sums)
    devices = tuple(
        {"name": device.name, "description": device.description, "software": device.software} for device in places.devices.values()
    ) or tuple({"name": name, "description": "", "software": False} for name in places.guessed)
    buffers = tuple(
        {"name": name, "kind": kind, "size_mib": round(size, 2), "place": places.of(name)} for (name, kind), size in load.sizes.items()
    )
    return Evidence(verdict, tuple(reasons), load.offloaded, load.total, devices, buffers, failure)


def _failed(failures: list[_Failure]) -> Evidence:
    verdict, reasons, kind = _failure_words(failures)
    return Evidence(verdict, tuple(reasons), failure=kind)


def _failure_words(failures: list[_Failure]) -> tuple[str, list[str], str]:
    """The first line that names a cause speaks; lines that only say "it failed" come after it."""
    causes = [failure for failure in failures if failure.kind != "load"] or failures
    first = causes[0]
    return "failed", [f'{first.words[:1].upper()}{first.words[1:]}: "{first.quote}".'], first.kind


def _weigh(stream: _Stream, server: _LocalAI, load: _Load, places: _Places, sums: Mapping[str, float]) -> tuple[str, list[str], str]:
    if load.failures:
        return _failure_words(load.failures)
    if stream.python_cpu:
        return "cpu", [f"{stream.python_cpu[0]}."], ""
    if stream.python_gpu:
        reasons = [f"{note}." for note in stream.python_gpu[:3]]
        if load.overridden:
            return "partial", ["vLLM was told to keep part of the weights in host memory (cpu_offload_gb).", *reasons], ""
        return "proven", reasons, ""
    if any(sums.values()):
        verdict, reasons = _weigh_bytes(stream, load, places, sums)
        return verdict, reasons, ""
    return _weigh_words(stream, server, load, places)


def _weigh_bytes(stream: _Stream, load: _Load, places: _Places, sums: Mapping[str, float]) -> tuple[str, list[str]]:
    gpu, software, host = sums["gpu"], sums["software"], sums["host"]
    total = gpu + software + host
    layers = "" if load.offloaded is None else f"{load.offloaded} of {load.total} layers"
    names = _labels(places, load) or "the GPU"
    remarks = [f"{failure.words}." for failure in stream.init]
    if gpu + software <= 0:
        reasons = [f"All {host:.0f} MiB of weights lie in host memory ({_names(places, load, 'host')})."]
        if load.offloaded:
            reasons.append(f"The log says offloaded {load.offloaded}/{load.total}, but that only repeats what was asked for: no device holds weights.")
        compute = [name for (name, kind) in load.sizes if kind == "compute" and places.of(name) != "host"]
        if compute:
            reasons.append(f"{', '.join(compute)} has only a compute buffer, which is no offload.")
        return "cpu", reasons + remarks + [f"{note[:1].upper()}{note[1:]}." for note in stream.no_gpu]
    if gpu <= 0:
        described = next((device.description for device in places.devices.values() if device.software), "")
        return "software", [
            f"The device is a software renderer ({described or _names(places, load, 'software')}): it computes on the CPU.",
            f"{layers or 'The weights'} went there, {software:.0f} of {total:.0f} MiB.",
        ]
    if load.offloaded is None:
        return "unverified", [f"{names} holds {gpu:.0f} of {total:.0f} MiB of weights, but the log does not say how many layers that is.", *remarks]
    if load.sizes:
        head = f"{layers} and {gpu:.0f} of {total:.0f} MiB of weights are on {names}."
    else:
        head = f"{layers} are on {names}, which gave {gpu:.0f} MiB of its memory."
    lacks = []
    if load.offloaded < (load.total or 0):
        lacks.append(f"{(load.total or 0) - load.offloaded} layers stayed on the CPU.")
    if software > 0:
        lacks.append(f"{software:.0f} MiB lie on a software renderer ({_names(places, load, 'software')}).")
    overflow = sum(stream.overflow.values())
    if overflow:
        lacks.append(f"{overflow} layers overflow into host memory: the GPU was too small for all of their tensors.")
    if load.overridden:
        lacks.append(f"{load.overridden} tensors were told to stay in host memory (n_cpu_moe, override_tensor).")
    cache = {"gpu": 0.0, "software": 0.0, "host": 0.0}
    for (name, kind), size in load.sizes.items():
        if kind in ("kv", "rs"):
            cache[places.of(name)] += size
    if load.offloaded >= (load.total or 0) and cache["host"] > _KV_SHARE_NORMAL * sum(cache.values()):
        lacks.append(f"{cache['host']:.0f} MiB of the KV cache lie in host memory (no_kv_offload), so attention runs on the CPU.")
    if lacks:
        return "partial", [head, *lacks, *remarks]
    if load.vram_mib is None:
        weighed = _weigh_host_part(load, gpu, host)
        if weighed:
            return "partial", [head, weighed, *remarks]
    reasons = [head]
    if host > _HOST_SHARE_NORMAL * total:
        reasons.append(f"{host:.0f} MiB stay in host memory, which is what token embeddings of this size take.")
    if places.guessed:
        reasons.append(f"The log does not list its devices; {', '.join(places.guessed)} can only be a GPU.")
    return "proven", reasons + remarks


def _weigh_host_part(load: _Load, gpu: float, host: float) -> str:
    """At N = M: empty when the host's part is no more than embeddings, else what is wrong."""
    if load.file_mib and gpu >= _FILE_SHARE_PROVEN * load.file_mib:
        return ""
    if host <= _HOST_SHARE_NORMAL * (gpu + host):
        return ""
    if host > gpu:
        return (
            f"More weight bytes stayed in host memory ({host:.0f} MiB) than went to the GPU ({gpu:.0f} MiB), although all layers are assigned to it: "
            "the output matrix or the experts are computed on the CPU."
        )
    limit = _EMBEDDINGS_UNKNOWN_MIB
    if load.vocabulary and load.embedding:
        # Two bytes per weight: embeddings are rarely stored wider than f16
        limit = load.vocabulary * (load.embedding + load.per_layer_embedding * load.blocks) * 2 / 1048576
    if host <= limit:
        return ""
    return f"{host:.0f} MiB of weights stayed in host memory, more than this model's token embeddings take: experts or other tensors are computed on the CPU."


def _weigh_words(stream: _Stream, server: _LocalAI, load: _Load, places: _Places) -> tuple[str, list[str], str]:
    """No weight bytes in the log: only what it says in words counts."""
    devices = list(places.devices.values())
    no_gpu = [f"{note[:1].upper()}{note[1:]}." for note in stream.no_gpu]
    usable = bool(devices or places.families)
    if load.vram_mib == 0:
        return "cpu", ["The server uses 0 MiB of GPU memory.", *no_gpu], ""
    if load.offloaded == 0:
        return "cpu", [f"0 of {load.total} layers were offloaded.", *no_gpu], ""
    if stream.init and not usable:
        reasons = [f'{failure.words}: "{failure.quote}".' for failure in stream.init]
        if load.offloaded or stream.ready or no_gpu:
            return "cpu", reasons + no_gpu, ""
        return "failed", reasons, stream.init[0].kind
    if no_gpu and not usable:
        return "cpu", no_gpu, ""
    if devices and all(device.software for device in devices):
        return "software", [f"The only device is a software renderer ({devices[0].description or devices[0].name}): it computes on the CPU."], ""
    overflow = sum(stream.overflow.values())
    if load.offloaded and overflow:
        return "partial", [f"{load.offloaded} of {load.total} layers were offloaded, and {overflow} of them overflow into host memory."], ""
    if load.offloaded is not None:
        return (
            "unverified",
            [f"The log says offloaded {load.offloaded}/{load.total}, which only repeats what was asked for; the lines with the buffer sizes are missing."],
            "",
        )
    if server.disproof:
        return "cpu", [f"{note}." for note in server.disproof], ""
    if stream.backend.startswith("cpu-") and not server.whole_build:
        return "cpu", [f"LocalAI loaded the CPU build of its backend ({stream.backend})."], ""
    gpu_builds = [name for name in (*server.registered, stream.backend) if any(word in name for word in data_offload.GPU_BACKEND_WORDS)]
    if server.no_detection and any("cuda" in name or "nvidia" in name or "rocm" in name for name in gpu_builds):
        return "cpu", [f"LocalAI detected no GPU (default capability), although a GPU backend is installed ({gpu_builds[0]})."], ""
    if devices:
        described = ", ".join(device.description or device.name for device in devices)
        return "unverified", [f"A GPU is there ({described}), but the log does not say that the model's weights are on it."], ""
    return "unverified", [], ""


def _names(places: _Places, load: _Load, place: str) -> str:
    return ", ".join(sorted({name for (name, kind) in load.sizes if kind == "model" and places.of(name) == place}))


def _labels(places: _Places, load: _Load) -> str:
    """The GPUs that hold weights, with what they are: ``CUDA0 (NVIDIA L4)``."""
    labels = {}
    for name, kind in load.sizes:
        if kind == "model" and places.of(name) == "gpu":
            device = places.device_of(name)
            labels[device.name if device else name] = f"{device.name} ({device.description})" if device and device.description else name
    if not load.sizes:
        labels = {device.name: f"{device.name} ({device.description})" for device in places.devices.values() if not device.software}
    return ", ".join(labels[name] for name in sorted(labels))


_Handler = Callable[[_Reader, _Stream, Line], None]
# (phrase, handler, also for LocalAI's own lines?). Phrases hold no character that Go's %q or JSON would escape.
_HANDLERS: tuple[tuple[str, _Handler, bool], ...] = (
    ("llama_server: initializing", _Reader.on_initializing, False),
    ("Starting LocalAI", _Reader.on_localai_start, True),
    ("spawning server instance with name=", _Reader.on_spawn, False),
    ("exited with status ", _Reader.on_exit, False),
    ("loading draft model", _Reader.on_draft, False),
    ("load_model: loading model", _Reader.on_model_asked, False),
    ("loaded meta data with", _Reader.on_head, False),
    ("llama.cpp: loading model from", _Reader.on_head, False),
    ("loading model tensors", _Reader.on_head, False),
    ("using device ", _Reader.on_using, False),
    ("getting device memory data for initial", _Reader.on_fit, False),
    (" overflowing)", _Reader.on_overflow, False),
    ("no_alloc", _Reader.on_no_alloc, False),
    ("n_vocab ", _Reader.on_fact, False),
    ("n_embd ", _Reader.on_fact, False),
    ("n_layer ", _Reader.on_fact, False),
    ("embedding_length_per_layer_input", _Reader.on_fact, False),
    ("file size ", _Reader.on_file_size, False),
    ("model size ", _Reader.on_file_size, False),
    ("offloaded ", _Reader.on_offloaded, False),
    ("buffer size", _Reader.on_buffer, False),
    ("VRAM used", _Reader.on_vram, False),
    ("buffer type overridden to ", _Reader.on_override, False),
    ("ound ", _Reader.on_found, False),
    ("Device ", _Reader.on_numbered, False),
    ("| uma", _Reader.on_vulkan, False),
    ("Device type is CPU", _Reader.on_device_is_cpu, False),
    ("GPU id = ", _Reader.on_vulkaninfo, False),
    ("ggml_metal", _Reader.on_metal, False),
    ("MiB free)", _Reader.on_listed, False),
    ("no usable GPU found", _Reader.on_no_gpu, False),
    ("not compiled with GPU offload support", _Reader.on_no_gpu, False),
    ("ggml_vulkan: No devices found", _Reader.on_no_gpu, False),
    ("failed to initialize ", _Reader.on_init_failure, False),
    ("model loaded", _Reader.on_ready, False),
    ("slots are idle", _Reader.on_ready, False),
    ("print_timing", _Reader.on_ready, False),
    ("verbosity = ", _Reader.on_verbosity, False),
    ("Loading GRPC Process", _Reader.on_backend_start, True),
    ("BackendLoader starting", _Reader.on_backend_start, True),
    ("attempting to load with ", _Reader.on_backend_variant, True),
    ("Registering backend", _Reader.on_backend_registered, True),
    ("no embedded CUDA variant found", _Reader.on_no_embedded_cuda, True),
    ("Default capability", _Reader.on_detection, True),
    ("GPU vendor", _Reader.on_detection, True),
    ("Total available VRAM", _Reader.on_detection, True),
    ("GPU device found but no CUDA", _Reader.on_detection, True),
    ("defaulting to CPU", _Reader.on_detection, True),
    ("detected platform ", _Reader.on_platform, False),
    ("cpu_worker", _Reader.on_cpu_worker, False),
    ("cpu_model_runner", _Reader.on_cpu_worker, False),
    ("device_config=cpu", _Reader.on_cpu_worker, False),
    ("model weights take", _Reader.on_vllm, False),
    ("Model loading took", _Reader.on_vllm, False),
    ("GPU KV cache size", _Reader.on_vllm, False),
    ("Available KV cache memory", _Reader.on_vllm, False),
    ("GPU blocks: ", _Reader.on_vllm, False),
    ("cpu_offload_gb", _Reader.on_cpu_offload, False),
)
_AFTER = (_Reader.on_initializing, _Reader.on_localai_start, _Reader.on_spawn, _Reader.on_exit)
_FAILURE_PHRASES = tuple(phrase for phrase, _kind, _final, _words in data_offload.FAILURES)
_NEEDLES = (*(phrase for phrase, _handler, _localai in _HANDLERS), *_FAILURE_PHRASES)
