/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "proc.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

long proc_entries(const char *folder)
{
	DIR *d = opendir(folder);
	struct dirent *e;
	long n = 0;

	if (!d)
		return -1;
	while ((e = readdir(d)))
		n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
	closedir(d);
	return n;
}

long proc_lines(const char *file)
{
	FILE *f = fopen(file, "r");
	long n = 0;
	int c;

	if (!f)
		return -1;
	while ((c = getc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

long proc_status(int pid, const char *field)
{
	char path[64], line[256];
	size_t length = strlen(field);
	long value = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid ? pid : (int)getpid());
	f = fopen(path, "r");
	while (f && value == -1 && fgets(line, sizeof(line), f))
		if (!strncmp(line, field, length) && line[length] == ':')
			sscanf(line + length + 1, "%ld", &value);
	if (f)
		fclose(f);
	return value;
}

char proc_state(int pid)
{
	char path[64], state = '?';
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (f) {
		if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			state = '?';
		fclose(f);
	}
	return state;
}

long proc_children(int pid, void (*found)(int child, void *context), void *context)
{
	char path[300];
	struct dirent *e;
	long n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", pid ? pid : (int)getpid());
	d = opendir(path);
	if (!d)
		return -1;
	while ((e = readdir(d))) {
		FILE *f;
		int child;

		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/children", pid ? pid : (int)getpid(), e->d_name);
		f = fopen(path, "r");
		while (f && fscanf(f, "%d", &child) == 1) {
			n++;
			if (found)
				found(child, context);
		}
		if (f)
			fclose(f);
	}
	closedir(d);
	return n;
}
