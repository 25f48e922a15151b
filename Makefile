# Every command that this repository needs. `make up ARGS=--detach` passes flags on to bingo.
# What a target lacks is installed with apt where root or sudo is at hand, else named (.ci/prepare).

ARGS ?=
BINGO = $(or $(CARGO_TARGET_DIR),target)/release/bingo

.PHONY: help up down test lint bench drill suites clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## builds and starts the whole installation; ARGS=--help lists its flags
	@.ci/prepare rust compiler postgres
	cargo build --release --locked -p bingo
	$(BINGO) up $(ARGS)

down: ## stops the installation; ARGS=--purge removes its data too
	@test -x $(BINGO) || { echo "error: find $(BINGO): not built" >&2; echo "help: make up, or cargo build --release --locked -p bingo" >&2; exit 64; }
	$(BINGO) down $(ARGS)

test: ## everything that must hold: format, lints, all tests
	@.ci/prepare rust lints compiler postgres pgbouncer
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --profile ci -- -D warnings
	@.ci/deny
	@.ci/tests

lint: ## format, lints, dependencies, tidiness; no PostgreSQL needed
	@.ci/prepare rust lints compiler
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --profile ci -- -D warnings
	cargo clippy --locked -p chassis -p bingo --features otel --all-targets --profile ci -- -D warnings
	@.ci/deny
	cargo test --locked --profile ci -p bingo --test tidy

bench: ## the gateway beside nginx and HAProxy, prepare_db and the lists beside psql, misbehaving children, a broken node; a quarter of an hour
	@.ci/prepare rust compiler postgres bench
	cargo build --profile dist --locked -p bingo
	cargo build --profile dist --locked -p gateway --example http3_load
	bench/gateway --bingo $(or $(CARGO_TARGET_DIR),target)/dist/bingo
	bench/database --bingo $(or $(CARGO_TARGET_DIR),target)/dist/bingo
	bench/supervisor --bingo $(or $(CARGO_TARGET_DIR),target)/dist/bingo --peers bingo
	bench/faults --bingo $(or $(CARGO_TARGET_DIR),target)/dist/bingo

drill: ## every fault of the table, 10 000 requests each; half an hour; ARGS=--short for a taste
	@.ci/prepare rust compiler postgres
	@.ci/drills $(ARGS)

suites: ## checks from outside against a running installation, ARGS='--only http2' for some; ten minutes
	@.ci/prepare rust compiler postgres suites
	@.ci/suites $(ARGS)

clean: ## removes what was built; an installation is kept
	cargo clean
	@if [ -e .bingo ]; then echo "kept: .bingo, an installation and its data (before the next clean: make down ARGS=--purge)"; fi
