// SPDX-License-Identifier: MIT OR Apache-2.0
#include "report.h"

#include <stdio.h>

static uint64_t sum(struct mailbox *mb, enum fail f)
{
	uint64_t n = 0;

	for (unsigned k = 0; k < NKLASS; k++)
		n += mb->stats.fail[f][k];
	return n;
}

static void figures(struct mailbox *mb, const struct options *o, const struct deeds *d)
{
	struct stats *s = &mb->stats;

	printf("seed %lu, %u s: %lu steps checked, %lu steps with nobody to check\n", mb->seed, o->seconds,
	       s->steps, s->unchecked);
	for (unsigned k = 0; k < NKLASS; k++)
		if (s->per_klass[k])
			printf("  %-28s %10lu steps, %lu late\n", klass_name[k], s->per_klass[k], s->late[k]);
	printf("attachers: %lu checks, %.1f MiB compared, %lu answers, %lu holes, %lu touches by the way\n",
	       s->checks, s->bytes / 1048576.0, s->answers, s->holes, s->strays);
	printf("windows: %lu attached, %lu of them by the attacher that had all of its own before; none to be had %lu times\n", s->attaches,
	       s->warm_attaches, s->unreached);
	printf("owner: %lu increments, %lu posts, %lu joins, %lu forks, %lu spawns, %lu signals, %.1f MiB read\n",
	       s->counts, s->posts, s->joins, s->forks, s->spawns, s->rt_signals, s->io_bytes / 1048576.0);
	printf("driver: %u owners, %u of them killed, %u attachers killed, %u stops, %u traces; EINTR seen %lu times\n",
	       d->owners, d->owner_kills, d->attacher_kills, d->stops, d->traces, s->eintr);
	if (s->refused)
		printf("a third process was refused in the midst of a promotion: %lu times\n", s->refused);
	if (s->raw_mremap_refused)
		printf("inline mremap refused over partly promoted memory: %lu times\n", s->raw_mremap_refused);
	printf("late: longest %lu us; the library counted %lu late revocations\n", s->late_max_us,
	       d->late_revocations);
}

static void failures(struct mailbox *mb)
{
	for (unsigned i = 0; i < sizeof(mb->failure) / sizeof(mb->failure[0]); i++)
		if (mb->failure[i].full)
			printf("  %s, %s: %s\n", fail_name[mb->failure[i].fail], klass_name[mb->failure[i].klass],
			       mb->failure[i].text);
}

int report(struct mailbox *mb, const struct options *o, const struct deeds *d)
{
	unsigned passed = 0, failed = 0;

	figures(mb, o, d);
	if (o->expect >= 0) {
		uint64_t n = sum(mb, o->expect);

		// What is to be found cannot come about on this machine.
		for (unsigned k = 0; !n && k < NKLASS; k++)
			if (mb->stats.skipped[k] && o->classes == 1u << k) {
				printf("skipped: %s\n", klass_name[k]);
				return 77;
			}

		printf("%s: %s must be found: %lu found\n", n ? "ok" : "FAIL", fail_name[o->expect], n);
		if (!n)
			failures(mb);
		printf("%d passed, %d failed\n", n != 0, n == 0);
		return n == 0;
	}
	failures(mb);
	for (unsigned n = 0; n < sizeof(d->hang) / sizeof(d->hang[0]); n++)
		if (d->hang[n][0])
			printf("  %s: %s\n", n ? "an attacher and its service" : "the owner and its service", d->hang[n]);
	for (unsigned f = 0; f < NFAIL; f++) {
		uint64_t n = sum(mb, f);

		printf("%s: %s: %lu", n ? "FAIL" : "ok", fail_name[f], n);
		for (unsigned k = 0; n && k < NKLASS; k++)
			if (mb->stats.fail[f][k])
				printf(" [%s %lu]", klass_name[k], mb->stats.fail[f][k]);
		putchar('\n');
		*(n ? &failed : &passed) += 1;
	}
	if (mb->stats.steps < (o->min_steps ? o->min_steps : 1)) {
		printf("FAIL: only %lu steps\n", mb->stats.steps);
		failed++;
	} else {
		passed++;
	}
	printf("%u passed, %u failed\n", passed, failed);
	return failed != 0;
}
