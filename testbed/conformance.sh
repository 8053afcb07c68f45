#!/usr/bin/env bash
# conformance.sh [DIR]: the suite on the emulator with each profile, by its own API and as the
# driver layer finds a NIC whose kernel it plays, and in Debian guests on veth pairs and on netdevsim;
# the matrix and the list of cases go to docs/conformance.md, the reports to DIR
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
# suite TITLE EMULATOR-OPTIONS CONFORM-OPTIONS; RUN in the latter is the run directory.
suite() {
    local run
    run=$(mktemp -d)
    target/debug/chanio-emu --queues 600 --workers 1 --uplink tap:wire0 $2 --run-dir "$run" \
        > "$out/$1.log" 2>&1 &
    local emulator=$!
    until grep -q ^ready "$out/$1.log"; do kill -0 "$emulator"; sleep 0.05; done
    target/debug/chanio conform ${3//RUN/$run} --title "$1" --seed 1 --report "$out/$1" || true
    kill "$emulator"
    wait "$emulator" || true
    reports+=(--with "$out/$1/conformance.json")
}
profiles="generic mlx5-cx6dx intel-e810 intel-x710"
for profile in $profiles; do
    suite "$profile" "--profile $profile" "--device emu:RUN"
done
for profile in $profiles; do
    suite "pci-$profile" "--profile $profile --netlink" \
        "--device pci/0000:03:00.0 --via RUN --wire wire0"
done
for column in veth netdevsim; do
    [[ ! -e $out/$column/conformance.json ]] || reports+=(--with "$out/$column/conformance.json")
done
target/debug/chanio conform "${reports[@]}" --report "$out" --markdown docs/conformance.md
'
