/* What the drivers of C scenarios share. Compiled apart from the candidate, which can't see it. */
#ifndef DRIVER_H
#define DRIVER_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The nth allocation from now on returns NULL, and so does every later one; 0: none fails. */
void fail_allocation(int nth);

/* Memory of exactly that size, never from the failing allocator; ASan sees every access beyond it. */
void *exact(size_t size);
char *exact_string(const char *text);

#endif
