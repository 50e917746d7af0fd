# `make` lists the targets. The work is done by tests/tools/run.sh.
.PHONY: help test lab coverage demo bench bench-paths deb lint format

help: ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' Makefile

test: ## run every test (root; installs what it needs; PYTEST='-k mtu' passes arguments to pytest)
	@tests/tools/run.sh test $(PYTEST)

lab: ## run those in booted systems alone (root; LAB_SUITE='bookworm trixie' chooses)
	@tests/tools/run.sh lab $(PYTEST)

coverage: ## say which lines no test runs (but those that need booted systems, or measure time)
	@tests/tools/run.sh coverage $(PYTEST)

demo: ## show the tunnel at work over two links, for half a minute (root; SVG=file keeps a picture)
	@tests/tools/run.sh demo $(if $(SVG),--svg $(SVG))

bench: ## measure against other tunnels on this machine (root; BENCH='--rounds 5 --only wireguard' passes arguments)
	@tests/tools/run.sh bench $(BENCH)

bench-paths: ## measure several emulated links together (root; BENCH='--only cut --who ours,0.3.4' passes arguments)
	@tests/tools/run.sh bench-paths $(BENCH)

deb: ## build the Debian package, into dist/ (root; SUITE='bookworm trixie', else as this host)
	@tests/tools/run.sh deb $(SUITE)

lint: ## run the linters alone
	@tests/tools/run.sh lint

format: ## bring the code into its standard form
	@tests/tools/run.sh format
