#!/usr/bin/env bash
# Installs the peers on Debian 12, builds, and compares chanio with them: benches/compare.sh --help.
# Needs root, two cpus and 3 GB of memory.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
    dpdk-dev iperf3 iproute2 librte-net-null23 librte-net-pcap23 librte-net-tap23
    librte-net-vhost23 librte-net-virtio23 openvswitch-switch-dpdk util-linux
    # For the guest and its image.
    busybox-static cpio dash ethtool lz4 qemu-system-x86 xz-utils
)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
    echo "compare: installing ${missing[*]}"
    apt-get update -q
    # The comparison starts its own Open vSwitch; the machine needs none.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}"
fi
cargo build --release --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/release/compare" "$@"
