#include "driver.h"

struct buffer {
    char *data;
    size_t length, capacity;
};

int buffer_resize(struct buffer *buffer, size_t capacity);

int main(int argc, char **argv)
{
    struct buffer buffer = {exact(8), 6, 8};
    memcpy(buffer.data, "abcdef", 6);
    for (int i = 1; i < argc; i++) {
        int status = buffer_resize(&buffer, atoi(argv[i]));
        printf("%d:%zu/%zu ", status, buffer.length, buffer.capacity);
    }
    printf("%.*s\n", (int)buffer.length, buffer.length ? buffer.data : "");
    return 0;
}
