// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char usage[] =
	"usage: stress [options]\n"
	"  --lib FILE        the library, opened as a plugin opens it\n"
	"  --preload FILE    the library, preloaded\n"
	"  --plain           no library: the checker over plain shared memory\n"
	"  --seconds N       how long (30)\n"
	"  --seed N          repeat a run\n"
	"  --min-steps N     fail when fewer steps were done\n"
	"  --steps N         end when so many were done\n"
	"  --owner-life N    seconds an owner lives on average (8)\n"
	"  --trace           a tracer of the owner comes and goes\n"
	"  --mappings N      the owner has so many others\n"
	"  --no-kill         kill -9 nobody     --no-stop   SIGSTOP nobody\n"
	"  --only A,B,..     classes: malloc libc libc-x raw raw-x brk static stack fork shared file\n"
	"                    device sysv ring writer seal vfork\n"
	"  --skip A,B,..     all classes but these\n"
	"  --inject FAULT    stale lost wake fd proc memory crash, put in on purpose\n"
	"  --expect FAILURE  stale lost wake crash leak wrong signal owner fork: must be found, else this run fails\n"
	"  --dir DIR         scratch folder (default: a new one)\n";

static const char *const class_word[NKLASS] = { "malloc", "libc",   "libc-x", "raw",  "raw-x",
						"brk",	  "static", "stack",  "fork", "shared",
						"file",	  "device", "sysv",  "ring", "writer",
						"seal",	  "vfork" };

static unsigned classes_of(char *list)
{
	unsigned mask = 0;

	for (char *word = strtok(list, ","); word; word = strtok(NULL, ",")) {
		unsigned k = 0;

		while (k < NKLASS && strcmp(word, class_word[k]))
			k++;
		if (k == NKLASS) {
			fprintf(stderr, "stress: no class %s\n", word);
			exit(2);
		}
		mask |= 1u << k;
	}
	return mask;
}

static int expect_of(const char *word)
{
	static const struct {
		const char *word;
		enum fail f;
	} map[] = { { "stale", F_STALE }, { "lost", F_LOST }, { "wake", F_WAKE }, { "crash", F_CRASH },
		    { "leak", F_LEAK },	  { "wrong", F_GARBAGE }, { "signal", F_SIGNAL },
		    { "owner", F_OWNER_MEM }, { "fork", F_FORK } };

	for (unsigned i = 0; i < sizeof(map) / sizeof(map[0]); i++)
		if (!strcmp(word, map[i].word))
			return map[i].f;
	fputs(usage, stderr);
	exit(2);
}

static enum inject inject_of(const char *word)
{
	for (unsigned i = 0; i <= INJECT_CRASH; i++)
		if (!strcmp(word, inject_name[i]))
			return i;
	fputs(usage, stderr);
	exit(2);
}

void options_parse(struct options *o, int argc, char **argv)
{
	enum { LIB = 256, PRELOAD, PLAIN, SECONDS, SEED, MIN, LIFE, NOKILL, NOSTOP, ONLY, SKIP, INJECT, EXPECT, DIR, HELP,
	       ROLE, BOX, PLAINFD, SELF, INC, MASK, TRACE, MAPPINGS,
	       STEPS };
	static const struct option longs[] = {
		{ "lib", 1, 0, LIB },	      { "preload", 1, 0, PRELOAD },  { "plain", 0, 0, PLAIN },
		{ "seconds", 1, 0, SECONDS }, { "seed", 1, 0, SEED },	     { "min-steps", 1, 0, MIN },
		{ "owner-life", 1, 0, LIFE }, { "no-kill", 0, 0, NOKILL },   { "no-stop", 0, 0, NOSTOP },
		{ "only", 1, 0, ONLY },	      { "skip", 1, 0, SKIP },	     { "inject", 1, 0, INJECT },
		{ "expect", 1, 0, EXPECT },   { "dir", 1, 0, DIR },	     { "help", 0, 0, HELP },
		{ "role", 1, 0, ROLE },	      { "mailbox", 1, 0, BOX },	     { "plain-fd", 1, 0, PLAINFD },
		{ "self", 1, 0, SELF },	      { "incarnation", 1, 0, INC },  { "classes", 1, 0, MASK },
		{ "trace", 0, 0, TRACE },     { "mappings", 1, 0, MAPPINGS },
		{ "steps", 1, 0, STEPS },
		{ 0 },
	};
	int c;

	*o = (struct options){ .seconds = 30,
			       .seed = (uint64_t)time(NULL),
			       .kill_attachers = true,
			       .kill_owners = true,
			       .stops = true,
			       .owner_life = 8,
			       .classes = ~0u,
			       .expect = -1,
			       .mailbox_fd = -1,
			       .plain_fd = -1 };
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case LIB: o->lib = optarg; break;
		case PRELOAD: o->preload = optarg; break;
		case PLAIN: o->plain = true; break;
		case SECONDS: o->seconds = strtoul(optarg, NULL, 0); break;
		case SEED: o->seed = strtoull(optarg, NULL, 0); break;
		case MIN: o->min_steps = strtoull(optarg, NULL, 0); break;
		case STEPS: o->end_steps = strtoull(optarg, NULL, 0); break;
		case LIFE: o->owner_life = strtoul(optarg, NULL, 0); break;
		case NOKILL: o->kill_attachers = o->kill_owners = false; break;
		case TRACE: o->trace = true; break;
		case MAPPINGS: setenv("STRESS_MAPPINGS", optarg, 1); break;
		case NOSTOP: o->stops = false; break;
		case ONLY: o->classes = classes_of(optarg); break;
		case SKIP: o->classes = ~classes_of(optarg); break;
		case INJECT: o->inject = inject_of(optarg); break;
		case EXPECT: o->expect = expect_of(optarg); break;
		case DIR: o->dir = optarg; break;
		case ROLE: o->role = optarg; break;
		case BOX: o->mailbox_fd = atoi(optarg); break;
		case PLAINFD: o->plain_fd = atoi(optarg); break;
		case SELF: o->self = atoi(optarg); break;
		case INC: o->incarnation = atoi(optarg); break;
		case MASK: o->classes = strtoul(optarg, NULL, 0); break;
		default: fputs(usage, c == HELP ? stdout : stderr); exit(c == HELP ? 0 : 2);
		}
	}
	if (!o->lib && !o->preload && !o->plain) {
		fputs(usage, stderr);
		exit(2);
	}
}
