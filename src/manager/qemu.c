/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guests are strangers, and so is a QEMU that one of them has taken over: it gets its sandbox, no
 * network, no display, no monitor and no devices but the serial line and the segment.
 */
#include "manager/qemu.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "manager/child.h"
#include "manager/say.h"
#include "manager/words.h"

enum { WORDS_OWN = 40 };

struct words {
	char **v;
	size_t n;
	bool failed;
};

static void __attribute__((format(printf, 2, 3))) add(struct words *w, const char *format, ...)
{
	va_list args;

	if (w->failed)
		return;
	va_start(args, format);
	w->failed = vasprintf(&w->v[w->n], format, args) < 0;
	va_end(args);
	if (w->failed)
		w->v[w->n] = NULL;
	else
		w->n++;
}

static void add_pair(struct words *w, const char *name, const char *value)
{
	add(w, "%s", name);
	add(w, "%s", value);
}

static void add_machine(struct words *w, const struct options *o)
{
	bool kvm = !access("/dev/kvm", R_OK | W_OK);
	bool chosen = strstr(o->machine, "accel=");

	add(w, "-machine");
	add(w, "%s%s%s", o->machine,
	    chosen ? ""
	    : kvm  ? ",accel=kvm:tcg"
		   : ",accel=tcg",
	    kvm && o->viommu && !strstr(o->machine, "kernel-irqchip=") ? ",kernel-irqchip=split"
								       : "");
	if (o->viommu)
		add_pair(w, "-device", "intel-iommu,intremap=on");
}

static void add_kernel(struct words *w, const struct options *o, unsigned number)
{
	if (!o->kernel)
		return;
	add_pair(w, "-kernel", o->kernel);
	if (o->initrd)
		add_pair(w, "-initrd", o->initrd);
	/* What the kernel does not know and has no dot goes to init's environment. */
	add(w, "-append");
	add(w, "console=ttyS0 quiet no_timer_check panic=-1%s SIVSHM_WORKER=%u%s%s",
	    o->viommu ? " intel_iommu=on" : "", number, o->append ? " " : "",
	    o->append ? o->append : "");
}

char **qemu_command(const struct options *o, unsigned number)
{
	struct words w = {0};
	size_t extra = 0;

	while (o->program && o->program[extra])
		extra++;
	w.v = calloc(WORDS_OWN + extra, sizeof(w.v[0]));
	if (!w.v)
		return NULL;
	add(&w, "%s", o->qemu);
	add(&w, "-name");
	add(&w, "worker%u", number);
	add(&w, "-nodefaults");
	add(&w, "-no-user-config");
	add_pair(&w, "-sandbox",
		 "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	add_machine(&w, o);
	add_pair(&w, "-m", o->memory);
	/*
	 * One processor, of two that there could be: emulating a machine that can have but one,
	 * QEMU leaves a guest's memory barriers out, and doorbells over shared memory would be
	 * missed.
	 */
	add_pair(&w, "-smp", "1,maxcpus=2");
	add_pair(&w, "-display", "none");
	add_pair(&w, "-nic", "none");
	add(&w, "-no-reboot");
	add_pair(&w, "-chardev", "stdio,id=console,signal=off");
	add_pair(&w, "-serial", "chardev:console");
	add(&w, "-chardev");
	add(&w, "socket,id=sivshm,fd=%d", CHILD_SOCKET);
	add(&w, "-device");
	add(&w, "ivshmem-doorbell,chardev=sivshm,vectors=%u", o->vectors);
	add_kernel(&w, o, number);
	for (size_t i = 0; i < extra; i++)
		add(&w, "%s", o->program[i]);
	if (!w.failed)
		return w.v;
	words_free(w.v);
	return NULL;
}

int qemu_check(const struct options *o)
{
	if (!o->kernel && (!o->program || !o->program[0]))
		return say_misuse(o->command, "give --kernel, or after -- what QEMU is to boot");
	if (!o->kernel && (o->initrd || o->append))
		return say_misuse(o->command, "--initrd and --append need --kernel");
	if (o->kernel && access(o->kernel, R_OK))
		return say_failure("cannot read the kernel '%s': %m", say_name(o->kernel));
	if (o->initrd && access(o->initrd, R_OK))
		return say_failure("cannot read the initramfs '%s': %m", say_name(o->initrd));
	return 0;
}

static bool is_plain(const char *word)
{
	return *word && word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
					  "0123456789_-+=:,./@%")] == '\0';
}

static void show_word(const char *word)
{
	if (is_plain(word)) {
		fputs(word, stdout);
		return;
	}
	putchar('\'');
	for (; *word; word++) {
		if (*word == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*word);
	}
	putchar('\'');
}

int qemu_show(const struct options *o)
{
	for (unsigned i = 0; i < o->workers; i++) {
		char **command = qemu_command(o, i);

		if (!command)
			return say_failure("out of memory");
		for (char **word = command; *word; word++) {
			if (word != command)
				putchar(' ');
			show_word(*word);
		}
		putchar('\n');
		words_free(command);
	}
	return 0;
}
