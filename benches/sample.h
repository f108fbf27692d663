// SPDX-License-Identifier: MIT OR Apache-2.0
// Timings: many of them, of which the minimum and the median are looked at. A
// loaded machine spoils the median, never the minimum.
#ifndef BENCH_SAMPLE_H
#define BENCH_SAMPLE_H

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define SAMPLES 512

struct sample {
	unsigned n;
	double us[SAMPLES];
};

static inline double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e6 + ts.tv_nsec / 1e3;
}

static inline void sample_add(struct sample *s, double us)
{
	if (s->n < SAMPLES)
		s->us[s->n++] = us;
}

static inline int sample_order(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static inline double sample_median(struct sample *s)
{
	qsort(s->us, s->n, sizeof(s->us[0]), sample_order);
	return s->n ? s->us[s->n / 2] : 0;
}

static inline double sample_min(struct sample *s)
{
	double min = s->n ? s->us[0] : 0;

	for (unsigned i = 1; i < s->n; i++)
		if (s->us[i] < min)
			min = s->us[i];
	return min;
}

#endif
