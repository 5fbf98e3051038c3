#include <stdio.h>

typedef void (*emitter)(const char *format, ...);

/* Sends each of count notes to emit, which takes what printf takes. */
void emit_notes(emitter emit, const char *const *notes, int count)
{
    for (int i = 0; i < count; i++)
