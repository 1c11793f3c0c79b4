# The same names as the steps of .ci/run: green here means green there.

# List the recipes
default:
    @just --list

# All that CI does, in its order
ci:
    .ci/run

# Does it compile?
check:
    cargo check --workspace --all-targets --all-features

# All tests and doctests: the README's second command
test:
    cargo test --all-features

# The interleavings of the queue, the poison and the close: just interleavings x20
interleavings rounds="x1":
    TASKLEDGER_ROUNDS={{rounds}} RUSTFLAGS="--cfg shuttle" cargo test --lib --target-dir target/shuttle sync::tests

# A line under stress, 50 million operations at each number of workers
line:
    TASKLEDGER_ROUNDS=x50 cargo test --release --test it lined

# The crash lab: just lab --minutes 60 --seed 7 (adds to tests/lab/tally.json)
lab *args:
    cargo run -p taskledger-lab -- run {{args}}

# Mutation testing of what decides: just mutants 3/10 (one of ten parts; cargo install cargo-mutants)
mutants shard="0/1":
    cargo mutants --package taskledger --shard {{shard}} --sharding round-robin --output target

# Formatting and lints
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# The documentation, warnings denied
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --package taskledger --no-deps --all-features

# Each feature alone: Cargo unifies features, so none may lean on another
features:
    cargo check --package taskledger
    cargo check --package taskledger --features cli
    cargo check --package taskledger --features internals
    cargo check --package taskledger --features json
    cargo check --package taskledger --features metrics

# Licences, sources, bans; advisories need the network
deny:
    cargo deny check

# What it costs on this disk (never beside other work): just bench --rounds 7
bench *args:
    cargo build --release --features cli --bin taskledger
    cargo run --release -p taskledger-benches -- {{args}}

# A small ledger of the present format, for tests/fixtures: once for every release
fixture dir:
    cargo run --release --example quickstart -- {{dir}}
    rm {{dir}}/ballast
