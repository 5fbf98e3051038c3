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

/* Functions of the library that AddressSanitizer does not look at, by means of those that it does. */

char *__wrap_stpcpy(char *to, const char *from)
{
    size_t length = strlen(from);
    memcpy(to, from, length + 1);
    return to + length;
}

char *__wrap_stpncpy(char *to, const char *from, size_t size)
{
    size_t length = strnlen(from, size);
    strncpy(to, from, size);
    return to + length;
}

void *__wrap_mempcpy(void *to, const void *from, size_t size)
{
    return (char *)memcpy(to, from, size) + size;
}

void *__wrap_memccpy(void *to, const void *from, int last, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        ((unsigned char *)to)[i] = ((const unsigned char *)from)[i];
        if (((const unsigned char *)from)[i] == (unsigned char)last)
            return (unsigned char *)to + i + 1;
    }
    return NULL;
}

void __wrap_bcopy(const void *from, void *to, size_t size)
{
    memmove(to, from, size);
}

void __wrap_bzero(void *memory, size_t size)
{
    memset(memory, 0, size);
}

void __wrap_explicit_bzero(void *memory, size_t size)
{
    memset(memory, 0, size);
}

void *__wrap_rawmemchr(const void *memory, int byte)
{
    const unsigned char *at = memory;
    while (*at != (unsigned char)byte)
        at++;
    return (void *)at;
}

char *__wrap_strsep(char **rest, const char *delimiters)
{
    char *token = *rest;
    if (token == NULL)
        return NULL;
    char *end = token + strcspn(token, delimiters);
    *rest = *end ? end + 1 : NULL;
    *end = '\0';
    return token;
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
    /* A candidate that knew it is watched could behave. */
    const char *secrets[] = {"DRIVER_CHANNEL", "KEEP_FREED", "ASAN_OPTIONS", "UBSAN_OPTIONS"};
    for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++)
        unsetenv(secrets[i]);
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
