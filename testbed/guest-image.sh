#!/usr/bin/env bash
# guest-image.sh DIR [KIND]: a stock Debian kernel and a small root for test guests, as DIR/vmlinux
# and DIR/root.cpio. Downloads packages once; nothing is installed. KIND:
#   cloud      Debian's cloud kernel, the default
#   netdevsim  its kernel 6.12 for hardware, which has switchdev, with netdevsim, a module that Debian
#              does not build, out of Debian's sources as they are
set -euo pipefail
recipe_file=$(realpath "$0")
dir=$1
kind=${2:-cloud}
mkdir -p "$dir"
cd "$dir"
exec 9> lock
flock 9
# Another recipe makes another image.
recipe=$(sha256sum < "$recipe_file")
[[ -s vmlinux && -s root.cpio && $(cat recipe 2>/dev/null) == "$recipe" ]] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "guest-image: $*" >&2
    exit 1
}
unpack() { # packages, to $work/kernel
    mkdir -p "$work/packages"
    (cd "$work/packages" && apt-get download -q "$@" && for file in *.deb; do dpkg -x "$file" "$work/kernel"; done) \
        >/dev/null 2>&1 || fail "cannot download $*"
    rm -r "$work/packages"
}
needs() { # METAPACKAGE PREFIX: what of this prefix it depends on
    apt-cache depends "$1" | awk -v p="Depends: $2" 'index($0, p) { print $2; exit }'
}

case $kind in
    cloud) meta=linux-image-cloud-amd64 ;;
    netdevsim) meta=linux-image-6.12-amd64 ;;
    *) fail "no kind of guest is called $kind" ;;
esac
package=$(needs $meta linux-image-)
[[ $package ]] || fail "no $meta: run apt-get update"
unpack "$package"
version=$(ls "$work/kernel/lib/modules")

# The uncompressed kernel starts in a third of the time. Debian's cloud kernel is LZ4 inside, the
# other Zstandard.
python3 - "$work"/kernel/boot/vmlinuz-* "$work/vmlinux" <<'PY'
import sys
data = open(sys.argv[1], 'rb').read()
found = {name: data.find(magic) for name, magic in (('lz4', b'\x02\x21\x4c\x18'), ('zst', b'\x28\xb5\x2f\xfd'))}
found = {name: at for name, at in found.items() if at > 0}
if not found:
    sys.exit('guest-image: the kernel is compressed in an unknown way')
name = min(found, key=found.get)
open(sys.argv[2] + '.' + name, 'wb').write(data[found[name]:])
PY
# What follows the stream is neither, so both programs complain in the end.
if [[ -e $work/vmlinux.lz4 ]]; then
    lz4 -dcq "$work/vmlinux.lz4" > "$work/vmlinux" 2>/dev/null || true
else
    zstd -dcq "$work/vmlinux.zst" > "$work/vmlinux" 2>/dev/null || true
fi
[[ $(head -c 4 "$work/vmlinux" | tail -c 3) == ELF ]] || fail "no ELF kernel"

extra=()
if [[ $kind == netdevsim ]]; then
    headers=${package/image/headers}
    common=${headers%-amd64}-common
    unpack "$headers" "$common" "$(needs "$headers" linux-kbuild-)"
    (cd "$work" && apt-get download -q linux-source-6.12 >/dev/null 2>&1) || fail "cannot download linux-source-6.12"
    source=$(dpkg-deb -f "$work"/linux-source-6.12_*.deb Version)
    # Both are built from one source package, or the module is another kernel's.
    [[ $source == "$(apt-cache show "$package" | awk '/^Version:/ { print $2; exit }')" ]] ||
        fail "linux-source-6.12 is of version $source, $package is of another"
    dpkg --fsys-tarfile "$work"/linux-source-6.12_*.deb | tar -xO ./usr/src/linux-source-6.12.tar.xz |
        tar -xJ -C "$work" --strip-components=4 --one-top-level=netdevsim --wildcards '*/drivers/net/netdevsim/*'
    # The headers' Makefile names a place where nothing is installed.
    src=$work/kernel/usr/src
    sed -i "s#/usr/src/#$src/#" "$src/$headers/Makefile"
    make -s -C "$src/$headers" M="$work/netdevsim" CONFIG_NETDEVSIM=m CONFIG_DEBUG_INFO_BTF_MODULES= modules \
        > "$work/make.log" 2>&1 || { cat "$work/make.log" >&2; fail "netdevsim cannot be built"; }
    strip --strip-debug "$work/netdevsim/netdevsim.ko"
    install -D "$work/netdevsim/netdevsim.ko" "$work/kernel/lib/modules/$version/extra/netdevsim.ko"
    extra=(netdevsim)
fi

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
for program in ip tc bridge devlink ethtool nft iperf3 taskset; do add "$(PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v $program)"; done
# Beside each module a list: it and what it needs, in the order of loading.
depmod -b "$work/kernel" "$version"
modules=(
    failover net_failover virtio_net virtio_pci virtio_console
    tun veth bridge vxlan geneve ip_gre ip6_gre nft_fwd_netdev nft_dup_netdev nf_conntrack
    openvswitch
    sch_ingress sch_tbf cls_flower cls_matchall
    act_csum act_ct act_gact act_mirred act_mpls act_pedit act_police act_sample act_skbedit act_tunnel_key act_vlan
    "${extra[@]}"
)
for module in "${modules[@]}"; do
    modprobe -d "$work/kernel" -S "$version" --show-depends "$module" | awk '/^insmod/ { print $2 }' |
        while read -r file; do
            name=$(basename "${file%.xz}" | tr - _)
            case $file in
                *.xz) xz -dc "$file" > "$root/modules/$name" ;;
                *) cp "$file" "$root/modules/$name" ;;
            esac
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
