# Cloister: "make demo" shows it, "make test" proves it. "make help" lists the rest.
SHELL := /bin/sh
GO ?= go
# The toolchain that go.mod names has the fixes that the newest one of its series has; take it even
# where the environment pins an older local one.
export GOTOOLCHAIN := auto
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
CACHE := .cache
CLIENTS := $(CACHE)/clients
BOTOCORE := $(CACHE)/botocore
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
# Packages whose code runs in several goroutines at once.
RACED := ./internal/socket ./internal/channel ./placement ./invoke ./worker ./gateway/... ./iam/... ./store/... ./control ./logs ./runtimeapi

.DEFAULT_GOAL := help
.PHONY: help build demo test lint vulnerabilities signatures bench botocore generate drift record-emulator dependencies clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/cloister
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/cloister ./cmd/cloister
	@chmod 755 bin/cloister # the front executes it as another user, whatever the umask here

demo: build dependencies $(CLIENTS)/ready ## Deploy and invoke real functions with the aws CLI, then clean up (root)
	$(GO) run ./test/demo -binary bin/cloister -aws $(CLIENTS)/bin/aws

test: lint dependencies $(CLIENTS)/ready botocore ## Every check and every test (root)
	$(GO) test -race $(RACED)
	$(GO) test -race -run 'Grant|SameTime|AtOnce|Concurrent|Looks' ./artifact
	CLOISTER_CLIENTS=$(CURDIR)/$(CLIENTS) CLOISTER_BOTOCORE=$(CURDIR)/$(BOTOCORE) $(GO) test -timeout 25m ./...

lint: ## gofmt, vet, staticcheck
	@files=$$(gofmt -l .) && test -z "$$files" || { echo "gofmt these files: $$files"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

vulnerabilities: ## govulncheck; needs its database (VULNERABILITIES=file:///... for a local copy)
	$(GO) run $(GOVULNCHECK) $(if $(VULNERABILITIES),-db $(VULNERABILITIES)) ./...

signatures: ## The newest copy of AWS's suite of signed requests (needs cargo)
	$(GO) test -count 1 -run Suite -v ./iam/sigv4 -suite crate

bench: build dependencies ## Measure against the floor and rewrite the tables of docs/BENCHMARKS.md (root)
	$(GO) run ./test/bench -binary bin/cloister -write docs/BENCHMARKS.md

botocore: $(BOTOCORE)/ready ## Download the pinned source of botocore: AWS's models and test cases

generate: botocore ## Regenerate the wire shapes from the pinned botocore models
	$(GO) generate ./api/...

drift: botocore ## Say what AWS's newest models change (MODELS=version for another botocore)
	@rm -rf $(CACHE)/newer
	@$(CLIENTS)/bin/pip download --quiet --disable-pip-version-check --no-deps --no-binary botocore --dest $(CACHE)/newer "botocore$(if $(MODELS),==$(MODELS))"
	$(GO) run ./api/internal/generate -drift $(CACHE)/newer/botocore-*.tar.gz

record-emulator: ## Record the runtime interface emulator's answers (EMULATOR=path to its binary)
	@test -n "$(EMULATOR)" || { echo "name the emulator: make record-emulator EMULATOR=/path/to/aws-lambda-rie COMMIT=its-commit"; exit 2; }
	$(GO) run ./runtimeapi/record -emulator "$(EMULATOR)" -commit "$(COMMIT)" -out runtimeapi/testdata/emulator.json

dependencies: ## Install the Debian packages that demo, test and bench need
	@./test/dependencies.sh

$(CLIENTS)/ready: test/requirements.txt | dependencies
	@echo "installing the pinned AWS clients into $(CLIENTS)"
	@rm -rf $(CLIENTS) && mkdir -p $(CACHE) && /usr/bin/python3 -m venv $(CLIENTS)
	@$(CLIENTS)/bin/pip install --quiet --disable-pip-version-check -r test/requirements.txt
	@touch $@

$(BOTOCORE)/ready: api/internal/botocore/pin.txt $(CLIENTS)/ready
	@echo "downloading the pinned source of botocore into $(BOTOCORE)"
	@rm -rf $(BOTOCORE) && $(CLIENTS)/bin/pip download --quiet --disable-pip-version-check --no-deps --no-binary botocore --dest $(BOTOCORE) -r $<
	@touch $@

clean: ## Remove what was built and installed here
	rm -rf bin $(CACHE)
