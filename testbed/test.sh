#!/usr/bin/env bash
# Installs what is missing and runs every test: unit, property, end to end, and each fuzz target
# for FUZZ_SECONDS (60). End-to-end tests make network namespaces, netdevs and hugepages: they
# need root, and outside CI say so and skip without it.
set -euo pipefail
cd "$(dirname "$0")/.."

testbed/setup.sh
cargo build --workspace --bins
cargo test --workspace --doc --quiet
for target in descriptor_walk packet_parser action_executor flow_rule netlink_parse; do
    # A stable compiler runs cargo-fuzz when told to take unstable flags.
    RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir fuzz "$target" -- \
        -max_total_time="${FUZZ_SECONDS:-60}" -max_len=4096 -print_final_stats=1 2>&1 |
        tee "target/fuzz-$target.log" | grep -E '^(Done|stat::number_of_executed|ERROR|SUMMARY)|panicked' || true
    grep -q '^Done ' "target/fuzz-$target.log" ||
        { tail -50 "target/fuzz-$target.log"; echo "fuzz target $target failed"; exit 1; }
done
cargo nextest run --workspace --no-fail-fast
