// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef STRESS_DRIVER_H
#define STRESS_DRIVER_H

#include "options.h"

// Runs the whole: starts, stops, kills, watches, judges; answers the exit status.
int driver_main(const struct options *o);

#endif
