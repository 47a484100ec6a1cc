/* SPDX-License-Identifier: BSD-2-Clause */
#include "fake_share.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct fake_share fake;

void fake_reset(bool writable)
{
	memset(&fake, 0, sizeof(fake));
	fake.writable = writable;
}

bool fake_is_unmapped(void)
{
	for (unsigned i = 0; i < REFS; i++)
		if (fake.mapped[i])
			return false;
	return true;
}

void *fake_map(struct share *s, uint32_t peer, const uint32_t *refs, unsigned nr, bool writable)
{
	fake.calls++;
	assert_int_equal(peer, PEER);
	assert_int_equal(nr, 1);
	assert_int_equal(writable, fake.writable);
	if (fake.refuse)
		return NULL;
	fake.mapped[refs[0]]++;
	return &fake.pages[refs[0]];
}

void fake_unmap(struct share *s, void *addr, unsigned nr)
{
	assert_int_equal(nr, 1);
	assert_int_equal(fake.mapped[(char *)addr - fake.pages], 1);
	fake.mapped[(char *)addr - fake.pages]--;
}
