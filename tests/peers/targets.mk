# SPDX-License-Identifier: MIT OR Apache-2.0
#   make peers                   build the honest program of tests/peers
#   make soak-peers MINUTES=30   peers that lie, stall and die, for that long
PEERS_HOST := $(BUILD)/tests/peers-host

.PHONY: peers soak-peers
peers: $(PEERS_HOST)

$(PEERS_HOST): tests/peers/host.c include/xpmem.h
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O1 -g -Wall -Wextra -Werror -pthread $< -o $@ -L$(BUILD)/lib -lxpmem \
		-Wl,-rpath,'$$ORIGIN/../lib'

soak-peers: build $(PEERS_HOST)
	python3 tests/peers/run.py --seconds $$(($(MINUTES) * 15))
