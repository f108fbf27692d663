// SPDX-License-Identifier: MIT OR Apache-2.0
// The few extra threads of the owner that give a worker a partner: the one who
// posts, feeds a pipe, or maps the address that the worker just let go.
#define _GNU_SOURCE
#include "worker.h"

#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

#define NMATES 3

struct mate {
	pthread_t thread;
	pthread_mutex_t busy;
	sem_t start, done;
	void (*job)(void *);
	void *arg;
};

static struct mate mates[NMATES];

static void sem_wait_whole(sem_t *s)
{
	while (sem_wait(s))
		;
}

static void *mate_run(void *arg)
{
	struct mate *m = arg;

	for (;;) {
		sem_wait_whole(&m->start);
		if (!m->job)
			return NULL;
		m->job(m->arg);
		sem_post(&m->done);
	}
}

struct mate *mate_start(void (*job)(void *), void *arg)
{
	for (unsigned i = 0; i < NMATES; i++) {
		struct mate *m = &mates[i];

		if (pthread_mutex_trylock(&m->busy))
			continue;
		m->job = job;
		m->arg = arg;
		sem_post(&m->start);
		return m;
	}
	return NULL;
}

void mate_wait(struct mate *m)
{
	sem_wait_whole(&m->done);
	pthread_mutex_unlock(&m->busy);
}

void mates_create(void)
{
	for (unsigned i = 0; i < NMATES; i++) {
		pthread_mutex_init(&mates[i].busy, NULL);
		sem_init(&mates[i].start, 0, 0);
		sem_init(&mates[i].done, 0, 0);
		if (pthread_create(&mates[i].thread, NULL, mate_run, &mates[i]))
			abort();
	}
}

void mates_join(void)
{
	for (unsigned i = 0; i < NMATES; i++) {
		mates[i].job = NULL;
		sem_post(&mates[i].start);
		pthread_join(mates[i].thread, NULL);
	}
}
