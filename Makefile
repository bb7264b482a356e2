# pulse: one file for building (PGXS) and for everything round it. `make help` lists the targets.
# `make all install` needs a compiler, PostgreSQL's server headers, librdkafka and RapidJSON, no more.
# Variables: PG_CONFIG=…, PULSE_TESTING=1 (failpoints, never in production), WERROR=1.

EXTENSION  = pulse
MODULE_big = pulse
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" pulse.control)
SUPPORTED  = 15 16 17 18
PG_CONFIG ?= pg_config
HARNESS    = test/harness/run
SOURCES    = $(wildcard src/*.cpp src/*/*.cpp)
SQL_PARTS  = $(sort $(wildcard sql/[0-9]*_*.sql))
FORMATTED  = $(wildcard src/*.[ch]pp src/*/*.[ch]pp test/unit/*.[ch]pp)

# Two kinds of objects side by side, so that going from one to the other only links again.
VARIANT = $(if $(filter 1,$(PULSE_TESTING)),testing,release)
OBJS    = $(SOURCES:%.cpp=build/$(VARIANT)/%.o)

PG_CXXFLAGS = -std=c++20 -Wall -Wextra -Wshadow $(if $(filter 1,$(WERROR)),-Werror) \
	-fvisibility=hidden -fvisibility-inlines-hidden -fno-omit-frame-pointer -O2
# On 15 PGDLLEXPORT is empty, and hidden visibility would hide even the magic function.
PG_CPPFLAGS = '-DPGDLLEXPORT=__attribute__((visibility("default")))' \
	$(if $(filter 1,$(PULSE_TESTING)),-DPULSE_TESTING)
SHLIB_LINK  = -lrdkafka -lstdc++ -Wl,--version-script=src/exports.map
DATA_built  = sql/pulse--$(EXTVERSION).sql
DATA        = $(filter-out $(DATA_built),$(wildcard sql/pulse--*.sql))
EXTRA_CLEAN = build/release build/testing build/unit build/linked build/script $(DATA_built)
NO_INSTALLCHECK = 1
override with_llvm = no

# Targets that bring their own environment and so must work before PostgreSQL is installed.
ENVIRONMENT = packages demo up produce stats psql logs down dbt \
	test unit installcheck isolation tap e2e dbt-test lint verify soak bench bench-dbt
WITHOUT_PGXS = $(ENVIRONMENT) help format format-check distclean
.PHONY: $(WITHOUT_PGXS) symbols FORCE
.DELETE_ON_ERROR:

ifneq ($(filter-out $(WITHOUT_PGXS),$(or $(MAKECMDGOALS),all)),)
PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq ($(PGXS),)
$(error $(PG_CONFIG) does not run: install postgresql-server-dev-15 or say PG_CONFIG=/path/to/pg_config)
endif
include $(PGXS)
ifeq ($(filter $(MAJORVERSION),$(SUPPORTED)),)
$(error PostgreSQL $(MAJORVERSION) is not supported, only $(SUPPORTED))
endif

# Server headers count as system headers: under -I they warn in C++ (register, shadowed names).
override CPPFLAGS := -Isrc $(patsubst -I%,-isystem %,$(filter-out -I. -I./,$(CPPFLAGS)))

# A changed flag, PostgreSQL release or variant rebuilds what depends on it.
remember = $(shell mkdir -p $(dir $(1)))$(file >$(1).now,$(2))@cmp -s $(1).now $(1) || cp $(1).now $(1)
build/$(VARIANT)/flags: FORCE
	$(call remember,$@,$(CXX) $(PG_CXXFLAGS) $(PG_CPPFLAGS) $(CXXFLAGS) $(VERSION))
build/linked: FORCE
	$(call remember,$@,$(VARIANT) $(OBJS) $(SHLIB_LINK))
pulse.so: build/linked src/exports.map

build/$(VARIANT)/%.o: %.cpp build/$(VARIANT)/flags
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) $(CPPFLAGS) -MMD -MP -c -o $@ $<
-include $(OBJS:.o=.d)

build/script: FORCE
	$(call remember,$@,$(SQL_PARTS))
$(DATA_built): $(SQL_PARTS) pulse.control Makefile build/script
	@printf '%s\n' '\echo Use "CREATE EXTENSION pulse" to load this file. \quit' > $@
	@cat /dev/null $(SQL_PARTS) >> $@
endif

all: ## Build pulse.so and the extension script (the default)
install: ## Install into the PostgreSQL that PG_CONFIG belongs to

packages: ## Install the Debian packages that the targets below need
demo: ## A million events from Kafka into PostgreSQL, from nothing, with proof (N=1000000)
up: ## Start a private PostgreSQL and a Kafka broker; they stay until `make down`
produce: ## Send events to the broker of `make up` (N=100000 BAD=0.01 SEED=1 TOPIC=events)
stats: ## Show what the pipelines of `make up` are doing, every second
psql: ## Open psql on the database of `make up` (SQL='SELECT …' runs just that)
dbt: ## Build and test the dbt models on the database of `make up` (DBT='build --full-refresh')
logs: ## Follow the server's and the broker's logs
down: ## Stop what `make up` or `make demo` started, and throw its data away
test: ## Everything: lint unit installcheck isolation tap e2e dbt-test
unit: ## GoogleTest: decoder, batches, policy, without a server
installcheck: ## pg_regress in its own temporary server
isolation: ## Isolation tester, same way
tap: ## PostgreSQL's own TAP tests (test/perl)
e2e: ## pytest against a real server and a real broker (PYTEST='-k name -x')
dbt-test: ## pytest: the dbt models against events whose truth is known
lint: ## Layering, symbols, conventions (test/lint)
verify: ## lint + unit + installcheck: the quick check before a commit
soak: ## The end-to-end tests with their long counts
bench: ## Rates and latencies, as ratios to COPY (test/bench)
bench-dbt: ## Full refresh against an incremental run of the last day (BENCH='--events 2000000')
ifdef SQL
override SQL := $(value SQL)# as typed: $$ and $1 are PostgreSQL's
export SQL
endif
$(ENVIRONMENT):
	@$(HARNESS) $@

format: ## Format the C++ sources (clang-format 14)
	clang-format-14 -i $(FORMATTED)
format-check: ## Say what `make format` would change
	clang-format-14 --dry-run -Werror $(FORMATTED)
symbols: pulse.so ## Fail if pulse.so exports anything but its entry points
	@! nm -D --defined-only $< | awk '{print $$3}' | \
		grep -vE '^(Pg_magic_func|_PG_init|pulse_[a-z0-9_]+|pg_finfo_pulse_[a-z0-9_]+)$$'
clean: ## Remove what `make` built
distclean: down ## Remove everything: build/, private server, broker, Python environment
	rm -rf "$$(readlink -f build/private)" build pulse.so sql/pulse--$(EXTVERSION).sql

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
