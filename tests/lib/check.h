/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * An account of checks, for a test that is one program with a main() of its own:
 * CHECK goes on after a failure, and finish() prints the closing line that
 * ci/lib.sh reads. A case that must not go on, or that needs peers, belongs to
 * tests/conformance, whose harness has EXPECT.
 */
#ifndef TESTS_LIB_CHECK_H
#define TESTS_LIB_CHECK_H

#include <errno.h>
#include <stdio.h>

static unsigned passed, failed;

#define CHECK(what, condition) do { \
	int holds_ = (condition) ? 1 : 0, errno_ = errno; \
	if (holds_) { \
		passed++; \
	} else { \
		failed++; \
		printf("FAIL %s:%d: %s (errno %d)\n", __FILE__, __LINE__, what, errno_); \
		fflush(stdout); \
	} \
} while (0)

/* The call answers -1 with the errno `wanted`. */
#define FAILS(what, call, wanted) do { \
	errno = 0; \
	CHECK(what, (call) == -1 && errno == (wanted)); \
} while (0)

/* The closing line, and the exit status. */
static inline int finish(void)
{
	printf("%u passed, %u failed\n", passed, failed);
	return failed != 0;
}

#endif
