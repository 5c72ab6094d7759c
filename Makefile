# Everything anyone needs. Each target installs what is missing first, says so, and works when run again.
# Variables: PG_MAJOR (15 to 18), PG_CREDITS_RUN_DIR (where private servers live), and those named below.

.DEFAULT_GOAL := help
.PHONY: help demo stop test bench install lint
.NOTPARALLEL:

help:
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' Makefile | expand -t 16

demo: ## a private server with the extension, and the guide run in it (TRACE="a.csv b.csv" also charges traces of model calls)
	@scripts/prerequisites.sh
	@scripts/build_private.sh
	@scripts/demo.sh

stop: ## stop the demo's server
	@scripts/demo.sh stop

test: ## all tests (FILTER=name for some of them)
	@scripts/prerequisites.sh
	@scripts/build_private.sh
	@scripts/test.sh

bench: ## speed: ratios to the floor and to TPC-B
	@scripts/prerequisites.sh
	@scripts/build_private.sh
	@scripts/bench.sh

install: ## install into this system's PostgreSQL (PG_CONFIG=path for a certain one)
	@scripts/install.sh

lint: ## cargo fmt and clippy
	@scripts/prerequisites.sh
	@scripts/lint.sh
