# The two commands that matter: `make demo` and `make test`. Both do all their own set-up.

# Everything that is built or fetched goes to a cache outside the checkout, so that a new clone
# finds it. HOME may be unset where this runs without a login.
HOME ?= $(shell getent passwd "$$(id -u)" | cut -d: -f6)
export HOME
ORDERS_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/orders-operator
export ORDERS_CACHE
export CARGO_TARGET_DIR ?= $(ORDERS_CACHE)/target
# Tests wait for servers most of the time, so more of them run at once than there are processors.
export RUST_TEST_THREADS ?= $(shell expr 6 '*' "$$(nproc)")

# Of the bed's node, see dev/README.md.
export NODE_FAMILIES ?= $(FAMILIES)

BED := dev/bed

.PHONY: help demo test test-installs test-node test-release test-upgrade test-planes test-chaos test-kubernetes check lints docs book dependencies alerts workflows suite soak mutants chaos-events attack bench-api bench-start bench-events bench-import bench-statements bench-controller bench-twin bench-sweeper screenshots generate image release down clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 18

demo: ## Run the whole story on a real one-node cluster, and leave it up to look around; CHAOS=1 kills pods half way; FAMILIES=ipv6 or dual; CLUSTER=current plays it on yours, see README
	@dev/demo $(if $(CHAOS),--chaos) $(if $(CLUSTER),--cluster $(CLUSTER))

test: ## Run the tests, against a real API server and database; `check` has the lints, and `.ci/run` runs those of test-NAME too
	@$(call prepare,api spare-api mongo spare nats stan planes)
	$(BED) exec -- dev/locked cargo test --locked --quiet

# A command of cargo's that tells how far it is: what it makes, about how many seconds that takes from nothing, its words.
cargo = echo "cargo $(3)" && dev/locked $(BED) cargo "compiling $(1)" $(2) -- cargo $(3)

# Brings up parts of the test bed while the tests are compiled.
prepare = $(BED) up $(1) & servers=$$!; $(compile); compiled=$$?; wait $$servers && exit $$compiled
compile = $(call cargo,the tests,240,test --locked --no-run)

# One after the other, since the operator's CRD and cluster roles can be there once.
test-installs: ## Install the operator by the commands of the pages, from a release's folder and with the examples, and upgrade it, on an API server of its own
	@$(call prepare,install-api mongo planes)
	$(BED) exec -- dev/locked cargo test --locked --quiet --test it -- --include-ignored installs::

# One after the other: each has pods that start and requests that must not fail, on two processors.
test-node: ## Run the tests that need pods which run, on the node of the demo's cluster: waiting for changes, changes under load, docs/migration.md; FAMILIES=ipv4, ipv6 or dual
	@$(compile)
	dev/on-node dev/locked cargo test --locked --quiet --test it -- --include-ignored --test-threads=1 node::

# With the program of the demo's image, which is compiled already; a real release has the same files.
test-release: ## Make a release of this checkout for this machine, and install from its folder alone on the node, in each way that it is for
	OUT="$(ORDERS_CACHE)/release" ARCHS="$$(dpkg --print-architecture)" PROFILE=demo dev/release
	dev/try-release --afresh "$(ORDERS_CACHE)/release"

# The former version is compiled of its commit the first time, and kept in the cache.
test-upgrade: ## Upgrade from the version before this one on the node, go back, and upgrade again, by the commands of docs/installing.md, under load
	dev/try-upgrade --afresh

# The parts that only they need take minutes to build.
test-planes: ## Ask the data planes for which `make test` has no time: Contour with Envoy, Traefik's provider for ingress-nginx, HAProxy, Caddy, and models of others
	@$(call prepare,api planes more-planes)
	$(BED) exec -- dev/locked cargo test --locked --quiet --test it -- --include-ignored planes::

test-chaos: ## Run the tests that disturb everything at random for a minute each: pods killed, frozen and replaced, clocks wrong, broker and database killed
	@$(call prepare,api mongo spare nats stan)
	$(BED) exec -- dev/locked cargo test --locked --quiet --test it -- --include-ignored chaos::

# What else they need is the test bed's: the data planes, the databases and the broker.
test-kubernetes: ## Run the tests that are about the API server on other versions of Kubernetes, each built of its own sources; VERSIONS="1.30 1.35"
	@$(call prepare,mongo spare nats stan planes)
	dev/test-kubernetes $(VERSIONS)

check: lints docs book dependencies workflows alerts kubeconform ## Check format, lints, docs, the book, licences, duplicate dependencies, alerts, workflows, manifests and (ADVISORIES=fetch) advisories, without any server

lints:
	cargo fmt --check
	@$(call cargo,what the lints need,120,clippy --locked --all-targets --features bench -- -D warnings)

docs:
	@export RUSTDOCFLAGS="-D warnings"; $(call cargo,the docs,30,doc --locked --no-deps --lib)

book: ## Build the book, docs/ as a site with search, into the cache; a dead link, or a reference that is not current, is an error
	@dev/book check && dev/book build

# cargo-deny is built for it where it is not in the cache.
dependencies:
	@deny="$$($(BED) tool cargo-deny)" && echo "cargo deny check licenses bans sources" && \
	  "$$deny" --locked --log-level error check --hide-inclusion-graph licenses bans sources
	@dev/advisories

workflows: ## Check .github/workflows by actionlint
	@actionlint="$$($(BED) tool actionlint)" && "$$actionlint" -no-color .github/workflows/*.yml

# promtool, and the bed's helm, are built for it where they are not in the cache.
alerts:
	@echo "promtool check rules; promtool test rules" && dev/alerts

kubeconform: ## Check what people apply by the schemas of Kubernetes 1.30 to 1.37; the first time it fetches them, 350 MB
	@dev/kubeconform

soak: ## Try every property of the tests with new cases; SOAK_CASES=1000000 SOAK_MINUTES=10 each, SOAK_SEED=, SOAK_ONLY=
	@dev/locked dev/soak

mutants: ## Change the pure code in small ways, one at a time, and list what the unit tests do not notice; MUTANTS_ONLY=
	@dev/mutants

# Under the lock of the tests: they and it would spoil each other's figures.
bench = $(BED) up mongo && $(BED) exec -- dev/locked \
  sh -c 'cargo build --release --locked --features bench && exec "$$CARGO_TARGET_DIR/release/load" $(1)'

bench-api: ## Measure the API beside the database alone; SECONDS=4 ROUNDS=5 CONNECTIONS=32 ORDERS=0,10000,100000
	@$(call bench,api)

bench-start: ## Measure how long serve takes from its execution to its first 200; ROUNDS=20 BINARY=
	@$(BED) up mongo && $(BED) exec -- dev/locked \
	  sh -c '$(if $(BINARY),,cargo build --release --locked &&) exec dev/bench-start'

attack: ## Attack the API's memory and connections in 128 MiB, and measure what other clients notice; as root; SECONDS=120
	@$(call bench,attack)

bench-events: ## Measure events beside the bare client, the bare driver and Node.js; PARTS=post,lag,drain,consume,away,handover,idle SECONDS=10 RATES=100,1000 PENDING=100000 AWAY_SECONDS=300
	@$(BED) up nats && $(call bench,events)

bench-import: ## Measure an import, and the list of a user with 100,000 orders; TICKETS=1000000
	@$(call bench,import)

bench-statements: ## Compare ways to ask for orders with their tickets; SECONDS, ROUNDS and CONNECTIONS as above
	@$(call bench,statements)

bench-controller: ## Measure the controller; CLUSTER=bare-api|api|kwok COUNT=1000 CREATE_RATE=12 CHANGE_RATE=40,141 DELETE_RATE=2 REPLICAS=0
	@$(BED) up $(or $(CLUSTER),bare-api) && $(BED) exec -- dev/locked \
	  sh -c 'cargo build --release --locked && exec dev/bench-controller'

bench-twin: ## Measure the controller's twin in Go in the same way; CLUSTER, COUNT, CREATE_RATE and the others as above
	@$(BED) up $(or $(CLUSTER),bare-api) && cd benches/twin && GOTOOLCHAIN=local go build -o "$(ORDERS_CACHE)/bench/twin" . && cd ../.. && \
	  BINARY="$(ORDERS_CACHE)/bench/twin" PHASES="$(or $(PHASES),quiet,change,delete)" $(BED) exec -- dev/bench-controller

bench-sweeper: ## Measure the sweeper beside BullMQ and Agenda; PARTS=lateness,backlog,comparison,idle RATES=100,1000 SECONDS=15 BACKLOG=1000000 TARGETS=1,100,1000 EVENTS=on
	@$(BED) up api mongo && $(BED) exec -- dev/locked \
	  sh -c 'cargo build --release --locked && exec dev/bench-sweeper'

chaos-events: ## Kill, freeze and restart what carries events, and judge what was told; BROKER="jetstream nats_streaming" SECONDS=600 SEED="1 2 3"
	@$(BED) up mongo spare nats stan && for broker in $(or $(BROKER),jetstream nats_streaming); do \
	  for seed in $(or $(SEED),1 2 3); do \
	    CHAOS_SEED=$$seed CHAOS_SECONDS=$(or $(SECONDS),600) $(BED) exec -- dev/locked \
	      cargo test --locked --test it -- --include-ignored chaos::events::on_$$broker --nocapture || exit 1; done; done

screenshots: ## Take the pictures of docs/monitoring.md anew, by a real Prometheus that looks at the product for some minutes; as root
	@$(BED) up api mongo && $(BED) exec -- dev/locked sh -c 'cargo build --locked && exec dev/screenshots'

generate: ## Write the generated files anew: the CRD, in crds/ and in the chart, docs/openapi.json, what is made of the chart's values, and the book's reference
	dev/locked cargo run --locked --quiet --example program -- crd > $(ORDERS_CACHE)/crd.yaml
	cp $(ORDERS_CACHE)/crd.yaml crds/ordersservices.yaml
	mv $(ORDERS_CACHE)/crd.yaml charts/orders-operator/files/ordersservices.yaml
	dev/locked cargo run --locked --quiet --example program -- openapi > $(ORDERS_CACHE)/openapi.json
	mv $(ORDERS_CACHE)/openapi.json docs/openapi.json
	dev/chart write
	dev/book generate --program "$(CARGO_TARGET_DIR)/debug/examples/program"

image: ## Build the image, and load it where the bed's node is up; PROFILE=demo compiles in a third of the time, and is slower
	@dev/image

release: ## Make a release in dist/VERSION: chart, manifests, binaries, images, SBOM, checksums; REPOSITORY=registry.example/orders-operator SOURCE=https://... DOWNLOADS=https://... ARCHS="amd64 arm64" PROFILE=release OUT=
	@OUT="$(OUT)" REPOSITORY="$(REPOSITORY)" SOURCE="$(SOURCE)" DOWNLOADS="$(DOWNLOADS)" ARCHS="$(ARCHS)" PROFILE="$(PROFILE)" dev/release

down: ## Stop whatever demo and test left running; nothing stays behind but the cache
	@$(BED) down

clean: ## Stop what every checkout left running, and remove the cache
	@$(BED) down --all
	rm -rf "$(ORDERS_CACHE)"
