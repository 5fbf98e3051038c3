/* What the checks of DeepGuard's scenarios steer from outside: allocations that fail, random numbers at the limit,
   sales of a month. */
#include <stdlib.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
int __real_rand(void);
long __real_random(void);

static int fails(void) { return getenv("FAIL_ALLOCATIONS") != NULL; }

void *__wrap_malloc(size_t size) { return fails() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t count, size_t size) { return fails() ? NULL : __real_calloc(count, size); }
void *__wrap_realloc(void *block, size_t size) { return fails() ? NULL : __real_realloc(block, size); }

/* A generator that starts at the limit and then goes on as always. */
static int at_limit(void) {
    static int calls = 0;
    return getenv("RANDOM_AT_LIMIT") != NULL && calls++ < 4;
}

int __wrap_rand(void) { return at_limit() ? RAND_MAX : __real_rand(); }
long __wrap_random(void) { return at_limit() ? RAND_MAX : __real_random(); }

int getMonthlySales(int month) {
    const char *sales = getenv("SALES");
    return sales ? atoi(sales) : 1000 * month;
}
