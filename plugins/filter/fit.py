# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What role inference computes for plans of GPU memory. Each filter is documented in the YAML file of its name."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Mapping

import yaml
from ansible.errors import AnsibleFilterError

from ..module_utils._core import fit_options, plan_report, service_fit, wish
from ..module_utils._core.errors import AikitError
from ..plugin_utils.plain import plain


def image_wish(read: Mapping[str, Any]) -> dict[str, Any]:
    try:
        config = yaml.safe_load(str(read.get("config") or "")) or []
    except yaml.YAMLError:
        # The release says so, with its position
        config = []
    return wish.of_image(plain(read), config if isinstance(config, list) else [config])


def fitted_service(service: Mapping[str, Any], fit: Mapping[str, Any]) -> dict[str, Any]:
    return service_fit.settings_of(service, (fit.get("services") or {}).get(service["name"]))


def fit_policy(options: Any) -> dict[str, Any]:
    if not isinstance(options, Mapping):
        raise AikitError(f"inference_fit_policy must be a mapping, not {type(plain(options)).__name__}.", "Write for example margin_mib: 1024 below it.")
    return dataclasses.asdict(fit_options.policy_of(plain(options), "inference_fit_policy"))


def server_versions(builds: Mapping[str, Any], read: Mapping[str, Any]) -> dict[str, str]:
    return wish.server_versions(builds, read)


def _told(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """What the user can mend reads as one sentence, not as a traceback."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except AikitError as exc:
            raise AnsibleFilterError(str(exc)) from exc
        except (KeyError, TypeError, AttributeError) as exc:
            raise AnsibleFilterError(f"{name}: the input has not the documented form ({type(exc).__name__}: {exc}).") from exc

    return call


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        found: dict[str, Callable[..., Any]] = {
            "fit_policy": fit_policy,
            "fit_report": plan_report.document,
            "fit_table": plan_report.plan_lines,
            "fitted_service": fitted_service,
            "image_shapes": wish.image_shapes,
            "image_wish": image_wish,
            "known_models": wish.known_models,
            "models_as_services": wish.models_as_services,
            "models_to_plan": lambda plans: wish.needed_files(plans.values()),
            "premade_to_plan": wish.premade,
            "server_versions": server_versions,
            "with_image_wishes": wish.with_images,
        }
        return {name: _told(function, name) for name, function in found.items()}
