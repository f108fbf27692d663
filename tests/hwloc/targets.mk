# SPDX-License-Identifier: MIT OR Apache-2.0
#   make hwloc-tests       build the programs of tests/hwloc
HWLOC_TESTS  := $(BUILD)/tests/hwloc
HWLOC_CFLAGS := -std=gnu11 -O1 -g -Wall -Wextra -Wno-unused-result
# Each is one file and dump.c. Ours is preloaded or loaded, but for two that call it.
HWLOC_PROGRAMS := again differ exchange full initiators local mutate odd_file odd_machine \
	odd_process odd_sandbox race
HWLOC_LINKED   := api limits

.PHONY: hwloc-tests
hwloc-tests: $(HWLOC_PROGRAMS:%=$(HWLOC_TESTS)/%) $(HWLOC_LINKED:%=$(HWLOC_TESTS)/%) \
		$(HWLOC_TESTS)/noalloc.so

$(HWLOC_TESTS)/%: tests/hwloc/%.c tests/hwloc/dump.c $(wildcard tests/hwloc/*.h)
	@mkdir -p $(@D)
	$(CC) $(HWLOC_CFLAGS) -pthread $< tests/hwloc/dump.c -o $@ $(HWLOC_LIBS) -lhwloc -ldl

$(HWLOC_LINKED:%=$(HWLOC_TESTS)/%): HWLOC_LIBS = -L$(BUILD)/lib -lxpmem

# It has to find out whether there is a libhwloc.
$(HWLOC_TESTS)/local: tests/hwloc/local.c
	@mkdir -p $(@D)
	$(CC) $(HWLOC_CFLAGS) $< -o $@ -ldl

$(HWLOC_TESTS)/%.so: tests/hwloc/%.c
	@mkdir -p $(@D)
	$(CC) $(HWLOC_CFLAGS) -shared -fPIC $< -o $@
