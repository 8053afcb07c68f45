#!/usr/bin/env bash
# Installs what the tests need on Debian 12: real peers from apt, cargo's helpers from crates.io.
# Does nothing the second time.
set -euo pipefail

packages=(
    binutils busybox-static chromium clang cpio dash dpdk-dev ethtool gcc-12 iperf3 iproute2 iputils-ping
    kmod librte-net-vhost23 librte-net-virtio23 lz4 make nftables openvswitch-switch python3-scapy qemu-system-x86
    tcpdump tshark xz-utils zstd
)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
    root=()
    ((EUID == 0)) || root=(sudo)
    echo "setup: installing ${missing[*]}"
    "${root[@]}" apt-get update -q
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

for tool in cargo-nextest cargo-fuzz cargo-deny; do
    command -v "$tool" >/dev/null || {
        echo "setup: installing $tool"
        cargo install --locked "$tool"
    }
done
echo "setup: everything is there"
