# Every command of the project. Each does its own set-up; the slow parts are done once and kept by the tools' own caches.
NODES ?= 2

.PHONY: help demo test test-format test-lint test-unit test-charts test-conformance test-engines test-cluster test-long bench generate cluster-up cluster-down install tools
help: ## Show this list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: ## Bring up a real cluster, install Wharf, push an image, run a pod from it.
	@dev/demo

test: test-format test-lint test-unit test-charts test-conformance test-engines test-cluster ## Run every test.

test-format: ## Formatting of Rust and shell.
	cargo fmt --check
	dev/shell-lint

test-lint: ## Clippy, with warnings as errors.
	cargo clippy --quiet --all-targets -- -D warnings

test-unit: ## Unit tests, goldens, generated files, faults against the in-process API server.
	cargo test --quiet

test-charts: ## The charts: helm lint, kubeconform, deploy/ as rendered from them, the health check for Argo CD.
	dev/cluster/tools helm kubeconform kubernetes glua
	dev/charts/sync --check
	dev/charts/lint
	dev/charts/render --check
	cargo test --quiet --test argo_cd -- --ignored

test-conformance: ## The official conformance program against wharf serve.
	dev/test-conformance

test-engines: ## Real clients and CNCF distribution beside wharf serve.
	dev/test-engines

test-cluster: ## End to end on the real cluster.
	dev/test-cluster

test-long: test ## Every test, and the long versions of those that walk or look at each moment: many more seeds, moments and rounds.
	WHARF_TEST_LONG=1 cargo test --quiet --release --test convergence
	WHARF_TEST_LONG=1 cargo test --quiet --release --test conformance -- --ignored
	WHARF_TEST_LONG=1 cargo test --quiet --test serve
	WHARF_TEST_CHAOS_ROUNDS=100 dev/test-cluster chaos::

bench: ## Measure registry engines, pull-through and the node's endpoint on loopback, operator, agents and pods on the real cluster.
	@dev/bench

generate: ## Write crds/, the goldens, the charts' copies and deploy/ anew.
	cargo run --quiet -- crds --write-to crds
	WHARF_UPDATE_GOLDEN=1 cargo test --quiet --lib goldens
	dev/charts/sync
	dev/charts/render

cluster-up: ## Start the test cluster: make cluster-up NODES=3.
	@NODES=$(NODES) dev/cluster/up

cluster-down: ## Stop the test cluster and remove all of it.
	@dev/cluster/down

install: ## Install Wharf on the test cluster.
	@dev/install

tools: ## Build the programs of the test cluster.
	@dev/cluster/tools
