# Everything that is done more than once. make prints what there is.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
GO ?= go

.PHONY: help
help: ## Print the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: ## Install the test servers, then run every test against them
	script/servers install
	VALKEYRIE_TEST_REQUIRE=all CGO_ENABLED=1 $(GO) test -race -shuffle=on -parallel 8 -timeout 20m ./...

.PHONY: soak
soak: ## Run everything at once against each backend, with faults, for 10 minutes
	script/servers install
	@export VALKEYRIE_TEST_REQUIRE=all VALKEYRIE_SOAK_SECONDS=$${VALKEYRIE_SOAK_SECONDS:-600} CGO_ENABLED=1; \
	$(GO) test -race -v -count=1 -p 1 -timeout $$((VALKEYRIE_SOAK_SECONDS + 900))s -run='^TestSoak$$' ./store/...

.PHONY: fuzz
fuzz: ## Run every fuzz target, each for VALKEYRIE_FUZZ_TIME (30s)
	@grep -roE --include='*_test.go' '^func Fuzz\w+' . | sed -E 's|^(.*)/[^/]*:func (.*)|\1 \2|' | sort | while read -r pkg name; do \
		echo "== $$pkg $$name"; \
		$(GO) test -run='^$$' -fuzz="^$$name\$$" -fuzztime="$${VALKEYRIE_FUZZ_TIME:-30s}" -fuzzminimizetime=1s "$$pkg"; \
	done

.PHONY: vuln
vuln: ## Look for known vulnerabilities in what is compiled; needs the network
	$(GO) tool -modfile=script/tools/govulncheck/go.mod govulncheck ./...

.PHONY: quick
quick: ## Run the tests that need no server; skips the others
	$(GO) test -short ./...

.PHONY: lint
lint: ## Run vet, gofmt, staticcheck and the check that go.mod is tidy
	$(GO) vet ./...
	@files=$$(gofmt -l .); if [[ -n $$files ]]; then echo "not formatted; run gofmt -w on:"; echo "$$files"; exit 1; fi
	$(GO) tool -modfile=script/tools/staticcheck/go.mod staticcheck ./...
	@for mod in go.mod script/tools/*/go.mod; do \
		$(GO) -C "$$(dirname $$mod)" mod tidy -diff || { echo "$$mod is not tidy: run go mod tidy there"; exit 1; }; \
	done

.PHONY: cover
cover: ## Run the tests that need no server and print what they cover
	$(GO) test -short -coverpkg=./... -coverprofile=cover.prof ./...
	$(GO) tool cover -func=cover.prof | tail -1

.PHONY: bench
bench: ## Run the benchmarks and print each figure against the native client's
	script/servers install
	$(GO) test -run='^$$' -bench=. -timeout 60m ./store/... | tee bench.txt | $(GO) run ./internal/benchratio

.PHONY: redisbench
redisbench: ## Compare the Redis backend with redigo, rueidis and go-redis on one server
	script/servers install redis
	$(GO) -C script/tools/redisbench run . -server "$$(script/servers list | awk '$$1 == "redis" { print $$2 }')"
