# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles have to compute about services. Each filter is documented in the YAML file of its name."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Optional

import yaml
from ansible.errors import AnsibleFilterError

from ..module_utils._core import container, services
from ..module_utils._core.errors import AikitError


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    """What the user can mend reads as one sentence, not as a traceback."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except AikitError as exc:
            raise AnsibleFilterError(str(exc)) from exc
        except (KeyError, TypeError, AttributeError) as exc:
            raise AnsibleFilterError(f"{function.__name__}: the input has not the documented form ({type(exc).__name__}: {exc}).") from exc

    return call


def container_spec(
    service: Mapping[str, Any],
    image: Mapping[str, Any],
    host: Mapping[str, Any],
    api_key: str = "",
    state_dir: str = container.STATE_DIR,
    config: Optional[str] = None,
) -> dict[str, Any]:
    document = None
    if config:
        try:
            document = yaml.safe_load(config)
        except yaml.YAMLError as exc:
            raise AikitError(f"The configuration inside {image.get('ref') or image['id']} is no YAML: {exc}") from exc
        if isinstance(document, Mapping):
            document = [document]
        if document is not None and not isinstance(document, list):
            raise AikitError(f"The configuration inside {image.get('ref') or image['id']} is no list of models.")
    return container.container_spec(service, image, host, api_key, state_dir, document)


def images_to_build(plans: Mapping[str, Any], builder: str = "localhost") -> list[dict[str, Any]]:
    return services.images_to_build(plans, builder)


def rollback_order(found: Any, releases: Any, containers: Any = ()) -> list[Any]:
    return services.rollback_order(found, releases, containers)


def serving_order(found: Any, containers: Any = ()) -> list[Any]:
    return services.serving_order(found, containers)


def service_api_key(found: Any, name: str, defaults: Any = None) -> str:
    return services.api_key(found, name, defaults)


def api_key_content(api_key: str, server: str = "llama_cpp") -> str:
    return container.api_key_content(server, api_key)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "api_key_content": _told(api_key_content),
            "container_spec": _told(container_spec),
            "images_to_build": _told(images_to_build),
            "rollback_order": _told(rollback_order),
            "serving_order": _told(serving_order),
            "service_api_key": _told(service_api_key),
        }
