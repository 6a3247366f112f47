# Guests, from C and AssemblyScript to build/guests/*.wasm. scripts/build_guests calls this once it has the tools.

OUT := build/guests
CLANG ?= clang
NPM ?= npm
# More flags for clang, such as -Werror.
GUEST_CFLAGS ?=

FREESTANDING := sum echo counter fetch
REACTORS := site
COMMANDS := wordcount
TEST_REACTORS := hostcalls
TESTS := $(filter-out $(TEST_REACTORS),$(patsubst tests/guests/%.c,%,$(wildcard tests/guests/*.c)))
AS_REACTORS := counter fetch site
AS_COMMANDS := wordcount
AS_TESTS := hostcalls

# --stack-first: a stack that overflows meets the end of memory and traps, instead of overwriting data.
# Names stay in, so that a trap can say where it happened.
CFLAGS := -std=gnu11 -O2 -Wall -Wextra -Wconversion $(GUEST_CFLAGS) -Isdk/c/include
LDFLAGS := -Wl,--stack-first -Wl,-z,stack-size=262144 -Wl,--strip-debug
WASI := --target=wasm32-wasi
DEPS = -MMD -MP -MF $(OUT)/.deps/$*.d -MT $@
TEST_DEPS = -MMD -MP -MF $(OUT)/.deps/tests-$*.d -MT $@

AS := examples/assemblyscript
AS_INSTALLED := $(AS)/node_modules/.package-lock.json
AS_SDK := $(wildcard sdk/assemblyscript/assembly/*.ts sdk/assemblyscript/*.json)

.DELETE_ON_ERROR:
.PHONY: all
all: $(patsubst %,$(OUT)/%.wasm,$(FREESTANDING) $(REACTORS) $(COMMANDS)) \
	$(patsubst %,$(OUT)/%-as.wasm,$(AS_REACTORS) $(AS_COMMANDS)) \
	$(patsubst %,$(OUT)/tests/%.wasm,$(TEST_REACTORS) $(TESTS)) $(patsubst %,$(OUT)/tests/%-as.wasm,$(AS_TESTS))

$(OUT)/.deps $(OUT)/tests:
	@mkdir -p $@

$(patsubst %,$(OUT)/%.wasm,$(FREESTANDING)): $(OUT)/%.wasm: examples/c/%.c scripts/guests.mk | $(OUT)/.deps
	@echo '  $@'
	@$(CLANG) --target=wasm32 -ffreestanding -nostdlib -msimd128 $(CFLAGS) $(DEPS) -Wl,--no-entry $(LDFLAGS) -o $@ $<

$(patsubst %,$(OUT)/%.wasm,$(REACTORS)): $(OUT)/%.wasm: examples/c/%.c scripts/guests.mk | $(OUT)/.deps
	@echo '  $@'
	@$(CLANG) $(WASI) -mexec-model=reactor $(CFLAGS) $(DEPS) $(LDFLAGS) -o $@ $<

$(patsubst %,$(OUT)/%.wasm,$(COMMANDS)): $(OUT)/%.wasm: examples/c/%.c scripts/guests.mk | $(OUT)/.deps
	@echo '  $@'
	@$(CLANG) $(WASI) $(CFLAGS) $(DEPS) $(LDFLAGS) -o $@ $<

$(patsubst %,$(OUT)/tests/%.wasm,$(TESTS)): $(OUT)/tests/%.wasm: tests/guests/%.c scripts/guests.mk | $(OUT)/.deps $(OUT)/tests
	@echo '  $@'
	@$(CLANG) $(WASI) $(CFLAGS) $(TEST_DEPS) $(LDFLAGS) -o $@ $<

$(patsubst %,$(OUT)/tests/%.wasm,$(TEST_REACTORS)): $(OUT)/tests/%.wasm: tests/guests/%.c scripts/guests.mk | $(OUT)/.deps $(OUT)/tests
	@echo '  $@'
	@$(CLANG) $(WASI) -mexec-model=reactor $(CFLAGS) $(TEST_DEPS) $(LDFLAGS) -o $@ $<

# The lock holds hashes and no addresses: npm takes the packages from wherever it is set up to.
$(AS_INSTALLED): $(AS)/package.json $(AS)/package-lock.json sdk/assemblyscript/package.json
	@echo '  $(AS)/node_modules'
	@$(NPM) ci --prefix $(AS) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(patsubst %,$(OUT)/%-as.wasm,$(AS_REACTORS)): $(OUT)/%-as.wasm: $(AS)/%.ts $(AS_SDK) $(AS_INSTALLED) scripts/guests.mk
	@echo '  $@'
	@cd $(AS) && node node_modules/assemblyscript/bin/asc.js $*.ts -o $(CURDIR)/$@ \
		--config node_modules/@hanzo-compute/guest/asconfig.reactor.json

$(patsubst %,$(OUT)/%-as.wasm,$(AS_COMMANDS)): $(OUT)/%-as.wasm: $(AS)/%.ts $(AS_SDK) $(AS)/asconfig.command.json $(AS_INSTALLED) scripts/guests.mk
	@echo '  $@'
	@cd $(AS) && node node_modules/assemblyscript/bin/asc.js $*.ts -o $(CURDIR)/$@ --config asconfig.command.json

$(patsubst %,$(OUT)/tests/%-as.wasm,$(AS_TESTS)): $(OUT)/tests/%-as.wasm: tests/guests/%.ts $(AS_SDK) $(AS_INSTALLED) scripts/guests.mk | $(OUT)/tests
	@echo '  $@'
	@cd $(AS) && node node_modules/assemblyscript/bin/asc.js ../../tests/guests/$*.ts -o $(CURDIR)/$@ \
		--config node_modules/@hanzo-compute/guest/asconfig.reactor.json

-include $(wildcard $(OUT)/.deps/*.d)
