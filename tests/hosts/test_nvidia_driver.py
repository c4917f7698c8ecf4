# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Role nvidia_driver on systemd hosts: packages are the fixture's, apt, dpkg, systemd and reboots are real."""

from __future__ import annotations

import json

import pytest
import support

STATE = "/var/lib/aikit-fleet/host/nvidia_driver.json"
WRITTEN = (
    "/etc/apt/preferences.d/aikit-fleet-nvidia-driver",
    "/etc/apt/apt.conf.d/52aikit-fleet-nvidia-driver",
    "/etc/modprobe.d/aikit-fleet-nouveau.conf",
    "/etc/systemd/system/nvidia-persistenced.service.d/aikit-fleet.conf",
)
# What a run may change on a host that it only looks at
PLAYBOOK = """\
- name: Driver
  hosts: aikit_hosts
  gather_facts: false
  tasks:
    - name: Run the role
      ansible.builtin.include_role:
        name: aikit.fleet.nvidia_driver
        tasks_from: "{{ entry | default('main') }}"
    - name: Facts
      ansible.builtin.debug:
        msg:
          facts: "{{ nvidia_driver_facts }}"
          reboot: "{{ nvidia_driver_reboot_required }}"
"""


@pytest.fixture
def role(tmp_path, nvidia_repo):
    """``role(host, *arguments, **variables)`` runs the role there; packages come from the fixture, which is a mirror."""
    (tmp_path / "driver.yml").write_text(PLAYBOOK)

    def run(host, *arguments, **variables):
        facts = nvidia_repo.facts["cuda"][host.distribution]
        preset = {
            "nvidia_driver_source": "mirror",
            "nvidia_driver_mirror_url": facts["url"],
            "nvidia_driver_mirror_key": facts["keyring_url"],
            "nvidia_driver_mirror_key_sha256": facts["keyring_sha256"],
            "__nvidia_driver_root": host.root,
        }
        inventory = host.inventory(tmp_path)
        return support.playbook("driver.yml", "-i", str(inventory), "-e", json.dumps({**preset, **variables}), *arguments, cwd=tmp_path)

    return run


def good(run):
    assert run.code == 0, run.messages() or run.output[-2000:]
    return run


def facts(run):
    (found,) = run.results("Facts")
    return found["msg"]


def snapshot(host):
    """All that a refusal must leave as it is: packages, apt's settings, what this collection writes."""
    return host.sh(
        "dpkg-query -W; apt-mark showhold; find /etc /var/lib/aikit-fleet /usr/share/keyrings -type f 2>/dev/null"
        " | grep -v -e /etc/mtab -e ld.so.cache | sort | xargs -r sha256sum"
    )


def installed(host, name):
    return host.run("dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}", name, check=False)


@pytest.mark.parametrize("suite", ["trixie", "bookworm"])
class TestLife:
    """One host from its first driver to none, as its owner would take it."""

    @pytest.fixture
    def host(self, gpu_host, suite):
        return gpu_host(f"driver-{suite}", suite, nouveau=True)

    def test_check_mode_on_a_virgin_host_says_what_would_be_done(self, role, host):
        before = snapshot(host)
        run = good(role(host, "--check", "--diff", nvidia_driver_state="managed"))
        assert run.changed == 1 and snapshot(host) == before
        (said,) = run.results("Say what would be done")
        assert "newest version of branch 580" in said["msg"][0] and "nvidia-kernel-open-dkms" in said["msg"][1]

    def test_fresh_install_waits_for_a_reboot_that_nobody_allowed(self, role, host):
        run = good(role(host, nvidia_driver_state="managed", nvidia_driver_version="580.159.03"))
        assert facts(run)["reboot"] is True and facts(run)["facts"]["installed_version"] == "580.159.03"
        assert installed(host, "nvidia-kernel-open-dkms") == "ii 580.159.03-1"
        assert "nouveau" in host.run("lsmod")
        assert all(host.sh(f"test -e {path} && echo there") == "there" for path in (*WRITTEN, STATE))

    def test_another_run_changes_nothing_and_still_says_so(self, role, host):
        run = good(role(host, nvidia_driver_state="managed", nvidia_driver_version="580.159.03"))
        assert run.changed == 0, [name for name in run.output.splitlines() if "changed" in name][:20]
        assert facts(run)["reboot"] is True

    def test_the_reboot_that_is_allowed(self, role, host):
        run = good(role(host, nvidia_driver_state="managed", nvidia_driver_version="580.159.03", nvidia_driver_reboot="if_required"))
        assert facts(run)["reboot"] is False and facts(run)["facts"]["state"] == "loaded"
        assert "nouveau" not in host.run("lsmod") and "GPU 0" in host.run("nvidia-smi", "-L")
        assert host.run("systemctl", "is-active", "nvidia-persistenced") == "active"

    @pytest.mark.parametrize("state", ["managed", "ensure"])
    def test_then_nothing_is_left_to_do(self, role, host, state):
        run = good(role(host, nvidia_driver_state=state, nvidia_driver_reboot="if_required"))
        assert run.changed == 0 and facts(run)["facts"]["action"] == "none"

    def test_a_night_upgrade_leaves_the_driver_alone(self, host):
        host.apt("install", "unattended-upgrades")
        host.run("unattended-upgrade")
        host.apt("upgrade")
        assert installed(host, "nvidia-kernel-open-dkms") == "ii 580.159.03-1"
        assert "GPU 0" in host.run("nvidia-smi", "-L")

    def test_what_someone_took_away_comes_back(self, role, host):
        host.run("rm", WRITTEN[0])
        assert good(role(host, nvidia_driver_state="managed")).changed == 1
        assert "580.159.03" in host.run("cat", WRITTEN[0])

    def test_a_package_that_is_held_is_named_and_nothing_stops(self, role, host):
        host.run("apt-mark", "hold", "nvidia-driver-cuda")
        run = role(host, nvidia_driver_state="managed", nvidia_driver_version="580.178.04")
        assert run.code != 0 and "nvidia-driver-cuda is held" in run.messages() and "apt-mark unhold" in run.messages()
        assert installed(host, "nvidia-kernel-open-dkms") == "ii 580.159.03-1"
        host.run("apt-mark", "unhold", "nvidia-driver-cuda")

    def test_upgrade_without_a_reboot_where_nothing_holds_the_module(self, role, host):
        run = good(role(host, nvidia_driver_state="managed", nvidia_driver_version="580.178.04"))
        assert facts(run)["facts"]["version"] == "580.178.04" and facts(run)["reboot"] is False
        remembered = json.loads(host.run("cat", STATE))
        assert remembered["previous"]["version"] == "580.159.03" and remembered["current"]["version"] == "580.178.04"
        assert good(role(host, nvidia_driver_state="managed", nvidia_driver_version="580.178.04")).changed == 0

    def test_rollback(self, role, host):
        run = good(role(host, entry="rollback"))
        assert facts(run)["facts"]["version"] == "580.159.03"
        assert "580.159.03" in host.run("cat", WRITTEN[0])
        assert good(role(host, nvidia_driver_state="managed")).changed == 0

    def test_a_kernel_without_the_module_is_never_booted(self, role, host):
        host.control("no-module", "99.0.0-fake\n")
        host.apt("install", "linux-image-99.0.0-fake", "linux-headers-99.0.0-fake")
        host.control("in-use")
        run = role(host, nvidia_driver_state="managed", nvidia_driver_version="580.178.04", nvidia_driver_reboot="if_required")
        host.control("in-use", None)
        host.control("no-module", None)
        host.apt("purge", "linux-image-99.0.0-fake", "linux-headers-99.0.0-fake")
        assert run.code != 0 and "99.0.0-fake" in run.messages() and "leave the host without its GPU" in run.messages()
        # The file that would reboot is entered; its own task of that name is not reached
        assert {found["action"] for found in run.results("Reboot")} == {"ansible.builtin.include_tasks"}

    def test_absent_takes_only_what_this_role_brought(self, role, host):
        host.apt("install", "unattended-upgrades")
        run = good(role(host, nvidia_driver_state="absent"))
        assert facts(run)["facts"]["action"] == "remove"
        left = host.sh("dpkg-query -W -f '${db:Status-Abbrev}${Package}\\n' | grep '^ii.*nvidia' || true")
        assert left == ""
        gone = (*WRITTEN, STATE, "/etc/apt/sources.list.d/aikit-fleet-nvidia-driver.sources", "/usr/share/keyrings/aikit-fleet-nvidia-driver.gpg")
        assert host.sh(f"ls {' '.join(gone)} 2>/dev/null | wc -l") == "0"
        assert "ii" in installed(host, "unattended-upgrades")
        assert good(role(host, nvidia_driver_state="absent")).changed == 0


class TestInterrupted:
    """What a run leaves behind that broke off: the next one finishes it, whatever it asks for."""

    @pytest.fixture
    def host(self, gpu_host):
        return gpu_host("driver-interrupted")

    def states(self, host):
        return set(host.sh("dpkg-query -W -f '${db:Status-Abbrev}\n' '*nvidia*' libcuda1 2>/dev/null | sort -u").split()) - {"un", "rc"}

    def test_a_module_that_could_not_be_built(self, role, host):
        host.control("module-build-fails")
        run = role(host, nvidia_driver_state="managed", nvidia_driver_version="580.159.03")
        host.control("module-build-fails", None)
        assert run.code != 0 and json.loads(host.run("cat", STATE))["changing"]["current"]["version"] == "580.159.03"
        assert self.states(host) - {"ii"}, "nothing is half-configured"
        said = self.look(role, host, nvidia_driver_state="ensure")
        assert said.startswith("A change of the driver ended half way: nvidia-kernel-open-dkms is half-configured")
        run = good(role(host, nvidia_driver_state="ensure"))
        assert facts(run)["facts"]["state"] == "loaded" and facts(run)["facts"]["version"] == "580.159.03"
        self.is_finished(role, host, "580.159.03")

    def look(self, role, host, **variables):
        run = good(role(host, "--check", **variables))
        (said,) = run.results("Say what would be done")
        return said["msg"][0]

    def is_finished(self, role, host, version):
        assert self.states(host) == {"ii"}
        written = json.loads(host.run("cat", STATE))
        assert "changing" not in written and written["current"]["version"] == version
        for state in ("ensure", "managed"):
            run = good(role(host, nvidia_driver_state=state))
            assert run.changed == 0 and facts(run)["facts"]["version"] == version

    def test_packages_that_were_only_unpacked(self, role, host):
        """As a machine that was switched off among them: the loaded module and half of the libraries are of the old driver."""
        names = " ".join(f"{name}=580.178.04-1" for name in ("nvidia-kernel-open-dkms", "libcuda1", "libnvidia-ml1"))
        host.sh(f"mkdir -p /var/tmp/debs; cd /var/tmp/debs; apt-get -q=2 download {names}")
        host.sh("dpkg --unpack --force-depends /var/tmp/debs/*.deb; rm -r /var/tmp/debs")
        assert "iU" in self.states(host)
        run = good(role(host, nvidia_driver_state="managed"))
        assert facts(run)["facts"]["version"] == "580.178.04"
        self.is_finished(role, host, "580.178.04")

    def test_a_blacklist_that_never_reached_the_early_file_system(self, role, host):
        rebuilt = "wc -l </var/log/fake-nvidia/update-initramfs"
        before = int(host.sh(rebuilt))
        host.sh(f"sleep 1; touch {WRITTEN[2]}")
        run = good(role(host))
        assert run.changed == 1 and int(host.sh(rebuilt)) > before
        assert good(role(host)).changed == 0

    def test_steps_after_the_packages_that_were_never_taken(self, role, host):
        written = json.loads(host.run("cat", STATE))
        begun = {"action": "install", "before": {}, "current": written.pop("current"), "previous": None, "repository": written["repository"], "locks": []}
        host.write(STATE, json.dumps({"schema": 1, "changing": begun}))
        host.run("systemctl", "disable", "nvidia-persistenced.service")
        host.run("rm", WRITTEN[3])
        good(role(host))
        assert host.run("systemctl", "is-enabled", "nvidia-persistenced.service") == "enabled"
        assert host.sh(f"test -e {WRITTEN[3]} && echo there") == "there"
        self.is_finished(role, host, "580.178.04")

    def test_what_was_written_before_packages_that_never_came(self, role, host, nvidia_repo):
        host.write("/etc/apt/apt.conf.d/99-no-downloads", 'DPkg::Pre-Invoke { "false"; };\n')
        run = role(host, nvidia_driver_state="managed", nvidia_driver_version="580.159.03")
        host.run("rm", "/etc/apt/apt.conf.d/99-no-downloads")
        assert run.code != 0 and "580.159.03" in host.run("cat", WRITTEN[0])
        # Nobody wants that version any more: the pin is the installed driver's again
        run = good(role(host, nvidia_driver_state="ensure"))
        assert facts(run)["facts"]["version"] == "580.178.04" and "580.178.04" in host.run("cat", WRITTEN[0])
        self.is_finished(role, host, "580.178.04")

    def test_half_an_installation_goes_as_a_whole(self, role, host):
        host.control("module-build-fails")
        run = role(host, nvidia_driver_state="managed", nvidia_driver_version="580.159.03")
        assert run.code != 0
        host.control("module-build-fails", None)
        good(role(host, nvidia_driver_state="absent"))
        assert self.states(host) <= {"ii"} and host.sh("dpkg-query -W -f '${db:Status-Abbrev}${Package}\\n' | grep '^i.*nvidia' || true") == ""
        assert host.sh(f"ls {' '.join(WRITTEN)} {STATE} 2>/dev/null | wc -l") == "0"


class TestFabricManager:
    """A machine with NVSwitch: without a Fabric Manager of exactly the driver's version its GPUs run no CUDA."""

    @pytest.fixture
    def host(self, gpu_host):
        return gpu_host("driver-fabric", gpus=("h100", "h100"), nvswitch=True)

    def test_it_comes_with_the_driver_in_exactly_its_version(self, role, host):
        run = good(role(host, nvidia_driver_state="managed", nvidia_driver_version="580.159.03"))
        assert facts(run)["facts"]["state"] == "loaded"
        assert installed(host, "nvidia-fabricmanager") == installed(host, "libnvidia-nscq") == "ii 580.159.03-1"
        assert host.run("systemctl", "is-enabled", "nvidia-fabricmanager.service") == "enabled"
        assert host.run("systemctl", "is-active", "nvidia-fabricmanager.service") == "active"
        found = host.module("aikit.fleet.gpu_info", root=host.root)
        assert found["host"]["fabric_manager"]["needed"] and found["host"]["fabric_manager"]["active"] and found["problems"] == []
        assert good(role(host, nvidia_driver_state="managed")).changed == 0

    def test_a_mismatch_is_a_problem_and_is_put_right(self, role, host):
        host.run("rm", WRITTEN[0])
        host.apt("install", "nvidia-fabricmanager=580.178.04-1")
        found = host.module("aikit.fleet.gpu_info", root=host.root)
        assert "fabric_manager_mismatch" in [problem["name"] for problem in found["problems"]]
        run = good(role(host, nvidia_driver_state="managed"))
        assert "exactly the driver's 580.159.03" in facts(run)["facts"]["reason"]
        assert installed(host, "nvidia-fabricmanager") == "ii 580.159.03-1"
        assert host.module("aikit.fleet.gpu_info", root=host.root)["problems"] == []
        assert good(role(host, nvidia_driver_state="managed")).changed == 0


class TestServices:
    """A container of ours that holds the GPU, as role inference makes it; what runs inside does not matter here."""

    @pytest.fixture
    def host(self, gpu_host):
        packages = ("docker.io", "docker-cli", "iptables", "busybox-static", "python3-requests")
        host = gpu_host("driver-services", driver="580.159.03", packages=packages)
        if not host.run("docker", "ps", "-aq"):
            host.sh("systemctl start docker; tar -C / -c bin/busybox usr/bin/busybox 2>/dev/null | docker import - busybox || true")
            options = "--detach --restart=unless-stopped --entrypoint=/usr/bin/busybox"
            host.sh(f"docker run {options} --name=llama --label=io.aikit.fleet.service=llama --device=/dev/nvidia0 busybox sleep 100000")
            host.sh(f"docker run {options} --name=cpu --label=io.aikit.fleet.service=cpu busybox sleep 100000")
            host.sh(f"docker run {options} --name=foreign --device=/dev/nvidia0 busybox sleep 100000")
        return host

    def started(self, host):
        return {name: host.run("docker", "inspect", "-f", "{{.State.Running}} {{.State.StartedAt}}", name) for name in ("llama", "cpu", "foreign")}

    def test_check_mode_stops_nothing(self, role, host):
        before = self.started(host)
        run = good(role(host, "--check", nvidia_driver_state="managed", nvidia_driver_source="auto", nvidia_driver_version="580.178.04"))
        assert "would be stopped before and started after" in run.output and self.started(host) == before

    def test_an_upgrade_stops_ours_that_hold_the_gpu_and_starts_them_again(self, role, host):
        before = self.started(host)
        run = good(role(host, nvidia_driver_state="managed", nvidia_driver_source="auto", nvidia_driver_version="580.178.04"))
        after = self.started(host)
        assert facts(run)["facts"]["version"] == "580.178.04"
        assert after["llama"].startswith("true") and after["llama"] != before["llama"]
        assert after["cpu"] == before["cpu"] and after["foreign"] == before["foreign"]
        assert "drained" not in json.loads(host.run("cat", STATE))

    def test_an_upgrade_that_fails_starts_them_again(self, role, host):
        before = self.started(host)
        host.control("module-build-fails")
        run = role(host, nvidia_driver_state="managed", nvidia_driver_source="auto", nvidia_driver_version="580.159.03")
        host.control("module-build-fails", None)
        assert run.code != 0
        # The module of the old driver is still loaded, but what is installed beside it is half of the new one: a reboot, or a good run, decides
        run = good(role(host, nvidia_driver_state="managed", nvidia_driver_source="auto", nvidia_driver_version="580.159.03"))
        after = self.started(host)
        assert facts(run)["facts"]["version"] == "580.159.03"
        assert after["llama"].startswith("true") and after["llama"] != before["llama"]
        assert "drained" not in json.loads(host.run("cat", STATE))

    def test_what_else_holds_the_driver_is_named_and_nothing_stops(self, role, host):
        process = f"{host.root}/proc/4242"
        host.sh(f"mkdir -p {process}/fd; echo dcgm-exporter >{process}/comm; echo 0::/system.slice >{process}/cgroup; ln -s /dev/nvidiactl {process}/fd/3")
        before, files = self.started(host), snapshot(host)
        run = role(host, nvidia_driver_state="managed", nvidia_driver_source="auto", nvidia_driver_version="580.178.04")
        host.run("rm", "-r", process)
        assert run.code != 0 and "dcgm-exporter (process 4242)" in run.messages() and "llama would be stopped" in run.messages(), run.messages()
        assert self.started(host) == before and snapshot(host) == files

    def test_services_that_wait_for_a_reboot_fail_their_host(self, role, host):
        """What holds the module is no process: the kernel's console on the card, for one."""
        host.control("in-use")
        run = role(host, nvidia_driver_state="managed", nvidia_driver_source="auto", nvidia_driver_version="580.178.04")
        assert run.code != 0 and "llama stopped for the change" in run.messages() and "Reboot the host" in run.messages(), run.messages()
        assert self.started(host)["llama"].startswith("false")
        assert json.loads(host.run("cat", STATE))["drained"] == ["llama"]
        # Another run says so again
        run = role(host, nvidia_driver_state="managed", nvidia_driver_source="auto")
        assert run.code != 0 and "llama stopped for the change" in run.messages() and run.changed == 0
        host.control("in-use", None)
        host.reboot()
        run = good(role(host, nvidia_driver_state="managed", nvidia_driver_source="auto"))
        assert facts(run)["reboot"] is False and self.started(host)["llama"].startswith("true")
        assert good(role(host, nvidia_driver_state="managed", nvidia_driver_source="auto")).changed == 0

    def test_a_removal_remembers_the_services_that_it_stopped(self, role, host):
        run = good(role(host, nvidia_driver_state="absent"))
        assert facts(run)["facts"]["action"] == "remove" and self.started(host)["llama"].startswith("false")
        assert json.loads(host.run("cat", STATE)) == {"schema": 1, "drained": ["llama"]}
        again = good(role(host, nvidia_driver_state="absent"))
        assert again.changed == 0 and json.loads(host.run("cat", STATE))["drained"] == ["llama"]
        run = good(role(host, nvidia_driver_source="auto", nvidia_driver_version="580.178.04"))
        assert facts(run)["facts"]["state"] == "loaded" and self.started(host)["llama"].startswith("true")
        assert "drained" not in json.loads(host.run("cat", STATE))

    def test_a_service_that_was_removed_while_it_waited_is_forgotten(self, role, host):
        state = json.loads(host.run("cat", STATE))
        host.write(STATE, json.dumps({**state, "drained": ["llama", "removed"]}))
        host.run("docker", "stop", "llama")
        good(role(host, nvidia_driver_state="managed", nvidia_driver_source="auto"))
        assert self.started(host)["llama"].startswith("true") and "drained" not in json.loads(host.run("cat", STATE))


def test_a_host_without_a_gpu(role, gpu_host):
    host = gpu_host("driver-none", gpus=())
    before = snapshot(host)
    run = good(role(host, nvidia_driver_state="managed"))
    assert run.changed == 0 and snapshot(host) == before
    assert "No NVIDIA GPU was found: nothing to do." in run.output


def test_verify_says_what_stands_in_the_way(role, gpu_host):
    host = gpu_host("driver-verify", secure_boot=True)
    before = snapshot(host)
    run = role(host, entry="verify", nvidia_driver_state="managed")
    assert run.code != 0 and "driver does not work" in run.messages() and "Secure Boot is on" in run.messages(), run.messages()
    assert snapshot(host) == before
    run = role(host, nvidia_driver_branch="R580")
    assert run.code != 0 and "nvidia_driver_branch is 'R580', which is no branch" in run.messages(), run.messages()
    host.destroy()


@pytest.mark.parametrize(
    "scenario, wishes, words",
    [
        ({"gpus": ("v100",)}, {"nvidia_driver_branch": "595"}, ["Branch 595 does not drive Tesla V100", "nvidia_driver_branch: auto"]),
        ({"gpus": ("b200",)}, {"nvidia_driver_flavour": "proprietary"}, ["The proprietary kernel modules do not drive NVIDIA B200"]),
        ({"gpus": ("h100",), "secure_boot": True}, {}, ["Secure Boot is on", "mokutil --import", "firmware"]),
        ({"gpus": ("h100",)}, {"nvidia_driver_branc": "580"}, ["nvidia_driver_branch"]),
    ],
    ids=["volta with 595", "blackwell proprietary", "secure boot", "misspelt"],
)
def test_refusals_change_nothing(role, gpu_host, request, scenario, wishes, words):
    host = gpu_host("driver-" + request.node.callspec.id.replace(" ", "-"), **scenario)
    before = snapshot(host)
    run = role(host, nvidia_driver_state="managed", **wishes)
    assert run.code != 0 and all(word in run.messages() for word in words), run.output[-2000:]
    assert snapshot(host) == before
    host.destroy()


def test_modules_that_ubuntu_signed_load_under_secure_boot(role, gpu_host):
    """Debian's programs on a host that says that it is Ubuntu, with packages named and related as in Ubuntu's archive."""
    host = gpu_host("driver-ubuntu", distribution="ubuntu2404", secure_boot=True)
    before = host.run("dpkg-query", "-W", "-f", "${Package}\n")
    wishes = {"nvidia_driver_state": "managed", "nvidia_driver_source": "auto"}
    run = good(role(host, **wishes))
    assert facts(run)["facts"]["state"] == "loaded" and facts(run)["facts"]["source"] == "distribution" and facts(run)["reboot"] is False
    assert installed(host, "linux-modules-nvidia-580-server-open-generic") == "ii 1-1"
    assert installed(host, "nvidia-headless-no-dkms-580-server-open") == "ii 580.159.03-0ubuntu0.24.04.1"
    # Nothing is built here, and the modules are of one kernel: a night upgrade must not bring another
    assert not installed(host, "dkms").startswith("ii") and "^linux-image-" in host.run("cat", WRITTEN[1])
    assert "release o=NVIDIA\nPin-Priority: -1" in host.run("cat", WRITTEN[0])
    assert good(role(host, **wishes)).changed == 0
    good(role(host, nvidia_driver_state="absent"))
    assert host.run("dpkg-query", "-W", "-f", "${Package}\n") == before
    host.destroy()


def test_volta_gets_the_proprietary_580(role, gpu_host):
    host = gpu_host("driver-volta", gpus=("v100",))
    run = good(role(host))
    assert facts(run)["facts"]["state"] == "loaded" and facts(run)["facts"]["flavour"] == "proprietary"
    assert facts(run)["facts"]["branch"] == 580 and facts(run)["reboot"] is False


class TestForeignDriver:
    """NVIDIA's packages, installed by someone else, below the floor."""

    @pytest.fixture
    def host(self, gpu_host):
        return gpu_host("driver-foreign", driver="580.142")

    def test_ensure_leaves_it_and_names_what_is_wrong(self, role, host):
        before = snapshot(host)
        run = good(role(host, nvidia_driver_source="auto"))
        assert run.changed == 0 and snapshot(host) == before
        assert [problem["name"] for problem in facts(run)["facts"]["problems"]] == ["below_floor"]

    def test_a_hung_nvidia_smi_is_named_and_nothing_is_changed(self, role, host):
        before = snapshot(host)
        host.control("smi-hang")
        run = role(host, nvidia_driver_source="auto")
        host.control("smi-hang", None)
        host.sh("pkill -KILL nvidia-smi || true")
        assert run.code != 0 and "NVIDIA's driver does not work" in run.messages() and "did not answer within" in run.messages(), run.messages()
        assert snapshot(host) == before

    def test_absent_leaves_it_too(self, role, host):
        run = good(role(host, nvidia_driver_state="absent"))
        assert run.changed == 0 and "not installed by this role" in run.output

    def test_managed_upgrades_it_from_where_it_came(self, role, host):
        run = good(role(host, nvidia_driver_state="managed", nvidia_driver_source="auto"))
        assert facts(run)["facts"]["version"] == "580.178.04"
        assert host.sh("dpkg-query -W -f '${Package} ${Version}\\n' | grep -e nvidia -e libcuda | grep -v 580.178.04-1 || true") == ""

    def test_check_mode_before_its_repository_is_known(self, role, host):
        """What this role writes is not there yet, nor the folder that it keeps things in."""
        host.run("rm", "-r", "/var/lib/aikit-fleet")
        host.apt("purge", "cuda-keyring")
        before = snapshot(host)
        run = good(role(host, "--check", nvidia_driver_state="managed", nvidia_driver_source="auto"))
        assert run.changed > 0 and "cuda-keyring_1.1-1_all.deb would be fetched" in run.output
        run = good(role(host, "--check", nvidia_driver_state="managed"))
        assert run.changed > 0 and snapshot(host) == before
        host.add_cuda_repository()

    def test_a_mismatch_after_a_night_upgrade_asks_for_a_reboot(self, role, host):
        host.run("rm", WRITTEN[0])
        # User space goes, and the module stays
        names = ("libnvidia-ml1", "libcuda1", "nvidia-driver-cuda", "nvidia-persistenced", "nvidia-modprobe")
        host.apt("install", "--allow-downgrades", *(f"{name}=580.159.03-1" for name in names))
        run = good(role(host, nvidia_driver_source="auto"))
        assert facts(run)["facts"]["state"] == "mismatch" and facts(run)["reboot"] is True


class TestKernels:
    """The kernel that is booted next is not the one that the headers' metapackage knows."""

    @pytest.fixture
    def host(self, gpu_host):
        host = gpu_host("driver-kernels")
        host.apt("install", f"linux-image-{host.upcoming_kernel}")
        return host

    def test_headers_that_nobody_offers_are_refused_before_anything_is_installed(self, role, host):
        host.sh("mkdir -p /lib/modules/100.0.0-own; touch /boot/vmlinuz-100.0.0-own /lib/modules/100.0.0-own/modules.builtin")
        before = host.sh("dpkg-query -W")
        run = role(host, nvidia_driver_state="managed")
        host.sh("rm -r /lib/modules/100.0.0-own /boot/vmlinuz-100.0.0-own")
        assert run.code != 0 and "offers linux-headers-100.0.0-own" in run.messages(), run.messages()
        assert host.sh("dpkg-query -W") == before and host.run("ls", "/etc/apt/preferences.d") == "fake-distribution"

    def test_its_headers_come_too_and_the_module_is_built(self, role, host):
        run = good(role(host, nvidia_driver_state="managed", nvidia_driver_reboot="if_required"))
        assert facts(run)["facts"]["state"] == "loaded" and facts(run)["reboot"] is False
        assert installed(host, f"linux-headers-{host.upcoming_kernel}") == "ii 1-1"
        assert host.run("modinfo", "-k", host.upcoming_kernel, "-F", "version", "nvidia") == "580.178.04"
        assert good(role(host, nvidia_driver_state="managed")).changed == 0


def test_the_oldest_python_looks_and_leaves_alone(role, gpu_host):
    host = gpu_host("driver-bullseye", "bullseye", driver="580.159.03")
    found = host.module("aikit.fleet.gpu_info", root=host.root)
    assert found["driver"]["state"] == "loaded" and found["driver"]["holders"] == [] and found["host"]["os"]["codename"] == "bullseye"
    run = good(role(host, nvidia_driver_source="auto"))
    assert run.changed == 0 and facts(run)["facts"]["version"] == "580.159.03"
    run = role(host, nvidia_driver_state="managed")
    assert run.code != 0 and "has no recipe here" in run.messages()


def test_a_wrong_key_and_a_dead_repository_change_no_driver(role, gpu_host, nvidia_repo):
    host = gpu_host("driver-broken")
    facts_ = nvidia_repo.facts["cuda"][host.distribution]
    run = role(host, nvidia_driver_state="managed", nvidia_driver_mirror_key_sha256="0" * 64)
    assert run.code != 0 and "checksum" in run.messages().lower()
    stranger = f"{nvidia_repo.facts['url']}/stranger.asc"
    run = role(host, nvidia_driver_state="managed", nvidia_driver_mirror_key=stranger, nvidia_driver_mirror_key_sha256="")
    assert run.code != 0 and "nvidia" not in host.sh("dpkg-query -W -f '${Package}\\n'").replace("fake-nvidia", "")
    run = role(host, nvidia_driver_state="managed", nvidia_driver_mirror_url=facts_["url"].replace("/repos/", "/nowhere/"))
    assert run.code != 0 and "nvidia" not in host.sh("dpkg-query -W -f '${Package}\\n'").replace("fake-nvidia", "")
    good(role(host, nvidia_driver_state="managed"))
