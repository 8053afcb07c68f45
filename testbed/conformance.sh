#!/usr/bin/env bash
# conformance.sh [DIR]: the suite on the emulator with each profile, and in Debian guests on veth pairs
# and on netdevsim; the matrix and the list of cases go to docs/conformance.md, the reports to DIR
# (target/conformance). Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-target/conformance}")
cargo build --workspace --bins
mkdir -p "$out"
# Guests first, as making their images needs the network. Without an image there is no column.
for column in veth netdevsim; do
    rm -f "$out/$column/conformance.json"
    allocate=()
    [[ $column == veth ]] || allocate=(--allocate 64 --allocate 220 --allocate 1000)
    target/debug/chanio-conform-guest "$column" --report "$out/$column" "${allocate[@]}" || true
done
# A namespace of its own, so that nobody is disturbed.
export out
exec unshare -n -m bash -euo pipefail -c '
mount --make-rprivate /
umount -l /sys && mount -t sysfs sysfs /sys
mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns
ip link set lo up
reports=()
for profile in generic mlx5-cx6dx intel-e810 intel-x710; do
    run=$(mktemp -d)
    target/debug/chanio-emu --queues 600 --workers 1 --uplink tap:wire0 --profile "$profile" \
        --run-dir "$run" > "$out/$profile.log" 2>&1 &
    emulator=$!
    until grep -q ^ready "$out/$profile.log"; do kill -0 "$emulator"; sleep 0.05; done
    target/debug/chanio conform --device "emu:$run" --seed 1 --report "$out/$profile" || true
    kill "$emulator"
    wait "$emulator" || true
    reports+=(--with "$out/$profile/conformance.json")
done
for column in veth netdevsim; do
    [[ ! -e $out/$column/conformance.json ]] || reports+=(--with "$out/$column/conformance.json")
done
target/debug/chanio conform "${reports[@]}" --report "$out" --markdown docs/conformance.md
'
