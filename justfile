# The chores of this repository. `just` alone lists them; scripts/setup.sh brings all tools that they use, just included
# (.tools/bin/just, if there is no other).

set shell := ["bash", "-euo", "pipefail", "-c"]
export PATH := justfile_directory() / ".tools/bin" + ":" + env("PATH")

# What there is.
_default:
    @just --list --unsorted

# Install what building, testing and checking need, if it is missing.
setup:
    scripts/setup.sh

# The whole gate but for the tests: format, lints, spelling, dependencies, tidiness.
check: _fmt-check _clippy _typos _deny _tidy

# Run all tests with reduced counts: what CI runs.
test: _doctest
    cargo nextest run --workspace
    cargo test --quiet --package jobservice-redis --test cluster

# Run all tests with full counts. Takes long.
soak: _doctest
    JOBSERVICE_SOAK=1 cargo nextest run --workspace --profile soak
    JOBSERVICE_SOAK=1 cargo test --quiet --package jobservice-redis --test cluster

# Measure, beside the physical limit in the same run.
bench *args:
    cargo run --release --package jobservice-bench -- {{ args }}

# Show the service at work.
demo:
    scripts/demo.sh

# Three nodes, a Redis and a balancer on loopback, until Ctrl-C.
cluster:
    examples/cluster/run.sh

# Write anew which functions a service runs first (crates/server/link/order.ld). Needs valgrind.
order:
    scripts/order.sh

# Write the documents that come from the code.
docs:
    cargo run --quiet --package xtask -- docs

# Format the code.
fmt:
    cargo fmt --all

# Check the dependencies against known vulnerabilities. Fetches the advisory database, which not every machine can.
advisories:
    cargo deny --locked check advisories

_fmt-check:
    cargo fmt --all --check

# Locked: a Cargo.lock that does not fit the manifests fails here.
_clippy:
    cargo clippy --locked --workspace --all-targets -- -D warnings

_typos:
    typos

# The gate fetches no database: it uses a clone that `just advisories` has left, and says so when there is none.
_deny:
    cargo deny --locked check --hide-inclusion-graph licenses bans sources
    @if compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/.git" >/dev/null; then \
        cargo deny --locked --offline check advisories; \
    else \
        echo "advisories: NOT CHECKED, this machine has no clone of the database (just advisories fetches it)"; \
    fi

_tidy:
    scripts/tidy.sh

# Before the tests proper: what fails quickly comes first.
_doctest:
    cargo test --quiet --workspace --doc
