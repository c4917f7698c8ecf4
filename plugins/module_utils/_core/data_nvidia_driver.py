# Copyright (c) 2026 the aikit.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NVIDIA's driver branches, repositories and package names, by operating system; read in November 2026.

Sources: NVIDIA's driver installation guide (595 to 620) and its table of supported drivers; gpu-driver-container for Ubuntu's names;
compute-gpu-installation for the checksums of cuda-keyring; the archives of Ubuntu, Debian and AlmaLinux. What GPUs need is in data_gpu,
what is too old to be safe in data_nvidia.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Optional, Sequence

REVIEWED = "2026-11-22"


@dataclass(frozen=True)
class Branch:
    """``status``: lts, production, feature or ended (no fixes any more); ``end`` is the announced month, empty where none is known."""

    status: str
    end: str
    flavours: tuple[str, ...] = ("open", "proprietary")


# NVIDIA dropped the proprietary modules with 620.
BRANCHES: Mapping[int, Branch] = {
    535: Branch("ended", "2026-06"),
    550: Branch("ended", ""),
    570: Branch("ended", ""),
    575: Branch("ended", ""),
    580: Branch("lts", "2028-06"),
    590: Branch("ended", ""),
    595: Branch("production", "2027-03"),
    610: Branch("ended", "2026-08"),
    615: Branch("feature", ""),
    620: Branch("feature", "", ("open",)),
}

# Long support, and every GPU from Maxwell to Blackwell.
DEFAULT_BRANCH = 580
# NVIDIA publishes no 580 for Ubuntu 26.04 (gpu-driver-container leaves it out).
DEFAULT_BRANCHES: Mapping[str, int] = {"ubuntu2604": 595}
UNPUBLISHED: Mapping[str, tuple[int, ...]] = {"ubuntu2604": (535, 550, 570, 575, 580)}

# The first branch that knows an architecture (release notes). Others are known to all branches above.
FIRST_BRANCHES: Mapping[str, int] = {"blackwell": 570}

# The oldest device id that any branch above drives (Maxwell).
FIRST_DEVICE = 0x1340


@dataclass(frozen=True)
class Platform:
    """``key`` is what NVIDIA calls the system in its repository's address; ``keyring_sha256`` of its cuda-keyring package."""

    key: str
    name: str
    family: str
    keyring_sha256: str = ""
    # Whether the distribution has modules that it signed itself: they load under Secure Boot
    signed_modules: bool = False
    # DNF modules choose the branch (up to RHEL 9); later a lock on versions does
    module_streams: bool = False
    # The one branch that the distribution's own archive has
    distribution_branch: Optional[int] = None

    @property
    def apt(self) -> bool:
        return self.family in ("ubuntu", "debian")


_UBUNTU_2204 = Platform(
    "ubuntu2204", "Ubuntu 22.04", "ubuntu", "d93190d50b98ad4699ff40f4f7af50f16a76dac3bb8da1eaaf366d47898ff8df", signed_modules=True
)
_UBUNTU_2404 = Platform(
    "ubuntu2404", "Ubuntu 24.04", "ubuntu", "d2a6b11c096396d868758b86dab1823b25e14d70333f1dfa74da5ddaf6a06dba", signed_modules=True
)
_UBUNTU_2604 = Platform(
    "ubuntu2604", "Ubuntu 26.04", "ubuntu", "f7f474b5f6a4adf987aa587920df00e713285958ef6a913dda1945a544a3099e", signed_modules=True
)
_DEBIAN_12 = Platform(
    "debian12", "Debian 12", "debian", "e7f219eab6fe4819cdb5c15b98233dc3420302d9c00883219cd3d896857cf48d", distribution_branch=535
)
_DEBIAN_13 = Platform(
    "debian13", "Debian 13", "debian", "dd28f1f6ba0038180d6b23f846cefca1e3de4c9327751665241370bacea452a1", distribution_branch=550
)

# ID of os-release and what VERSION_ID begins with (all of it for Ubuntu, the major number elsewhere).
PLATFORMS: Mapping[tuple[str, str], Platform] = {
    ("ubuntu", "22.04"): _UBUNTU_2204,
    ("ubuntu", "24.04"): _UBUNTU_2404,
    ("ubuntu", "26.04"): _UBUNTU_2604,
    ("debian", "12"): _DEBIAN_12,
    ("debian", "13"): _DEBIAN_13,
    ("rhel", "9"): Platform("rhel9", "RHEL 9", "rhel", module_streams=True),
    ("rhel", "10"): Platform("rhel10", "RHEL 10", "rhel"),
    ("rocky", "9"): Platform("rhel9", "Rocky Linux 9", "rocky", module_streams=True),
    ("rocky", "10"): Platform("rhel10", "Rocky Linux 10", "rocky"),
    ("almalinux", "9"): Platform("rhel9", "AlmaLinux 9", "almalinux", signed_modules=True, module_streams=True),
    ("almalinux", "10"): Platform("rhel10", "AlmaLinux 10", "almalinux", signed_modules=True),
}

# --- repositories ------------------------------------------------------------------------------------------------

REPOSITORY = "https://developer.download.nvidia.com/compute/cuda/repos"
# Machine -> its folder there; a 64-bit Arm server is sbsa
REPOSITORY_ARCHITECTURES: Mapping[str, str] = {"x86_64": "x86_64", "aarch64": "sbsa"}
DEB_ARCHITECTURES: Mapping[str, str] = {"x86_64": "amd64", "aarch64": "arm64"}
# The package brings key, source and a priority of 600 for NVIDIA's packages
KEYRING_PACKAGE = "cuda-keyring"
KEYRING_VERSION = "1.1-1"
KEYRING_FILE = "cuda-keyring_1.1-1_all.deb"
KEYRING_KEY = "usr/share/keyrings/cuda-archive-keyring.gpg"
RPM_KEY_FILE = "D42D0685.pub"
RPM_KEY_FINGERPRINT = "610C7B14E068A878070DA4E99CD0A493D42D0685"

# --- packages: what a server without a display needs -------------------------------------------------------------


@dataclass(frozen=True)
class Packages:
    """``exact`` carry the driver's version, ``plain`` one of their own. {branch} and {kernel} are filled in."""

    exact: tuple[str, ...]
    plain: tuple[str, ...] = ()


# (family, source) -> the first branch whose packages are named so -> flavour -> packages.
# From 590 on Ubuntu's names in NVIDIA's repository lose the branch. The distribution's Ubuntu modules are built and signed
# by Canonical per kernel: no compiler, no headers, and Secure Boot takes them.
PACKAGES: Mapping[tuple[str, str], Sequence[tuple[int, Mapping[str, Packages]]]] = {
    ("ubuntu", "nvidia_repository"): (
        (
            0,
            {
                "open": Packages(("nvidia-headless-no-dkms-{branch}-open", "nvidia-dkms-{branch}-open", "nvidia-utils-{branch}")),
                "proprietary": Packages(("nvidia-headless-no-dkms-{branch}", "nvidia-dkms-{branch}", "nvidia-utils-{branch}")),
            },
        ),
        (
            590,
            {
                "open": Packages(("nvidia-headless-no-dkms-open", "nvidia-dkms-open")),
                "proprietary": Packages(("nvidia-headless-no-dkms", "nvidia-dkms")),
            },
        ),
    ),
    ("ubuntu", "distribution"): (
        (
            0,
            {
                "open": Packages(
                    ("nvidia-headless-no-dkms-{branch}-server-open", "nvidia-utils-{branch}-server", "nvidia-compute-utils-{branch}-server"),
                    ("linux-modules-nvidia-{branch}-server-open-{kernel}",),
                ),
                "proprietary": Packages(
                    ("nvidia-headless-no-dkms-{branch}-server", "nvidia-utils-{branch}-server", "nvidia-compute-utils-{branch}-server"),
                    ("linux-modules-nvidia-{branch}-server-{kernel}",),
                ),
            },
        ),
    ),
    ("debian", "nvidia_repository"): (
        (
            0,
            {
                "open": Packages(("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced")),
                "proprietary": Packages(("nvidia-driver-cuda", "nvidia-kernel-dkms", "nvidia-persistenced")),
            },
        ),
    ),
    # non-free; its nvidia-persistenced and nvidia-modprobe have versions of their own. Modules of either kind need the firmware
    ("debian", "distribution"): (
        (
            0,
            {
                "open": Packages(
                    ("libcuda1", "nvidia-smi", "nvidia-open-kernel-dkms", "firmware-nvidia-gsp"), ("nvidia-persistenced", "nvidia-modprobe")
                ),
                "proprietary": Packages(
                    ("libcuda1", "nvidia-smi", "nvidia-kernel-dkms", "firmware-nvidia-gsp"), ("nvidia-persistenced", "nvidia-modprobe")
                ),
            },
        ),
    ),
    ("rhel", "nvidia_repository"): (
        (
            0,
            {
                "open": Packages(("nvidia-driver-cuda", "kmod-nvidia-open-dkms", "nvidia-persistenced")),
                "proprietary": Packages(("nvidia-driver-cuda", "kmod-nvidia-latest-dkms", "nvidia-persistenced")),
            },
        ),
    ),
    # Built and signed by AlmaLinux; the newest branch alone
    ("almalinux", "distribution"): ((0, {"open": Packages(("nvidia-driver-cuda", "nvidia-open-kmod"))}),),
}

# Sources whose modules the distribution signs: they load under Secure Boot.
SIGNED_SOURCES = frozenset({("ubuntu", "distribution"), ("almalinux", "distribution")})

# What has to be there before the driver's packages can be found: dkms is in EPEL. RHEL has no package
# of its own that brings EPEL's repository; whoever runs RHEL adds it.
PREREQUISITES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("rocky", "nvidia_repository"): ("epel-release",),
    ("almalinux", "nvidia_repository"): ("epel-release",),
    ("almalinux", "distribution"): ("almalinux-release-nvidia-driver",),
}

# The branch of a DNF module by flavour; they exist up to RHEL 9.
MODULE_STREAMS: Mapping[str, str] = {"open": "nvidia-driver:{branch}-open", "proprietary": "nvidia-driver:{branch}-dkms"}
VERSIONLOCK_PACKAGE = "python3-dnf-plugin-versionlock"

# NVSwitch machines: both must have exactly the driver's version. Fifth-generation NVLink (Blackwell) needs a subnet manager besides.
FABRIC_MANAGER_SERVICE = "nvidia-fabricmanager.service"
FABRIC_MANAGER: Mapping[str, Sequence[tuple[int, tuple[str, ...]]]] = {
    "ubuntu": ((0, ("nvidia-fabricmanager-{branch}", "libnvidia-nscq-{branch}")), (580, ("nvidia-fabricmanager", "libnvidia-nscq"))),
    "debian": ((0, ("nvidia-fabricmanager-{branch}", "libnvidia-nscq-{branch}")), (580, ("nvidia-fabricmanager", "libnvidia-nscq"))),
    "rhel": ((0, ("nvidia-fabric-manager", "libnvidia-nscq-{branch}")), (580, ("nvidia-fabricmanager", "libnvidia-nscq"))),
}
# Ubuntu's archive keeps the branch in the name
FABRIC_MANAGER_DISTRIBUTION: Mapping[str, tuple[str, ...]] = {"ubuntu": ("nvidia-fabricmanager-{branch}", "libnvidia-nscq-{branch}")}
FABRIC_MANAGER_BLACKWELL = ("nvlsm", "infiniband-diags")

# --- kernel headers ----------------------------------------------------------------------------------------------

# Kernel that a release of Ubuntu came with; a newer one of flavour generic is its hardware enablement kernel.
UBUNTU_KERNELS: Mapping[str, str] = {"ubuntu2204": "5.15", "ubuntu2404": "6.8", "ubuntu2604": "7.0"}
RPM_HEADERS = ("kernel-devel-matched", "kernel-headers")
RPM_HEADERS_64K = ("kernel-64k-devel-matched", "kernel-headers")

# --- files -------------------------------------------------------------------------------------------------------

PIN_PATH = "/etc/apt/preferences.d/aikit-fleet-nvidia-driver"
# The first record that names a package and a version decides, in apt; so NVIDIA's names are written out, and no other package is touched
PIN_PACKAGES = (
    "cuda-drivers*",
    "libcuda1*",
    "libcudadebugger1",
    "libnvcuvid1",
    "libnvidia-*",
    "libnvsdm*",
    "nvidia-*",
    "firmware-nvidia-gsp*",
    "xserver-xorg-video-nvidia*",
)
# Of another source of the same names
FOREIGN_PACKAGES = (
    "cuda-drivers*",
    "libnvidia-cfg1*",
    "libnvidia-common*",
    "libnvidia-compute*",
    "libnvidia-decode*",
    "libnvidia-encode*",
    "libnvidia-extra*",
    "libnvidia-fbc1*",
    "libnvidia-gl*",
    "libnvidia-gpucomp*",
    "libnvidia-nscq*",
    "nvidia-compute-utils*",
    "nvidia-dkms*",
    "nvidia-driver*",
    "nvidia-fabricmanager*",
    "nvidia-firmware*",
    "nvidia-headless*",
    "nvidia-kernel*",
    "nvidia-modprobe*",
    "nvidia-open*",
    "nvidia-persistenced*",
    "nvidia-utils*",
)
# How apt knows the archive that is not the source
FOREIGN_RELEASES: Mapping[tuple[str, str], str] = {
    ("ubuntu", "nvidia_repository"): "release o=Ubuntu",
    ("ubuntu", "distribution"): "release o=NVIDIA",
}

UPGRADES_PATH = "/etc/apt/apt.conf.d/52aikit-fleet-nvidia-driver"
# Ubuntu's drivers are in the security pocket: a night upgrade replaces them under a loaded module
UPGRADES_BLACKLIST = ("^nvidia-", "^libnvidia-", "^libcuda1", "^cuda-drivers", "^linux-modules-nvidia-")
# Modules built for one kernel: kernel and modules stay together, or a reboot finds a kernel without modules
UPGRADES_BLACKLIST_KERNEL = ("^linux-image-", "^linux-headers-", "^linux-modules-")

NOUVEAU_PATH = "/etc/modprobe.d/aikit-fleet-nouveau.conf"
NOUVEAU_CONTENT = "# NVIDIA's own driver is in use; written by aikit.fleet.nvidia_driver\nblacklist nouveau\noptions nouveau modeset=0\n"
# What rebuilds the early file system, by the program that a host has
INITRAMFS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("/usr/sbin/update-initramfs", ("/usr/sbin/update-initramfs", "-u", "-k", "all")),
    ("/usr/bin/dracut", ("/usr/bin/dracut", "--force", "--regenerate-all")),
)
GRUBBY = ("grubby", "--args=nouveau.modeset=0 rd.driver.blacklist=nouveau", "--update-kernel=ALL")
GRUBBY_UNDO = ("grubby", "--remove-args=nouveau.modeset=0 rd.driver.blacklist=nouveau", "--update-kernel=ALL")

PERSISTENCE_SERVICE = "nvidia-persistenced.service"
PERSISTENCE_PATH = "/etc/systemd/system/nvidia-persistenced.service.d/aikit-fleet.conf"
PERSISTENCE_CONTENT = """\
# The module may come late at boot; written by aikit.fleet.nvidia_driver
[Unit]
After=systemd-modules-load.service
StartLimitIntervalSec=0

[Service]
Restart=on-failure
RestartSec=5
"""

# Programs of services that role nvidia_driver stops before it takes the module out, as /proc has their names: 15 letters
STOPPED_PROGRAMS = frozenset({"nvidia-persiste", "nv-fabricmanage"})

APT_SOURCE_PATH = "/etc/apt/sources.list.d/aikit-fleet-nvidia-driver.sources"
APT_KEY_PATH = "/usr/share/keyrings/aikit-fleet-nvidia-driver"
YUM_REPOSITORY_NAME = "aikit-fleet-nvidia-driver"
RPM_KEY_PATH = "/etc/pki/rpm-gpg/RPM-GPG-KEY-aikit-fleet-nvidia-driver"

# Not among the services' state files: a role of its own reads every *.json there
STATE_DIR = "/var/lib/aikit-fleet/host"
KEYRING_COPY = f"{STATE_DIR}/{KEYRING_FILE}"
KEYRING_FOLDER = f"{STATE_DIR}/keyring"
# Where no package manager reads it before it was checked
RPM_KEY_COPY = f"{STATE_DIR}/nvidia-driver-key"
STATE_PATH = "/var/lib/aikit-fleet/host/nvidia_driver.json"

# What gpu_info says of a driver that is loaded and of no use
BROKEN = frozenset(
    {"nvidia_smi_hung", "nvidia_smi_missing", "nvidia_smi_failed", "nvidia_smi_unreadable", "gpu_ignored_by_driver", "driver_mismatch", "driver_not_loaded"}
)

# A virtual GPU needs the driver of its hypervisor's maker: names of such GPUs and of that driver's packages
VGPU_NAME = r"(?i)\bGRID\b|-\d+[ABCQ]$|\bvGPU\b"
VGPU_PACKAGE = r"nvidia-(?:linux-)?(?:grid|vgpu)"

# Packages that belong to a driver, from any source
DRIVER_PACKAGE = (
    r"(?:libnvidia|nvidia|cuda-drivers|libcuda1$|libcudadebugger1$|libnvcuvid1$|libnvsdm|kmod-nvidia|linux-modules-nvidia"
    r"|firmware-nvidia-gsp|xserver-xorg-video-nvidia)"
)
NO_DRIVER_PACKAGE = (
    r"(?:lib)?nvidia-container|nvidia-(?:docker|cuda|cudnn|settings|gds|fs)|nvidia-driver-(?:assistant|pinning)"
)
# Parts with versions of their own, or of which an older one may stay beside the new: they tell nothing of half an upgrade
APART_PACKAGE = r"nvidia-(?:persistenced|modprobe|xconfig|imex|fabric-?manager|firmware)|libnvidia-nscq|libnvsdm|linux-modules-nvidia"
# Ends what dpkg was interrupted in; before that apt installs nothing
MEND = ("dpkg", "--configure", "-a")
