/* The allocator that can fail, linked by -Wl,--wrap into driver and candidate. */
#include "driver.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t length);

static int failing_from;
static int allocations;

void fail_allocation(int nth)
{
    failing_from = nth;
    allocations = 0;
}

static bool fails(void)
{
    allocations++;
    return failing_from > 0 && allocations >= failing_from;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *memory, size_t size)
{
    return fails() ? NULL : __real_realloc(memory, size);
}

char *__wrap_strdup(const char *text)
{
    return fails() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t length)
{
    return fails() ? NULL : __real_strndup(text, length);
}

void *exact(size_t size)
{
    return __real_malloc(size);
}

char *exact_string(const char *text)
{
    return __real_strdup(text);
}
