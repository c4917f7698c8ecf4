# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a user writes under ``inference_services``, checked and completed.

:func:`resolve` reads the list alone. What depends on the aikitfile (its runtime decides which GPUs a
service gets when it does not say) is filled in by :func:`complete`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass, field, fields, replace
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence

from . import reference
from .data_aikit import parse_version
from .errors import AikitError, Finding
from .localai import CACHE_TYPES, suggest

STATES = ("present", "stopped", "absent")
ENGINES = ("auto", "docker", "podman")
SERVERS = ("llama_cpp", "localai")
BASE_VARIANTS = ("cpu", "vulkan", "cuda")
VERDICTS = ("proven", "partial", "cpu", "software", "failed", "unverified")

DEFAULT_PORT = 8080
DEFAULT_BIND = "127.0.0.1"
# Covers shader compilation on slow machines and tens of gigabytes from a disk
DEFAULT_TIMEOUT_SECONDS = 600
NAME_LENGTH = 63

# Docker's and Podman's grammar; "--" is ours: the container kept until the new one is proven is NAME--previous
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
# Beside the services' own folders; removing a service removes its folder
HOST_FOLDER = "host"
_GPU = re.compile(r"all|\d+(?::\d+)?|(?:GPU|MIG)-[0-9A-Za-z][0-9A-Za-z/-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIZE = re.compile(r"\d+(?:\.\d+)?[bkmgtBKMGT]?[bB]?")

# Each service has its own
OWN_KEYS = ("name", "src", "definition", "image")

# What decides the bytes of an image
BUILD_KEYS = ("image", "aikitfile_sha256", "runtime", "server", "base_variant", "aikit_version", "context")

# What a service may not set by hand, and what to write instead
RESERVED_ENVIRONMENT = {
    "LLAMA_ARG_HOST": "set bind_address",
    "LLAMA_ARG_PORT": "set port",
    "LLAMA_API_KEY": "set api_key, which stays out of the container's environment",
    "LLAMA_ARG_API_KEY_FILE": "set api_key",
    "LOCALAI_API_KEY": "set api_key, which stays out of the container's environment",
    "API_KEY": "set api_key, which stays out of the container's environment",
}


@dataclass(frozen=True)
class Service:
    """One service on one host, every value typed.

    ``gpus`` is None and ``expect`` has no ``verdict`` until :func:`complete` has seen the aikitfile.
    ``server`` and ``base_variant`` stay empty for pre-made images: the image itself says what it is. ``base_variant`` is
    empty with LocalAI too. An empty ``aikit_version`` is the module's default.
    ``definition`` is whatever stood there; the aikitfile validator judges it.
    """

    name: str
    state: str = "present"
    src: str = ""
    definition: Optional[Mapping[str, Any]] = field(default=None, hash=False)
    image: str = ""
    gpus: Optional[tuple[str, ...]] = None
    bind_address: str = DEFAULT_BIND
    port: int = DEFAULT_PORT
    engine: str = "auto"
    server: str = ""
    base_variant: str = ""
    aikit_version: str = ""
    context: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    expect: Mapping[str, Any] = field(default_factory=dict, hash=False)
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    api_key: str = field(default="", repr=False)
    memory: str = ""
    cpus: float = 0.0
    timeout_seconds: int = DEFAULT_TIMEOUT_SECONDS
    # Whether expect.verdict is ours and not the user's: a plan may know better then
    default_verdict: bool = False
    index: int = 0

    @property
    def built(self) -> bool:
        """Whether we build the image; else it is pre-made and only fetched."""
        return bool(self.src) or self.definition is not None

    @property
    def path(self) -> str:
        return f"inference_services[{self.index}]"

    def as_dict(self) -> dict[str, Any]:
        """JSON types, without the API key and without the definition (its parsed form travels instead)."""
        hidden = ("api_key", "definition", "index")
        result = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in hidden}
        for key in ("settings", "expect", "environment"):
            result[key] = dict(result[key])
        return {
            **result,
            "gpus": list(self.gpus or ()),
            "built": self.built,
            "has_api_key": bool(self.api_key),
            "default_verdict": self.default_verdict,
            "url": url(self.bind_address, self.port),
        }


class _Problem(Exception):
    """What is wrong with one value; ``remarks`` holds (path below the value, message, hint)."""

    def __init__(self, message: str, hint: str = "", path: str = "") -> None:
        super().__init__(message)
        self.remarks: list[tuple[str, str, str]] = [(path, message, hint)]

    @classmethod
    def of(cls, remarks: list[tuple[str, str, str]]) -> _Problem:
        problem = cls("")
        problem.remarks = remarks
        return problem


Check = Callable[[Any], Any]


def resolve(services: Any, defaults: Any = None) -> tuple[tuple[Service, ...], tuple[Finding, ...]]:
    """Merge ``defaults`` under every service and check everything at once.

    A service with an error is among the first value when it has a name, without the values that are
    wrong, so that its aikitfile can be checked as well: look at the findings before using any.
    """
    findings: list[Finding] = []
    if defaults is None:
        defaults = {}
    if not isinstance(defaults, Mapping):
        findings.append(_error("inference_service_defaults", f"must be a mapping, not {_kind(defaults)}"))
        defaults = {}
    _unknown_keys("inference_service_defaults", defaults, findings)
    for key in OWN_KEYS:
        if key in defaults:
            findings.append(
                _error(f"inference_service_defaults.{key}", "cannot be the same for every service", "Set it in the service.")
            )
    defaults = {key: value for key, value in defaults.items() if key in KEYS and key not in OWN_KEYS}
    if services is None:
        services = []
    if not isinstance(services, Sequence) or isinstance(services, (str, bytes)):
        hint = "Write a list: each service begins with '- name:'."
        return (), (*findings, _error("inference_services", f"must be a list, not {_kind(services)}", hint))
    found = []
    for index, raw in enumerate(services):
        service, remarks = _service(index, raw, defaults)
        findings += remarks
        if service is not None:
            found.append(service)
    findings += _clashes(found)
    findings += [finding for service in found for finding in _exposure(service)]
    return tuple(found), tuple(findings)


def complete(service: Service, runtime: str) -> Service:
    """Fill in what depends on the aikitfile's ``runtime`` ("" for CPU and for pre-made images)."""
    gpus = service.gpus
    if gpus is None:
        gpus = ("all",) if runtime == "cuda" else ()
    variant = service.base_variant
    server = service.server
    if service.built:
        # A base is a thing of llama.cpp's server alone, so who names one means that server
        server = server or ("llama_cpp" if variant else "localai")
        if server == "llama_cpp":
            variant = variant or {"cuda": "cuda", "applesilicon": "vulkan"}.get(runtime, "cpu")
    expect = dict(service.expect)
    if expect.get("verdict") is None:
        if gpus or runtime == "applesilicon":
            expect["verdict"] = ["proven"]
        else:
            # Without a GPU, a Vulkan build computes on the CPU, or in software when Mesa's driver is let in
            expect["verdict"] = ["cpu", "software"] if variant == "vulkan" else ["cpu"]
    default = service.expect.get("verdict") is None
    return replace(service, gpus=gpus, base_variant=variant, server=server, expect=expect, default_verdict=default)


def conflicts(service: Service, runtime: str) -> tuple[Finding, ...]:
    """What a completed service and its aikitfile's runtime say against each other."""
    findings = []
    if service.built and service.gpus and runtime == "" and service.base_variant in ("", "cpu"):
        findings.append(
            _error(
                f"{service.path}.gpus",
                "GPUs are asked for, but the aikitfile has no runtime, so its image computes on the CPU",
                "Set runtime: cuda in the aikitfile, or gpus: [].",
            )
        )
    if service.built and service.server == "llama_cpp" and runtime == "cuda" and service.base_variant != "cuda":
        findings.append(
            _error(
                f"{service.path}.base_variant",
                f"is {service.base_variant}, but the aikitfile has runtime: cuda",
                "Take base_variant out, or set it to cuda.",
            )
        )
    if runtime == "cuda" and not service.gpus:
        findings.append(
            Finding(
                "warning",
                f"{service.path}.gpus",
                0,
                "no GPU is given to a service whose aikitfile has runtime: cuda; it computes on the CPU",
                "Leave gpus out to use all.",
            )
        )
    return tuple(findings)


def images_to_build(plans: Mapping[str, Any], builder: str) -> list[dict[str, Any]]:
    """Every image that the services of all hosts need, once each, in the order of their names.

    ``plans`` maps hosts to what ``service_plan`` returned for them; a host without a plan (unreachable) is
    passed over. ``archive_hosts`` are the hosts that get the image from the builder. ``archive_name`` is a file for an image that BuildKit
    builds: it leaves nothing but a cache otherwise, and building once more for each host need not give the same image.
    """
    found: dict[str, dict[str, Any]] = {}
    for host in sorted(plans):
        plan = plans[host]
        for service in (plan.get("services") or ()) if isinstance(plan, Mapping) else ():
            if not service.get("built") or service.get("state") != "present":
                continue
            wanted = {key: service.get(key) for key in BUILD_KEYS}
            who = f"{service['name']} on {host}"
            how = {key: service.get(key) or "" for key in ("builder", "builder_reason")}
            image = found.setdefault(service["image"], {**wanted, **how, "parsed": service.get("parsed"), "services": [], "hosts": []})
            differs = [key for key in BUILD_KEYS if image[key] != wanted[key]]
            if differs:
                raise AikitError(
                    f"Image {service['image']} is wanted with different contents ({', '.join(differs)}) by {image['services'][0]} and {who}.",
                    "Give each aikitfile its own image name.",
                )
            image["services"].append(who)
            if host not in image["hosts"]:
                image["hosts"].append(host)
    for image in found.values():
        image["archive_hosts"] = [host for host in image["hosts"] if host != builder]
        image["archive"] = bool(image["archive_hosts"])
        by_name = hashlib.sha256(str(image["image"]).encode("utf-8")).hexdigest()[:16]
        image["archive_name"] = f"buildkit-{by_name}.tar" if image["builder"] == "buildkit" else ""
    return [found[name] for name in sorted(found)]


def api_key(services: Any, name: str, defaults: Any = None) -> str:
    """The API key of one service, which is not part of its plan: plans are shown, keys are not."""
    for service in resolve(services, defaults)[0]:
        if service.name == name:
            return service.api_key
    return ""


def url(bind_address: str, port: int) -> str:
    """Where a client on the host itself reaches the service."""
    address = ipaddress.ip_address(bind_address)
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"http://{host}:{port}"


def suggestion(word: str, known: Iterable[str]) -> str:
    """``Did you mean …?`` or nothing."""
    near = suggest(str(word), sorted(known))
    return f"Did you mean {near}?" if near else ""


def addresses_overlap(one: str, other: str) -> bool:
    """Whether two listeners on one port would collide. ``::`` listens on IPv4 too."""
    if one == other or "::" in (one, other):
        return True
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    if first == second:
        return True
    return first.version == second.version and (first.is_unspecified or second.is_unspecified)


def serving_order(services: Sequence[Mapping[str, Any]], containers: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The services of a host in an order in which each finds its port free; :class:`AikitError` where there is none.

    What stops or goes comes first, then who has a port that another one wants, else all as they are listed: every one of them is
    replaced and proven by itself, so two that only exchange their ports cannot both keep what they have until they are proven.

    :param containers: those of our services that run, as Docker lists them.
    """
    present = {str(service["name"]): service for service in services if service["state"] == "present"}
    holders: dict[str, list[Mapping[str, Any]]] = {}
    for container in containers:
        name = str((container.get("Labels") or {}).get("io.aikit.fleet.service") or "")
        if name in present:
            holders.setdefault(name, []).extend(port for port in container.get("Ports") or () if port.get("PublicPort"))
    order: list[Mapping[str, Any]] = [service for service in services if service["state"] != "present"]
    done: set[str] = set()

    def place(name: str, waiting: tuple[str, ...]) -> None:
        if name in waiting:
            raise _exchange([present[one] for one in waiting[waiting.index(name) :]])
        if name in done:
            return
        for other, ports in holders.items():
            if other != name and any(_wants(present[name], port) for port in ports):
                place(other, (*waiting, name))
        done.add(name)
        order.append(present[name])

    for name in present:
        place(name, ())
    return order


def rollback_order(
    services: Sequence[Mapping[str, Any]], releases: Iterable[Mapping[str, Any]], containers: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """``{service, release}`` of those that go one release back, as :func:`serving_order` has it for the ports of these releases."""
    found = {str(release["name"]): release for release in releases}
    listed = {str(service["name"]): service for service in services if str(service["name"]) in found}
    back = [{**service, **found[name]["ports"][0], "state": "present"} for name, service in listed.items()]
    return [{"service": listed[str(service["name"])], "release": found[str(service["name"])]} for service in serving_order(back, containers)]


def _wants(service: Mapping[str, Any], port: Mapping[str, Any]) -> bool:
    return int(service["port"]) == int(port["PublicPort"]) and addresses_overlap(str(port.get("IP") or "0.0.0.0"), str(service["bind_address"]))


def _exchange(services: Sequence[Mapping[str, Any]]) -> AikitError:
    names = [str(service["name"]) for service in services]
    wishes = ", ".join(f"{service['name']} wants {service['port']}" for service in services)
    first = services[0]
    return AikitError(
        f"{', '.join(names[:-1])} and {names[-1]} exchange their ports: each wants one that another still has ({wishes}). No service was touched.",
        f"Deploy twice: first with a free port for {first['name']}, then with {first['port']}. So each is proven while the one before it can still come back.",
    )


def crowded(services: Iterable[Mapping[str, Any]]) -> tuple[Finding, ...]:
    """A remark on several services of one host that compute on its CPU without a limit."""
    names = [
        str(service["name"])
        for service in services
        if service["state"] == "present"
        and not service["gpus"]
        and service.get("base_variant") != "vulkan"
        and not (service.get("cpus") or (service.get("settings") or {}).get("threads"))
    ]
    if len(names) < 2:
        return ()
    return (
        Finding(
            "warning",
            "inference_services",
            0,
            f"{', '.join(names[:-1])} and {names[-1]} compute on the CPU, each with a thread for every core: while several answer, each is many times slower",
            "Share the cores among them: cpus for each service (its threads follow), or settings.threads",
        ),
    )


def default_image(name: str) -> str:
    """A reference for an image without a registry. ``localhost/`` is what Podman takes as "never ask a registry"."""
    path = re.sub(r"[._-]+", "-", name.lower()).strip("-")
    return f"localhost/aikit/{path}:latest"


# --- one service -------------------------------------------------------------------------------------------------


def _service(index: int, raw: Any, defaults: Mapping[str, Any]) -> tuple[Optional[Service], list[Finding]]:
    path = f"inference_services[{index}]"
    findings: list[Finding] = []
    if not isinstance(raw, Mapping):
        return None, [_error(path, f"must be a mapping, not {_kind(raw)}", "Begin a service with '- name:'.")]
    _unknown_keys(path, raw, findings)
    merged = merge(defaults, {key: value for key, value in raw.items() if key in KEYS})
    values: dict[str, Any] = {}
    for key, value in merged.items():
        check = KEYS.get(key)
        # An empty value in YAML (null) means "not set", as in Ansible's own modules
        if check is None or value is None:
            continue
        try:
            values[key] = check(value)
        except _Problem as problem:
            findings += [_error(f"{path}.{key}{below}", message, hint) for below, message, hint in problem.remarks]
    if "name" not in merged:
        findings.append(_error(f"{path}.name", "is missing", "The container, the state file and the label get this name."))
    given = {key for key, value in merged.items() if value is not None}
    if {"src", "definition"} <= given:
        findings.append(_error(path, "has src and definition", "Keep one: src names a file, definition is the aikitfile itself."))
    built = bool(given & {"src", "definition"})
    state = values.get("state", "present")
    if not built and "image" not in given and state == "present":
        findings.append(
            _error(path, "has neither src, definition nor image", "Name an aikitfile with src, or a pre-made image with image.")
        )
    if built and values.get("server") == "localai" and "base_variant" in values:
        findings.append(
            _error(f"{path}.base_variant", "is for server llama_cpp; an image with LocalAI has AIKit's own base", "Take it out, or set server: llama_cpp.")
        )
    if built and "@" in values.get("image", ""):
        findings.append(_error(f"{path}.image", "has a digest, but is built here", "Give it a tag instead."))
    if "name" not in values:
        return None, findings
    if built and "image" not in given:
        values["image"] = default_image(values["name"])
    return Service(index=index, **values), findings


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``; mappings are merged, everything else is replaced."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if key != "definition" and isinstance(old, Mapping) and isinstance(value, Mapping):
            result[key] = merge(old, value)
        else:
            result[key] = value
    return result


def _unknown_keys(path: str, raw: Mapping[str, Any], findings: list[Finding]) -> None:
    for key in raw:
        if key not in KEYS:
            findings.append(_error(f"{path}.{key}", "is no key of a service", suggestion(key, KEYS) or f"Known: {', '.join(sorted(KEYS))}."))


def _clashes(services: Sequence[Service]) -> list[Finding]:
    findings = []
    seen: list[Service] = []
    for service in services:
        for other in seen:
            if other.name.lower() == service.name.lower():
                findings.append(_error(f"{service.path}.name", f"{service.name!r} is the name of {other.path} too"))
            elif (
                other.state == service.state == "present"
                and other.port == service.port
                and addresses_overlap(other.bind_address, service.bind_address)
            ):
                findings.append(
                    _error(
                        f"{service.path}.port",
                        f"{service.port} on {service.bind_address} is the port of {other.name} ({other.path}) too",
                        "Give each service of a host its own port.",
                    )
                )
            elif (
                other.built
                and service.built
                and other.image == service.image
                and (other.src, other.definition) != (service.src, service.definition)
            ):
                findings.append(
                    _error(
                        f"{service.path}.image",
                        f"{service.image} is the image of {other.name} ({other.path}) too, with another aikitfile",
                        "Give each aikitfile its own image name.",
                    )
                )
        seen.append(service)
    return findings


def _exposure(service: Service) -> list[Finding]:
    if service.api_key or service.state == "absent" or ipaddress.ip_address(service.bind_address).is_loopback:
        return []
    return [
        Finding(
            "warning",
            f"{service.path}.bind_address",
            0,
            f"{service.bind_address} lets everyone who reaches this host use {service.name}: it has no API key",
            "Set api_key, or bind to 127.0.0.1 and put a proxy in front.",
        )
    ]


# --- checks of single values -------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Problem(f"must be a string, not {_kind(value)}", "Quote it.")
    if not value.strip():
        raise _Problem("is empty")
    if "\0" in value:
        raise _Problem("holds a NUL byte")
    return value


def _name(value: Any) -> str:
    text = _text(value)
    if not _NAME.fullmatch(text) or "--" in text or len(text) > NAME_LENGTH:
        raise _Problem(
            f"{text!r} cannot name a container",
            f"Use 2 to {NAME_LENGTH} letters, digits, dots, underscores and single hyphens, beginning with a letter or digit.",
        )
    if text == HOST_FOLDER:
        raise _Problem(f"{text!r} is the name of the folder in which a host keeps what is known of its driver", "Choose another name.")
    return text


def _choice(choices: Sequence[str]) -> Check:
    def check(value: Any) -> str:
        if value not in choices:
            near = suggestion(value, choices) if isinstance(value, str) else ""
            raise _Problem(f"{value!r} is none of {', '.join(choices)}", near)
        return str(value)

    return check


def _integer(low: int, high: Optional[int] = None, words: Sequence[str] = ()) -> Check:
    """A whole number; ``words`` are allowed instead. ``-e port=8080`` makes strings, so digits count as a number."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value in words:
            return value
        number = value
        if isinstance(value, str) and re.fullmatch(r"-?\d+", value):
            number = int(value)
        if isinstance(number, bool) or not isinstance(number, int):
            also = f" or {', '.join(words)}" if words else ""
            raise _Problem(f"must be a whole number{also}, not {_shown(value)}")
        if number < low or (high is not None and number > high):
            raise _Problem(f"{number} is out of range ({low} to {high})" if high is not None else f"{number} is less than {low}")
        return int(number)

    return check


def _number(value: Any) -> float:
    number = value
    if isinstance(value, str) and re.fullmatch(r"\d+(?:\.\d+)?", value):
        number = float(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number < float("inf"):
        raise _Problem(f"must be a number that is not negative, not {_shown(value)}")
    return float(number)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "yes", "on", "false", "no", "off"):
        return value.lower() in ("true", "yes", "on")
    raise _Problem(f"must be true or false, not {_shown(value)}")


def _flash_attention(value: Any) -> str:
    # YAML reads the bare words on and off as booleans
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(_choice(("on", "off", "auto"))(value))


def _tensor_split(value: Any) -> str:
    parts = re.split(r"[,/]", value) if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
        raise _Problem(f"must be a list of numbers, one for each GPU, not {_shown(value)}")
    return ",".join(f"{_number(part.strip() if isinstance(part, str) else part):g}" for part in parts)


def _gpus(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _Problem(f"must be a list, not {_shown(value)}", f"Write [{value}]; [] means CPU.")
    result = []
    for position, item in enumerate(value):
        text = "" if isinstance(item, bool) else str(item)
        if not _GPU.fullmatch(text):
            raise _Problem(
                f"{_shown(item)} names no GPU",
                "Use all, an index (0), or an id as nvidia-smi -L prints it (GPU-… or MIG-…).",
                f"[{position}]",
            )
        if text in result:
            raise _Problem(f"{text} stands there twice", "", f"[{position}]")
        result.append(text)
    if "all" in result and len(result) > 1:
        raise _Problem("names all and single GPUs", "Keep all, or the single ones.")
    return tuple(result)


def _address(value: Any) -> str:
    text = _text(value)
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        hint = "Use 127.0.0.1." if text == "localhost" else "Use 127.0.0.1 (this host only), an address of the host, or 0.0.0.0 (all)."
        raise _Problem(f"{text!r} is no IP address", hint) from None


def _image(value: Any) -> str:
    text = _text(value)
    if reference.is_id(text):
        # Engines take it for what they have themselves; no registry can be asked for it
        raise _Problem(
            f"{text!r} is the id of an image, which no host can fetch",
            "Name the image: registry/path:tag, or with @sha256:… behind the name. One that only its host has gets a name there with docker tag.",
        )
    full = reference.complete(text, digest_allowed=True)
    if not full:
        raise _Problem(f"{text!r} is no image reference", reference.HINT)
    return full


def _environment(value: Any) -> dict[str, str]:
    result, remarks = {}, []
    for key, item in _mapping(value).items():
        where = f".{key}"
        if not isinstance(key, str) or not _VARIABLE.fullmatch(key):
            remarks.append((where, "is no name of an environment variable", ""))
        elif key in RESERVED_ENVIRONMENT:
            remarks.append((where, "is set by the role", f"Instead, {RESERVED_ENVIRONMENT[key]}."))
        elif isinstance(item, bool) or not isinstance(item, (str, int, float)):
            remarks.append((where, f"must be a string or a number, not {_kind(item)}", "Quote it."))
        elif "\0" in str(item):
            remarks.append((where, "holds a NUL byte", ""))
        else:
            result[key] = str(item)
    if remarks:
        raise _Problem.of(remarks)
    return result


def _aikit_version(value: Any) -> str:
    text = str(value) if isinstance(value, float) else _text(value)
    if parse_version(text) is None:
        raise _Problem(f"{text!r} is no release of AIKit", "Write one such as 0.21.0, or main.")
    return text


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _Problem(f"must be a mapping, not {_kind(value)}")
    return value


def _table(checks: Mapping[str, Check], what: str) -> Check:
    def check(value: Any) -> dict[str, Any]:
        result, remarks = {}, []
        for key, item in _mapping(value).items():
            if key not in checks:
                remarks.append((f".{key}", f"is no {what}", suggestion(key, checks) or f"Known: {', '.join(sorted(checks))}."))
            elif item is not None:
                try:
                    result[key] = checks[key](item)
                except _Problem as problem:
                    remarks += [(f".{key}{below}", message, hint) for below, message, hint in problem.remarks]
        if remarks:
            raise _Problem.of(remarks)
        return result

    return check


def _verdicts(value: Any) -> list[str]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not items:
        raise _Problem(f"must be a list of verdicts, not {_shown(value)}", f"Known: {', '.join(VERDICTS)}.")
    return list(dict.fromkeys(_choice(VERDICTS)(item) for item in items))


def _size(value: Any) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)
    if not _SIZE.fullmatch(text):
        raise _Problem(f"{text!r} is no amount of memory", "Use a number with k, m or g, for example 16g.")
    return text


def _error(path: str, message: str, hint: str = "") -> Finding:
    return Finding("error", path, 0, message, hint)


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true/false"
    names = ((str, "a string"), (int, "a number"), (float, "a number"), (Mapping, "a mapping"), (Sequence, "a list"))
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, (str, int, float)) else _kind(value)


SETTINGS: Mapping[str, Check] = {
    "gpu_layers": _integer(0, None, ("auto", "all")),
    "context_size": _integer(1, None, ("auto",)),
    "batch": _integer(1),
    "flash_attention": _flash_attention,
    "cache_type_k": _choice(CACHE_TYPES),
    "cache_type_v": _choice(CACHE_TYPES),
    "no_kv_offloading": _boolean,
    "low_vram": _boolean,
    "extra_mib": _integer(0),
    "n_cpu_moe": _integer(0),
    "parallel": _integer(1, None, ("auto",)),
    "tensor_split": _tensor_split,
    "threads": _integer(1),
}

EXPECT: Mapping[str, Check] = {
    "verdict": _verdicts,
    "min_tokens_per_second": _number,
}

KEYS: Mapping[str, Check] = {
    "name": _name,
    "state": _choice(STATES),
    "src": _text,
    "definition": _mapping,
    "image": _image,
    "gpus": _gpus,
    "bind_address": _address,
    "port": _integer(1, 65535),
    "engine": _choice(ENGINES),
    "server": _choice(SERVERS),
    "base_variant": _choice(BASE_VARIANTS),
    "aikit_version": _aikit_version,
    "context": _text,
    "settings": _table(SETTINGS, "setting"),
    "expect": _table(EXPECT, "expectation"),
    "environment": _environment,
    "api_key": _text,
    "memory": _size,
    "cpus": _number,
    "timeout_seconds": _integer(1),
}
