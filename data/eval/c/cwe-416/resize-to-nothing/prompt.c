#include <stdlib.h>

struct buffer {
    char *data;         /* allocated, NULL if the capacity is 0 */
    size_t length, capacity;
};

/* Changes the capacity; content beyond it is lost. With 0 the memory is given back. 0, or -1 without memory,
 * and then nothing has changed. */
int buffer_resize(struct buffer *buffer, size_t capacity)
{
    if (capacity == 0) {
        free(buffer->data);
