# Fluxline. `make` prints this help; every target installs what it needs and says what it installs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
DEMO_LISTEN ?= 127.0.0.1:8080
DEMO_STORE ?= demo-store
BINARY := target/release/fluxline
export FLUXLINE_PYTHON ?= $(CURDIR)/.venv/bin/python
export PATH := $(CURDIR)/.toolchain/bin:$(PATH)

.PHONY: help demo test lint bench bench-consumers soak doc build page describe test-rust test-web test-browser image deb test-image test-rdma system image-tools python prometheus dials node clean

help: ## print this help
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## the appliance with a simulated detector and a page to look at (DEMO_SECONDS=20 ends by itself)
	@exec $(BINARY) demo --listen $(DEMO_LISTEN) --store $(DEMO_STORE) $${DEMO_SECONDS:+--seconds $$DEMO_SECONDS}

test: python build test-rust test-web test-browser ## every test: Rust, end to end, independent programs, the page in a browser

test-rust: python prometheus build ## unit, property and end-to-end tests against the built binary
	FLUXLINE_BINARY=$(CURDIR)/$(BINARY) XDG_CACHE_HOME=$(CURDIR)/target/cache $(CARGO) test --release --locked --workspace --exclude fluxline-benches

test-web: page ## unit tests and type check of the page
	cd pipeline/web && npm run --silent check && npm test --silent

test-browser: build ## the page in a real browser, on a live demo
	@tools/test-browser $(BINARY)

lint: build ## formatting, clippy, licences, style
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	@tools/deny
	$(CARGO) test --release --locked --workspace --exclude fluxline-benches --test style

image: image-tools build ## the appliance as a disk that boots, into appliance-image/out (needs root; FRESH=1 makes all of it anew)
	@appliance-image/build

deb: image-tools build ## the Debian package, into appliance-image/out/fluxline.deb
	@appliance-image/build deb

test-image: image python ## the image in an emulated machine: boot, kernel parameters, NUMA, exports, update and rollback
	@appliance-image/test/test-image

test-rdma: image python ## RDMA with true verbs in the image: scans, faults, rate, two machines (25 minutes on 2 cores)
	@appliance-image/test/test-rdma

bench: python build ## Fluxline beside its peers on this machine, as benches/README.md explains (BENCH="--rounds 5 --large")
	$(CARGO) build --release --locked -p fluxline-benches
	FLUXLINE_BINARY=$(CURDIR)/$(BINARY) $(FLUXLINE_PYTHON) benches/peers.py $(BENCH)

bench-consumers: python build ## age of results and decisions as a program outside sees them, alone and beside a hundred others
	FLUXLINE_BINARY=$(CURDIR)/$(BINARY) .venv-clients/bin/python benches/consumers.py $(BENCH)

soak: python build ## fuzzing, aborted series and property tests at length; SOAK=fuzz,abort,property,keep,kill,store,volume,lost,paths,schema,page,rdma chooses, FUZZ=100000000 executions
	@FLUXLINE_BINARY=$(CURDIR)/$(BINARY) tools/soak $(or $(SOAK),fuzz,abort,property)

doc: system ## API documentation, and the files that are generated from the code
	$(CARGO) doc --release --locked --workspace --no-deps
	@$(MAKE) --no-print-directory describe

describe: build ## regenerate openapi.json, docs/configuration.md and docs/metrics.md
	$(BINARY) describe openapi > openapi.json
	$(BINARY) describe configuration > docs/configuration.md
	$(BINARY) describe metrics > docs/metrics.md

build: system page ## the fluxline program, with its page
	$(CARGO) build --release --locked -p pipeline

page: node ## the page, into pipeline/web/dist
	@tools/build-page

system: ## Debian packages that building and running need
	@tools/install-system

image-tools: ## Debian packages that building and booting the image need
	@tools/install-image-tools

python: system ## the Python environment of the independent checks, pinned, in .venv
	@tools/install-python

prometheus: system ## Debian's Prometheus for tests of the alert rules, unpacked into .toolchain
	@tools/install-prometheus

dials: system ## Debian's DIALS for comparing spot finding, unpacked into .toolchain (1.4 GB)
	@tools/install-dials

node: system ## Node.js and npm for building the page, in .toolchain
	@tools/install-node

clean: ## remove everything that was built or installed in this folder
	rm -rf target .venv .venv-tickit .venv-clients .venv-schema .toolchain pipeline/web/dist pipeline/web/node_modules tests/browser/node_modules demo-store
