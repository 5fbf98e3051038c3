#include "driver.h"

char *frame(const char *header, uint16_t header_length, const char *body, uint16_t body_length, uint16_t *length);

int main(int argc, char **argv)
{
    uint16_t first = atoi(argv[1]), second = atoi(argv[2]), length = 77;
    char *header = exact(first), *body = exact(second);
    memset(header, 'h', first);
    memset(body, 'b', second);
    char *message = frame(header, first, body, second, &length);
    if (message == NULL)
        printf("NULL %u\n", length);
    else
        printf("%u %c %c\n", length, message[0], message[length - 1]);
    return 0;
}
