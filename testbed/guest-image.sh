#!/usr/bin/env bash
# guest-image.sh DIR: a stock Debian kernel and a small root for test guests, as DIR/vmlinux and
# DIR/root.cpio. Downloads the kernel package once; nothing is installed.
set -euo pipefail
recipe_file=$(realpath "$0")
dir=$1
mkdir -p "$dir"
cd "$dir"
exec 9> lock
flock 9
# Another recipe makes another image.
recipe=$(sha256sum < "$recipe_file")
[[ -s vmlinux && -s root.cpio && $(cat recipe 2>/dev/null) == "$recipe" ]] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-[0-9]/ { print $2; exit }')
[[ $package ]] || { echo "guest-image: no linux-image-cloud-amd64: run apt-get update" >&2; exit 1; }
(cd "$work" && apt-get download -q "$package" && dpkg -x ./*.deb kernel) >/dev/null 2>&1 ||
    { echo "guest-image: cannot download $package" >&2; exit 1; }

# The uncompressed kernel starts in a third of the time. Debian's cloud kernel is LZ4 inside.
python3 - "$work"/kernel/boot/vmlinuz-* "$work/vmlinux.lz4" <<'PY'
import sys
data = open(sys.argv[1], 'rb').read()
at = data.find(b'\x02\x21\x4c\x18')
sys.exit('guest-image: no LZ4 stream in the kernel') if at < 0 else open(sys.argv[2], 'wb').write(data[at:])
PY
lz4 -dcq "$work/vmlinux.lz4" > "$work/vmlinux" 2>/dev/null || true   # what follows the stream is not LZ4
[[ $(head -c 4 "$work/vmlinux" | tail -c 3) == ELF ]] || { echo "guest-image: no ELF kernel" >&2; exit 1; }

root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,run,tmp,modules,lib64}
add() { # a program with its libraries
    cp -L "$1" "$root/bin/"
    ldd "$1" 2>/dev/null | awk '/\// { for (i = 1; i <= NF; i++) if ($i ~ /^\//) print $i }' |
        while read -r lib; do mkdir -p "$root$(dirname "$lib")"; cp -Ln "$lib" "$root$lib"; done
}
cp /bin/busybox "$root/bin/"
for applet in mount insmod cat echo sleep ping poweroff grep head ls wc awk seq true; do
    ln -s busybox "$root/bin/$applet"
done
add /bin/dash
ln -s dash "$root/bin/sh"
for program in ip tc ethtool iperf3 taskset; do add "$(PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v $program)"; done
# Beside each module a list: it and what it needs, in the order of loading.
version=$(ls "$work/kernel/lib/modules")
depmod -b "$work/kernel" "$version"
modules=(
    failover net_failover virtio_net virtio_pci virtio_console
    tun veth bridge vxlan geneve ip_gre ip6_gre nft_fwd_netdev nf_conntrack
    sch_ingress sch_tbf cls_flower cls_matchall
    act_csum act_ct act_gact act_mirred act_mpls act_pedit act_police act_sample act_skbedit act_tunnel_key act_vlan
)
for module in "${modules[@]}"; do
    modprobe -d "$work/kernel" -S "$version" --show-depends "$module" | awk '/^insmod/ { print $2 }' |
        while read -r file; do
            name=$(basename "$file" | tr - _)
            cp -n "$file" "$root/modules/$name"
            echo "${name%.ko}"
        done > "$root/modules/$module.order"
done
cat > "$root/bin/load" <<'LOAD'
#!/bin/sh
# load MODULE...: with what they need
set -e
for module; do
    while read -r name; do [ -d /sys/module/$name ] || insmod /modules/$name.ko; done < /modules/$module.order
done
LOAD
chmod +x "$root/bin/load"
cat > "$root/init" <<'INIT'
#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
load virtio_pci virtio_net
ip link set lo up
for c in all default; do echo 1 > /proc/sys/net/ipv6/conf/$c/disable_ipv6; done
echo "guest: up"
sh -e /script && echo "guest: done" || echo "guest: failed"
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet) > root.cpio.new
mv "$work/vmlinux" vmlinux
mv root.cpio.new root.cpio
echo "$recipe" > recipe
