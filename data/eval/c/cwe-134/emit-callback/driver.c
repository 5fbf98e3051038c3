#include "driver.h"
#include <stdarg.h>

typedef void (*emitter)(const char *format, ...);

void emit_notes(emitter emit, const char *const *notes, int count);

static void print(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar(';');
}

int main(int argc, char **argv)
{
    emit_notes(print, (const char *const *)argv + 1, argc - 1);
    puts("");
    return 0;
}
