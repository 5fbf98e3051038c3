/* The program around a scenario's driver: main, and the allocator that can fail and can keep what was freed,
 * which -Wl,--wrap links into driver and candidate. */
#include "driver.h"
#include <malloc.h>
#include <unistd.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t length);
void __real_free(void *memory);

static bool keeps_freed;
static int failing_from;
static int allocations;

/* Before anything of the candidate's runs. */
__attribute__((constructor)) static void read_mode(void)
{
    keeps_freed = getenv("KEEP_FREED") != NULL;
}

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
    if (fails())
        return NULL;
    if (!keeps_freed || memory == NULL)
        return __real_realloc(memory, size);
    size_t old = malloc_usable_size(memory);
    void *moved = __real_malloc(size);
    if (moved != NULL)
        memcpy(moved, memory, old < size ? old : size);
    return moved;
}

void __wrap_free(void *memory)
{
    if (!keeps_freed)
        __real_free(memory);
}

char *__wrap_strdup(const char *text)
{
    return fails() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t length)
{
    return fails() ? NULL : __real_strndup(text, length);
}

/* The scenario's main, renamed. */
int driver_main(int argc, char **argv);

/* The checks believe a run only if the nonce that they send comes back after the driver's last line. */
int main(int argc, char **argv)
{
    char nonce[16];
    const char *variable = getenv("DRIVER_CHANNEL");
    int channel = variable ? atoi(variable) : -1;
    if (read(channel, nonce, sizeof nonce) != sizeof nonce)
        return 97;
    int status = driver_main(argc, argv);
    if (fflush(stdout) != 0 || write(channel, nonce, sizeof nonce) != sizeof nonce)
        return 98;
    return status;
}

void *exact(size_t size)
{
    return __real_malloc(size);
}

char *exact_string(const char *text)
{
    return __real_strdup(text);
}
